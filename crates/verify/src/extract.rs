//! Finds the final answer in a text.

use std::borrow::Cow;

use crate::number;
use crate::parse::parse;

/// Phrases that announce an answer, in lower case.
const PHRASES: [&str; 3] = ["answer is", "answer:", "####"];

/// Bytes before a box in which another one is looked for.
const BOX_WINDOW: usize = 4096;

/// Bytes between two boxes that belong to one answer.
const BETWEEN_BOXES: usize = 24;

/// The final answer in what follows the thought, trimmed and never empty.
///
/// The last closed `\boxed{…}` or `\fbox{…}` that holds something, with those before it that
/// only commas, `and` or `or` part from it; else what follows the last "the answer is",
/// "Answer:" or `####`; else the last math span; else the whole text when it is nothing but
/// mathematics.
pub fn final_answer(answer: &str) -> Option<Cow<'_, str>> {
    joined_boxes(answer)
        .or_else(|| last_announced(answer).map(Cow::Borrowed))
        .or_else(|| last_math_span(answer).map(Cow::Borrowed))
        .or_else(|| {
            let whole = answer.trim();
            let is_answer = number::read(whole).is_some() || parse(whole).is_ok();
            is_answer.then_some(Cow::Borrowed(whole))
        })
}

/// The answer in a gold field that is a worked solution, or a boxed answer.
pub(crate) fn gold_answer(gold: &str) -> Option<Cow<'_, str>> {
    joined_boxes(gold).or_else(|| last_announced(gold).map(Cow::Borrowed))
}

/// The last box, and those that it is one answer with: `\boxed{2} and \boxed{3}` is `2, 3`.
/// Of boxes with words between them the last counts: the earlier one was taken back.
fn joined_boxes(text: &str) -> Option<Cow<'_, str>> {
    let last = last_box(text)?;
    let offset = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
    let (mut start, mut boxes) = (offset(last), vec![last]);
    loop {
        let window = text.floor_char_boundary(start.saturating_sub(BOX_WINDOW));
        let before = text.get(window..start)?;
        let Some(command) = ["\\boxed", "\\fbox"]
            .iter()
            .filter_map(|name| before.rfind(name))
            .max()
        else {
            break;
        };
        let before = before.get(..command)?;
        let Some(earlier) = last_box(before) else {
            break;
        };
        let end = offset(earlier) - window + earlier.len();
        let behind = before.get(end..)?.trim_start().strip_prefix('}');
        if !behind.is_some_and(|between| between.len() <= BETWEEN_BOXES && is_separator(between)) {
            break;
        }
        boxes.push(earlier);
        start = offset(earlier);
        if boxes.len() == 16 {
            break;
        }
    }
    if boxes.len() == 1 {
        return Some(Cow::Borrowed(last));
    }
    boxes.reverse();
    Some(Cow::Owned(boxes.join(", ")))
}

/// Whether only commas, `and`, `or` and signs of mathematics stand there, at least one of them.
fn is_separator(text: &str) -> bool {
    let words = text
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| !word.is_empty());
    let mut joins = text.contains([',', ';']);
    for word in words {
        match word {
            "and" | "or" => joins = true,
            "text" | "quad" | "qquad" => {}
            _ => return false,
        }
    }
    joins
        && text
            .chars()
            .all(|c| c.is_ascii_alphabetic() || c.is_whitespace() || ",;$\\{}".contains(c))
}

/// The content of the last closed, non-empty `\boxed{…}` or `\fbox{…}`; of nested ones the
/// innermost. An escaped brace is no brace. `\boxed 7` ends at the next `$`, space or backslash.
pub(crate) fn last_box(text: &str) -> Option<&str> {
    // Most golds have none, and this is looked for at the speed of memory.
    if !text.contains("\\boxed") && !text.contains("\\fbox") {
        return None;
    }
    let bytes = text.as_bytes();
    // Where the content of each open box starts, and how many other braces were open there; a text may open millions.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut braces = 0;
    let mut best: Option<&str> = None;
    let mut best_start = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => {
                let Some(name_end) = box_command_end(bytes, at) else {
                    // `\\boxed` comes from texts that were escaped twice.
                    let escaped_twice = box_command_end(bytes, at + 1).is_some();
                    at += if escaped_twice { 1 } else { 2 };
                    continue;
                };
                let mut content = name_end;
                while bytes.get(content).is_some_and(u8::is_ascii_whitespace) {
                    content += 1;
                }
                if bytes.get(content) == Some(&b'{') {
                    open.push((content + 1, std::mem::take(&mut braces)));
                    at = content + 1;
                } else {
                    let end = bytes[content..]
                        .iter()
                        .position(|&b| b == b'$' || b == b'\\' || b.is_ascii_whitespace())
                        .map_or(bytes.len(), |length| content + length);
                    if content > name_end && end > content {
                        (best, best_start) = (Some(&text[content..end]), content);
                    }
                    at = end.max(name_end);
                }
            }
            b'{' => {
                braces += 1;
                at += 1;
            }
            b'}' if braces > 0 => {
                braces -= 1;
                at += 1;
            }
            b'}' => {
                if let Some((start, outside)) = open.pop() {
                    braces = outside;
                    let content = text[start..at].trim();
                    if start >= best_start && !content.is_empty() {
                        (best, best_start) = (Some(content), start);
                    }
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    best
}

/// Where the name of a box command that starts at `at` ends.
fn box_command_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let length = [&b"\\boxed"[..], b"\\fbox"]
        .into_iter()
        .find(|name| rest.starts_with(name))?
        .len();
    let name_goes_on = rest.get(length).is_some_and(u8::is_ascii_alphabetic);
    (!name_goes_on).then_some(at + length)
}

/// What follows the last phrase that announces an answer.
fn last_announced(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = bytes.len();
    while at > 0 {
        at -= 1;
        // The first byte decides nearly always, which keeps this one cheap pass.
        if !matches!(bytes[at], b'a' | b'A' | b'f' | b'F' | b'#') {
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
            && let Some(answer) = announced(&text[at + phrase.len()..])
        {
            return Some(answer);
        }
    }
    None
}

/// The answer at the start of `rest`: a math span, or the sentence or line up to its end.
fn announced(rest: &str) -> Option<&str> {
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ':' | '*' | '='));
    for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
        if let Some(inner) = rest.strip_prefix(open)
            && let Some(end) = inner.find(close)
        {
            let inner = inner[..end].trim();
            // "$18 and not $20" is currency.
            if !inner.is_empty() && !inner.contains('\n') {
                let after = inner_end(rest, open, end, close);
                if open != "$" || !after.starts_with(|c: char| c.is_ascii_digit()) {
                    return Some(inner);
                }
            }
        }
    }
    // Looked for together: a line may be long, and hold the phrase many times.
    let end = rest
        .char_indices()
        .find(|&(at, c)| c == '\n' || (c == '.' && rest[at..].starts_with(". ")))
        .map_or(rest.len(), |(at, _)| at);
    let sentence = &rest[..end];
    let sentence = sentence.trim().trim_end_matches(['.', '*', '!']).trim_end();
    (!sentence.is_empty()).then_some(sentence)
}

