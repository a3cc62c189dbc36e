//! Finds the final answer in a text.

mod announced;
mod boxes;
mod spans;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::number;
use crate::parse::parse;
use crate::think;
use crate::wrapping::unwrapped;

pub(crate) use spans::last_math_span;

/// Where a final answer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerFrom {
    /// In `\boxed{…}` or `\fbox{…}`.
    Box,
    /// Behind "the answer is", "Answer:", `####` or `<answer>`.
    Announced,
    /// The last formula, or the whole text where it is nothing but an answer.
    Formula,
    /// The last number; only where it is asked for.
    LastNumber,
}

impl AnswerFrom {
    /// The name on disk: `box`, `announced`, `formula` or `last_number`.
    pub fn as_str(self) -> &'static str {
        match self {
            AnswerFrom::Box => "box",
            AnswerFrom::Announced => "announced",
            AnswerFrom::Formula => "formula",
            AnswerFrom::LastNumber => "last_number",
        }
    }
}

/// A final answer and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub answer: Cow<'a, str>,
    pub from: AnswerFrom,
}

/// The final answer in what follows the thought, trimmed and never empty.
///
/// The text ends at an end-of-turn token. The later of two counts: the last closed `\boxed{…}` or
/// `\fbox{…}` that holds something, with those before it that only commas, `and` or `or` part from
/// it; and what follows the last "the answer is", "Answer:", `####` or `<answer>`. Where there is
/// neither, it is the last formula, between delimiters or of LaTeX without them; else the whole text
/// when it is nothing but mathematics.
pub fn final_answer(answer: &str) -> Option<Cow<'_, str>> {
    found(answer, false).map(|found| found.answer)
}

/// As [`final_answer`], with where the answer was found. `or_last_number` takes the last number of
/// the text where nothing else is found.
pub fn found(answer: &str, or_last_number: bool) -> Option<Found<'_>> {
    let text = think::turn(answer);
    if let Some((boxed, end)) = boxes::joined(text) {
        let behind = text.get(end..).unwrap_or_default();
        return Some(match announced::last(behind) {
            Some(announced) if announced.is_value => Found {
                answer: Cow::Borrowed(announced.text),
                from: AnswerFrom::Announced,
            },
            _ => Found {
                answer: boxed,
                from: AnswerFrom::Box,
            },
        });
    }
    let borrowed = |answer, from| {
        let answer = Cow::Borrowed(answer);
        Found { answer, from }
    };
    if let Some(announced) = announced::last(text) {
        return Some(borrowed(announced.text, AnswerFrom::Announced));
    }
    let span = spans::last_span(text);
    let behind = span.map_or(0, |(_, end)| end);
    let raw = || text.get(behind..).and_then(spans::last_raw);
    let whole = || {
        let whole = text.trim();
        is_value(whole).then_some(whole)
    };
    if span.is_none()
        && let Some(whole) = whole()
    {
        return Some(borrowed(whole, AnswerFrom::Formula));
    }
    if let Some(formula) = raw().or(span.map(|(content, _)| content)) {
        return Some(borrowed(formula, AnswerFrom::Formula));
    }
    if or_last_number {
        return last_number(text).map(|number| borrowed(number, AnswerFrom::LastNumber));
    }
    None
}

/// The answer in the last box, and nothing else.
pub fn boxed(answer: &str) -> Option<Found<'_>> {
    let (answer, _) = boxes::joined(think::turn(answer))?;
    let from = AnswerFrom::Box;
    Some(Found { answer, from })
}

/// The answer in a gold field that is a worked solution, or a boxed answer.
pub(crate) fn gold_answer(gold: &str) -> Option<Cow<'_, str>> {
    boxes::joined(gold)
        .map(|(boxed, _)| boxed)
        .or_else(|| announced::last(gold).map(|announced| Cow::Borrowed(announced.text)))
}

/// The sentence behind the last announcement, whatever it says.
pub(crate) fn announced_sentence(answer: &str) -> Option<&str> {
    announced::last_sentence(think::turn(answer))
}

/// Whether a text is nothing but a value: a number with its unit, or mathematics.
fn is_value(text: &str) -> bool {
    number::read(text).is_some() || (parse(unwrapped(text)).is_ok() && !spans::is_prose(text))
}

/// The last number: an integer with separators of thousands, a decimal, or a fraction, with its
/// sign.
fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut end = text.len();
    loop {
        end = text[..end].rfind(|c: char| c.is_ascii_digit())? + 1;
        let part_of_number = |at: usize| {
            let digit_at = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
            bytes[at].is_ascii_digit()
                || (matches!(bytes[at], b'.' | b',' | b'/')
                    && digit_at(at + 1)
                    && at > 0
                    && digit_at(at - 1))
                || (bytes[at] == b'.' && digit_at(at + 1))
        };
        let mut start = end - 1;
        while start > 0 && part_of_number(start - 1) {
            start -= 1;
        }
        // `x2`, `10^2` and `a_1` hold no number of their own.
        let before = text[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphabetic() || matches!(c, '_' | '^')) {
            end = start;
            if end == 0 {
                return None;
            }
            continue;
        }
        let signed = text[..start].trim_end_matches(['$', '\\']);
        if let Some(sign) = signed.strip_suffix(['-', '−'])
            && !sign.ends_with(|c: char| c.is_alphanumeric() || c == ')')
        {
            start = sign.len();
        }
        let percent = text[end..].starts_with('%');
        let number = &text[start..end + usize::from(percent)];
        if number::read(number).is_some() {
            return Some(number);
        }
        // `1,2` is two numbers.
        let last = number
            .rfind([',', '/', '.'])
            .map_or(start, |at| start + at + 1);
        return text.get(last..end).filter(|number| !number.is_empty());
    }
}

#[cfg(test)]
mod tests;
