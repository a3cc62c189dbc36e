//! A final answer, read once and compared with many.

use num_rational::BigRational;

use crate::budget::Budget;
use crate::meaning::Meaning;
use crate::parse::parse;
use crate::text::normalised;
use crate::wrapping::unwrapped;
use crate::{choice, condition, dimension, extract, number};

/// A gold field with more words than this is a worked solution rather than an answer.
const MAX_GOLD_WORDS: usize = 12;

/// Bytes of an answer beyond which it is compared letter by letter.
const LONGEST: usize = 1 << 14;

/// What an answer says, in every way that it can be compared.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The number that it is, where it is no more than that: nearly always.
    number: Option<BigRational>,
    /// Without wrapping and spacing.
    text: String,
    /// What it means as mathematics; read when the number does not decide.
    source: String,
}

impl Answer {
    /// Reads a final answer; `None` when nothing is left of it without its wrapping.
    pub fn read(answer: &str) -> Option<Self> {
        let is_long = answer.len() > LONGEST;
        let number = if is_long { None } else { number::read(answer) };
        // The text of a number is not looked at but for its sign of per cent and its point.
        let text = match &number {
            Some(_) => String::new(),
            None if is_long => answer.trim().to_owned(),
            None => normalised(unwrapped(answer)),
        };
        if number.is_none() && text.is_empty() {
            return None;
        }
        let source = answer.to_owned();
        Some(Self {
            number,
            text,
            source,
        })
    }

    /// Whether it is a number, which equals its own text however that is read.
    pub(crate) fn is_number(&self) -> bool {
        self.number.is_some()
    }

    /// Whether it is all of the text that it was read from.
    pub(crate) fn is_whole(&self, text: &str) -> bool {
        self.source.len() == text.len()
    }

    /// Reads a gold field, which may be bare, in `$…$`, boxed, or a whole solution.
    pub fn read_gold(gold: &str) -> Option<Self> {
        if let Some(answer) = Self::read(gold).filter(|answer| answer.number.is_some()) {
            return Some(answer);
        }
        if let Some(answer) = extract::gold_answer(gold) {
            return Self::read(&answer);
        }
        let is_long = gold.split_whitespace().nth(MAX_GOLD_WORDS).is_some();
        // A polynomial of many terms is as long as a sentence.
        if is_long && parse(unwrapped(gold)).is_err() {
            return extract::last_math_span(gold).and_then(Self::read);
        }
        Self::read(gold)
    }

    /// Whether `response` means the same as this gold answer.
    pub fn accepts(&self, response: &Self) -> bool {
        match (&self.number, &response.number) {
            (Some(a), Some(b)) if a == b => return !self.measures_another(response),
            (Some(_), Some(_)) if !self.is_more_than_number(response) => return false,
            (None, None) if self.text == response.text => return true,
            _ => {}
        }
        if self.measures_another(response) {
            return false;
        }
        if self.source.len().max(response.source.len()) > LONGEST {
            return false;
        }
        match (self.choice(), response.choice()) {
            (None, None) => {}
            (Some(a), Some(b)) => return a == b,
            _ => return false,
        }
        if self.says_no_solution() && response.says_no_solution() {
            return true;
        }
        let mut budget = Budget::new();
        let (own, condition) = condition::split(self.formula());
        let (other, other_condition) = condition::split(response.formula());
        if let (Some(a), Some(b)) = (condition, other_condition)
            && !same_condition(a, b, &mut budget)
        {
            return false;
        }
        match (meaning(own, &mut budget), meaning(other, &mut budget)) {
            (Some(gold), Some(response)) => gold.accepts(&response, &mut budget),
            _ => false,
        }
    }

    /// Whether both have a unit, of different dimensions.
    fn measures_another(&self, response: &Self) -> bool {
        let may_have_unit = |answer: &Self| {
            answer.source.len() <= LONGEST
                && answer
                    .source
                    .bytes()
                    .any(|b| b.is_ascii_alphabetic() || matches!(b, b'%' | b'$' | 0x80..))
        };
        if !may_have_unit(self) || !may_have_unit(response) {
            return false;
        }
        match (
            dimension::of(unwrapped(&self.source)),
            dimension::of(unwrapped(&response.source)),
        ) {
            (Some(a), Some(b)) => a != b,
            _ => false,
        }
    }

    /// The source without its wrapping, and of a number without the words behind it.
    fn formula(&self) -> &str {
        let inner = unwrapped(&self.source);
        if self.number.is_none() || inner.contains('\\') {
            return inner;
        }
        let words = inner.find(|c: char| c.is_ascii_alphabetic());
        words.map_or(inner, |words| inner[..words].trim_end())
    }

    fn choice(&self) -> Option<char> {
        match self.number {
            Some(_) => None,
            None => choice::choice(&self.source),
        }
    }

    fn says_no_solution(&self) -> bool {
        self.number.is_none()
            && (choice::is_no_solution(&self.source)
                || ["\\emptyset", "\\varnothing", "∅", "\\{\\}"].contains(&self.text.as_str()))
    }

    /// Whether two answers are the same text, without wrapping and spacing, whatever it is.
    pub(crate) fn is_same_text(&self, other: &Self) -> bool {
        match (&self.number, &other.number) {
            (None, None) => self.text == other.text,
            _ => self.source.trim() == other.source.trim(),
        }
    }

    /// Whether two numbers may be equal though their digits say otherwise: one is per cent, or the
    /// gold one is rounded.
    fn is_more_than_number(&self, response: &Self) -> bool {
        let percent = |answer: &Self| answer.source.contains('%');
        percent(self)
            || percent(response)
            || self.source.contains('.') != response.source.contains('.')
    }

    /// A spelling that equal numbers and equal texts share: `3`, `-4/3`, or the normalised text.
    pub fn spelling(&self) -> String {
        match &self.number {
            Some(number) => number.to_string(),
            None => self.text.clone(),
        }
    }
}

fn meaning(inner: &str, budget: &mut Budget) -> Option<Meaning> {
    let expr = parse(inner).ok()?;
    Meaning::of(&expr, budget)
}

/// Whether two conditions do not contradict each other: words are not compared, relations are.
fn same_condition(a: &str, b: &str, budget: &mut Budget) -> bool {
    let (Some(a), Some(b)) = (condition::mathematics(a), condition::mathematics(b)) else {
        return true;
    };
    if normalised(&a) == normalised(&b) {
        return true;
    }
    match (meaning(&a, budget), meaning(&b, budget)) {
        (Some(a), Some(b)) => a.accepts(&b, budget),
        _ => false,
    }
}
