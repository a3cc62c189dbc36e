//! Numbers: with a base, with digits that repeat, mixed with a fraction.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::One;

use super::{Parsed, Parser};
use crate::expr::Expr;
use crate::lex::{Kind, Token};

/// Digits of a number.
const MOST_DIGITS: usize = 1024;

impl Parser<'_> {
    /// A number with its base, its repeating digits, or the fraction that it is mixed with.
    pub(super) fn number(&mut self, digits: &str) -> Parsed {
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
}

/// A number as the lexer cuts it; `None` beyond [`MOST_DIGITS`].
pub(super) fn numeral(text: &str) -> Option<Expr> {
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
    let plain = !digits.contains(['.', 'e', 'E']);
    if !(2..=36).contains(&base) || !plain {
        return None;
    }
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let value = BigInt::parse_bytes(digits.as_bytes(), base)?;
    Some(Expr::Based { value, base })
}
