//! Reads an answer: a recursive descent whose depth is bounded. Here are lists and operators;
//! `value` reads what stands between them, `number` the numbers.

mod number;
mod value;

use crate::expr::{Expr, Function, Relation};
use crate::lex::{Kind, Token, Unreadable, lex};
use crate::unit;

/// What the name of a value begins with that is words rather than a letter.
pub const LABEL: char = '“';

/// Brackets, exponents and arguments inside one another.
const DEEPEST: usize = 256;

/// Bytes of an answer that is parsed; a longer one is compared as text.
const LONGEST: usize = 4096;

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
    if in_words && tokens.len() > 1 && !tokens.iter().any(is_mathematics) && is_prose(text) {
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

/// Whether letters alone are words rather than products of variables: a run of three, or two runs
/// with no more than a space between them.
fn is_prose(text: &str) -> bool {
    let (mut run, mut before, mut sign) = (0, false, true);
    for c in text.chars().chain([' ']) {
        if c.is_alphabetic() {
            run += 1;
            continue;
        }
        if run > 2 || (run > 0 && before && !sign) {
            return true;
        }
        if run > 0 {
            (before, sign) = (true, false);
        }
        run = 0;
        sign |= !c.is_whitespace();
    }
    false
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
        let mut items = vec![self.labelled()?];
        while self.separator() {
            if self.peek().is_none() {
                break;
            }
            items.push(self.labelled()?);
        }
        Ok(one_or(items, Expr::List))
    }

    /// A relation with the words before it: `\text{Area} = 12` is named by them, and
    /// `\text{The area is } 12` loses them.
    fn labelled(&mut self) -> Parsed {
        // `\approx 1.414`
        if self.at == 0 {
            self.take('≈');
        }
        if let Some(Kind::Text(words)) = self.peek()
            && self.depth == 0
            && unit::is_label(words)
        {
            match self.peek_second() {
                Some(Kind::Sign('=' | '≈')) => {
                    self.at += 2;
                    let name = Expr::Symbol(format!("{LABEL}{}", words.to_lowercase()));
                    let sides = vec![name, self.relation()?];
                    return Ok(match sides.last() {
                        // `\text{Area} = 3 \cdot 4 = 12`
                        Some(Expr::Relation(values, equal))
                            if equal.iter().all(|sign| *sign == Relation::Equal) =>
                        {
                            let values = values.last().cloned();
                            let name = sides.first().cloned();
                            let sides = name.into_iter().chain(values).collect();
                            Expr::Relation(sides, vec![Relation::Equal])
                        }
                        _ => Expr::Relation(sides, vec![Relation::Equal]),
                    });
                }
                Some(Kind::Sign(':')) => self.at += 2,
                Some(_) => self.at += 1,
                None => {}
            }
        }
        self.relation()
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
        let (mut sides, mut relations) = (vec![self.ratio()?], Vec::new());
        while let Some(Kind::Sign(sign)) = self.peek() {
            let relation = match sign {
                '=' => Relation::Equal,
                '≈' => Relation::Approximate,
                '≠' => Relation::NotEqual,
                '<' => Relation::Less,
                '≤' => Relation::LessOrEqual,
                '>' => Relation::Greater,
                '≥' => Relation::GreaterOrEqual,
                '∈' => Relation::In,
                '∉' => Relation::NotIn,
                _ => break,
            };
            self.at += 1;
            relations.push(relation);
            sides.push(self.ratio()?);
        }
        Ok(one_or(sides, |sides| Expr::Relation(sides, relations)))
    }

    /// `3 : 2`, or what it is made of. A part that is zero or begins with it is that of a time.
    fn ratio(&mut self) -> Parsed {
        let mut start = self.at;
        let mut parts = vec![self.union()?];
        loop {
            let begins_with_zero = self.at == start + 1
                && matches!(self.tokens.get(start).map(|token| token.kind),
                    Some(Kind::Number(digits)) if digits.starts_with('0') && !digits.contains('.'));
            let goes_on = self.take(':');
            if begins_with_zero && (goes_on || parts.len() > 1) {
                return Err(self.error("a time of day"));
            }
            if !goes_on {
                return Ok(one_or(parts, Expr::Ratio));
            }
            start = self.at;
            parts.push(self.union()?);
        }
    }

    fn union(&mut self) -> Parsed {
        let mut parts = vec![self.sum()?];
        while self.take('∪') {
            parts.push(self.sum()?);
        }
        Ok(one_or(parts, Expr::Union))
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
                let so_far = one_or(std::mem::take(&mut terms), Expr::Sum);
                let terms_of = Box::new([so_far, self.term()?]);
                terms.push(Expr::PlusMinus {
                    terms: terms_of,
                    minus_first: sign == '∓',
                });
            } else {
                return Ok(one_or(terms, Expr::Sum));
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
                let so_far = one_or(std::mem::take(&mut factors), Expr::Product);
                factors.push(Expr::quotient(so_far, divisor));
            } else if self.starts_factor() {
                factors.push(self.factor()?);
            } else {
                return Ok(one_or(factors, Expr::Product));
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
    /// not: `2 3` says nothing, and `x2` is rather a slip.
    fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Kind::Name(_) | Kind::Command(_) | Kind::Begin(_)) => true,
            Some(Kind::Sign(sign)) => matches!(sign, '(' | '{' | '[' | 'π' | '∞' | '⌊' | '⌈'),
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
}

/// The only one, or what many are.
fn one_or(mut items: Vec<Expr>, many: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    if items.len() == 1 {
        items.remove(0)
    } else {
        many(items)
    }
}
