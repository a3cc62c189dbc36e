//! What an answer means, and when two answers are equal.

use std::fmt;

use num_rational::BigRational;

use crate::wrapping::unwrapped;
use crate::{extract, number};

/// A gold field with more words than this is a worked solution rather than an answer.
const MAX_GOLD_WORDS: usize = 12;

/// What an answer means. Equality of values is equality of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An integer, decimal or fraction, exact.
    Number(BigRational),
    /// Anything else: the text without what LaTeX and spacing make of it. Never empty.
    Text(String),
}

impl Value {
    /// Reads a final answer; `None` when nothing is left of it without its wrapping.
    pub fn read(answer: &str) -> Option<Value> {
        if let Some(number) = number::read(answer) {
            return Some(Value::Number(number));
        }
        if let Some(number) = assigned(answer).and_then(number::read) {
            return Some(Value::Number(number));
        }
        let text = normalised(unwrapped(answer));
        (!text.is_empty()).then_some(Value::Text(text))
    }
}

/// The canonical spelling: `3`, `-4/3`, or the normalised text.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => number.fmt(f),
            Value::Text(text) => f.write_str(text),
        }
    }
}

/// The value of a gold field, which may be bare, in `$…$`, boxed, or a whole solution.
pub(crate) fn gold_value(gold: &str) -> Option<Value> {
    if let Some(number) = number::read(gold) {
        return Some(Value::Number(number));
    }
    if let Some(answer) = extract::gold_answer(gold) {
        return Value::read(answer);
    }
    if gold.split_whitespace().nth(MAX_GOLD_WORDS).is_some() {
        return extract::last_math_span(gold).and_then(Value::read);
    }
    Value::read(gold)
}

/// What stands behind `x =`, for one variable of one letter.
fn assigned(answer: &str) -> Option<&str> {
    let (variable, value) = unwrapped(answer).split_once('=')?;
    let mut letters = variable.trim().chars();
    let one_letter = letters.next().is_some_and(char::is_alphabetic) && letters.next().is_none();
    one_letter.then_some(value)
}

/// Commands that only space or size, with what stands for them.
const REPLACED: [(&str, &str); 21] = [
    ("\\left", ""),
    ("\\right", ""),
    ("\\displaystyle", ""),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("\\quad", ""),
    ("\\le", "\\leq"),
    ("\\ge", "\\geq"),
    ("\\ne", "\\neq"),
    ("\\times", "\\cdot"),
    ("\\text", ""),
    ("\\textbf", ""),
    ("\\textrm", ""),
    ("\\textit", ""),
    ("\\mathrm", ""),
    ("\\mathbf", ""),
    ("\\mbox", ""),
    ("\\lbrace", "\\{"),
    ("\\rbrace", "\\}"),
    ("\\ldots", "\\dots"),
];

/// `text` without spacing, sizing and font commands. Words of letters alone lose their case.
fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        if next == '\\' {
            let name = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let command = &rest[..1 + name];
            rest = &rest[1 + name..];
            if name == 0 {
                let symbol = rest.chars().next();
                rest = symbol.map_or("", |symbol| &rest[symbol.len_utf8()..]);
                match symbol {
                    None | Some(',' | '!' | ';' | ':' | ' ' | '$' | '(' | ')' | '[' | ']') => {}
                    Some(symbol) => out.extend(['\\', symbol]),
                }
                continue;
            }
            match REPLACED.iter().find(|(name, _)| *name == command) {
                Some((_, "")) => {
                    // \text{a} is a; braces elsewhere group.
                    if command.starts_with("\\text") || command.starts_with("\\m") {
                        // Only up to the next special character, so that unclosed groups cost
                        // no second look at the rest.
                        if let Some(group) = rest.strip_prefix('{')
                            && let Some(end) = group.find(['\\', '{', '}', '$'])
                            && group[end..].starts_with('}')
                        {
                            let content = &group[..end];
                            out.extend(content.chars().filter(|c| !c.is_whitespace()));
                            rest = &group[end + 1..];
                        }
                    } else {
                        // \left. and \right. are invisible delimiters.
                        rest = rest.strip_prefix('.').unwrap_or(rest);
                    }
                }
                Some((_, "\\frac")) => {
                    out.push_str("\\frac");
                    rest = short_arguments(rest, &mut out);
                }
                Some((_, replacement)) => out.push_str(replacement),
                None if command == "\\frac" => {
                    out.push_str(command);
                    rest = short_arguments(rest, &mut out);
                }
                None => out.push_str(command),
            }
            continue;
        }
        match next {
            '$' | '~' => {}
            '\u{2212}' | '\u{2013}' => out.push('-'),
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
        rest = after;
    }
    if let Some(letter) = parenthesised_letter(&out) {
        return letter.to_string();
    }
    if out.chars().count() > 1 && out.chars().all(char::is_alphabetic) {
        out = out.to_lowercase();
    }
    out
}

/// Writes the one-character arguments of `\frac43` with the braces they stand for.
fn short_arguments<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let mut rest = rest.trim_start();
    for _ in 0..2 {
        let Some(argument) = rest.chars().next().filter(|c| c.is_alphanumeric()) else {
            return rest;
        };
        out.extend(['{', argument, '}']);
        rest = rest[argument.len_utf8()..].trim_start();
    }
    rest
}

/// The letter of a choice written `(C)`.
fn parenthesised_letter(text: &str) -> Option<char> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut letters = inner.chars();
    let letter = letters.next().filter(|c| c.is_ascii_alphabetic())?;
    letters.next().is_none().then_some(letter)
}

#[cfg(test)]
mod tests {
    use super::Value;

    fn check(answer: &str, expected: Option<&str>) {
        let found = Value::read(answer).map(|value| value.to_string());
        assert_eq!(found.as_deref(), expected, "{answer:?}");
    }

    #[test]
    fn canonical_spellings() {
        check("  $\\dfrac{8}{6}$ ", Some("4/3"));
        check("x = 5", Some("5"));
        check("$n=-\\frac12$", Some("-1/2"));
        check("2x = 6", Some("2x=6"));
        check("y = 2x + 1", Some("y=2x+1"));
        check("\\text{East}", Some("east"));
        check("\\textbf{(C)}", Some("C"));
        check("(C)", Some("C"));
        check("C", Some("C"));
        check(
            "\\left( 3, \\frac{\\pi}{2} \\right)",
            Some("(3,\\frac{\\pi}{2})"),
        );
        check("\\frac\\pi2", Some("\\frac\\pi2"));
        check("\\frac xy", Some("\\frac{x}{y}"));
        check("\\tfrac x{y}", Some("\\frac{x}{y}"));
        check("x \\le 3", Some("x\\leq3"));
        check("x \\leq 3", Some("x\\leq3"));
        check("4\\sqrt{2}", Some("4\\sqrt{2}"));
        check("1/2004!", Some("1/2004!"));
        check("", None);
        check("$$", None);
        check("\\text{}", None);
        check("\\,\\!", None);
        check("\\", None);
        check("\\left.", None);
    }
}
