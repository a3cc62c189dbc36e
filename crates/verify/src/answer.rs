//! A final answer, read once and compared with many.

use num_rational::BigRational;

use crate::budget::Budget;
use crate::meaning::Meaning;
use crate::parse::parse;
use crate::text::normalised;
use crate::wrapping::unwrapped;
use crate::{extract, number};

/// A gold field with more words than this is a worked solution rather than an answer.
const MAX_GOLD_WORDS: usize = 12;

/// Bytes of an answer beyond which it is compared letter by letter.
const LONGEST: usize = 1 << 14;

/// Letters by which choices are named.
const CHOICES: std::ops::RangeInclusive<char> = 'A'..='J';

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

    /// Reads a gold field, which may be bare, in `$…$`, boxed, or a whole solution.
    pub fn read_gold(gold: &str) -> Option<Self> {
        if let Some(answer) = Self::read(gold).filter(|answer| answer.number.is_some()) {
            return Some(answer);
        }
        if let Some(answer) = extract::gold_answer(gold) {
            return Self::read(&answer);
        }
        if gold.split_whitespace().nth(MAX_GOLD_WORDS).is_some() {
            return extract::last_math_span(gold).and_then(Self::read);
        }
        Self::read(gold)
    }

    /// Whether `response` means the same as this gold answer.
    pub fn accepts(&self, response: &Self) -> bool {
        match (&self.number, &response.number) {
            (Some(a), Some(b)) if a == b => return true,
            (Some(_), Some(_)) if !self.is_more_than_number(response) => return false,
            (None, None) if self.text == response.text => return true,
            _ => {}
        }
        if let Some(letter) = self.choice() {
            return response.choice() == Some(letter);
        }
        let mut budget = Budget::new();
        match (self.meaning(&mut budget), response.meaning(&mut budget)) {
            (Some(gold), Some(response)) => gold.accepts(&response, &mut budget),
            _ => false,
        }
    }

    /// Whether two numbers may be equal though their digits say otherwise: one is per cent, or the
    /// gold one is rounded.
    fn is_more_than_number(&self, response: &Self) -> bool {
        let percent = |answer: &Self| answer.source.contains('%');
        percent(self)
            || percent(response)
            || (self.source.contains('.') && !response.source.contains('.'))
    }

    fn meaning(&self, budget: &mut Budget) -> Option<Meaning> {
        if self.source.len() > LONGEST {
            return None;
        }
        let inner = unwrapped(&self.source);
        let expr = parse(inner).ok()?;
        Meaning::of(&expr, budget)
    }

    /// The letter of a choice: `C`, `(C)`, `C.`, `\text{(C)}`, also before its content as in
    /// `(C) 5` and `C) 5`.
    fn choice(&self) -> Option<char> {
        if self.number.is_some() {
            return None;
        }
        let text = self.text.strip_prefix('(').unwrap_or(&self.text);
        let mut letters = text.chars();
        let letter = letters.next().filter(|letter| CHOICES.contains(letter))?;
        match letters.next() {
            None | Some(')' | '.' | ':') => Some(letter),
            Some(_) => None,
        }
    }

    /// A spelling that equal numbers and equal texts share: `3`, `-4/3`, or the normalised text.
    pub fn spelling(&self) -> String {
        match &self.number {
            Some(number) => number.to_string(),
            None => self.text.clone(),
        }
    }
}
