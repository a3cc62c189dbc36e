//! One row of a set, its columns asked for by name and type.

use std::fmt;

use records::Message;
use records::benchmark::text_of;
use records::conversation::{self, kind};
use serde_json::{Map, Value};

/// A column that holds something else than its layout says.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub column: String,
    pub found: &'static str,
    pub expected: &'static str,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            column,
            found,
            expected,
        } = self;
        write!(f, "column `{column}` holds {found}, expected {expected}")
    }
}

/// A turn, or why it is none.
pub type Turn = Result<Message, String>;

/// The columns of one row; names may be dotted paths into them. One that is not there is null.
#[derive(Debug, Default)]
pub struct Row(pub Map<String, Value>);

impl Row {
    fn get(&self, name: &str) -> Option<&Value> {
        conversation::at(&self.0, name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A text that is neither null nor blank.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Mismatch> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(not_blank)),
            Some(other) => Err(mismatch(name, other, "text")),
        }
    }

    /// A gold answer: a text, a number as text, or a list of answers of which any is right.
    pub fn gold(&self, name: &str) -> Result<Option<String>, Mismatch> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value {
            Value::Array(items) if items.is_empty() => Ok(None),
            Value::String(text) => Ok(Some(text.clone()).filter(|text| not_blank(&text.as_str()))),
            value => match text_of(value) {
                Some(text) => Ok(Some(text)),
                None => Err(mismatch(name, value, "text, a number, or a list of them")),
            },
        }
    }

    pub fn texts(&self, name: &str) -> Result<Option<Vec<Option<&str>>>, Mismatch> {
        let expected = "a list of texts";
        let list = match self.get(name) {
            None => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(mismatch(name, other, expected)),
        };
        let texts = list.iter().map(|value| match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.as_str()).filter(not_blank)),
            other => Err(mismatch(name, other, expected)),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// A conversation, in every layout of turns.
    pub fn turns(&self, name: &str) -> Result<Option<Vec<Turn>>, Mismatch> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let turns = conversation::each_turn(name, value);
        turns.map(Some).map_err(|_| {
            let expected = "a list of {role, content} or {from, value}";
            mismatch(name, value, expected)
        })
    }

    /// Whether it holds nothing: an empty list, or a text that is blank or an empty list.
    pub fn is_empty(&self, name: &str) -> bool {
        match self.get(name) {
            None => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::String(text)) => matches!(text.trim(), "" | "[]" | "null"),
            Some(_) => false,
        }
    }

    /// Whether it is a text, and no list of turns in JSON.
    pub fn is_text(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::String(text)) if !conversation::is_turns(text))
    }

    /// Whether it is a list of texts, or of nulls.
    pub fn is_texts(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Value::Array(items)) => items
                .iter()
                .all(|item| matches!(item, Value::String(_) | Value::Null)),
            _ => false,
        }
    }
}

fn not_blank(text: &&str) -> bool {
    !text.trim().is_empty()
}

fn mismatch(column: &str, found: &Value, expected: &'static str) -> Mismatch {
    Mismatch {
        column: column.to_owned(),
        found: kind(found),
        expected,
    }
}
