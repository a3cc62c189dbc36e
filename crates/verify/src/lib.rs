//! Grades a response to a mathematics problem against its gold answer.
//!
//! Pure functions: no IO, no clock, no randomness, no recursion; time grows linearly with the
//! input and any string is safe to pass.
//!
//! ```
//! use stillroom_verify::{Verdict, verify};
//!
//! assert_eq!(verify("33", r"<think>3·11</think>So \boxed{033}."), Verdict::Correct);
//! assert_eq!(verify("33", r"<think>3·11, so \boxed{33}"), Verdict::NoAnswer);
//! ```
//!
//! # Layout
//!
//! - [`think`]: splits a response into its thought and what follows it.
//! - [`extract`]: finds the final answer in what follows the thought, and in a gold field.
//! - [`equal`]: [`equal::Value`], what an answer means: a number, or else normalised text. Two
//!   answers are equal when their values are. A further class of answers (surds, sets,
//!   intervals, …) is a further variant there, tried before the text.
//! - [`number`]: reads integers, decimals and simple fractions as exact rationals.
//! - `unit`: what may follow a number without changing it.
//! - `wrapping`: takes `$…$`, `\boxed{…}`, `\text{…}` and the like off an answer.

pub mod equal;
pub mod extract;
pub mod number;
pub mod think;
mod unit;
mod wrapping;

use std::fmt;

use serde::{Deserialize, Serialize};

use equal::Value;

/// How a response compares with the gold answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The final answer equals the gold answer.
    Correct,
    /// There is a final answer, and it differs.
    Incorrect,
    /// The thought never ended, or nothing after it reads as a final answer.
    NoAnswer,
    /// The gold field holds no answer: the response cannot be graded, whatever it says.
    GoldUnreadable,
}

impl Verdict {
    /// The verdict's name on disk: `correct`, `incorrect`, `no_answer` or `gold_unreadable`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Correct => "correct",
            Verdict::Incorrect => "incorrect",
            Verdict::NoAnswer => "no_answer",
            Verdict::GoldUnreadable => "gold_unreadable",
        }
    }

    /// The verdict with this name on disk.
    pub fn from_name(name: &str) -> Option<Verdict> {
        [
            Verdict::Correct,
            Verdict::Incorrect,
            Verdict::NoAnswer,
            Verdict::GoldUnreadable,
        ]
        .into_iter()
        .find(|verdict| verdict.as_str() == name)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Grades a whole response, its thought included.
///
/// `gold` may be bare, in `$…$`, boxed, or a whole worked solution. A response without any think
/// tag counts as all answer; where the prompt's template opened the thought, use
/// [`think::split`] with `prompt_opens_think` and [`verify_answer`].
pub fn verify(gold: &str, response: &str) -> Verdict {
    verify_answer(gold, think::split(response, false).answer)
}

/// Grades what follows the thought; `None` is a thought that never ended.
pub fn verify_answer(gold: &str, answer_part: Option<&str>) -> Verdict {
    let Some(gold) = equal::gold_value(gold) else {
        return Verdict::GoldUnreadable;
    };
    let Some(answer) = answer_part.and_then(extract::final_answer) else {
        return Verdict::NoAnswer;
    };
    match Value::read(answer) {
        Some(answer) if answer == gold => Verdict::Correct,
        Some(_) => Verdict::Incorrect,
        None => Verdict::NoAnswer,
    }
}

/// The final answer of a whole response, as it is written there.
pub fn extracted(response: &str) -> Option<String> {
    let answer = think::split(response, false).answer?;
    extract::final_answer(answer).map(str::to_owned)
}

/// Whether two final answers mean the same. Answers that mean nothing equal nothing.
pub fn equivalent(a: &str, b: &str) -> bool {
    match (Value::read(a), Value::read(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// A key for grouping final answers: two answers have the same key if and only if they are
/// [`equivalent`]; the key is empty for an answer that means nothing.
pub fn canonical(answer: &str) -> String {
    Value::read(answer).map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests;
