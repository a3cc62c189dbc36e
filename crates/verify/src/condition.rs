//! What stands behind a formula and says for which values it holds: "where k is an integer".

use crate::latex::{after_space, command, words};

/// Bytes of an answer in which a condition is looked for.
const LONGEST: usize = 2048;

/// Words that begin a condition.
const BEGIN: [&str; 12] = [
    "where", "for", "when", "whenever", "with", "if", "provided", "given", "such", "assuming",
    "because", "since",
];

/// The formula, and the condition behind it. A text with several conditions is a function in
/// pieces, and is left whole.
pub(crate) fn split(text: &str) -> (&str, Option<&str>) {
    // Nearly every answer has none, and is looked at once.
    let may_have_one = BEGIN.iter().any(|word| text.contains(word))
        || ["\\in", "\\forall", "∀"]
            .iter()
            .any(|sign| text.contains(sign));
    if text.len() > LONGEST || !may_have_one {
        return (text, None);
    }
    let Some((formula, condition)) = cut(text) else {
        return (text, None);
    };
    let mut formula = formula.trim_end();
    loop {
        let shorter = [
            "\\quad", "\\qquad", "\\,", "\\;", "\\ ", "\\:", ",", ";", "(", "[", ":", "~",
        ]
        .iter()
        .find_map(|end| formula.strip_suffix(end));
        match shorter {
            Some(shorter) => formula = shorter.trim_end(),
            None => break,
        }
    }
    let in_pieces = cut_behind_comma(condition) || condition.contains("otherwise");
    if formula.is_empty() || in_pieces {
        return (text, None);
    }
    (formula, Some(condition))
}

/// Whether another condition follows behind a comma.
fn cut_behind_comma(condition: &str) -> bool {
    condition.split([',', ';']).skip(1).take(16).any(|part| {
        cut(part).is_some_and(|(before, _)| before.contains(|c: char| c.is_alphanumeric()))
    })
}

/// At the first words, outside of all brackets, that begin a condition.
fn cut(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut at, mut before) = (0_usize, 0, ' ');
    while let Some(c) = text.get(at..)?.chars().next() {
        let rest = &text[at..];
        // `(where k is an integer)` stands in brackets of its own.
        let outside = depth == 0 || (depth == 1 && before == '(');
        if let Some(after) = after_space(rest) {
            at += rest.len() - after.len();
            before = if before == '(' { '(' } else { ' ' };
            continue;
        }
        if let Some((content, after)) = words(rest) {
            if outside && begins(content.trim_start_matches([' ', ',', '(', '~'])) {
                return Some((&text[..at], rest));
            }
            at += rest.len() - after.len();
            before = '}';
            continue;
        }
        if let Some((name, after)) = command(rest) {
            if outside && name == "forall" {
                return Some((&text[..at], rest));
            }
            if name == "in" && depth <= 1 && is_number_set(after) {
                let start = name_before(&text[..at])?;
                return Some((&text[..start], &text[start..]));
            }
            at += 1 + name.len();
            before = '\\';
            continue;
        }
        if outside && !before.is_alphanumeric() && begins(rest) {
            return Some((&text[..at], rest));
        }
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '\\' => {
                match rest.as_bytes().get(1) {
                    Some(b'{') => depth += 1,
                    Some(b'}') => depth = depth.saturating_sub(1),
                    _ => {}
                }
                // `\{`
                at += 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                before = '\\';
                continue;
            }
            '∀' if outside => return Some((&text[..at], rest)),
            _ => {}
        }
        before = c;
        at += c.len_utf8();
    }
    None
}

fn begins(text: &str) -> bool {
    let end = text
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    BEGIN.contains(&&text[..end])
}

fn is_number_set(after: &str) -> bool {
    let after = after.trim_start();
    [
        "\\mathbb",
        "\\Bbb",
        "ℤ",
        "ℕ",
        "ℝ",
        "ℚ",
        "\\Z",
        "\\N",
        "\\mathbf{Z}",
        "\\text{integers}",
    ]
    .iter()
    .any(|set| after.starts_with(set))
}

/// Where the name starts that ends `text`, if it stands behind a comma, a bracket or a space of its
/// own rather than alone.
fn name_before(text: &str) -> Option<usize> {
    let name = text.trim_end();
    let letter = name.chars().next_back().filter(|c| c.is_alphabetic())?;
    let before = &name[..name.len() - letter.len_utf8()];
    let trimmed = before.trim_end();
    let parted = trimmed.ends_with([',', ';', '(', '~', ':'])
        || ["\\quad", "\\qquad", "\\;", "\\ ", "\\,"]
            .iter()
            .any(|space| trimmed.ends_with(space));
    parted.then_some(before.len())
}

/// The mathematics in a condition, without the words that begin it; `None` where there are only
/// words.
pub(crate) fn mathematics(condition: &str) -> Option<String> {
    let says_something = ["<", ">", "=", "\\le", "\\ge", "\\ne", "≤", "≥", "\\in", "≠"]
        .iter()
        .any(|sign| condition.contains(sign));
    if !says_something {
        return None;
    }
    let mut mathematics = condition.to_owned();
    for word in BEGIN
        .iter()
        .chain(&["\\text", "\\forall", "\\quad", "all", "any", "every"])
    {
        mathematics = mathematics.replace(word, " ");
    }
    mathematics.retain(|c| !"{}()[].,;~".contains(c));
    Some(mathematics)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn formulas_with_conditions() {
        for (text, formula) in [
            (
                "n = 3k \\text{ where } k \\text{ is a positive integer}",
                "n = 3k",
            ),
            ("2\\pi k, \\text{ where $k$ is an integer}", "2\\pi k"),
            ("2\\pi k, k \\in \\mathbb{Z}", "2\\pi k"),
            ("2\\pi k \\quad (k \\in \\mathbb{Z})", "2\\pi k"),
            ("f(x) = 2x \\text{ for all } x", "f(x) = 2x"),
            ("f(x) = 2x for all real x", "f(x) = 2x"),
            ("f(x) = 2x \\quad \\forall x \\in \\mathbb{R}", "f(x) = 2x"),
            ("3n+1 (where n is an integer)", "3n+1"),
            ("\\sqrt{x} \\text{ if } x > 0", "\\sqrt{x}"),
            (
                "x \\text{ if } x > 0, -x \\text{ if } x < 0",
                "x \\text{ if } x > 0, -x \\text{ if } x < 0",
            ),
            ("x \\in \\mathbb{R}", "x \\in \\mathbb{R}"),
            ("\\text{for all } x", "\\text{for all } x"),
            (
                "\\{x : x \\text{ for some } y\\}",
                "\\{x : x \\text{ for some } y\\}",
            ),
            ("5", "5"),
            ("", ""),
        ] {
            assert_eq!(split(text).0, formula, "{text}");
        }
    }
}
