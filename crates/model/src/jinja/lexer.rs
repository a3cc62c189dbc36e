//! A template's text as tokens: Jinja2's rules with `trim_blocks` and `lstrip_blocks`.

use super::{Problem, Result};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Text between tags, white space already cut.
    Data(String),
    PrintBegin,
    PrintEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

/// Longer ones first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[",
    "]", "{", "}", ",", ":", ".", "|", ";",
];

/// Tokens with their lines, from 1.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer {
        rest: source,
        line: 1,
        line_starting: true,
        found: Vec::new(),
    };
    lexer.template()?;
    let line = lexer.line;
    lexer.found.push((Token::End, line));
    Ok(lexer.found)
}

struct Lexer<'s> {
    rest: &'s str,
    line: u32,
    /// Whether `rest` begins a line.
    line_starting: bool,
    found: Vec<(Token, u32)>,
}

impl<'s> Lexer<'s> {
    fn template(&mut self) -> Result<()> {
        while !self.rest.is_empty() {
            let Some(at) = self.next_tag() else {
                let rest = self.take(self.rest.len());
                self.data(rest);
                break;
            };
            let (data, tag) = (&self.rest[..at], &self.rest[at..]);
            let sign = tag[2..].chars().next();
            let data = self.cut(data, sign, !tag.starts_with("{{"));
            let skipped = self.take(at).len();
            debug_assert_eq!(skipped, at);
            self.data(data);
            self.take(2);
            let signed = matches!(sign, Some('-' | '+'));
            if tag.starts_with("{#") {
                self.comment()?;
                continue;
            }
            if tag.starts_with("{{") {
                // `{{+` is `{{` before a sign that belongs to the expression.
                if sign == Some('-') {
                    self.take(1);
                }
                self.push(Token::PrintBegin);
                self.expression("}}")?;
                self.push(Token::PrintEnd);
                self.after_tag("}}");
                continue;
            }
            if signed {
                self.take(1);
            }
            if let Some(length) = raw_tag(self.rest, "raw") {
                self.take(length);
                self.raw()?;
                continue;
            }
            self.push(Token::BlockBegin);
            self.expression("%}")?;
            self.push(Token::BlockEnd);
            self.after_tag("%}");
        }
        Ok(())
    }

    fn next_tag(&self) -> Option<usize> {
        let mut from = 0;
        while let Some(at) = self.rest[from..].find('{').map(|at| from + at) {
            if matches!(self.rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')) {
                return Some(at);
            }
            from = at + 1;
        }
        None
    }

