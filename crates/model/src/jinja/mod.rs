//! Jinja2 as chat templates use it: Python's meaning, within bounds.
//!
//! transformers renders a chat template with Jinja2 in Python. The same text has to come out here to the last
//! character, for it is what a model was trained on. The template itself comes with the model, from anywhere. No
//! engine at hand does both: minijinja prints `none` and `true` where Python prints `None` and `True`, gives a length
//! to nothing that Python has one for, and joins texts (`s ~ s`, sixty times) without asking anybody for the memory.
//! This one covers the language of chat templates, one template without inheritance, and nothing more:
//!
//! - [`lexer`], [`parser`], [`parser_expression`]: text to [`ast`], nesting bounded.
//! - [`value`], [`scope`]: what variables hold; [`printing`]: how they are written.
//! - [`statements`], [`expressions`], [`calls`], [`operators`]: evaluation.
//! - [`filters`], [`sequence_filters`], [`checks`], [`methods`], [`text_methods`], [`functions`], [`formatting`],
//!   [`json`]: what templates call.
//! - [`bounds`]: steps, live memory and depth, which whatever makes work or memory asks first.
//!
//! Differences that remain: whole numbers end at 128 bits, `map` and its like give lists where Jinja2 gives generators,
//! and nothing is escaped for HTML unless `escape` is asked for.

mod ast;
mod bounds;
mod calls;
mod checks;
mod expressions;
mod filters;
mod formatting;
mod functions;
mod json;
mod lexer;
mod methods;
mod operators;
mod parser;
mod parser_expression;
mod printing;
mod scope;
mod sequence_filters;
mod statements;
#[cfg(test)]
mod tests;
mod text_methods;
mod value;

use ast::Ast;
pub(crate) use bounds::Limits;

pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

/// What a template does wrong, and in which of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub message: String,
    pub line: Option<u32>,
}

impl Problem {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            line: None,
        }
    }

    /// Gives the line, unless an inner part of the template has.
    fn at(mut self, line: u32) -> Self {
        self.line.get_or_insert(line);
        self
    }
}

/// Templates longer than this are refused; the longest of current models have some 20 KB.
const MAX_SOURCE: usize = 1 << 20;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    ast: Ast,
}

impl Template {
    pub(crate) fn parse(source: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE {
            let problem = format!("is longer than {} KiB", MAX_SOURCE >> 10);
            return Err(Problem::new(problem));
        }
        Ok(Self {
            ast: parser::parse(source)?,
        })
    }

    /// Whether the template reads a variable or calls a function of this name anywhere.
    pub(crate) fn reads(&self, name: &str) -> bool {
        self.ast.reads.iter().any(|read| **read == *name)
    }

    /// Whether an attribute or a text of this name stands anywhere in the template: `message.tool_calls`,
    /// `message['tool_calls']`, `'tool_calls' in message`.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        self.ast.mentions.iter().any(|known| **known == *name)
    }

    /// Renders with these variables; `now` is what `strftime_now` tells, in seconds since 1970, UTC.
    pub(crate) fn render(
        &self,
        variables: &[(&str, serde_json::Value)],
        now: i64,
        limits: Limits,
    ) -> Result<String> {
        statements::render(&self.ast, variables, now, limits)
    }
}
