//! Boxed answers.

use std::borrow::Cow;

/// Bytes before a box in which another one is looked for.
const BOX_WINDOW: usize = 4096;

/// Bytes between two boxes that belong to one answer.
const BETWEEN_BOXES: usize = 48;

/// Words that say which part of the problem a box answers.
const PARTS: [&str; 15] = [
    "for", "in", "part", "parts", "case", "the", "first", "second", "third", "a", "b", "c", "d",
    "i", "ii",
];

/// The last box, and those that it is one answer with: `\boxed{2} and \boxed{3}` is `2, 3`.
/// Of boxes with other words between them the last counts: the earlier one was taken back. With the
/// answer comes the place where its last box ends.
pub(super) fn joined(text: &str) -> Option<(Cow<'_, str>, usize)> {
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
    let end = offset(last) + last.len();
    if boxes.len() == 1 {
        return Some((Cow::Borrowed(last), end));
    }
    boxes.reverse();
    Some((Cow::Owned(boxes.join(", ")), end))
}

/// Whether only commas, `and`, `or`, names of parts and signs of mathematics stand there, at least one of them.
fn is_separator(text: &str) -> bool {
    let words = text
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| !word.is_empty());
    let mut joins = text.contains([',', ';']);
    for word in words {
        match word {
            "and" | "or" => joins = true,
            "text" | "quad" | "qquad" => {}
            word if PARTS.contains(&word) => {}
            _ => return false,
        }
    }
    joins
        && text.chars().all(|c| {
            c.is_ascii_alphabetic()
                || c.is_whitespace()
                || ",;$\\{}()*:".contains(c)
                || c.is_ascii_digit()
        })
}

/// The content of the last closed, non-empty `\boxed{…}` or `\fbox{…}`; of nested ones the
/// innermost. An escaped brace is no brace. `\boxed 7` ends at the next `$`, space or backslash.
fn last_box(text: &str) -> Option<&str> {
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
