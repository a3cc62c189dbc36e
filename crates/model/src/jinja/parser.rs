//! Tokens as statements; expressions are in [`parser_expression`](super::parser_expression).

use std::sync::Arc;

use super::ast::{Ast, Expr, ExprKind, For, Macro, Stmt, StmtKind, Target};
use super::lexer::{Token, tokens};
use super::{Problem, Result};

/// Statements and expressions inside each other: both are parsed, evaluated and dropped by recursion.
const MAX_NESTING: usize = 60;

pub(super) fn parse(source: &str) -> Result<Ast> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        nesting: 0,
        loops_open: 0,
        ast: Ast::default(),
    };
    let (body, _) = parser.body(&[])?;
    parser.ast.body = body;
    Ok(parser.ast)
}

pub(super) struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    nesting: usize,
    /// Loops around this place, inside this macro.
    loops_open: usize,
    pub(super) ast: Ast,
}

impl Parser {
    pub(super) fn peek(&self) -> &Token {
        self.ahead(0)
    }

    pub(super) fn ahead(&self, n: usize) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + n).min(last)].0
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(found) if *found == op)
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == word)
    }

    pub(super) fn accept_op(&mut self, op: &str) -> bool {
        let is = self.is_op(op);
        self.at += usize::from(is);
        is
    }

    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let is = self.is_word(word);
        self.at += usize::from(is);
        is
    }

    pub(super) fn expect_op(&mut self, op: &'static str) -> Result<()> {
        if self.accept_op(op) {
            return Ok(());
        }
        Err(self.unexpected(&format!("`{op}`")))
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.accept_word(word) {
            return Ok(());
        }
        Err(self.unexpected(&format!("`{word}`")))
    }

    pub(super) fn name(&mut self) -> Result<Arc<str>> {
        match self.peek() {
            Token::Name(name) => {
                let name = name.as_str().into();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Problem {
        let found = match self.peek() {
            Token::Data(_) | Token::End => "the end".into(),
            Token::PrintBegin => "`{{`".into(),
            Token::PrintEnd => "`}}`".into(),
            Token::BlockBegin => "`{%`".into(),
            Token::BlockEnd => "`%}`".into(),
            Token::Name(name) => format!("`{name}`"),
            Token::Str(_) => "a text".into(),
            Token::Int(n) => format!("`{n}`"),
            Token::Float(x) => format!("`{x}`"),
            Token::Op(op) => format!("`{op}`"),
        };
        self.problem(format!("{wanted} is expected, but {found} stands there"))
    }

    pub(super) fn problem(&self, message: String) -> Problem {
        Problem::new(message).at(self.line())
    }

    /// Parses something that can nest.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting >= MAX_NESTING {
            let problem = format!("nests deeper than {MAX_NESTING} levels");
            return Err(self.problem(problem));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    /// Statements up to a tag named in `ends`, whose name is returned and whose rest stays; without `ends`, to the end.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, String)> {
        self.nested(|parser| parser.statements(ends))
    }

    fn statements(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, String)> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.next() {
                Token::End if ends.is_empty() => return Ok((body, String::new())),
                Token::Data(text) => StmtKind::Text(text.into()),
                Token::PrintBegin => {
                    let expr = self.tuple(true)?;
                    if *self.peek() != Token::PrintEnd {
                        return Err(self.unexpected("an operator or `}}`"));
                    }
                    self.at += 1;
                    StmtKind::Print(expr)
                }
                Token::BlockBegin => {
                    let name = self.name()?;
                    if ends.contains(&&*name) {
                        return Ok((body, name.to_string()));
                    }
                    self.tag(&name)?
                }
                _ => {
                    self.at -= 1;
                    let ends: Vec<_> = ends.iter().map(|end| format!("`{{% {end} %}}`")).collect();
                    return Err(self.unexpected(&ends.join(" or ")));
                }
            };
            body.push(Stmt { line, kind });
        }
    }

    fn close_tag(&mut self) -> Result<()> {
        if *self.peek() != Token::BlockEnd {
            return Err(self.unexpected("`%}`"));
        }
        self.at += 1;
        Ok(())
    }

    /// A body, the tag that ends it included.
    fn whole(&mut self, end: &'static str) -> Result<Vec<Stmt>> {
        self.close_tag()?;
        let (body, _) = self.body(&[end])?;
        if end == "endblock" || end == "endmacro" {
            // The name may stand there again.
            if let Token::Name(_) = self.peek() {
                self.at += 1;
            }
        }
        self.close_tag()?;
        Ok(body)
    }

    fn tag(&mut self, name: &str) -> Result<StmtKind> {
        match name {
            "if" => self.conditional(),
            "for" => self.for_loop(),
            "set" => self.set(),
            "macro" => {
                let name = self.name()?;
                let number = self.macro_of(name, "endmacro")?;
                Ok(StmtKind::Macro(number))
            }
            "call" => {
                let parameters = if self.is_op("(") {
                    self.parameters()?
                } else {
                    Vec::new()
                };
                let call = self.expression()?;
                if !matches!(call.kind, ExprKind::Call(..)) {
                    return Err(self.unexpected("a call"));
                }
                let number = self.finish_macro("caller".into(), parameters, "endcall")?;
                Ok(StmtKind::CallBlock(call, number))
            }
            "filter" => {
                let first = self.invocation("filter")?;
                let filters = self.more_filters(vec![first])?;
                Ok(StmtKind::Filter(filters, self.whole("endfilter")?))
            }
            "with" => {
                let mut assignments = Vec::new();
                while *self.peek() != Token::BlockEnd {
                    if !assignments.is_empty() {
                        self.expect_op(",")?;
                    }
                    let target = self.target()?;
                    self.expect_op("=")?;
                    assignments.push((target, self.expression()?));
                }
                Ok(StmtKind::With(assignments, self.whole("endwith")?))
            }
            "generation" => Ok(StmtKind::Inside(self.whole("endgeneration")?)),
            "block" => {
                self.name()?;
                while self.accept_word("scoped") || self.accept_word("required") {}
                Ok(StmtKind::Inside(self.whole("endblock")?))
            }
            "break" | "continue" if self.loops_open == 0 => {
                Err(self.problem(format!("`{name}` stands in no loop")))
            }
            "break" => self.close_tag().map(|()| StmtKind::Break),
            "continue" => self.close_tag().map(|()| StmtKind::Continue),
            "include" | "import" | "from" | "extends" => Err(self.problem(format!(
                "`{name}` asks for another template, which a chat template does not have"
            ))),
            other => Err(self.problem(format!("the tag `{other}` is unknown here"))),
        }
    }

    fn conditional(&mut self) -> Result<StmtKind> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let condition = self.tuple(false)?;
            self.close_tag()?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            match end.as_str() {
                "elif" => continue,
                "else" => otherwise = self.whole("endif")?,
                _ => self.close_tag()?,
            }
            return Ok(StmtKind::If {
                branches,
                otherwise,
            });
        }
    }

    fn for_loop(&mut self) -> Result<StmtKind> {
        let target = self.target()?;
        self.expect_word("in")?;
        let iterable = self.tuple(false)?;
        let condition = match self.accept_word("if") {
            true => Some(self.expression()?),
            false => None,
        };
        let recursive = self.accept_word("recursive");
        self.close_tag()?;
        self.loops_open += 1;
        let (body, end) = self.body(&["else", "endfor"])?;
        self.loops_open -= 1;
        let otherwise = match end.as_str() {
            "else" => self.whole("endfor")?,
            _ => self.close_tag().map(|()| Vec::new())?,
        };
        self.ast.loops.push(For {
            target,
            iterable,
            condition,
            recursive,
            body,
            otherwise,
        });
        Ok(StmtKind::For(self.ast.loops.len() - 1))
    }

    fn set(&mut self) -> Result<StmtKind> {
        let target = self.target()?;
        if self.accept_op("=") {
            let value = self.tuple(true)?;
            self.close_tag()?;
            return Ok(StmtKind::Set(target, value));
        }
        let filters = self.more_filters(Vec::new())?;
        let body = self.whole("endset")?;
        Ok(StmtKind::SetBlock {
            target,
            filters,
            body,
        })
    }

    fn more_filters(
        &mut self,
        mut filters: Vec<super::ast::Invocation>,
    ) -> Result<Vec<super::ast::Invocation>> {
        while self.accept_op("|") {
            filters.push(self.invocation("filter")?);
        }
        Ok(filters)
    }

    fn macro_of(&mut self, name: Arc<str>, end: &'static str) -> Result<usize> {
        let parameters = self.parameters()?;
        self.finish_macro(name, parameters, end)
    }

    fn finish_macro(
        &mut self,
        name: Arc<str>,
        parameters: Vec<(Arc<str>, Option<Expr>)>,
        end: &'static str,
    ) -> Result<usize> {
        let loops_open = std::mem::take(&mut self.loops_open);
        let body = self.whole(end)?;
        self.loops_open = loops_open;
        self.ast.macros.push(Macro {
            name,
            parameters,
            body,
        });
        Ok(self.ast.macros.len() - 1)
    }

    fn parameters(&mut self) -> Result<Vec<(Arc<str>, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut parameters = Vec::new();
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            let name = self.name()?;
            let default = match self.accept_op("=") {
                true => Some(self.expression()?),
                false => None,
            };
            parameters.push((name, default));
        }
        self.expect_op(")")?;
        Ok(parameters)
    }

    /// What is assigned to: names, an attribute of a namespace, or several with commas.
    fn target(&mut self) -> Result<Target> {
        let first = self.one_target()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.accept_op(",") {
            if matches!(self.peek(), Token::Op("=")) || self.is_word("in") {
                break;
            }
            targets.push(self.one_target()?);
        }
        Ok(Target::Tuple(targets))
    }

    fn one_target(&mut self) -> Result<Target> {
        if self.accept_op("(") {
            let target = self.nested(Self::target)?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.name()?;
        if matches!(
            &*name,
            "true" | "false" | "none" | "True" | "False" | "None"
        ) {
            return Err(self.problem(format!("`{name}` cannot be set")));
        }
        if self.accept_op(".") {
            let attribute = self.name()?;
            self.ast.reads.push(Arc::clone(&name));
            return Ok(Target::Attribute(name, attribute));
        }
        Ok(Target::Name(name))
    }
}
