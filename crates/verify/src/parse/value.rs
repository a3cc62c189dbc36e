//! Single values: names, commands with their arguments, brackets, matrices.

use super::number::numeral;
use super::{Parsed, Parser, one_or};
use crate::expr::{Constant, Expr, Function};
use crate::lex::Kind;

impl Parser<'_> {
    pub(super) fn atom(&mut self) -> Parsed {
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
                self.at += 1;
                self.deeper(|parser| parser.bracket(sign))
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
            _ => {
                self.at -= 1;
                Err(self.error("a sign where a value belongs"))
            }
        }
    }

    fn closed(&mut self, function: Function, close: char, what: &'static str) -> Parsed {
        let inner = self.sum()?;
        self.expect(close, what)?;
        Ok(Expr::Call(function, vec![inner]))
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

    pub(super) fn command(&mut self, name: &str) -> Parsed {
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
            one_or(factors, Expr::Product)
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
