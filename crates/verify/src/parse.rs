//! Reads an answer: a recursive descent whose depth is bounded.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::One;

use crate::expr::{Constant, Expr, Function, Relation};
use crate::lex::{Kind, Token, Unreadable, lex};
use crate::unit;

/// Brackets, exponents and arguments inside one another.
const DEEPEST: usize = 256;

/// Bytes of an answer that is parsed; a longer one is compared as text.
const LONGEST: usize = 4096;

/// Digits of a number.
const MOST_DIGITS: usize = 1024;

/// Reads a whole answer. What follows it as `\text{…}` is a unit, unless its words change the
/// number.
pub fn parse(text: &str) -> Result<Expr, Unreadable> {
    if text.len() > LONGEST {
        let what = "an answer of more than 4096 bytes";
        return Err(Unreadable { at: LONGEST, what });
    }
    let tokens = lex(text)?;
    let is_mathematics = |token: &Token<'_>| match token.kind {
        Kind::Name(_) | Kind::Text(_) => false,
        Kind::Sign(sign) => !".,;:!?′/-".contains(sign),
        _ => true,
    };
    let in_words = text.bytes().any(|b| b.is_ascii_alphabetic()) && !text.contains('\\');
    if in_words
        && tokens.len() > 1
        && !tokens.iter().any(is_mathematics)
        && tokens
            .iter()
            .filter(|t| matches!(t.kind, Kind::Name(_)))
            .count()
            > 2
    {
        // A word is not the product of its letters.
        return Err(Unreadable {
            at: 0,
            what: "words",
        });
    }
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
        end: text.len(),
    };
    let expr = parser.list()?;
    parser.units();
    match parser.peek() {
        None => Ok(expr),
        Some(_) => Err(parser.error("something after the answer")),
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: usize,
    end: usize,
}

