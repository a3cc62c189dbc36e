//! One row of a set, its columns asked for by name and type.

use records::Message;
use serde_json::{Map, Value};

/// A column that holds something else than its layout says.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub column: String,
    pub found: &'static str,
    pub expected: &'static str,
}

/// A turn as it was found; null where it, its role or its content is.
pub type Turn = Option<Message>;

/// The columns of one row. One that is not there is null.
#[derive(Debug, Default)]
pub struct Row(pub Map<String, Value>);

impl Row {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
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

    /// A text, or a number as text.
    pub fn text_or_number(&self, name: &str) -> Result<Option<String>, Mismatch> {
        match self.get(name) {
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::String(_)) | None => Ok(self.text(name)?.map(str::to_owned)),
            Some(other) => Err(mismatch(name, other, "text or a number")),
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

    /// A conversation, its roles by the names that chat templates have for them.
    pub fn turns(&self, name: &str) -> Result<Option<Vec<Turn>>, Mismatch> {
        let expected = "a list of {role, content} or {from, value}";
        let list = match self.get(name) {
            None => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(mismatch(name, other, expected)),
        };
        let turn = |value: &Value| {
            let fields = match value {
                Value::Null => return Ok(None),
                Value::Object(fields) => fields,
                other => return Err(mismatch(name, other, expected)),
            };
            let field = |names: [&str; 2]| {
                let found = names.into_iter().find_map(|name| fields.get(name));
                match found {
                    None | Some(Value::Null) => Ok(None),
                    Some(Value::String(text)) => Ok(Some(text.as_str())),
                    Some(other) => Err(mismatch(name, other, "text in its turns")),
                }
            };
            let (role, content) = (field(["role", "from"])?, field(["content", "value"])?);
            Ok(role
                .zip(content)
                .map(|(role, content)| Message::new(canonical_role(role), content)))
        };
        list.iter().map(turn).collect::<Result<_, _>>().map(Some)
    }

    pub fn is_text(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::String(_)))
    }
}

fn not_blank(text: &&str) -> bool {
    !text.trim().is_empty()
}

/// ShareGPT's names beside the usual ones; others stay.
fn canonical_role(role: &str) -> &str {
    match role {
        "human" => "user",
        "gpt" => "assistant",
        other => other,
    }
}

fn mismatch(column: &str, found: &Value, expected: &'static str) -> Mismatch {
    Mismatch {
        column: column.to_owned(),
        found: match found {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a record",
        },
        expected,
    }
}
