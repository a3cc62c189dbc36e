//! Expressions, in Jinja2's order of strength.

use std::sync::Arc;

use super::Result;
use super::ast::{Arguments, Comparison, Expr, ExprKind, Invocation, Operator};
use super::lexer::Token;
use super::parser::Parser;

/// Attributes, calls and filters behind one value; they nest in the tree.
const MAX_POSTFIXES: usize = 60;

impl Parser {
    /// One expression, or several with commas as a tuple. `conditional` allows `a if b else c` in it.
    pub(super) fn tuple(&mut self, conditional: bool) -> Result<Expr> {
        let line = self.line();
        let first = self.element(conditional)?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.accept_op(",") {
            if self.ends_tuple() {
                break;
            }
            items.push(self.element(conditional)?);
        }
        Ok(expr(line, ExprKind::Tuple(items)))
    }

    fn ends_tuple(&self) -> bool {
        matches!(
            self.peek(),
            Token::BlockEnd | Token::PrintEnd | Token::Op(")")
        )
    }

    fn element(&mut self, conditional: bool) -> Result<Expr> {
        if conditional {
            self.expression()
        } else {
            self.nested(Self::or)
        }
    }

    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.nested(|parser| {
            let mut then = parser.or()?;
            let mut n = 0;
            while parser.is_word("if") {
                let line = parser.line();
                parser.next();
                let condition = parser.or()?;
                let otherwise = match parser.accept_word("else") {
                    true => Some(Box::new(parser.expression()?)),
                    false => None,
                };
                n += 1;
                parser.check_chain(n)?;
                let kind = ExprKind::If {
                    condition: Box::new(condition),
                    then: Box::new(then),
                    otherwise,
                };
                then = expr(line, kind);
            }
            Ok(then)
        })
    }

    fn check_chain(&self, n: usize) -> Result<()> {
        if n > MAX_POSTFIXES {
            let problem = format!("chains more than {MAX_POSTFIXES} calls, filters or attributes");
            return Err(self.problem(problem));
        }
        Ok(())
    }

    fn or(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut parts = vec![self.and()?];
        while self.accept_word("or") {
            parts.push(self.and()?);
        }
        Ok(flat(line, parts, ExprKind::Or))
    }

    fn and(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut parts = vec![self.not()?];
        while self.accept_word("and") {
            parts.push(self.not()?);
        }
        Ok(flat(line, parts, ExprKind::And))
    }

    fn not(&mut self) -> Result<Expr> {
        let line = self.line();
        if self.accept_word("not") {
            let inner = self.nested(Self::not)?;
            return Ok(expr(line, ExprKind::Not(Box::new(inner))));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.sum()?;
        let mut others = Vec::new();
        loop {
            let comparison = match self.peek() {
                Token::Op("==") => Comparison::Equal,
                Token::Op("!=") => Comparison::NotEqual,
                Token::Op("<") => Comparison::Less,
                Token::Op("<=") => Comparison::LessOrEqual,
                Token::Op(">") => Comparison::Greater,
                Token::Op(">=") => Comparison::GreaterOrEqual,
                Token::Name(word) if word == "in" => Comparison::In,
                Token::Name(word)
                    if word == "not"
                        && matches!(self.ahead(1), Token::Name(next) if next == "in") =>
                {
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            others.push((comparison, self.sum()?));
        }
        Ok(match others.is_empty() {
            true => first,
            false => expr(line, ExprKind::Compare(Box::new(first), others)),
        })
    }

    fn chain(
        &mut self,
        operand: fn(&mut Self) -> Result<Expr>,
        operators: &[(&str, Operator)],
    ) -> Result<Expr> {
        let line = self.line();
        let first = operand(self)?;
        let mut others = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(op, _)| self.is_op(op)) {
            self.next();
            others.push((*operator, operand(self)?));
        }
        Ok(match others.is_empty() {
            true => first,
            false => expr(line, ExprKind::Chain(Box::new(first), others)),
        })
    }

    fn sum(&mut self) -> Result<Expr> {
        let operators = [("+", Operator::Add), ("-", Operator::Subtract)];
        self.chain(Self::concat, &operators)
    }

    fn concat(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut parts = vec![self.product()?];
        while self.accept_op("~") {
            parts.push(self.product()?);
        }
        Ok(flat(line, parts, ExprKind::Concat))
    }

    fn product(&mut self) -> Result<Expr> {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Remainder),
        ];
        self.chain(Self::power, &operators)
    }

    fn power(&mut self) -> Result<Expr> {
        self.chain(|parser| parser.unary(true), &[("**", Operator::Power)])
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let line = self.line();
        let node = if self.accept_op("-") {
            let inner = self.nested(|parser| parser.unary(false))?;
            expr(line, ExprKind::Negative(Box::new(inner)))
        } else if self.accept_op("+") {
            let inner = self.nested(|parser| parser.unary(false))?;
            expr(line, ExprKind::Positive(Box::new(inner)))
        } else {
            self.primary()?
        };
        self.postfixes(node, with_filters)
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let kind = match self.peek().clone() {
            Token::Name(name) => {
                self.next();
                match name.as_str() {
                    "true" | "True" => ExprKind::Bool(true),
                    "false" | "False" => ExprKind::Bool(false),
                    "none" | "None" => ExprKind::None,
                    _ => {
                        let name: Arc<str> = name.into();
                        self.ast.reads.push(Arc::clone(&name));
                        ExprKind::Name(name)
                    }
                }
            }
            Token::Str(mut text) => {
                self.next();
                while let Token::Str(more) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                let text: Arc<str> = text.into();
                self.ast.mentions.push(Arc::clone(&text));
                ExprKind::Str(text)
            }
            Token::Int(n) => {
                self.next();
                ExprKind::Int(n)
            }
            Token::Float(x) => {
                self.next();
                ExprKind::Float(x)
            }
            Token::Op("(") => {
                self.next();
                if self.accept_op(")") {
                    return Ok(expr(line, ExprKind::Tuple(Vec::new())));
                }
                let inner = self.tuple(true)?;
                self.expect_op(")")?;
                return Ok(inner);
            }
            Token::Op("[") => {
                self.next();
                ExprKind::List(self.items("]", Self::expression)?)
            }
            Token::Op("{") => {
                self.next();
                let entry = |parser: &mut Self| {
                    let key = parser.expression()?;
                    parser.expect_op(":")?;
                    Ok((key, parser.expression()?))
                };
                ExprKind::Dict(self.items("}", entry)?)
            }
            _ => return Err(self.unexpected("a value")),
        };
        Ok(expr(line, kind))
    }

    /// Items with commas up to `end`, which is taken.
    fn items<T>(
        &mut self,
        end: &'static str,
        item: impl Fn(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.is_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        self.expect_op(end)?;
        Ok(items)
    }

    fn postfixes(&mut self, mut node: Expr, with_filters: bool) -> Result<Expr> {
        for n in 0.. {
            let line = self.line();
            let kind = if self.is_op(".") || self.is_op("[") {
                self.subscript(node)?
            } else if self.is_op("(") {
                ExprKind::Call(Box::new(node), Box::new(self.arguments()?))
            } else if with_filters && self.accept_op("|") {
                ExprKind::Filter(Box::new(node), Box::new(self.invocation("filter")?))
            } else if with_filters && self.is_word("is") {
                self.next();
                self.test(node)?
            } else {
                break;
            };
            node = expr(line, kind);
            self.check_chain(n)?;
        }
        Ok(node)
    }

    fn subscript(&mut self, node: Expr) -> Result<ExprKind> {
        let node = Box::new(node);
        if self.accept_op(".") {
            let line = self.line();
            return match self.next() {
                Token::Name(name) => {
                    let name: Arc<str> = name.into();
                    self.ast.mentions.push(Arc::clone(&name));
                    Ok(ExprKind::Attribute(node, name))
                }
                Token::Int(n) => Ok(ExprKind::Item(node, Box::new(expr(line, ExprKind::Int(n))))),
                _ => Err(self.unexpected("a name or a number")),
            };
        }
        self.expect_op("[")?;
        let line = self.line();
        let mut parts = [None, None, None];
        let mut sliced = false;
        for (i, part) in parts.iter_mut().enumerate() {
            if i > 0 {
                if !self.accept_op(":") {
                    break;
                }
                sliced = true;
            }
            if !self.is_op(":") && !self.is_op("]") {
                *part = Some(Box::new(self.expression()?));
            }
        }
        let mut keys = Vec::new();
        while !sliced && self.accept_op(",") {
            if self.is_op("]") {
                break;
            }
            keys.push(self.expression()?);
        }
        self.expect_op("]")?;
        if sliced {
            return Ok(ExprKind::Slice(node, parts));
        }
        let [Some(key), ..] = parts else {
            return Err(self.unexpected("an index"));
        };
        if keys.is_empty() {
            return Ok(ExprKind::Item(node, key));
        }
        keys.insert(0, *key);
        let tuple = expr(line, ExprKind::Tuple(keys));
        Ok(ExprKind::Item(node, Box::new(tuple)))
    }

    /// A filter's or a test's name and, in parentheses, its arguments.
    pub(super) fn invocation(&mut self, what: &str) -> Result<Invocation> {
        let line = self.line();
        let mut name = match self.peek() {
            Token::Name(_) => self.name()?.to_string(),
            _ => return Err(self.unexpected(&format!("a {what}'s name"))),
        };
        while self.accept_op(".") {
            name = format!("{name}.{}", self.name()?);
        }
        let arguments = match self.is_op("(") {
            true => self.arguments()?,
            false => Arguments::default(),
        };
        Ok(Invocation {
            line,
            name: name.into(),
            arguments,
        })
    }

    fn test(&mut self, node: Expr) -> Result<ExprKind> {
        let line = self.line();
        let negated = self.accept_word("not");
        let mut test = self.invocation("test")?;
        let bare = match self.peek() {
            _ if test.arguments.positional.len() + test.arguments.named.len() > 0 => false,
            Token::Name(word) => !matches!(word.as_str(), "else" | "or" | "and" | "is" | "if"),
            Token::Str(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Op(op) => matches!(*op, "[" | "{"),
            _ => false,
        };
        // `x is divisibleby 3`; words like `recursive` end a loop's head and are no argument, as in Jinja2.
        if bare {
            let primary = self.primary()?;
            let argument = self.nested(|parser| parser.postfixes(primary, false))?;
            test.arguments.positional.push(argument);
        }
        let kind = ExprKind::Test(Box::new(node), Box::new(test));
        Ok(match negated {
            true => ExprKind::Not(Box::new(expr(line, kind))),
            false => kind,
        })
    }

    fn arguments(&mut self) -> Result<Arguments> {
        self.expect_op("(")?;
        let mut arguments = Arguments::default();
        let mut any = false;
        while !self.is_op(")") {
            if any {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            any = true;
            if self.accept_op("**") {
                arguments.spread_named = Some(self.expression()?);
            } else if self.accept_op("*") {
                arguments.spread = Some(self.expression()?);
            } else if let (Token::Name(_), Token::Op("=")) = (self.peek(), self.ahead(1)) {
                let name = self.name()?;
                self.next();
                arguments.named.push((name, self.expression()?));
            } else if arguments.named.is_empty() {
                arguments.positional.push(self.expression()?);
            } else {
                return Err(self.unexpected("a named argument"));
            }
        }
        self.expect_op(")")?;
        Ok(arguments)
    }
}

fn expr(line: u32, kind: ExprKind) -> Expr {
    Expr { line, kind }
}

/// The only part, or the node of several.
fn flat(line: u32, mut parts: Vec<Expr>, node: fn(Vec<Expr>) -> ExprKind) -> Expr {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            expr(line, node(parts))
        }
    }
}
