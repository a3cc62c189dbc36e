//! Which columns of a row are its conversation.

use serde_json::{Map, Value};

use super::turn::list;
use super::{Conversation, is_turns, kind, turns, without_nulls};
use crate::Message;
use crate::Role;

/// Names of a column that holds a list of turns.
const CONVERSATIONS: [&str; 3] = ["messages", "conversations", "conversation"];

/// Every column that a layout reads.
pub const COLUMNS: [&str; 12] = [
    "messages",
    "conversations",
    "conversation",
    "prompt",
    "completion",
    "response",
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "tools",
];

/// How a row holds its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A list of turns.
    Turns(&'static str),
    /// TRL's: `prompt` and `completion` (or `response`), each a text or a list of turns.
    PromptCompletion(&'static str),
    /// Alpaca's: `instruction`, `input`, `output`, with LLaMA-Factory's `history` of pairs.
    Alpaca,
}

impl Layout {
    /// The layout that columns of these names make.
    pub fn of(has: impl Fn(&str) -> bool) -> Option<Self> {
        if let Some(name) = CONVERSATIONS.into_iter().find(|name| has(name)) {
            return Some(Self::Turns(name));
        }
        let answer = ["completion", "response"]
            .into_iter()
            .find(|name| has(name));
        match answer {
            Some(answer) if has("prompt") => Some(Self::PromptCompletion(answer)),
            _ if has("instruction") && has("output") => Some(Self::Alpaca),
            _ => None,
        }
    }

    /// The row's conversation, its `system` and its `tools` with it.
    ///
    /// # Errors
    /// A text that names the field which is none of a conversation.
    pub fn read(self, row: &Map<String, Value>) -> Result<Conversation, String> {
        let mut messages = match self {
            Self::Turns(name) => match row.get(name) {
                None | Some(Value::Null) => return Err(format!("`{name}` is null")),
                Some(value) => turns(name, value)?,
            },
            Self::PromptCompletion(answer) => {
                let mut messages = side(row, "prompt", "user")?;
                messages.extend(side(row, answer, "assistant")?);
                messages
            }
            Self::Alpaca => alpaca(row)?,
        };
        if let Some(system) = text(row, "system")?
            && messages
                .first()
                .is_none_or(|first| first.role != Role::System)
        {
            messages.insert(0, Message::new("system", system));
        }
        let tools = match row.get("tools") {
            None | Some(Value::Null) => None,
            Some(value) => Some(list("tools", value)?)
                .filter(|tools| tools.as_array().is_some_and(|tools| !tools.is_empty())),
        };
        Ok(Conversation {
            messages,
            tools: tools.as_ref().map(without_nulls),
        })
    }
}

/// A side of TRL's pair.
fn side(row: &Map<String, Value>, name: &str, role: &str) -> Result<Vec<Message>, String> {
    match row.get(name) {
        None | Some(Value::Null) => Err(format!("`{name}` is null")),
        Some(Value::String(text)) if !is_turns(text) => Ok(vec![Message::new(role, text.as_str())]),
        Some(value) => turns(name, value),
    }
}

fn alpaca(row: &Map<String, Value>) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    let history = match row.get("history") {
        None | Some(Value::Null) => Value::Array(Vec::new()),
        Some(value) => list("history", value)?,
    };
    for (at, pair) in history.as_array().into_iter().flatten().enumerate() {
        match pair.as_array().map(Vec::as_slice) {
            Some([Value::String(asked), Value::String(said)]) => {
                messages.push(Message::new("user", asked.as_str()));
                messages.push(Message::new("assistant", said.as_str()));
            }
            _ => return Err(format!("`history[{at}]` is no pair of texts")),
        }
    }
    let instruction = text(row, "instruction")?.ok_or("`instruction` is null")?;
    let asked = match text(row, "input")? {
        Some(input) if !input.trim().is_empty() => format!("{instruction}\n{input}"),
        _ => instruction.to_owned(),
    };
    messages.push(Message::new("user", asked));
    let output = text(row, "output")?.ok_or("`output` is null")?;
    messages.push(Message::new("assistant", output));
    Ok(messages)
}

fn text<'v>(row: &'v Map<String, Value>, name: &str) -> Result<Option<&'v str>, String> {
    match row.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{name}` is {}, not text", kind(other))),
    }
}
