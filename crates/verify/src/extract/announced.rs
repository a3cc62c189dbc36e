//! Announced answers: "the answer is 5", "Answer: 5", `#### 5`, `<answer>5</answer>`.

use super::is_value;
use super::spans::{is_amount, runs};
use crate::choice;
use crate::condition;
use crate::parse::parse;

/// Phrases that announce an answer, in lower case.
const PHRASES: [&str; 7] = [
    "answer is",
    "answers are",
    "answer:",
    "final answer**",
    "final answer\n",
    "<answer>",
    "####",
];

/// Announcements that are tried from the end of a text.
const MOST_TRIED: usize = 16;

/// Bytes of a sentence behind an announcement in which a value is looked for.
const LONGEST: usize = 1024;

/// Words of a sentence that is taken for the answer itself where it has no value.
const MOST_WORDS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced<'a> {
    pub text: &'a str,
    /// Whether it reads as mathematics or a choice rather than as words.
    pub is_value: bool,
}

/// The last announced value, or where there is none the last announced words.
pub(super) fn last(text: &str) -> Option<Announced<'_>> {
    let mut words = None;
    let mut tried = 0;
    for rest in Announcements::of(text) {
        tried += 1;
        if tried > MOST_TRIED {
            break;
        }
        match answer(rest) {
            Some(value) if value.is_value => return Some(value),
            Some(text) => words = words.or(Some(text)),
            None => {}
        }
    }
    words
}

/// The sentence behind the last announcement.
pub(super) fn last_sentence(text: &str) -> Option<&str> {
    Announcements::of(text).next().map(sentence)
}

/// What follows each announcement, from the last one on.
struct Announcements<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Announcements<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            text,
            at: text.len(),
        }
    }
}

impl<'a> Iterator for Announcements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        while self.at > 0 {
            self.at -= 1;
            let at = self.at;
            // The first byte decides nearly always, which keeps this one cheap pass.
            if !matches!(bytes[at], b'a' | b'A' | b'f' | b'F' | b'#' | b'<') {
                continue;
            }
            let phrase = PHRASES.into_iter().find(|phrase| {
                bytes
                    .get(at..at + phrase.len())
                    .is_some_and(|found| found.eq_ignore_ascii_case(phrase.as_bytes()))
            });
            // Of a longer run of `#` only the last four count, so that each run is looked at once.
            if let Some(phrase) = phrase
                && (phrase != "####" || bytes.get(at + 4) != Some(&b'#'))
            {
                return self.text.get(at + phrase.len()..);
            }
        }
        None
    }
}

/// The line or sentence that `rest` starts with.
fn sentence(rest: &str) -> &str {
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || ":*=}_>".contains(c));
    // Looked for together: a line may be long, and hold the phrase many times.
    let end = rest
        .char_indices()
        .find(|&(at, c)| {
            c == '\n'
                || (c == '.' && rest[at..].starts_with(". "))
                || (c == '<' && rest[at..].starts_with("</answer"))
        })
        .map_or(rest.len(), |(at, _)| at);
    rest[..end]
        .trim()
        .trim_end_matches(['.', '*', '!', '`'])
        .trim_end()
}

/// The answer at the start of `rest`: a math span, or what the sentence says.
fn answer(rest: &str) -> Option<Announced<'_>> {
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || ":*=}_>".contains(c));
    let value = |text| {
        let is_value = true;
        Announced { text, is_value }
    };
    let line = sentence(rest);
    for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
        if let Some(inner) = rest.strip_prefix(open)
            && let Some(end) = inner.find(close)
        {
            let content = inner[..end].trim();
            let after = &inner[end + close.len()..];
            let is_price = open == "$"
                && (after.starts_with(|c: char| c.is_ascii_digit()) || is_amount(content));
            // "$n$ is 34" says what the name is.
            let is_name = content.chars().count() == 1
                && ["is ", "= ", "equals "]
                    .iter()
                    .any(|verb| after.trim_start().starts_with(verb));
            if !content.is_empty() && !content.contains("\n\n") && !is_price && !is_name {
                // `$2$ and $3$` is one list.
                let whole = line.trim();
                let is_list = after.trim_start().starts_with([',', 'a', 'o']) && is_value(whole);
                return Some(value(if is_list { whole } else { content }));
            }
        }
    }
    if line.is_empty() || line.len() > LONGEST {
        return (!line.is_empty()).then_some(Announced {
            text: line,
            is_value: false,
        });
    }
    if let Some(text) = value_of(line) {
        return Some(value(text));
    }
    let is_short = line.split_whitespace().nth(MOST_WORDS).is_none();
    let is_words = is_short && !negated(line);
    (is_words || choice::is_no_solution(line)).then_some(Announced {
        text: line,
        is_value: false,
    })
}

/// Whether a sentence says what the answer is not.
fn negated(sentence: &str) -> bool {
    sentence.starts_with("not ") || sentence.starts_with("no ")
}

/// The value that a sentence says: the whole of it, its start, what stands behind its last verb, or
/// its last number or formula.
fn value_of(sentence: &str) -> Option<&str> {
    if is_value(sentence) || choice::choice(sentence).is_some() {
        return Some(sentence);
    }
    let (formula, condition) = condition::split(sentence);
    if condition.is_some() && is_value(formula) {
        return Some(formula);
    }
    if negated(sentence) {
        return None;
    }
    let found = runs(sentence);
    let readable = |run: &&super::spans::Run<'_>| parse(run.text).is_ok();
    if let Some(first) = found.first().filter(|run| run.starts_sentence)
        && readable(&first)
    {
        return Some(first.text);
    }
    let verb = [" is ", " are ", " equals ", " be ", " = ", ": "]
        .iter()
        .filter_map(|verb| Some(sentence.rfind(verb)? + verb.len()))
        .max();
    if let Some(behind) = verb.and_then(|at| sentence.get(at..)).map(str::trim)
        && !behind.is_empty()
        && !negated(behind)
    {
        if is_value(behind) || choice::choice(behind).is_some() {
            return Some(behind);
        }
        let found = runs(behind);
        if let Some(first) = found.first().filter(|run| run.starts_sentence)
            && readable(&first)
        {
            return Some(first.text);
        }
    }
    let last = found.iter().rev().take(4).find(readable);
    last.map(|run| run.text)
}
