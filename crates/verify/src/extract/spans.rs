//! Formulas: those between delimiters, and LaTeX that stands in a sentence without any.

use crate::latex::{TEXTS, braced_group, command};
use crate::lex::WORDS;
use crate::parse::parse;

/// Bytes of a sentence, or of a formula without delimiters.
const LONGEST: usize = 1024;

/// Formulas in one text that are tried from its end.
const MOST_TRIED: usize = 8;

/// The last `$…$`, `$$…$$`, `\(…\)` or `\[…\]` that holds something.
pub(crate) fn last_math_span(text: &str) -> Option<&str> {
    last_span(text).map(|(content, _)| content)
}

/// The last span that holds something, and the place where it ends.
pub(super) fn last_span(text: &str) -> Option<(&str, usize)> {
    let bytes = text.as_bytes();
    let mut last = None;
    let mut close_with = |start: Option<usize>, end: usize| {
        if let Some(start) = start {
            let content = text[start..end].trim();
            if !content.is_empty() {
                last = Some((content, end));
            }
        }
    };
    let (mut dollar, mut dollars, mut paren, mut bracket) = (None, None, None, None);
    let mut at = 0;
    while at < bytes.len() {
        let next = bytes.get(at + 1).copied();
        match (bytes[at], next) {
            (b'\\', Some(b'(')) => paren = Some(at + 2),
            (b'\\', Some(b'[')) => bracket = Some(at + 2),
            (b'\\', Some(b')')) => close_with(paren.take(), at),
            (b'\\', Some(b']')) => close_with(bracket.take(), at),
            (b'\\', _) => {}
            (b'$', Some(b'$')) => {
                if dollars.is_some() {
                    close_with(dollars.take(), at);
                } else {
                    dollars = Some(at + 2);
                }
                dollar = None;
            }
            (b'$', next) => {
                // A digit behind a closing dollar makes it a price, "$5 and $7", and so do words
                // behind an amount, "$5 each, so $x$".
                let closes = dollar.is_some_and(|start: usize| {
                    !next.is_some_and(|b| b.is_ascii_digit()) && !is_amount(&text[start..at])
                });
                if closes {
                    close_with(dollar.take(), at);
                } else if dollars.is_none() {
                    dollar = Some(at + 1);
                }
                at += 1;
                continue;
            }
            // TeX ends inline mathematics at a blank line.
            (b'\n', Some(b'\n')) => {
                dollar = None;
                at += 1;
                continue;
            }
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    last
}

/// Bytes behind a dollar in which words are looked for.
const AMOUNT: usize = 256;

/// Whether what stands between two dollars is an amount and the sentence behind it.
pub(super) fn is_amount(content: &str) -> bool {
    if !content.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let mut end = content.len().min(AMOUNT);
    while !content.is_char_boundary(end) {
        end -= 1;
    }
    let (mut rest, mut n_words) = (&content[..end], 0);
    while let Some(c) = rest.chars().next() {
        if let Some((name, after)) = command(rest) {
            let group = braced_group(after).filter(|_| TEXTS.contains(&name));
            rest = group.map_or(after, |(_, after)| after);
            continue;
        }
        let run = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if run >= 3 {
            n_words += 1;
        }
        rest = &rest[run.max(c.len_utf8())..];
    }
    n_words > 0
}

/// Words that stand in sentences only.
const JOINING: [&str; 21] = [
    "so",
    "is",
    "we",
    "by",
    "it",
    "as",
    "thus",
    "hence",
    "then",
    "the",
    "get",
    "are",
    "be",
    "of",
    "gives",
    "therefore",
    "that",
    "this",
    "has",
    "have",
    "at",
];

/// Whether a text is a sentence: two words of plain letters or more, one of them longer than two.
pub(super) fn is_prose(text: &str) -> bool {
    let (mut rest, mut n_words, mut longest) = (text, 0, 0);
    let mut joins = false;
    while let Some(c) = rest.chars().next() {
        if let Some((name, after)) = command(rest) {
            let group = TEXTS
                .contains(&name)
                .then(|| after.find('}'))
                .flatten()
                .map(|end| &after[end..]);
            rest = group.unwrap_or(after);
            continue;
        }
        let run = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if run >= 2 && !WORDS.contains(&&rest[..run]) {
            n_words += 1;
            joins |= JOINING.contains(&&rest[..run]);
            longest = longest.max(run);
        }
        if joins || (n_words > 1 && longest > 2) {
            return true;
        }
        rest = &rest[run.max(c.len_utf8())..];
    }
    false
}

/// A stretch of a sentence that reads as mathematics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub text: &'a str,
    /// Whether a command of LaTeX is in it.
    pub has_command: bool,
    pub starts_sentence: bool,
}

/// The stretches of mathematics in a sentence, in order. Words, full stops and dashes between
/// words part them; `and`, `or` and commas join what stands on both of their sides.
pub(super) fn runs(sentence: &str) -> Vec<Run<'_>> {
    let mut runs = Vec::new();
    // Where the run starts, and where its last sign of mathematics ends.
    let (mut start, mut end) = (None::<usize>, 0);
    let (mut has_command, mut has_value) = (false, false);
    let mut at = 0;
    let mut close =
        |start: &mut Option<usize>, end: usize, has_command: &mut bool, has_value: &mut bool| {
            if let Some(from) = start.take()
                && *has_value
            {
                runs.push(Run {
                    text: trimmed(&sentence[from..end]),
                    has_command: *has_command,
                    starts_sentence: sentence[..from]
                        .trim_matches([' ', '$', '*', '('])
                        .is_empty(),
                });
            }
            (*has_command, *has_value) = (false, false);
        };
    while let Some(c) = sentence.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = &sentence[at..];
        let next = rest[c.len_utf8()..].chars().next();
        let mut length = c.len_utf8();
        let mut is_mathematics = false;
        if let Some((name, after)) = command(rest) {
            length = rest.len() - after.len();
            if TEXTS.contains(&name)
                && let Some((_, after)) = braced_group(after.trim_start())
            {
                length = rest.len() - after.len();
            } else {
                has_command |= !["left", "right", "quad", "boxed"].contains(&name);
            }
            (is_mathematics, has_value) = (true, true);
        } else if c == '\\' {
            length += next.map_or(0, char::len_utf8);
            is_mathematics = matches!(next, Some('{' | '}' | '%' | '|' | '\\'));
            if matches!(next, Some('(' | ')' | '[' | ']')) {
                close(&mut start, end, &mut has_command, &mut has_value);
            }
        } else if c.is_ascii_digit() {
            length = rest.bytes().take_while(u8::is_ascii_digit).count();
            (is_mathematics, has_value) = (true, true);
        } else if c.is_alphabetic() {
            let run = rest
                .find(|c: char| !c.is_alphabetic())
                .unwrap_or(rest.len());
            length = run;
            let word = &rest[..run];
            let article = ["a", "A", "I"].contains(&word) && start.is_none();
            let is_name = (word.chars().count() == 1 && !article)
                || ["pi", "sqrt", "sin", "cos", "tan", "log", "ln"].contains(&word)
                || (run == 2 && word.bytes().all(|b| b.is_ascii_uppercase()));
            if is_name {
                is_mathematics = true;
            } else if !["and", "or"].contains(&word) || start.is_none() {
                close(&mut start, end, &mut has_command, &mut has_value);
            }
        } else if "+-*/^_=<>≤≥±·×÷√π∞°%!|()[]{}−∪∈²³½&".contains(c) {
            // `**` is a mark of Markdown, a hyphen between words is none of mathematics.
            if (c == '*' && next == Some('*')) || c == '=' && next == Some('>') {
                close(&mut start, end, &mut has_command, &mut has_value);
                length += 1;
            } else {
                is_mathematics = true;
                has_value |= "½∞π".contains(c);
            }
        } else if (c == '.' || c == ':') && next.is_some_and(|c| c.is_ascii_digit()) {
            is_mathematics = true;
        } else if !(c.is_whitespace() || matches!(c, ',' | ';' | '~' | '$')) {
            close(&mut start, end, &mut has_command, &mut has_value);
        }
        if is_mathematics {
            start.get_or_insert(at);
            end = at + length;
        }
        at += length;
    }
    close(&mut start, end, &mut has_command, &mut has_value);
    runs
}

