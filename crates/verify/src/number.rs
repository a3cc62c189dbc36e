//! Reads integers, decimals and simple fractions as exact rationals.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Zero};

use crate::latex::{
    FRACTIONS, after_space, braced_group, command, digit_run, groups_behind_point, groups_of_three,
};
use crate::unit;
use crate::wrapping::unwrapped;

/// Significant digits a number may have. Longer ones are compared as text, so that hostile input
/// cannot buy long arithmetic.
pub const MAX_DIGITS: usize = 256;

/// The number that `text` is, if it is one and nothing else but a unit or words behind it.
///
/// Leading zeros, signs (`-`, `+`, `−`), thousands separators, `a/b`, `\frac{a}{b}` with its
/// sisters and its short form `\frac43`, mixed numbers, `$…$` and `\boxed{…}` around it, a
/// leading currency sign. `4\sqrt{2}`, `52_8`, `3x` and `5!` are not numbers here.
pub fn read(text: &str) -> Option<BigRational> {
    let mut cursor = Cursor {
        rest: unwrapped(text),
    };
    // Most answers are plain integers that fit a machine word.
    if let Some(integer) = small_integer(cursor.rest) {
        return Some(BigRational::from_integer(BigInt::from(integer)));
    }
    let number = cursor.signed_number()?;
    unit::is_only_text(cursor.rest).then_some(number)
}

fn small_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = (1..=18).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            match after_space(self.rest) {
                Some(rest) => self.rest = rest,
                None => return,
            }
        }
    }

    /// `[+-] [$] [+-] magnitude`
    fn signed_number(&mut self) -> Option<BigRational> {
        let mut negative = self.sign();
        let currency = ["\\$", "$", "€", "£", "¥", "\\pounds", "\\euro"];
        if currency.into_iter().any(|sign| self.take(sign)) {
            self.skip_space();
            negative ^= self.sign();
        }
        let magnitude = self.magnitude()?;
        Some(if negative { -magnitude } else { magnitude })
    }

    /// Takes at most one sign; true for minus.
    fn sign(&mut self) -> bool {
        let negative = ["-", "\u{2212}", "\u{2013}"]
            .into_iter()
            .any(|minus| self.take(minus));
        if !negative {
            self.take("+");
        }
        self.skip_space();
        negative
    }

    /// A fraction, a mixed number, a quotient, or a decimal.
    fn magnitude(&mut self) -> Option<BigRational> {
        if let Some(fraction) = self.fraction_command() {
            return fraction;
        }
        let (first, whole) = self.decimal()?;
        let before = self.rest;
        self.skip_space();
        if whole && let Some(fraction) = self.fraction_command() {
            let fraction = fraction?;
            // 2\frac{1}{3} is a mixed number; 2\frac{-1}{3} is nothing one writes.
            return (fraction >= BigRational::zero()).then(|| first + fraction);
        }
        if self.take("/") {
            self.skip_space();
            let (denominator, _) = self.decimal()?;
            return quotient(first, denominator);
        }
        if whole && self.rest.len() < before.len() {
            let mut ahead = Cursor { rest: self.rest };
            if let Some(fraction) = ahead.plain_fraction() {
                self.rest = ahead.rest;
                return Some(first + fraction);
            }
        }
        self.rest = before;
        Some(first)
    }

    /// `a/b` of whole numbers, as in `1 1/2`.
    fn plain_fraction(&mut self) -> Option<BigRational> {
        let (numerator, true) = self.decimal()? else {
            return None;
        };
        if !self.take("/") {
            return None;
        }
        let (denominator, true) = self.decimal()? else {
            return None;
        };
        quotient(numerator, denominator)
    }

    /// `\frac` and its two arguments. None: there is no such command here; Some(None): there is,
    /// and it is not a number.
    fn fraction_command(&mut self) -> Option<Option<BigRational>> {
        let (name, rest) = command(self.rest)?;
        if !FRACTIONS.contains(&name) {
            return None;
        }
        self.rest = rest;
        Some(self.fraction_arguments())
    }

    fn fraction_arguments(&mut self) -> Option<BigRational> {
        let numerator = self.argument()?;
        let denominator = self.argument()?;
        quotient(numerator, denominator)
    }

    /// A TeX argument: `{…}`, or a single digit.
    fn argument(&mut self) -> Option<BigRational> {
        self.rest = self.rest.trim_start();
        if let Some((content, rest)) = braced_group(self.rest) {
            self.rest = rest;
            let mut inner = Cursor {
                rest: unwrapped(content),
            };
            let negative = inner.sign();
            let (value, _) = inner.decimal()?;
            if !inner.rest.is_empty() {
                return None;
            }
            return Some(if negative { -value } else { value });
        }
        let digit = self.rest.chars().next()?.to_digit(10)?;
        self.rest = &self.rest[1..];
        Some(BigRational::from_integer(BigInt::from(digit)))
    }

    /// An unsigned decimal, and whether it is written as a whole number.
    fn decimal(&mut self) -> Option<(BigRational, bool)> {
        let mut digits = String::new();
        self.integer_digits(&mut digits);
        let (mut fraction, grouped): (&str, String);
        fraction = "";
        if let Some(after) = self.rest.strip_prefix('.') {
            let length = digit_run(after);
            if length > 0 {
                let groups = groups_behind_point(&after[length..], length);
                self.rest = &after[length + groups..];
                fraction = &after[..length];
                if groups > 0 {
                    let all = after[..length + groups].chars();
                    grouped = all.filter(char::is_ascii_digit).collect();
                    fraction = &grouped;
                }
            }
        }
        if digits.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole = fraction.is_empty();
        let fraction = fraction.trim_end_matches('0');
        digits.push_str(fraction);
        let significant = digits.trim_start_matches('0');
        if significant.len() > MAX_DIGITS || fraction.len() > MAX_DIGITS {
            return None;
        }
        if significant.is_empty() {
            return Some((BigRational::zero(), whole));
        }
        let numerator = BigInt::parse_bytes(significant.as_bytes(), 10)?;
        if fraction.is_empty() {
            return Some((BigRational::from_integer(numerator), whole));
        }
        let scale = u32::try_from(fraction.len()).ok()?;
        Some((
            BigRational::new(numerator, BigInt::from(10).pow(scale)),
            whole,
        ))
    }

    /// Pushes the digits before the point, thousands separators left out.
    fn integer_digits(&mut self, digits: &mut String) {
        let length = digit_run(self.rest);
        digits.push_str(&self.rest[..length]);
        self.rest = &self.rest[length..];
        if !(1..=3).contains(&length) || digits.starts_with('0') {
            return;
        }
        let groups = groups_of_three(self.rest, false);
        let grouped = self.rest[..groups].chars();
        digits.extend(grouped.filter(char::is_ascii_digit));
        self.rest = &self.rest[groups..];
    }
}