fn inner_end<'a>(rest: &'a str, open: &str, length: usize, close: &str) -> &'a str {
    &rest[open.len() + length + close.len()..]
}

/// The last `$…$`, `$$…$$`, `\(…\)` or `\[…\]` that holds something.
pub(crate) fn last_math_span(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut last = None;
    let mut close_with = |start: Option<usize>, end: usize| {
        if let Some(start) = start {
            let content = text[start..end].trim();
            if !content.is_empty() {
                last = Some(content);
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
                // A digit behind a closing dollar makes it a price: "$5 and $7".
                if dollar.is_some() && !next.is_some_and(|b| b.is_ascii_digit()) {
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

#[cfg(test)]
mod tests {
    #[test]
    fn boxes_that_are_one_answer() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                super::final_answer(text).as_deref(),
                Some(expected),
                "{text}"
            );
        };
        check(r"\boxed{2} and \boxed{3}", "2, 3");
        check(r"$x=\boxed{2}$, $\boxed{3}$", "2, 3");
        check(
            r"$\boxed{2}$, $\boxed{3}$ or $\boxed{\frac{1}{2}}$.",
            r"2, 3, \frac{1}{2}",
        );
        check(r"\boxed{2}\text{ and }\boxed{3}", "2, 3");
        check(r"\boxed{3}. Wait, no. \boxed{12}", "12");
        check(r"\boxed{3} \boxed{12}", "12");
        check(r"\boxed{3}, so I think that it is \boxed{12}", "12");
    }

    use super::{final_answer, last_math_span};

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(final_answer(text).as_deref(), expected, "{text:?}");
    }

    #[test]
    fn boxes() {
        check(r"so \boxed{33}.", Some("33"));
        check(r"\boxed{1} then \boxed{2}", Some("2"));
        check(r"\fbox{7}", Some("7"));
        check(r"\boxed{\frac{1}{2}}", Some(r"\frac{1}{2}"));
        check(r"\boxed{\{1,2\}}", Some(r"\{1,2\}"));
        check(r"\boxed{ \boxed{5} }", Some("5"));
        check(r"\boxed {12}", Some("12"));
        check(r"$\boxed 12$", Some("12"));
        check(r"\\boxed{12}", Some("12"));
        check("x\\\\\n\\boxed{12}", Some("12"));
        check(r"\boxed{3}, in \boxed{}", Some("3"));
        check(r"\boxed{3}, no: \boxed{1", Some("3"));
        check(r"} { \boxed{3}", Some("3"));
        check(r"\boxedx{3}", None);
        check(r"\boxed{}", None);
        check(r"\boxed", None);
        check("\\", None);
    }

    #[test]
    fn phrases() {
        check("The answer is 33.", Some("33"));
        check("the answer is: **33**", Some("33"));
        check("**Final Answer:**\n\n$\\frac12$", Some("\\frac12"));
        check("#### 1,234", Some("1,234"));
        check("work\n#### -5\n", Some("-5"));
        check("The answer is 3. No, the answer is 4. Done.", Some("4"));
        check("The answer is 2.5. Done.", Some("2.5"));
        check("The answer is $x$, which", Some("x"));
        check("The answer is $18 and not $20", Some("$18 and not $20"));
        check("Final answer: \\(9\\)", Some("9"));
        check("I know what the answer is.", None);
        check("The answer is 7. \\boxed{8}", Some("8"));
    }

    #[test]
    fn spans() {
        check("thus $x = 5$ holds", Some("x = 5"));
        check("$1$ and \\(2\\)", Some("2"));
        check("$$3$$", Some("3"));
        check("\\[ 4 \\]", Some("4"));
        check("first $1$ then $2", Some("1"));
        check("it costs \\$5 here", None);
        check("nothing here", None);
        check("", None);
        check("  -42 ", Some("-42"));
        assert_eq!(last_math_span("for $5 and $7 more"), None);
    }
}
