use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::Role;
use crate::conversation;

/// One turn of a conversation, in the shape chat templates and TRL read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Others than those that are known reach the chat template as they are.
    pub role: Role,
    /// Text; empty where the turn only thinks or only calls tools.
    pub content: String,
    /// The thought of an assistant's turn, where it stands in a field of its own.
    pub reasoning: Option<String>,
    /// Whether an assistant's turn is learnt, where the data says so.
    pub train: Option<bool>,
    /// Further fields by their own names, such as `tool_calls` and `name`, for chat templates.
    pub fields: Map<String, Value>,
}

/// The name under which a thought of its own is written.
pub const REASONING: &str = "reasoning_content";

impl Message {
    pub fn new(role: impl Into<Role>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            ..Self::default()
        }
    }

    /// The turn with its thought within its content: `<think>`, the thought, `</think>`, the content.
    ///
    /// A thought with neither content nor calls behind it is one that never ended: its tag stays open.
    #[must_use]
    pub fn with_thought_inside(mut self) -> Self {
        if let Some(reasoning) = self.reasoning.take() {
            self.content = thought_and_answer(&reasoning, &self.content);
            if !self.content.contains("</think>") && self.calls() {
                self.content.push_str("\n</think>\n\n");
            }
        }
        self
    }

    /// Whether the turn calls tools.
    pub fn calls(&self) -> bool {
        self.fields.contains_key("tool_calls")
    }
}

/// A thought and an answer as one text.
#[must_use]
pub fn thought_and_answer(thought: &str, answer: &str) -> String {
    let (thought, answer) = (thought.trim(), answer.trim());
    match answer {
        "" => format!("<think>\n{thought}"),
        answer => format!("<think>\n{thought}\n</think>\n\n{answer}"),
    }
}

impl Serialize for Message {
    /// The keys that transformers' templates read; the thought is `reasoning_content`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", &self.role)?;
        map.serialize_entry("content", &self.content)?;
        if let Some(reasoning) = &self.reasoning {
            map.serialize_entry(REASONING, reasoning)?;
        }
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Message {
    /// A message in any of the layouts that [`conversation`] knows.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        conversation::message(&value).map_err(serde::de::Error::custom)
    }
}