type Parsed = Result<Expr, Unreadable>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Kind<'a>> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    fn peek_second(&self) -> Option<Kind<'a>> {
        self.tokens.get(self.at + 1).map(|token| token.kind)
    }

    fn take(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(Kind::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: char, what: &'static str) -> Result<(), Unreadable> {
        if self.take(sign) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    fn error(&self, what: &'static str) -> Unreadable {
        let at = self.tokens.get(self.at).map_or(self.end, |token| token.at);
        Unreadable { at, what }
    }

    /// One level further in.
    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth >= DEEPEST {
            return Err(self.error("more than 256 levels of nesting"));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Skips words behind the answer that leave it as it is.
    fn units(&mut self) {
        while let Some(Kind::Text(text)) = self.peek() {
            if !unit::is_harmless(text) {
                return;
            }
            self.at += 1;
            // `\text{cm}^2`
            if self.peek() == Some(Kind::Sign('^'))
                && matches!(self.peek_second(), Some(Kind::Number("2" | "3")))
            {
                self.at += 2;
            }
        }
        while self.take('.') || self.take(',') {}
    }

    fn list(&mut self) -> Parsed {
        let mut items = vec![self.relation()?];
        while self.separator() {
            if self.peek().is_none() {
                break;
            }
            items.push(self.relation()?);
        }
        Ok(if items.len() == 1 {
            items.remove(0)
        } else {
            Expr::List(items)
        })
    }

    /// `,`, `;`, `and`, `or`, or several of them.
    fn separator(&mut self) -> bool {
        let start = self.at;
        loop {
            let word = matches!(
                self.peek(),
                Some(Kind::Text("and" | "or" | ", and" | ", or" | ","))
            );
            if word {
                self.at += 1;
            } else if !self.take(',') && !self.take(';') && !self.take('∨') {
                return self.at > start;
            }
        }
    }

    fn relation(&mut self) -> Parsed {
        let (mut sides, mut relations) = (vec![self.union()?], Vec::new());
        while let Some(Kind::Sign(sign)) = self.peek() {
            let relation = match sign {
                '=' | '≈' => Relation::Equal,
                '≠' => Relation::NotEqual,
                '<' => Relation::Less,
                '≤' => Relation::LessOrEqual,
                '>' => Relation::Greater,
                '≥' => Relation::GreaterOrEqual,
                '∈' => Relation::In,
                _ => break,
            };
            self.at += 1;
            relations.push(relation);
            sides.push(self.union()?);
        }
        Ok(if relations.is_empty() {
            sides.remove(0)
        } else {
            Expr::Relation(sides, relations)
        })
    }

    fn union(&mut self) -> Parsed {
        let mut parts = vec![self.sum()?];
        while self.take('∪') {
            parts.push(self.sum()?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Expr::Union(parts)
        })
    }

    fn sum(&mut self) -> Parsed {
        let mut terms = vec![self.term()?];
        loop {
            if self.take('+') {
                terms.push(self.term()?);
            } else if self.take('-') {
                terms.push(Expr::Negative(Box::new(self.term()?)));
            } else if let Some(Kind::Sign(sign @ ('±' | '∓'))) = self.peek() {
                self.at += 1;
                let so_far = summed(std::mem::take(&mut terms));
                let terms_of = Box::new([so_far, self.term()?]);
                terms.push(Expr::PlusMinus {
                    terms: terms_of,
                    minus_first: sign == '∓',
                });
            } else {
                return Ok(summed(terms));
            }
        }
    }

    /// A product with its sign.
    fn term(&mut self) -> Parsed {
        let mut negative = false;
        loop {
            if self.take('-') {
                negative = !negative;
            } else if let Some(Kind::Sign(sign @ ('±' | '∓'))) = self.peek() {
                self.at += 1;
                let terms = Box::new([Expr::integer(0), self.product()?]);
                let minus_first = (sign == '∓') != negative;
                return Ok(Expr::PlusMinus { terms, minus_first });
            } else if !self.take('+') {
                break;
            }
        }
        let product = self.product()?;
        Ok(if negative {
            Expr::Negative(Box::new(product))
        } else {
            product
        })
    }

    fn product(&mut self) -> Parsed {
        let mut factors = vec![self.factor()?];
        loop {
            if self.take('*') {
                factors.push(self.signed_factor()?);
            } else if self.take('/') {
                let divisor = self.signed_factor()?;
                let so_far = multiplied(std::mem::take(&mut factors));
                factors.push(Expr::quotient(so_far, divisor));
            } else if self.starts_factor() {
                factors.push(self.factor()?);
            } else {
                return Ok(multiplied(factors));
            }
        }
    }

    /// Behind an operator a sign may stand without brackets.
    fn signed_factor(&mut self) -> Parsed {
        if self.take('-') {
            return Ok(Expr::Negative(Box::new(self.factor()?)));
        }
        self.take('+');
        self.factor()
    }

    /// Whether what comes is multiplied with what was, without a sign between them. A number is
    /// not: `2 3` says nothing.
    fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Kind::Name(_) | Kind::Command(_)) => true,
            Some(Kind::Begin(_)) => true,
            Some(Kind::Sign(sign)) => matches!(sign, '(' | '{' | '[' | 'π' | '∞' | '⌊' | '⌈'),
            Some(Kind::Number(_)) => {
                // `\sqrt{2}3` or `x2` are rather slips.
                false
            }
            _ => false,
        }
    }

    /// A power with what stands behind it.
    fn factor(&mut self) -> Parsed {
        let mut base = self.atom()?;
        loop {
            if self.take('!') {
                base = Expr::Call(Function::Factorial, vec![base]);
            } else if self.take('%') {
                base = Expr::Percent(Box::new(base));
            } else if self.take('°') {
                base = Expr::Degrees(Box::new(base));
                // C or F behind degrees.
                if matches!(self.peek(), Some(Kind::Name("C" | "F"))) {
                    self.at += 1;
                }
            } else if self.take('^') {
                let exponent = self.deeper(Self::exponent)?;
                base = Expr::power(base, exponent);
            } else {
                return Ok(base);
            }
        }
    }

    fn exponent(&mut self) -> Parsed {
        if self.take('-') {
            return Ok(Expr::Negative(Box::new(self.exponent_power()?)));
        }
        self.take('+');
        self.exponent_power()
    }

    /// `a^b^c` is `a^(b^c)`.
    fn exponent_power(&mut self) -> Parsed {
        let base = self.atom()?;
        if self.take('^') {
            let exponent = self.deeper(Self::exponent)?;
            return Ok(Expr::power(base, exponent));
        }
        Ok(if self.take('!') {
            Expr::Call(Function::Factorial, vec![base])
        } else {
            base
        })
    }

    fn atom(&mut self) -> Parsed {
        let Some(kind) = self.peek() else {
            return Err(self.error("the answer ends too soon"));
        };
        match kind {
            Kind::Number(digits) => {
                self.at += 1;
                self.number(digits)
            }
            Kind::Name(name) => {
                self.at += 1;
                self.name(name)
            }
            Kind::Command(name) => {
                self.at += 1;
                self.deeper(|parser| parser.command(name))
            }
            Kind::Begin(name) => {
                self.at += 1;
                self.matrix(name)
            }
            Kind::Text(_) => Err(self.error("words where a value belongs")),
            Kind::End(_) => Err(self.error("an \\end without its \\begin")),
            Kind::Sign(sign) => {
                let open = self.at;
                self.at += 1;
                let read = self.deeper(|parser| parser.bracket(sign));
                read.map_err(|error| match error.what {
                    // Where it stands says more.
                    "a sign where a value belongs" => Unreadable {
                        at: self.tokens[open].at,
                        ..error
                    },
                    _ => error,
                })
            }
        }
    }

    fn bracket(&mut self, sign: char) -> Parsed {
        match sign {
            'π' => Ok(Expr::Constant(Constant::Pi)),
            '∞' => Ok(Expr::Constant(Constant::Infinity)),
            '∅' => Ok(Expr::Constant(Constant::EmptySet)),
            'ℝ' => Ok(Expr::Constant(Constant::Reals)),
            '{' if self.take('}') => Err(self.error("empty braces")),
            '{' => {
                let inner = self.list()?;
                self.expect('}', "an open brace")?;
                Ok(match inner {
                    Expr::List(items) => Expr::Set(items),
                    inner => inner,
                })
            }
            '⦃' if self.take('⦄') => Ok(Expr::Constant(Constant::EmptySet)),
            '⦃' => {
                let inner = self.list()?;
                self.expect('⦄', "an open set")?;
                Ok(Expr::Set(items(inner)))
            }
            '⟨' => {
                let inner = self.list()?;
                self.expect('⟩', "an open angle bracket")?;
                Ok(Expr::Tuple(items(inner)))
            }
            '(' | '[' => {
                let inner = self.list()?;
                let closes = match self.peek() {
                    Some(Kind::Sign(close @ (')' | ']'))) => close,
                    _ => return Err(self.error("an open bracket")),
                };
                self.at += 1;
                let round = sign == '(' && closes == ')';
                match inner {
                    Expr::List(items) if round => Ok(Expr::Tuple(items)),
                    Expr::List(mut items) if items.len() == 2 => {
                        let high = items.remove(1);
                        let ends = Box::new([items.remove(0), high]);
                        Ok(Expr::Interval {
                            ends,
                            closed: [sign == '[', closes == ']'],
                        })
                    }
                    Expr::List(items) if sign == '[' && closes == ']' => Ok(Expr::Tuple(items)),
                    inner if round || (sign == '[' && closes == ']') => Ok(inner),
                    _ => Err(self.error("brackets that do not fit")),
                }
            }
            '|' => self.closed(Function::Abs, '|', "an open bar"),
            '⌊' => self.closed(Function::Floor, '⌋', "an open floor"),
            '⌈' => self.closed(Function::Ceiling, '⌉', "an open ceiling"),
            _ => Err(Unreadable {
                at: 0,
                what: "a sign where a value belongs",
            }),
        }
    }

    fn closed(&mut self, function: Function, close: char, what: &'static str) -> Parsed {
        let inner = self.sum()?;
        self.expect(close, what)?;
        Ok(Expr::Call(function, vec![inner]))
    }

    /// A number with its base, its repeating digits, or the fraction that it is mixed with.
    fn number(&mut self, digits: &str) -> Parsed {
        let number =
            numeral(digits).ok_or_else(|| self.error("a number of more than 1024 digits"))?;
        if self.peek() == Some(Kind::Sign('_')) {
            self.at += 1;
            let base = self.deeper(Self::subscript_base)?;
            return based(digits, &base)
                .ok_or_else(|| self.error("digits that the base does not have"));
        }
        if let (Some(Kind::Command("overline" | "bar")), true) = (self.peek(), digits.contains('.'))
        {
            self.at += 1;
            return self.repeating(digits);
        }
        if number.as_integer().is_none() {
            return Ok(number);
        }
        match (self.peek(), self.peek_second()) {
            (Some(Kind::Command("frac" | "dfrac" | "tfrac" | "cfrac")), _) => {
                self.at += 1;
                let fraction = self.deeper(|parser| parser.command("frac"))?;
                Ok(match &fraction {
                    Expr::Quotient(parts)
                        if parts.iter().all(|part| part.as_integer().is_some()) =>
                    {
                        Expr::Sum(vec![number, fraction])
                    }
                    _ => Expr::Product(vec![number, fraction]),
                })
            }
            (Some(Kind::Number(numerator)), Some(Kind::Sign('/'))) => {
                let Some(Token {
                    kind: Kind::Number(denominator),
                    ..
                }) = self.tokens.get(self.at + 2).copied()
                else {
                    return Ok(number);
                };
                self.at += 3;
                let parts = [numerator, denominator]
                    .map(|part| numeral(part).filter(|n| n.as_integer().is_some()));
                let [Some(numerator), Some(denominator)] = parts else {
                    return Err(self.error("a mixed number without a fraction"));
                };
                Ok(Expr::Sum(vec![
                    number,
                    Expr::quotient(numerator, denominator),
                ]))
            }
            _ => Ok(number),
        }
    }

    fn subscript_base(&mut self) -> Parsed {
        match self.peek() {
            Some(Kind::Text(word)) => {
                self.at += 1;
                let base = [
                    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
                    "eleven", "twelve",
                ];
                let found = base.iter().position(|name| *name == word);
                found
                    .map(|at| Expr::integer(at as i64 + 2))
                    .ok_or_else(|| self.error("a base that is not known"))
            }
            Some(Kind::Sign('{')) => {
                self.at += 1;
                let base = self.deeper(Self::subscript_base)?;
                self.expect('}', "an open brace")?;
                Ok(base)
            }
            Some(Kind::Number(digits)) => {
                self.at += 1;
                numeral(digits).ok_or_else(|| self.error("a base that is not known"))
            }
            _ => Err(self.error("a base that is not known")),
        }
    }

    /// `0.1\overline{6}`.
    fn repeating(&mut self, digits: &str) -> Parsed {
        self.expect('{', "an overline without braces")?;
        let Some(Kind::Number(repeated)) = self.peek() else {
            return Err(self.error("an overline without digits"));
        };
        self.at += 1;
        self.expect('}', "an open brace")?;
        let plain = repeated.bytes().all(|b| b.is_ascii_digit()) && repeated.len() <= 64;
        let (Some(Expr::Decimal { value, places }), true) =
            (numeral(digits).map(exact_decimal), plain)
        else {
            return Err(self.error("repeating digits that cannot be read"));
        };
        let ten = BigInt::from(10);
        let nines = (ten.pow(repeated.len() as u32) - BigInt::one()) * ten.pow(places);
        let repeated = BigInt::parse_bytes(repeated.as_bytes(), 10).unwrap_or_default();
        Ok(Expr::Number(value + BigRational::new(repeated, nines)))
    }

    fn name(&mut self, name: &str) -> Parsed {
        let mut symbol = name.to_owned();
        if self.take('_') {
            let start = self.at;
            let subscript = self.deeper(Self::argument)?;
            if !matches!(
                subscript,
                Expr::Number(_)
                    | Expr::Symbol(_)
                    | Expr::Sum(_)
                    | Expr::Product(_)
                    | Expr::Constant(_)
            ) {
                return Err(self.error("a subscript that is no name"));
            }
            symbol.push('_');
            for token in self.tokens.get(start..self.at).unwrap_or_default() {
                match token.kind {
                    Kind::Number(part)
                    | Kind::Name(part)
                    | Kind::Command(part)
                    | Kind::Text(part) => symbol.push_str(part),
                    Kind::Sign('{' | '}') => {}
                    Kind::Sign(sign) => symbol.push(sign),
                    Kind::Begin(_) | Kind::End(_) => {}
                }
            }
        }
        while self.take('′') {
            symbol.push('′');
        }
        Ok(match symbol.as_str() {
            "e" => Expr::Constant(Constant::E),
            "i" => Expr::Constant(Constant::I),
            _ => Expr::Symbol(symbol),
        })
    }

    /// A TeX argument: `{…}`, or a single token, of a number its first digit.
    fn argument(&mut self) -> Parsed {
        if let Some(Kind::Number(digits)) = self.peek()
            && digits.len() > 1
            && digits.is_char_boundary(1)
        {
            let (first, rest) = digits.split_at(1);
            if let Some(token) = self.tokens.get_mut(self.at) {
                (token.kind, token.at) = (Kind::Number(rest), token.at + 1);
            }
            return numeral(first).ok_or_else(|| self.error("a number"));
        }
        match self.peek() {
            Some(Kind::Number(digits)) => {
                self.at += 1;
                numeral(digits).ok_or_else(|| self.error("a number"))
            }
            Some(Kind::Text(_)) => Err(self.error("words where a value belongs")),
            _ => self.atom(),
        }
    }

    fn command(&mut self, name: &str) -> Parsed {
        match name {
            "frac" | "dfrac" | "tfrac" | "cfrac" => {
                if self.take('(') {
                    // `frac(1, 2)` in plain mathematics.
                    return Err(self.error("a fraction without braces"));
                }
                let numerator = self.argument()?;
                Ok(Expr::quotient(numerator, self.argument()?))
            }
            "binom" | "dbinom" | "tbinom" => {
                let n = self.argument()?;
                Ok(Expr::Call(Function::Binomial, vec![n, self.argument()?]))
            }
            "sqrt" => {
                let index = if self.take('[') {
                    let index = self.sum()?;
                    self.expect(']', "an open bracket")?;
                    index
                } else {
                    Expr::integer(2)
                };
                let radicand = self.argument()?;
                Ok(Expr::Root(Box::new([index, radicand])))
            }
            "cbrt" => Ok(Expr::Root(Box::new([Expr::integer(3), self.argument()?]))),
            "abs" => Ok(Expr::Call(Function::Abs, vec![self.argument()?])),
            "overline" | "bar" | "underline" | "widehat" => {
                Err(self.error("a line over or under letters"))
            }
            _ => match Function::named(name) {
                Some(function) => self.call(function),
                None => Err(self.error("a command that is not known")),
            },
        }
    }

    /// A function with its base or exponent, and its argument: brackets, or factors up to the next
    /// operator or function.
    fn call(&mut self, function: Function) -> Parsed {
        let (mut function, mut base, mut exponent) = (function, None, None);
        loop {
            if self.take('_') {
                base = Some(self.argument()?);
            } else if self.take('^') {
                exponent = Some(self.deeper(Self::exponent)?);
            } else {
                break;
            }
        }
        if let (Some(inverse), Some(Expr::Negative(one))) = (function.inverse(), &exponent)
            && **one == Expr::integer(1)
        {
            (function, exponent) = (inverse, None);
        }
        let bracketed = matches!(self.peek(), Some(Kind::Sign('(' | '{' | '[' | '|')));
        let argument = if bracketed {
            self.factor()?
        } else {
            let mut factors = vec![self.signed_factor()?];
            while self.starts_factor() && !self.starts_function() {
                factors.push(self.factor()?);
            }
            multiplied(factors)
        };
        let mut arguments = Vec::new();
        if function == Function::Log {
            arguments.push(base.unwrap_or_else(|| Expr::integer(10)));
        } else if base.is_some() {
            return Err(self.error("a base where none belongs"));
        }
        arguments.push(argument);
        let call = Expr::Call(function, arguments);
        Ok(exponent.into_iter().fold(call, Expr::power))
    }

    fn starts_function(&self) -> bool {
        matches!(self.peek(), Some(Kind::Command(name)) if Function::named(name).is_some())
    }

    fn matrix(&mut self, name: &str) -> Parsed {
        if ![
            "pmatrix",
            "bmatrix",
            "Bmatrix",
            "matrix",
            "smallmatrix",
            "array",
        ]
        .contains(&name)
        {
            return Err(self.error("an environment that is no matrix"));
        }
        if name == "array" && self.take('{') {
            while !self.take('}') {
                self.at += 1;
                if self.peek().is_none() {
                    return Err(self.error("an open brace"));
                }
            }
        }
        let mut rows = vec![Vec::new()];
        loop {
            if self.peek() == Some(Kind::End(name)) {
                self.at += 1;
                break;
            }
            let entry = self.deeper(Self::sum)?;
            if let Some(row) = rows.last_mut() {
                row.push(entry);
            }
            if self.take('⏎') {
                if self.peek() != Some(Kind::End(name)) {
                    rows.push(Vec::new());
                }
            } else if !self.take('&') && self.peek() != Some(Kind::End(name)) {
                return Err(self.error("an open matrix"));
            }
        }
        let width = rows.first().map_or(0, Vec::len);
        if width == 0 || rows.iter().any(|row| row.len() != width) {
            return Err(self.error("rows of different lengths"));
        }
        Ok(Expr::Matrix(rows))
    }
}

