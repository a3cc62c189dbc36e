//! Cuts an answer into tokens: LaTeX and plain mathematics, in ASCII and Unicode.

use crate::expr::Function;
use crate::latex::{
    FONTS, NOTHING, SIGNS, TEXTS, braced_group, digit_run, groups_behind_point, groups_of_three,
    is_greek,
};

/// One token, and where it starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token<'a> {
    pub kind: Kind<'a>,
    /// Byte position in the answer.
    pub at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind<'a> {
    /// Digits, with separators of thousands and a point.
    Number(&'a str),
    /// A variable or a Greek letter.
    Name(&'a str),
    /// A command, or a word of plain mathematics, by its name without backslash: `frac`, `sin`.
    Command(&'a str),
    /// What `\text{…}` and its like hold.
    Text(&'a str),
    Begin(&'a str),
    End(&'a str),
    /// An operator or bracket. `\{` and `\}` are `⦃` and `⦄`, the new row of a matrix is `⏎`.
    Sign(char),
}

/// Why an answer cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Byte position in the answer.
    pub at: usize,
    pub what: &'static str,
}

/// Words of plain mathematics.
pub const WORDS: [&str; 40] = [
    "arcsin", "arccos", "arctan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "sin", "cos",
    "tan", "cot", "sec", "csc", "sqrt", "cbrt", "log", "exp", "ln", "lg", "pi", "infinity",
    "infty", "inf", "oo", "and", "or", "alpha", "beta", "gamma", "theta", "lambda", "omega", "phi",
    "mu", "sigma", "binom", "frac", "abs",
];

/// Tokens that an answer may have.
const MOST_TOKENS: usize = 4096;

pub fn lex(text: &str) -> Result<Vec<Token<'_>>, Unreadable> {
    let mut lexer = Lexer {
        text,
        at: 0,
        spaced: false,
        depth: 0,
        tokens: Vec::new(),
    };
    while lexer.next()? {
        if lexer.tokens.len() > MOST_TOKENS {
            return Err(lexer.error("more than 4096 tokens"));
        }
    }
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Whether white space stands before what comes.
    spaced: bool,
    /// Open brackets: within them a comma separates.
    depth: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn error(&self, what: &'static str) -> Unreadable {
        Unreadable { at: self.at, what }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, kind: Kind<'a>, length: usize) {
        match kind {
            Kind::Sign('(' | '[' | '⦃' | '⟨') => self.depth += 1,
            Kind::Sign(')' | ']' | '⦄' | '⟩') => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        let at = self.at;
        self.tokens.push(Token { kind, at });
        self.at += length;
        self.spaced = false;
    }

    fn skip(&mut self, length: usize) {
        self.at += length;
        self.spaced = true;
    }

    /// Takes one token or a stretch of nothing; false at the end.
    fn next(&mut self) -> Result<bool, Unreadable> {
        let rest = self.rest();
        let Some(c) = rest.chars().next() else {
            return Ok(false);
        };
        let length = c.len_utf8();
        match c {
            _ if c.is_whitespace() => self.skip(length),
            '~' | '$' | '\u{200b}' | '\u{feff}' => self.skip(length),
            '0'..='9' => self.number(),
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            '\\' => self.command()?,
            'a'..='z' | 'A'..='Z' => self.letters(),
            '*' if rest.starts_with("**") => self.push(Kind::Sign('^'), 2),
            '<' if rest.starts_with("<=") => self.push(Kind::Sign('≤'), 2),
            '>' if rest.starts_with(">=") => self.push(Kind::Sign('≥'), 2),
            '!' if rest.starts_with("!=") && self.spaced => self.push(Kind::Sign('≠'), 2),
            '{' if self.is_empty_group() => self.skip(1 + rest[1..].find('}').unwrap_or(0) + 1),
            '^' => self.caret(),
            '−' | '–' | '‐' => self.push(Kind::Sign('-'), length),
            '·' | '×' | '⋅' | '∗' => self.push(Kind::Sign('*'), length),
            '∶' => self.push(Kind::Sign(':'), length),
            '÷' | '∕' => self.push(Kind::Sign('/'), length),
            '√' => self.push(Kind::Command("sqrt"), length),
            '²' | '³' => {
                self.push(Kind::Sign('^'), 0);
                self.push(Kind::Number(if c == '²' { "2" } else { "3" }), length);
            }
            '½' | '⅓' | '⅔' | '¼' | '¾' => self.vulgar_fraction(c),
            'α'..='ω' | 'Α'..='Ω' if c != 'π' => {
                self.push(Kind::Name(&rest[..length]), length)
            }
            '€' | '£' | '¥' => self.skip(length),
            '\'' => self.push(Kind::Sign('′'), length),
            '"' | '`' => return Err(self.error("a quotation mark")),
            _ => self.push(Kind::Sign(c), length),
        }
        Ok(true)
    }

    /// `{}`, which LaTeX sets as nothing; but not where a command takes it for its argument.
    fn is_empty_group(&self) -> bool {
        let is_argument = match self.tokens.last().map(|token| token.kind) {
            Some(Kind::Sign('^' | '_')) => true,
            Some(Kind::Command(name)) => Function::named(name).is_none(),
            _ => false,
        };
        let inner = self.rest().get(1..).unwrap_or_default();
        !is_argument && inner.trim_start().starts_with('}')
    }

    fn vulgar_fraction(&mut self, c: char) {
        let (numerator, denominator) = match c {
            '½' => ("1", "2"),
            '⅓' => ("1", "3"),
            '⅔' => ("2", "3"),
            '¼' => ("1", "4"),
            _ => ("3", "4"),
        };
        self.push(Kind::Command("frac"), 0);
        self.push(Kind::Number(numerator), 0);
        self.push(Kind::Number(denominator), c.len_utf8());
    }

    /// `^`, or the sign of degrees that is set with it.
    fn caret(&mut self) {
        let degrees = [
            "^\\circ",
            "^{\\circ}",
            "^ \\circ",
            "^{ \\circ}",
            "^\\degree",
            "^{\\degree}",
            "^°",
            "^{°}",
            "^o",
        ];
        match degrees
            .into_iter()
            .find(|degrees| self.rest().starts_with(degrees))
        {
            Some("^o") | None => self.push(Kind::Sign('^'), 1),
            Some(degrees) => self.push(Kind::Sign('°'), degrees.len()),
        }
    }

    /// Digits, groups of thousands, a point and its digits, and an exponent as in `1e-3`.
    fn number(&mut self) {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let digits = |from: usize| rest.get(from..).map_or(0, digit_run);
        let mut end = digits(0);
        if (1..=3).contains(&end) && bytes.first() != Some(&b'0') {
            end += groups_of_three(&rest[end..], self.depth > 0);
        }
        if bytes.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            let repeating =
                rest[end + 1..].starts_with("\\overline") || rest[end + 1..].starts_with("\\bar");
            // A full stop behind a number is no point.
            if fraction > 0 || repeating {
                end += 1 + fraction;
                end += groups_behind_point(&rest[end..], fraction);
            }
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
            let exponent = digits(end + 1 + sign);
            end += if exponent > 0 { 1 + sign + exponent } else { 0 };
        }
        self.push(Kind::Number(&rest[..end]), end);
        // A comma or full stop that ends the sentence.
        if self.rest().trim() == "." {
            self.at = self.text.len();
        }
    }

    /// A run of letters: a word of mathematics, or a product of variables.
    fn letters(&mut self) {
        let rest = self.rest();
        let run = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if &rest[..run] == "to" && self.spaced && !self.tokens.is_empty() {
            return self.push(Kind::Sign(':'), run);
        }
        if let Some(length) = self.label() {
            return self.push(Kind::Text(rest[..length].trim_end()), length);
        }
        let lower = |word: &&&str| rest[..run].eq_ignore_ascii_case(word);
        if let Some(word) = WORDS.iter().find(lower) {
            return self.word(word, run);
        }
        // `sinx`, `sqrt` before a digit; but not the `or` of `origin`.
        let function = |word: &&&str| {
            word.len() >= 3
                && run <= word.len() + 1
                && rest.starts_with(**word)
                && !SIGNS.iter().any(|(name, _)| name == *word)
        };
        match WORDS.iter().find(function) {
            Some(word) => self.word(word, word.len()),
            None => self.push(Kind::Name(&rest[..1]), 1),
        }
    }

    /// How long the words are that name what follows: those of `Total area = 12`. They stand at
    /// the start or behind a comma, and one of them has four letters at least.
    fn label(&self) -> Option<usize> {
        let last = self.tokens.last().map(|token| token.kind);
        let first = matches!(last, None | Some(Kind::Sign(',' | ';')));
        let rest = self.rest();
        if !first || self.depth > 0 || rest.as_bytes().get(3)?.is_ascii_punctuation() {
            return None;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphabetic() && c != ' ')?;
        let words = rest[..end].split(' ').filter(|word| !word.is_empty());
        let is_label = rest[end..].starts_with(['=', ':', '≈'])
            && words.clone().any(|word| word.len() >= 4)
            && words.clone().all(|word| !WORDS.contains(&word));
        is_label.then_some(end)
    }

    fn word(&mut self, word: &'static str, length: usize) {
        match SIGNS.iter().find(|(name, _)| *name == word) {
            Some((_, sign)) => self.push(Kind::Sign(*sign), length),
            None => match is_greek(word) {
                true => self.push(Kind::Name(word), length),
                false => self.push(Kind::Command(word), length),
            },
        }
    }

    fn command(&mut self) -> Result<(), Unreadable> {
        let rest = self.rest();
        let name = rest[1..]
            .bytes()
            .take_while(u8::is_ascii_alphabetic)
            .count();
        if name == 0 {
            match rest[1..].chars().next() {
                None => return Err(self.error("a backslash and nothing behind it")),
                Some('{') => self.push(Kind::Sign('⦃'), 2),
                Some('}') => self.push(Kind::Sign('⦄'), 2),
                Some('%') => self.push(Kind::Sign('%'), 2),
                Some('|') => self.push(Kind::Sign('|'), 2),
                Some('\\') => self.push(Kind::Sign('⏎'), 2),
                Some(c @ (',' | '!' | ';' | ':' | '>' | '(' | ')' | '[' | ']' | '$')) => {
                    self.skip(1 + c.len_utf8())
                }
                Some(c) if c.is_whitespace() => self.skip(1 + c.len_utf8()),
                Some(_) => return Err(self.error("a command that is not known")),
            }
            return Ok(());
        }
        let (command, length) = (&rest[1..=name], 1 + name);
        if NOTHING.contains(&command) {
            self.skip(length);
            // `\left.` has no bracket.
            if ["left", "right"].contains(&command) && self.rest().starts_with('.') {
                self.skip(1);
            }
        } else if TEXTS.contains(&command) {
            self.text(command, length)?;
        } else if FONTS.contains(&command) {
            self.skip(length);
        } else if let Some((_, sign)) = SIGNS.iter().find(|(name, _)| *name == command) {
            self.push(Kind::Sign(*sign), length);
        } else if let ("begin" | "end", Some((name, after))) =
            (command, braced_group(rest[length..].trim_start()))
        {
            let length = rest.len() - after.len();
            let kind = if command == "begin" {
                Kind::Begin(name)
            } else {
                Kind::End(name)
            };
            self.push(kind, length);
        } else if let ("mathbb", Some((name, after))) = (command, braced_group(&rest[length..])) {
            let kind = if name == "R" {
                Kind::Sign('ℝ')
            } else {
                Kind::Text(name)
            };
            self.push(kind, rest.len() - after.len());
        } else if is_greek(command) {
            self.push(Kind::Name(command), length);
        } else {
            self.push(Kind::Command(command), length);
        }
        Ok(())
    }

    /// `\text{…}`: words, or a name that is only set upright.
    fn text(&mut self, command: &str, length: usize) -> Result<(), Unreadable> {
        let rest = self.rest();
        let Some((content, after)) = braced_group(rest[length..].trim_start()) else {
            if command.starts_with("text") || command == "mbox" {
                return Err(self.error("text without braces"));
            }
            self.skip(length);
            return Ok(());
        };
        let (word, length) = (content.trim(), rest.len() - after.len());
        let known = WORDS.iter().find(|known| **known == word);
        match known {
            Some(known) => self.word(known, length),
            None if command == "mathrm"
                && word.len() == 1
                && word.as_bytes()[0].is_ascii_alphabetic() =>
            {
                self.push(Kind::Name(word), length);
            }
            None if word.is_empty() => self.skip(length),
            None if word == "to" => self.push(Kind::Sign(':'), length),
            None if !self.number_in_words(content, length) => {
                self.push(Kind::Text(word), length);
            }
            None => {}
        }
        Ok(())
    }

    /// `\text{6}`, `\textbf{-3.5}`, `\text{6 cm}`: the number, and the words behind it as text.
    /// False where the words are no such thing, and nothing is taken.
    fn number_in_words(&mut self, content: &'a str, length: usize) -> bool {
        let unsigned = content
            .trim_start()
            .trim_start_matches(['-', '−', '+', '$']);
        if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return false;
        }
        let mut inner = Lexer {
            text: content,
            at: content.len() - unsigned.len(),
            spaced: false,
            depth: 1,
            tokens: Vec::new(),
        };
        if unsigned.starts_with('.') && digit_run(&unsigned[1..]) == 0 {
            return false;
        }
        // Nothing but digits stands there, which cannot fail.
        inner.number();
        let words = inner.rest().trim();
        if words.contains(|c: char| !(c.is_alphabetic() || c.is_whitespace())) {
            return false;
        }
        let Some(number) = inner.tokens.first().copied() else {
            return false;
        };
        if content.trim_start().starts_with(['-', '−']) {
            self.push(Kind::Sign('-'), 0);
        }
        self.push(number.kind, 0);
        if !words.is_empty() {
            self.push(Kind::Text(words), 0);
        }
        self.at += length;
        true
    }
}
