//! What every layout of a trace set does: say which columns it reads, and make traces of a row.

use arrow::datatypes::DataType;
use records::column::{holds_turns, item_type};
use records::{FinishReason, Message};

use super::completion::Completion;
use super::row::{Mismatch, Row};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Text, a number, or a list of them.
    Gold,
    Texts,
    Turns,
    TextOrTurns,
    /// Text, texts or turns.
    Any,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Gold => "text, a number, or a list of them",
            Kind::Texts => "a list of texts",
            Kind::Turns => "a list of {role, content} or {from, value}",
            Kind::TextOrTurns => "text, or a list of {role, content} or {from, value}",
            Kind::Any => "text, a list of texts, or a list of {role, content} or {from, value}",
        }
    }

    /// Whether Arrow columns of that type are read so.
    pub fn accepts(self, found: &DataType) -> bool {
        if *found == DataType::Null {
            return true;
        }
        match self {
            Kind::Text => is_text(found),
            Kind::Gold => is_scalar(found) || item_type(found).is_some_and(is_scalar),
            Kind::Texts => item_type(found).is_some_and(is_text),
            Kind::Turns | Kind::TextOrTurns => holds_turns(found),
            Kind::Any => holds_turns(found) || item_type(found).is_some_and(is_text),
        }
    }
}

fn is_text(found: &DataType) -> bool {
    match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

fn is_scalar(found: &DataType) -> bool {
    is_text(found) || found.is_integer() || found.is_floating() || found.is_decimal()
}

/// The columns that a layout reads.
#[derive(Debug, Default)]
pub struct Shape {
    pub columns: Vec<(String, Kind)>,
    /// Of each of these at least one has to be there.
    pub required: Vec<Vec<String>>,
}

impl Shape {
    /// A column under the recipe's name for it, which then has to be there, or else under its own.
    pub fn optional(mut self, named: &Option<String>, own: &str, kind: Kind) -> Self {
        if let Some(name) = named {
            return self.one_of(&[name], kind);
        }
        self.columns.push((own.to_owned(), kind));
        self
    }

    /// Columns of several kinds of which at least one has to be there.
    pub fn any_of<'n>(mut self, columns: impl Iterator<Item = (&'n str, Kind)>) -> Self {
        let columns: Vec<_> = columns
            .map(|(name, kind)| (name.to_owned(), kind))
            .collect();
        self.required
            .push(columns.iter().map(|(name, _)| name.clone()).collect());
        self.columns.extend(columns);
        self
    }

    /// Columns of which at least one has to be there.
    pub fn one_of(mut self, names: &[&str], kind: Kind) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        self.columns
            .extend(names.iter().map(|name| (name.clone(), kind)));
        self.required.push(names);
        self
    }
}

/// A problem, and how it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub problem: String,
    pub messages: Vec<Message>,
    pub gold_answer: Option<String>,
    /// The set's own word for where it came from.
    pub source: Option<String>,
}

impl Question {
    /// A problem that was put as it stands.
    pub fn alone(problem: &str) -> Self {
        Self {
            problem: problem.to_owned(),
            messages: vec![Message::new("user", problem)],
            gold_answer: None,
            source: None,
        }
    }
}

/// One answer to a question, or why the set has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub completion: Result<Completion, String>,
    /// As the set says.
    pub finish_reason: Option<FinishReason>,
    pub teacher: String,
}

impl Sample {
    pub fn failed(reason: impl Into<String>, teacher: &str) -> Self {
        Self {
            completion: Err(reason.into()),
            finish_reason: None,
            teacher: teacher.to_owned(),
        }
    }
}

/// What a row is.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Traces(Question, Vec<Sample>),
    /// Without an identity, and why.
    Nothing(String),
}

impl Found {
    /// A row that has no problem.
    pub fn no_problem() -> Self {
        Self::Nothing("no problem".to_owned())
    }
}

pub trait Adapter {
    fn shape(&self) -> Shape;
    fn read(&self, row: &Row) -> Result<Found, Mismatch>;
}

/// The teacher of a set that names none.
pub const UNKNOWN: &str = "unknown";

/// The name of a column: the recipe's, or else its own.
pub fn name<'a>(named: &'a Option<String>, own: &'a str) -> &'a str {
    named.as_deref().unwrap_or(own)
}