fn items(inner: Expr) -> Vec<Expr> {
    match inner {
        Expr::List(items) => items,
        one => vec![one],
    }
}

fn summed(mut terms: Vec<Expr>) -> Expr {
    if terms.len() == 1 {
        terms.remove(0)
    } else {
        Expr::Sum(terms)
    }
}

fn multiplied(mut factors: Vec<Expr>) -> Expr {
    if factors.len() == 1 {
        factors.remove(0)
    } else {
        Expr::Product(factors)
    }
}

/// A number as the lexer cuts it; `None` beyond [`MOST_DIGITS`].
fn numeral(text: &str) -> Option<Expr> {
    if text.len() > MOST_DIGITS {
        return None;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    if exponent.unsigned_abs() as usize > MOST_DIGITS {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = whole
        .chars()
        .filter(char::is_ascii_digit)
        .chain(fraction.chars())
        .collect();
    let digits = BigInt::parse_bytes(digits.as_bytes(), 10)?;
    let ten = BigInt::from(10);
    let value = BigRational::new(digits, ten.pow(fraction.len() as u32));
    let scale = BigRational::from_integer(ten.pow(exponent.unsigned_abs()));
    let value = if exponent < 0 {
        value / scale
    } else {
        value * scale
    };
    if fraction.is_empty() || exponent != 0 {
        return Some(Expr::Number(value));
    }
    let places = fraction.len() as u32;
    Some(Expr::Decimal { value, places })
}

fn exact_decimal(number: Expr) -> Expr {
    match number {
        Expr::Number(value) => Expr::Decimal { value, places: 0 },
        decimal => decimal,
    }
}

fn based(digits: &str, base: &Expr) -> Option<Expr> {
    let base: u32 = base.as_integer()?.try_into().ok()?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    if !(2..=36).contains(&base) || !plain {
        return None;
    }
    let value = BigInt::parse_bytes(digits.as_bytes(), base)?;
    Some(Expr::Based { value, base })
}
