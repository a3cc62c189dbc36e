//! Takes what surrounds an answer without changing it off: `$…$`, `\boxed{…}`, `\text{…}`, `**`.

use crate::latex::{BOXES, TEXTS, braced_group, command};

/// Layers taken off at most; deeper nesting is left as text, which keeps this linear.
const LAYERS: usize = 16;

/// The answer inside `text`.
pub(crate) fn unwrapped(text: &str) -> &str {
    let mut inner = text;
    for _ in 0..LAYERS {
        let layer = inner.len();
        inner = inner.trim().trim_matches(['*', '`']).trim();
        if !inner.ends_with("..") {
            inner = inner.strip_suffix('.').unwrap_or(inner).trim_end();
        }
        inner = inner
            .strip_prefix("\\displaystyle")
            .unwrap_or(inner)
            .trim_start();
        inner = without_delimiters(inner);
        inner = without_quotes(inner);
        inner = without_command(inner);
        if inner.len() == layer {
            break;
        }
    }
    inner
}

fn without_delimiters(text: &str) -> &str {
    for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
        if let Some(inner) = text
            .strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
        {
            // Two spans next to each other are not one, and `\$` is a sign of currency.
            if !inner.ends_with('\\') && !inner.contains(close) {
                return inner;
            }
        }
    }
    text
}

/// Quotation marks around the whole; a prime behind a name stays.
fn without_quotes(text: &str) -> &str {
    const QUOTES: [(&str, &str); 6] = [
        ("\"", "\""),
        ("'", "'"),
        ("``", "''"),
        ("`", "'"),
        ("“", "”"),
        ("‘", "’"),
    ];
    QUOTES
        .iter()
        .find_map(|(open, close)| text.strip_prefix(open)?.strip_suffix(close))
        .map_or(text, str::trim)
}

fn without_command(text: &str) -> &str {
    let holds_answer = |name: &str| TEXTS.contains(&name) || name == "mathbf";
    let boxed = BOXES.iter().find_map(|name| text.strip_prefix(name));
    let named = command(text).filter(|(name, _)| holds_answer(name));
    let argument = boxed
        .or(named.map(|(_, rest)| rest))
        .map(str::trim_start)
        .filter(|rest| rest.starts_with('{'));
    match braced_group(argument.unwrap_or(text)) {
        Some((content, "")) => content,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::unwrapped;

    #[test]
    fn layers() {
        for (text, expected) in [
            ("33", "33"),
            (" **33.** ", "33"),
            ("$33$", "33"),
            ("$$\\boxed{33}$$.", "33"),
            ("\\(\\text{east}\\)", "east"),
            ("{ {5} }", "5"),
            ("\\text{a} and \\text{b}", "\\text{a} and \\text{b}"),
            ("$1$ and $2$", "$1$ and $2$"),
            ("5\\$", "5\\$"),
            ("...", "..."),
            ("\\displaystyle \\frac12", "\\frac12"),
            ("$", "$"),
            ("$$", ""),
            ("{", "{"),
            ("'42'", "42"),
            ("“42”", "42"),
            ("f'", "f'"),
        ] {
            assert_eq!(unwrapped(text), expected, "{text:?}");
        }
    }
}
