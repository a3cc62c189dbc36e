//! An answer as text, without what LaTeX and spacing make of it.

use crate::latex::{FRACTIONS, TEXTS};

/// What a command is as text: nothing for those that only size, space or set words.
fn replaced(name: &str) -> Option<&'static str> {
    Some(match name {
        "left" | "right" | "displaystyle" | "quad" | "qquad" | "mathbf" | "big" | "Big"
        | "bigl" | "bigr" | "Bigl" | "Bigr" | "thinspace" => "",
        "le" => "\\leq",
        "ge" => "\\geq",
        "ne" => "\\neq",
        "times" => "\\cdot",
        "lbrace" => "\\{",
        "rbrace" => "\\}",
        "ldots" => "\\dots",
        name if FRACTIONS.contains(&name) => "\\frac",
        name if TEXTS.contains(&name) => "",
        _ => return None,
    })
}

/// `text` without spacing, sizing and font commands. Words of letters alone lose their case.
pub(crate) fn normalised(text: &str) -> String {
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
            match replaced(&command[1..]) {
                Some("") => {
                    // \text{a} is a; braces elsewhere group.
                    if TEXTS.contains(&&command[1..]) || command == "\\mathbf" {
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
                Some("\\frac") => {
                    out.push_str("\\frac");
                    rest = short_arguments(rest, &mut out);
                }
                Some(replacement) => out.push_str(replacement),
                None => out.push_str(command),
            }
            continue;
        }
        match next {
            '$' | '~' => {}
            // An empty group is nothing.
            '{' if after.starts_with('}') && !out.ends_with(['^', '_']) => {
                rest = &after[1..];
                continue;
            }
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