/// A run without brackets that nothing closes, and without signs that it cannot start or end with.
fn trimmed(run: &str) -> &str {
    let mut run = run.trim();
    loop {
        let count = |brackets: [char; 2]| run.matches(brackets).count();
        let (open, closed) = (count(['(', '[']), count([')', ']']));
        let shorter = if open > closed && run.starts_with(['(', '[']) {
            &run[1..]
        } else if closed > open && run.ends_with([')', ']']) {
            &run[..run.len() - 1]
        } else if run.ends_with(['=', '+', '*', '/', '&', '!', '_', '|', '-'])
            && !run.ends_with("!!")
        {
            // A formula ends with none of them; `!` may end a factorial.
            let is_factorial =
                run.ends_with('!') && run[..run.len() - 1].ends_with(|c: char| c.is_alphanumeric());
            if is_factorial {
                return run;
            }
            &run[..run.len() - 1]
        } else if run.starts_with(['=', '*', '/', '&', '%', '^', '>', '<']) {
            &run[1..]
        } else {
            return run;
        };
        run = shorter.trim();
    }
}

/// The last formula of LaTeX without delimiters.
pub(super) fn last_raw(text: &str) -> Option<&str> {
    if !text.contains('\\') {
        return None;
    }
    let mut start = text.len().saturating_sub(4 * LONGEST);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let tail = &text[start..];
    tail.rsplit('\n').take(64).find_map(|line| {
        let found = runs(line);
        found
            .iter()
            .rev()
            .filter(|run| run.has_command)
            .take(MOST_TRIED)
            .find(|run| parse(run.text).is_ok())
            .map(|run| run.text)
    })
}
