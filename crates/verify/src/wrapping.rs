//! Takes what surrounds an answer without changing it off: `$…$`, `\boxed{…}`, `\text{…}`, `**`.

/// Layers taken off at most; deeper nesting is left as text, which keeps this linear.
const LAYERS: usize = 16;

/// Commands whose braces hold the answer itself.
const COMMANDS: [&str; 11] = [
    "\\boxed",
    "\\fbox",
    "\\text",
    "\\textbf",
    "\\textrm",
    "\\textit",
    "\\mathrm",
    "\\mathbf",
    "\\mbox",
    "\\mathit",
    "\\operatorname",
];

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

fn without_command(text: &str) -> &str {
    let command = COMMANDS.into_iter().find_map(|command| {
        let rest = text.strip_prefix(command)?.trim_start();
        rest.starts_with('{').then_some(rest)
    });
    let braced = command.unwrap_or(text);
    match braced_group(braced) {
        Some((content, "")) => content,
        _ => text,
    }
}

/// The content of the `{…}` that `text` starts with, and what follows it.
pub(crate) fn braced_group(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let mut depth = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[1..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{braced_group, unwrapped};

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
        ] {
            assert_eq!(unwrapped(text), expected, "{text:?}");
        }
    }

    #[test]
    fn groups() {
        assert_eq!(braced_group("{a{b}}c"), Some(("a{b}", "c")));
        assert_eq!(braced_group("{a\\}b}c"), Some(("a\\}b", "c")));
        assert_eq!(braced_group("{a"), None);
        assert_eq!(braced_group("a"), None);
    }
}
