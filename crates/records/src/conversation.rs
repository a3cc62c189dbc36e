//! Conversations in the layouts that people have them in, read the same way for training, imports and scoring.
//!
//! - A turn is `{role, content}` or ShareGPT's `{from, value}`, with either's names for roles.
//! - `content` is a text, or a list of parts whose texts are joined. A part that is no text is refused.
//! - A thought may stand in a field of its own (`reasoning_content`, `reasoning`, `thinking`, `thought`), in parts of
//!   type `thinking` or `reasoning`, or in `reasoning_details`. Blank ones are absent.
//! - `tool_calls`, `name` and every other field are kept for the chat template, without their nulls: columns of
//!   structs have a null for each key that another row has.
//! - `train` and `weight` (0 or 1) say whether an assistant's turn is learnt.
//! - A list of turns may be JSON text.
//!
//! Refusals name the field, from the row's column down: `messages[1].content[0]`.

use serde_json::{Map, Value};

use crate::Message;

mod layout;
mod turn;

pub use layout::{COLUMNS, Layout};
pub use turn::message;

/// A conversation, and the tools that its assistant may call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// JSON schemas, as chat templates take them.
    pub tools: Option<Value>,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self {
            messages,
            tools: None,
        }
    }
}

/// The turns of a list, or of a text that is one in JSON. `name` is what a refusal calls the list.
///
/// # Errors
/// A text that says which turn is none, and why.
pub fn turns(name: &str, value: &Value) -> Result<Vec<Message>, String> {
    each_turn(name, value)?.into_iter().collect()
}

/// [`turns`], each read by itself.
///
/// # Errors
/// A value that is no list of turns.
pub fn each_turn(name: &str, value: &Value) -> Result<Vec<Result<Message, String>>, String> {
    let parsed;
    let list = match value {
        Value::Array(list) => list,
        Value::String(text) => {
            parsed = serde_json::from_str::<Vec<Value>>(text)
                .map_err(|error| format!("`{name}` is a text, and no list of turns: {error}"))?;
            &parsed
        }
        other => return Err(format!("`{name}` is {}, not a list of turns", kind(other))),
    };
    let turns = list.iter().enumerate();
    let turns = turns.map(|(at, turn)| turn::read(&format!("{name}[{at}]"), turn));
    Ok(turns.collect())
}

/// Whether a text is a list of turns in JSON: records that each have a role. A text that merely looks like a list is text.
pub fn is_turns(text: &str) -> bool {
    let start = text.trim_start();
    if !start.starts_with('[') || !start[1..].trim_start().starts_with('{') {
        return false;
    }
    let turns: Result<Vec<Map<String, Value>>, _> = serde_json::from_str(text);
    let has_role =
        |turn: &Map<String, Value>| turn.contains_key("role") || turn.contains_key("from");
    turns.is_ok_and(|turns| turns.iter().all(has_role))
}

/// A thought without the tags around it. White space beside a tag goes with it; a thought without tags is as it was.
pub fn untagged(thought: &str) -> &str {
    let inner = match thought.trim_start().strip_prefix("<think>") {
        Some(opened) => opened.trim_start(),
        None => thought,
    };
    let inner = match inner.trim_end().strip_suffix("</think>") {
        Some(closed) => closed.trim_end(),
        None => inner,
    };
    match inner.len() == thought.len() {
        true => thought,
        false => inner.trim(),
    }
}

/// What a JSON value is, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a record",
    }
}

/// The value at a dotted path: a column of that very name, else a field within a column, or an item of a list by its
/// number. Nulls are absent.
pub fn at<'v>(row: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    if let Some(value) = row.get(path) {
        return Some(value).filter(|value| !value.is_null());
    }
    // The longest column name that the path begins with.
    for (dot, _) in path.rmatch_indices('.') {
        let Some(column) = row.get(&path[..dot]) else {
            continue;
        };
        return within(column, &path[dot + 1..]);
    }
    None
}

fn within<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => at(fields, path),
        Value::Array(items) => {
            let (number, rest) = path
                .split_once('.')
                .map_or((path, None), |(n, r)| (n, Some(r)));
            let item = items.get(number.parse::<usize>().ok()?)?;
            match rest {
                None => Some(item).filter(|item| !item.is_null()),
                Some(rest) => within(item, rest),
            }
        }
        _ => None,
    }
}

/// Takes nulls out of records, however deep.
pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