fn quotient(numerator: BigRational, denominator: BigRational) -> Option<BigRational> {
    if denominator.is_zero() {
        None
    } else if denominator.is_one() {
        Some(numerator)
    } else {
        Some(numerator / denominator)
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    fn check(text: &str, expected: Option<&str>) {
        let found = read(text).map(|number| number.to_string());
        assert_eq!(found.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn integers() {
        check("33", Some("33"));
        check("033", Some("33"));
        check("0", Some("0"));
        check("-0", Some("0"));
        check("+7", Some("7"));
        check("-5", Some("-5"));
        check("\u{2212}5", Some("-5"));
        check("- 5", Some("-5"));
        check("--5", None);
        check("5.", Some("5"));
        check(
            "123456789012345678901234567890",
            Some("123456789012345678901234567890"),
        );
        check("", None);
        check("-", None);
        check(".", None);
    }

    #[test]
    fn thousands() {
        for text in [
            "1,234,567",
            "1{,}234{,}567",
            "1\\,234\\,567",
            "1,\\!234,\\!567",
            "1 234 567",
            "1\u{202f}234\u{202f}567",
            "1,\\! 234,\\! 567",
            "1\\!234\\!567",
            "1~234~567",
            "1{,}\\!234{,}\\!567",
        ] {
            check(text, Some("1234567"));
        }
        check("-1,000.50", Some("-2001/2"));
        check("1,23", None);
        check("1,2345", None);
        check("0,123", None);
        check("1000,000", None);
        check("1,000,2", None);
        check("100, 200", None);
        check("100,\\,200", None);
        check("1,234\\,567", None);
        check("0.123\\,4", Some("617/5000"));
    }

    #[test]
    fn decimals() {
        check("0.5", Some("1/2"));
        check(".50", Some("1/2"));
        check("-3.140", Some("-157/50"));
        check("2.0", Some("2"));
        check("1.2.3", None);
        check("0.\\overline{3}", None);
    }

    #[test]
    fn fractions() {
        for text in [
            "4/3",
            "8/6",
            "\\frac{4}{3}",
            "\\dfrac{4}{3}",
            "\\tfrac43",
            "\\frac43",
            "\\frac 4 3",
            "\\frac{4}3",
            "\\frac4{3}",
            "$\\frac{-4}{-3}$",
            "1\\frac{1}{3}",
            "1 \\frac13",
            "1 1/3",
            "4 / 3",
            "\\frac{0.4}{0.3}",
        ] {
            check(text, Some("4/3"));
        }
        check("-\\frac{1}{2}", Some("-1/2"));
        check("-1 1/2", Some("-3/2"));
        check("1/0", None);
        check("\\frac{1}{0}", None);
        check("\\frac{x}{2}", None);
        check("\\frac{1}{2", None);
        check("\\frac123", None);
        check("1/2/3", None);
        check("1/2004!", None);
    }

    #[test]
    fn wrapped_and_with_units() {
        for text in [
            "$5$",
            "\\(5\\)",
            "\\boxed{5}",
            "\\text{5}",
            "$5",
            "\\$5",
            "5\\%",
            "5^\\circ",
            "5\\text{ cm}^2",
            "5 apples",
        ] {
            check(text, Some("5"));
        }
        check("-$5", Some("-5"));
        check("$-5", Some("-5"));
    }

    #[test]
    fn what_only_starts_like_a_number() {
        for text in [
            "4\\sqrt{2}",
            "52_8",
            "52_{8}",
            "2^{10}",
            "3x",
            "3 x",
            "5!",
            "2\\pi",
            "2 pi",
            "3i",
            "3, 4",
            "3 or 4",
            "(3,4)",
            "5 million",
            "5:3",
            "5 + 3",
            "5-3",
            "5e3",
            "5 \\cdot 10^3",
            "3\\text{ or }4",
            "3\\text{ or more}",
            "5\\in A",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn long_numbers_are_left_to_text() {
        let nines = "9".repeat(300);
        check(&nines, None);
        check(&"9".repeat(100_000), None);
        check(&format!("0.{nines}"), None);
        check(&format!("{}7", "0".repeat(1000)), Some("7"));
        check(&format!("7.{}", "0".repeat(1000)), Some("7"));
    }
}