    /// Data before a tag: `-` cuts its white space; before a block or comment that begins its line, that goes too.
    fn cut(&self, data: &'s str, sign: Option<char>, strips: bool) -> &'s str {
        if sign == Some('-') {
            return data.trim_end_matches(is_space);
        }
        if strips && sign != Some('+') {
            let start = data.rfind('\n').map_or(0, |at| at + 1);
            let begins = start > 0 || self.line_starting;
            if begins && data[start..].chars().all(is_space) {
                return &data[..start];
            }
        }
        data
    }

    fn comment(&mut self) -> Result<()> {
        let Some(end) = self.rest.find("#}") else {
            return Err(self.problem("a comment `{#` is not closed"));
        };
        let sign = self.rest[..end].chars().next_back();
        self.take(end + 2);
        self.trim(sign);
        Ok(())
    }

    /// Text up to `{% endraw %}`, tags in it included.
    fn raw(&mut self) -> Result<()> {
        let mut from = 0;
        while let Some(at) = self.rest[from..].find("{%").map(|at| from + at) {
            let inside = &self.rest[at + 2..];
            let sign = inside.chars().next();
            let signed = usize::from(matches!(sign, Some('-' | '+')));
            let Some(length) = raw_tag(&inside[signed..], "endraw") else {
                from = at + 2;
                continue;
            };
            let data = self.cut(&self.rest[..at], sign, true);
            let closing = inside[signed..][..length].chars().rev().nth(2);
            self.take(at);
            self.data(data);
            self.take(2 + signed + length);
            self.trim(closing);
            return Ok(());
        }
        Err(self.problem("`{% raw %}` is not closed"))
    }

    fn after_tag(&mut self, end: &str) {
        let sign = self.rest.chars().next();
        let signed = matches!(sign, Some('-' | '+')) && self.rest[1..].starts_with(end);
        self.take(end.len() + usize::from(signed));
        match end {
            "%}" => self.trim(sign),
            _ if sign == Some('-') => self.trim(sign),
            _ => self.line_starting = false,
        }
    }

    /// White space behind a tag: all of it after `-`, else the first newline, which `+` keeps.
    fn trim(&mut self, sign: Option<char>) {
        let n = match sign {
            Some('-') => self.rest.len() - self.rest.trim_start_matches(is_space).len(),
            Some('+') => 0,
            _ => usize::from(self.rest.starts_with('\n')),
        };
        let cut = self.take(n);
        self.line_starting = cut.ends_with('\n');
    }

    /// Tokens up to `end`, which stays.
    fn expression(&mut self, end: &str) -> Result<()> {
        let mut open = Vec::new();
        loop {
            let blank = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            self.take(blank);
            if open.is_empty() {
                let unsigned = self.rest.strip_prefix(['-', '+']);
                if self.rest.starts_with(end)
                    || unsigned.is_some_and(|rest| {
                        rest.starts_with(end) && !(end == "}}" && self.rest.starts_with('+'))
                    })
                {
                    return Ok(());
                }
            }
            let Some(c) = self.rest.chars().next() else {
                return Err(self.problem("a tag is not closed"));
            };
            match c {
                '\'' | '"' => self.string(c)?,
                c if c.is_ascii_digit() => self.number()?,
                c if c == '_' || c.is_alphabetic() => {
                    let is_part = |c: char| c == '_' || c.is_alphanumeric();
                    let n = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
                    let name = Token::Name(self.rest[..n].into());
                    self.push(name);
                    self.take(n);
                }
                _ => {
                    let operator = OPERATORS.iter().find(|op| self.rest.starts_with(**op));
                    let Some(operator) = operator else {
                        return Err(self.problem(&format!("`{c}` is not expected here")));
                    };
                    match *operator {
                        "(" => open.push(")"),
                        "[" => open.push("]"),
                        "{" => open.push("}"),
                        ")" | "]" | "}" if open.pop() != Some(operator) => {
                            return Err(self.problem(&format!("`{operator}` closes nothing")));
                        }
                        _ => {}
                    }
                    self.push(Token::Op(operator));
                    self.take(operator.len());
                }
            }
        }
    }

    fn number(&mut self) -> Result<()> {
        let bytes = self.rest.as_bytes();
        let digits = |from: usize| {
            let part = bytes[from.min(bytes.len())..].iter();
            from + part
                .take_while(|b| b.is_ascii_digit() || **b == b'_')
                .count()
        };
        let radix = match bytes.get(1).map(u8::to_ascii_lowercase) {
            Some(b'x') if bytes[0] == b'0' => 16,
            Some(b'o') if bytes[0] == b'0' => 8,
            Some(b'b') if bytes[0] == b'0' => 2,
            _ => 10,
        };
        if radix != 10 {
            let n = self.rest[2..]
                .find(|c: char| !(c.is_digit(radix) || c == '_'))
                .unwrap_or(self.rest.len() - 2);
            let text = self.rest[2..2 + n].replace('_', "");
            let Ok(value) = i128::from_str_radix(&text, radix) else {
                return Err(self.problem("is no number"));
            };
            self.push(Token::Int(value));
            self.take(2 + n);
            return Ok(());
        }
        let mut end = digits(0);
        let mut float = false;
        // `messages.0.role` counts into a list.
        let indexes = matches!(self.found.last(), Some((Token::Op("."), _)));
        if !indexes {
            if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
                (end, float) = (digits(end + 1), true);
            }
            if matches!(bytes.get(end), Some(b'e' | b'E')) {
                let signed = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                let power = digits(end + 1 + signed);
                if power > end + 1 + signed {
                    (end, float) = (power, true);
                }
            }
        }
        let text = self.rest[..end].replace('_', "");
        let token = if float {
            text.parse().ok().map(Token::Float)
        } else {
            text.parse().ok().map(Token::Int)
        };
        let Some(token) = token else {
            return Err(self.problem(&format!("`{text}` is too large a number")));
        };
        self.push(token);
        self.take(end);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<()> {
        let mut text = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.push(Token::Str(text));
                self.take(at + 2);
                return Ok(());
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some((_, escape)) = chars.next() else {
                break;
            };
            let mut digits = |n: usize, radix: u32, first: Option<char>| {
                let mut value = first.and_then(|c| c.to_digit(radix)).unwrap_or(0);
                let wanted = n - usize::from(first.is_some());
                for i in 0..wanted {
                    let next = chars.clone().next().and_then(|(_, c)| c.to_digit(radix));
                    match next {
                        Some(digit) => value = value * radix + digit,
                        None if radix == 8 => break,
                        None => return Err(i),
                    }
                    chars.next();
                }
                Ok(value)
            };
            let code = match escape {
                'n' => Ok(u32::from('\n')),
                't' => Ok(u32::from('\t')),
                'r' => Ok(u32::from('\r')),
                'a' => Ok(7),
                'b' => Ok(8),
                'f' => Ok(12),
                'v' => Ok(11),
                '\\' | '\'' | '"' => Ok(u32::from(escape)),
                '\n' => continue,
                'x' => digits(2, 16, None),
                'u' => digits(4, 16, None),
                'U' => digits(8, 16, None),
                '0'..='7' => digits(3, 8, Some(escape)),
                other => {
                    text.push('\\');
                    text.push(other);
                    continue;
                }
            };
            match code.ok().and_then(char::from_u32) {
                Some(c) => text.push(c),
                None => {
                    let problem = format!("the escape `\\{escape}` in a text names no character");
                    return Err(self.problem(&problem));
                }
            }
        }
        Err(self.problem("a text is not closed"))
    }

    fn data(&mut self, data: &str) {
        if !data.is_empty() {
            self.push(Token::Data(data.into()));
        }
    }

    fn push(&mut self, token: Token) {
        self.found.push((token, self.line));
    }

    fn take(&mut self, n: usize) -> &'s str {
        let (taken, rest) = self.rest.split_at(n);
        self.line += taken.matches('\n').count() as u32;
        self.rest = rest;
        taken
    }

    fn problem(&self, message: &str) -> Problem {
        Problem::new(message.to_owned()).at(self.line)
    }
}

/// Length of the rest of a `{% raw %}` tag, the white space that `-%}` cuts included.
fn raw_tag(rest: &str, name: &str) -> Option<usize> {
    let inside = rest.trim_start_matches(is_space).strip_prefix(name)?;
    let inside = inside.trim_start_matches(is_space);
    let inside = match inside.strip_prefix("-%}") {
        Some(after) if name == "raw" => after.trim_start_matches(is_space),
        Some(after) => after,
        None => match inside.strip_prefix("+%}") {
            Some(after) if name == "endraw" => after,
            _ => inside.strip_prefix("%}")?,
        },
    };
    Some(rest.len() - inside.len())
}

/// Python's white space, which has four separators more than Unicode's.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
