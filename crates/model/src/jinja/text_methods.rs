//! Python's methods of `str`.

use super::calls::Given;
use super::lexer::is_space;
use super::statements::Run;
use super::value::Value;
use super::{Problem, Result, formatting, printing};

pub(super) const NAMES: [&str; 42] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

impl Run<'_> {
    pub(super) fn text_method(&self, text: &str, name: &str, given: Given) -> Result<Value> {
        // Most of them go through the text once.
        self.meter.work(text.len() / 256)?;
        let is = |test: fn(char) -> bool| Value::Bool(!text.is_empty() && text.chars().all(test));
        let wanted = |value: &Option<Value>| match value {
            Some(Value::Str(text)) => Ok(text.to_string()),
            Some(other) => Err(Problem::new(format!(
                "`{name}` wants a text, not `{}`",
                other.kind()
            ))),
            None => Err(Problem::new(format!("`{name}` wants a text"))),
        };
        let optional = |value: &Option<Value>| match value {
            None | Some(Value::None) => Ok(None),
            given => wanted(given).map(Some),
        };
        let number = |value: &Option<Value>, default: i128| match value {
            None | Some(Value::None) => Ok(default),
            Some(value) => value.as_int().ok_or_else(|| {
                let kind = value.kind();
                Problem::new(format!("`{name}` wants a whole number, not `{kind}`"))
            }),
        };
        match name {
            "upper" => self.meter.text(text.to_uppercase()),
            "lower" | "casefold" => self.meter.text(text.to_lowercase()),
            "capitalize" => self.meter.text(capitalized(text)),
            "title" => self.meter.text(titled(text)),
            "swapcase" => {
                let swapped = text.chars().map(|c| match c.is_uppercase() {
                    true => c.to_lowercase().to_string(),
                    false => c.to_uppercase().to_string(),
                });
                self.meter.text(swapped.collect::<String>())
            }
            "isalnum" => Ok(is(char::is_alphanumeric)),
            "isalpha" => Ok(is(char::is_alphabetic)),
            "isascii" => Ok(Value::Bool(text.is_ascii())),
            "isdecimal" | "isdigit" | "isnumeric" => Ok(is(char::is_numeric)),
            "isspace" => Ok(is(is_space)),
            "isprintable" => Ok(Value::Bool(text.chars().all(printing::is_printable))),
            "isidentifier" => {
                let begins = |c: char| c == '_' || c.is_alphabetic();
                let mut chars = text.chars();
                let is = chars.next().is_some_and(begins)
                    && chars.all(|c| c == '_' || c.is_alphanumeric());
                Ok(Value::Bool(is))
            }
            "islower" | "isupper" => {
                let has = |test: fn(char) -> bool| text.chars().any(test);
                Ok(Value::Bool(match name {
                    "islower" => has(char::is_lowercase) && !has(char::is_uppercase),
                    _ => has(char::is_uppercase) && !has(char::is_lowercase),
                }))
            }
            "istitle" => Ok(Value::Bool(
                text.chars().any(char::is_alphabetic) && titled(text) == *text,
            )),
            "strip" | "lstrip" | "rstrip" => {
                let [chars] = given.bind(name, ["chars"])?;
                let chars = optional(&chars)?;
                let (start, end) = (name != "rstrip", name != "lstrip");
                self.meter
                    .text(stripped(text, chars.as_deref(), start, end))
            }
            "startswith" | "endswith" => {
                let [parts, from, to] = given.bind(name, ["prefix", "start", "end"])?;
                let part = part_of(text, number(&from, 0)?, number(&to, i128::MAX)?);
                let parts = match &parts {
                    Some(Value::Tuple(items)) => items.values.clone(),
                    other => vec![self.meter.text(wanted(other)?)?],
                };
                let holds = |value: &Value| match (value.as_str(), name) {
                    (Some(affix), "startswith") => part.starts_with(affix),
                    (Some(affix), _) => part.ends_with(affix),
                    (None, _) => false,
                };
                Ok(Value::Bool(parts.iter().any(holds)))
            }
            "removeprefix" | "removesuffix" => {
                let [affix] = given.bind(name, ["affix"])?;
                let affix = wanted(&affix)?;
                let cut = match name {
                    "removeprefix" => text.strip_prefix(&*affix),
                    _ => text.strip_suffix(&*affix),
                };
                self.meter.text(cut.unwrap_or(text))
            }
            "find" | "rfind" | "index" | "rindex" | "count" => {
                let [part, from, to] = given.bind(name, ["sub", "start", "end"])?;
                let part = wanted(&part)?;
                let (from, to) = (number(&from, 0)?, number(&to, i128::MAX)?);
                let searched = part_of(text, from, to);
                if name == "count" {
                    let n = match part.is_empty() {
                        true => searched.chars().count() + 1,
                        false => searched.matches(&*part).count(),
                    };
                    return Ok(Value::Int(n as i128));
                }
                let found = match name {
                    "find" | "index" => searched.find(&*part),
                    _ => searched.rfind(&*part),
                };
                let before = searched.as_ptr() as usize - text.as_ptr() as usize;
                match found {
                    Some(at) => Ok(Value::Int(text[..before + at].chars().count() as i128)),
                    None if name.ends_with("find") => Ok(Value::Int(-1)),
                    None => Err(Problem::new("the text to look for is not there")),
                }
            }
            "replace" => {
                let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
                self.replaced(text, &wanted(&old)?, &wanted(&new)?, number(&count, -1)?)
            }
            "split" | "rsplit" => {
                let [separator, most] = given.bind(name, ["sep", "maxsplit"])?;
                let most = usize::try_from(number(&most, -1)?).unwrap_or(usize::MAX);
                let separator = optional(&separator)?;
                self.texts(split(text, separator.as_deref(), most, name == "rsplit")?)
            }
            "splitlines" => {
                let [keep] = given.bind(name, ["keepends"])?;
                self.texts(lines(text, keep.is_some_and(|keep| keep.is_true())))
            }
            "partition" | "rpartition" => {
                let [separator] = given.bind(name, ["sep"])?;
                let separator = wanted(&separator)?;
                let found = match name {
                    _ if separator.is_empty() => {
                        return Err(Problem::new("an empty text separates nothing"));
                    }
                    "partition" => text.split_once(&*separator),
                    _ => text.rsplit_once(&*separator),
                };
                let parts = match (found, name) {
                    (Some((before, after)), _) => [before, &separator, after],
                    (None, "partition") => [text, "", ""],
                    (None, _) => ["", "", text],
                };
                let parts = parts.into_iter().map(|part| self.meter.text(part));
                self.meter.tuple(parts.collect::<Result<_>>()?)
            }
            "join" => {
                let [items] = given.bind(name, ["iterable"])?;
                self.joined_texts(text, &items.unwrap_or(Value::None))
            }
            "center" | "ljust" | "rjust" | "zfill" => {
                let [width, fill] = given.bind(name, ["width", "fillchar"])?;
                let width = usize::try_from(number(&width, 0)?.max(0)).unwrap_or(usize::MAX);
                let fill = optional(&fill)?.and_then(|fill| fill.chars().next());
                match name {
                    "zfill" => {
                        let signed = text.strip_prefix(['-', '+']);
                        let sign = &text[..usize::from(signed.is_some())];
                        let mut out = self.meter.buffer();
                        out.push(sign)?;
                        out.fill('0', width.saturating_sub(text.chars().count()))?;
                        out.push(signed.unwrap_or(text))?;
                        out.into_value()
                    }
                    "ljust" => self.padded(text, width, fill.unwrap_or(' '), '<'),
                    "rjust" => self.padded(text, width, fill.unwrap_or(' '), '>'),
                    _ => self.padded(text, width, fill.unwrap_or(' '), '^'),
                }
            }
            "format" => formatting::braces(self, text, &given),
            other => Err(Problem::new(format!("`str` has no method `{other}`"))),
        }
    }

    fn texts<'s>(&self, parts: impl IntoIterator<Item = &'s str>) -> Result<Value> {
        let parts = parts.into_iter().map(|part| {
            self.meter.work(1)?;
            self.meter.text(part)
        });
        self.meter.list(parts.collect::<Result<_>>()?)
    }

    /// The first `count` places of `old` as `new`; all where `count` is negative.
    pub(super) fn replaced(&self, text: &str, old: &str, new: &str, count: i128) -> Result<Value> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut out = self.meter.buffer();
        let mut from = 0;
        for (at, part) in text.match_indices(old).take(count) {
            out.push(&text[from..at])?;
            out.push(new)?;
            from = at + part.len();
        }
        out.push(&text[from..])?;
        out.into_value()
    }

    /// The text in a field of `width` characters.
    pub(super) fn padded(
        &self,
        text: &str,
        width: usize,
        fill: char,
        align: char,
    ) -> Result<Value> {
        let missing = width.saturating_sub(text.chars().count());
        let before = match align {
            '<' => 0,
            '>' => missing,
            // Python puts an odd one before the text only where the width is odd.
            _ => missing / 2 + (missing & width & 1),
        };
        let mut out = self.meter.buffer();
        out.fill(fill, before)?;
        out.push(text)?;
        out.fill(fill, missing - before)?;
        out.into_value()
    }
}

pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + &chars.as_str().to_lowercase()
}

/// Python's `str.title`: letters behind anything that is no letter are capitals.
fn titled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphabetic();
    }
    out
}

pub(super) fn stripped<'s>(text: &'s str, chars: Option<&str>, start: bool, end: bool) -> &'s str {
    let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if start {
        text.trim_start_matches(goes)
    } else {
        text
    };
    if end {
        text.trim_end_matches(goes)
    } else {
        text
    }
}

/// `text[from:to]` in characters.
fn part_of(text: &str, from: i128, to: i128) -> &str {
    if from == 0 && to == i128::MAX {
        return text;
    }
    let n = text.chars().count() as i128;
    let place = |at: i128| {
        let at = if at < 0 { at + n } else { at }.clamp(0, n) as usize;
        let mut places = text.char_indices().map(|(place, _)| place);
        places.nth(at).unwrap_or(text.len())
    };
    let (from, to) = (place(from), place(to));
    &text[from..to.max(from)]
}

fn split<'s>(
    text: &'s str,
    separator: Option<&str>,
    most: usize,
    from_end: bool,
) -> Result<Vec<&'s str>> {
    if separator == Some("") {
        return Err(Problem::new("an empty text separates nothing"));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    let trimmed = |text: &'s str| match (separator, from_end) {
        (Some(_), _) => text,
        (None, false) => text.trim_start_matches(is_space),
        (None, true) => text.trim_end_matches(is_space),
    };
    rest = trimmed(rest);
    while parts.len() < most {
        let cut = match (separator, from_end) {
            (Some(separator), false) => rest.split_once(separator),
            (Some(separator), true) => rest.rsplit_once(separator).map(|(a, b)| (b, a)),
            (None, false) => rest.split_once(is_space),
            (None, true) => rest.rsplit_once(is_space).map(|(a, b)| (b, a)),
        };
        let Some((part, after)) = cut else { break };
        parts.push(part);
        rest = trimmed(after);
    }
    // White space around words makes no empty ones.
    if separator.is_some() || !rest.is_empty() {
        parts.push(rest);
    }
    if from_end {
        parts.reverse();
    }
    Ok(parts)
}

/// Python's lines, which also end at some rare separators.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r'
                | '\u{b}'
                | '\u{c}'
                | '\u{1c}'
                | '\u{1d}'
                | '\u{1e}'
                | '\u{85}'
                | '\u{2028}'
                | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        let length = match &rest[at..] {
            end if end.starts_with("\r\n") => 2,
            end => end.chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep { at + length } else { at }]);
        rest = &rest[at + length..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}
