//! Grades a response to a mathematics problem against its gold answer.
//!
//! Pure functions: no IO, no clock, no randomness. Recursion is bounded, and so is the work of
//! every comparison; any string is safe to pass.
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
//! - [`Answer`]: a final answer, read once and compared with many; [`rules`]: when two are equal,
//!   each rule with examples.
//! - [`number`]: reads integers, decimals and simple fractions, which most answers are.
//! - `lex`, `parse`, `expr`: LaTeX and plain mathematics as a tree.
//! - `meaning`: sets, tuples, regions, equations, and when they are the same; `scalar`: numbers
//!   and formulas.
//! - `exact`, `polynomial`: values that are quotients of polynomials; `numeric`: all others, as
//!   numbers of 192 bits.
//! - `power`: what both raise to powers with.
//! - `budget`: how much work one comparison may take.
//! - [`Verifier`]: a response and its golds, with options.
//! - `choice`, `condition`, `text`, `wrapping`: what is no mathematics; `unit`, `dimension`: what
//!   may stand behind a number; `latex`: LaTeX's commands that change nothing.

mod answer;
mod budget;
mod choice;
mod condition;
mod dimension;
mod exact;
mod expr;
pub mod extract;
mod latex;
mod lex;
mod meaning;
pub mod number;
mod numeric;
mod parse;
mod polynomial;
mod power;
pub mod rules;
mod scalar;
mod text;
pub mod think;
mod unit;
mod verifier;
mod wrapping;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use answer::Answer;
pub use extract::AnswerFrom;
pub use verifier::{Verification, Verifier};

/// Version of the rules by which responses are graded. It is raised whenever a verdict may change: grades that an earlier
/// version gave are then made anew.
pub const VERSION: u32 = 1;

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
    Verifier::default().verify(gold, response).verdict
}

/// Grades what follows the thought; `None` is a thought that never ended.
pub fn verify_answer(gold: &str, answer_part: Option<&str>) -> Verdict {
    Verifier::default()
        .verify_answer(&[gold], answer_part)
        .verdict
}

/// The final answer of a whole response, as it is written there.
pub fn extracted(response: &str) -> Option<String> {
    let answer = think::split_turn(response).answer?;
    extract::final_answer(answer).map(Cow::into_owned)
}

/// Whether two final answers mean the same. Answers that mean nothing equal nothing.
pub fn equivalent(a: &str, b: &str) -> bool {
    match (Answer::read(a), Answer::read(b)) {
        (Some(a), Some(b)) => a.accepts(&b),
        _ => false,
    }
}

/// Groups final answers that mean the same: for each the place of the first of its group, and none
/// for an answer that means nothing.
pub fn groups(answers: &[&str]) -> Vec<Option<usize>> {
    let mut firsts: Vec<(usize, Answer)> = Vec::new();
    let mut spelled = HashMap::new();
    let mut group = |(place, answer): (usize, &&str)| {
        let answer = Answer::read(answer)?;
        let spelling = answer.spelling();
        if let Some(first) = spelled.get(&spelling) {
            return Some(*first);
        }
        let same = firsts
            .iter()
            .find(|(_, first)| first.accepts(&answer))
            .map(|(first, _)| *first);
        let first = same.unwrap_or(place);
        if same.is_none() {
            firsts.push((place, answer));
        }
        spelled.insert(spelling, first);
        Some(first)
    };
    answers.iter().enumerate().map(&mut group).collect()
}

#[cfg(test)]
mod tests;
