//! One turn: its role, its text, its thought.

use serde_json::{Map, Value, json};

use super::{kind, untagged, without_nulls};
use crate::Message;
use crate::Role;

/// Names of a thought's field, in the order in which they are looked at.
const THOUGHTS: [&str; 4] = ["reasoning_content", "reasoning", "thinking", "thought"];
/// OpenRouter's list of a thought's pieces.
const DETAILS: &str = "reasoning_details";
/// Names of the flag that says whether a turn is learnt.
const FLAGS: [&str; 3] = ["train", "training", "weight"];
const TOOL_CALLS: &str = "tool_calls";

/// A message by itself, in any layout.
///
/// # Errors
/// A text that names the field.
pub fn message(value: &Value) -> Result<Message, String> {
    read("message", value)
}

/// The turn called `name` in refusals.
pub(super) fn read(name: &str, value: &Value) -> Result<Message, String> {
    let Value::Object(turn) = value else {
        return Err(format!("`{name}` is {}, not a turn", kind(value)));
    };
    let role = text_of(name, turn, ["role", "from"])?;
    let (role, called) = canonical_role(role);
    let is_assistant = role == Role::Assistant;
    let content_name = match turn.contains_key("value") && !turn.contains_key("content") {
        true => "value",
        false => "content",
    };
    let mut read = Message::new(role.clone(), "");
    for (field, value) in turn {
        match field.as_str() {
            "role" | "from" | "content" | "value" => {}
            _ if value.is_null() => {}
            flag if FLAGS.contains(&flag) => flagged(name, flag, value, &mut read)?,
            thought if THOUGHTS.contains(&thought) || thought == DETAILS => {
                if !is_assistant {
                    read.fields.insert(field.clone(), value.clone());
                }
            }
            // JSON text, as tables hold what has no fixed shape.
            TOOL_CALLS => {
                let calls = list(&format!("{name}.{field}"), value)?;
                if calls.as_array().is_some_and(|calls| !calls.is_empty()) {
                    read.fields.insert(field.clone(), without_nulls(&calls));
                }
            }
            _ => {
                read.fields.insert(field.clone(), without_nulls(value));
            }
        }
    }
    let place = format!("{name}.{content_name}");
    let content = match turn.get(content_name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some((text.clone(), None)),
        Some(Value::Array(parts)) => Some(joined(&place, parts)?),
        Some(other) => return Err(format!("`{place}` is {}, not text", kind(other))),
    };
    let thought_apart = match is_assistant {
        true => thought_of(name, turn)?,
        false => None,
    };
    let has_content = content.is_some();
    let (text, thought_in_parts) = content.unwrap_or_default();
    read.content = text;
    let thought = match (thought_apart, thought_in_parts) {
        (Some(apart), Some(inside)) if apart.trim() != inside.trim() => {
            return Err(format!(
                "`{name}` has two thoughts that differ, one of them in `{place}`"
            ));
        }
        (apart, inside) => apart.or(inside),
    };
    if called {
        read.fields
            .insert(TOOL_CALLS.to_owned(), call_of(&place, &read.content)?);
        read.content.clear();
    }
    // An assistant that says nothing is a turn all the same; whoever learns from it says so.
    if !has_content && !is_assistant {
        return Err(format!("`{place}` is null"));
    }
    if let Some(thought) = thought {
        if !is_assistant {
            return Err(format!(
                "`{place}` holds a thought, and its role is `{role}`"
            ));
        }
        read.content = without_its_own(name, &read.content, &thought)?.to_owned();
        read.reasoning = Some(thought);
    }
    Ok(read)
}

fn text_of<'v>(
    name: &str,
    turn: &'v Map<String, Value>,
    names: [&str; 2],
) -> Result<&'v str, String> {
    let found = names
        .into_iter()
        .find_map(|field| Some((field, turn.get(field)?)));
    match found {
        Some((_, Value::String(text))) => Ok(text),
        None | Some((_, Value::Null)) => Err(format!("`{name}` has no `{}`", names[0])),
        Some((field, other)) => Err(format!("`{name}.{field}` is {}, not text", kind(other))),
    }
}

/// The name that chat templates have for a role, and whether the turn's text is a call.
fn canonical_role(role: &str) -> (Role, bool) {
    match role {
        "human" => (Role::User, false),
        "gpt" | "chatgpt" | "bing" | "bard" | "model" => (Role::Assistant, false),
        "observation" | "function_response" | "tool_response" => (Role::Tool, false),
        "function_call" => (Role::Assistant, true),
        other => (other.into(), false),
    }
}

/// ShareGPT's `function_call`: a call, or a list of them, as JSON text.
fn call_of(place: &str, text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("`{place}` is no call in JSON: {error}"))?;
    let calls = match value {
        Value::Array(calls) => calls,
        one => vec![one],
    };
    let call = |call: Value| match call.get("name").is_some_and(Value::is_string) {
        true => Ok(json!({"type": "function", "function": call})),
        false => Err(format!("`{place}` is a call without a `name`")),
    };
    calls
        .into_iter()
        .map(call)
        .collect::<Result<_, _>>()
        .map(Value::Array)
}

fn flagged(name: &str, flag: &str, value: &Value, read: &mut Message) -> Result<(), String> {
    let learnt = match value {
        Value::Bool(learnt) => *learnt,
        Value::Number(number) if number.as_f64() == Some(0.0) => false,
        Value::Number(number) if number.as_f64() == Some(1.0) => true,
        other => {
            return Err(format!(
                "`{name}.{flag}` is {other}; 0, 1, true and false are understood"
            ));
        }
    };
    if read.role == Role::Assistant {
        if read.train.is_some_and(|before| before != learnt) {
            return Err(format!(
                "`{name}` says that it is learnt and that it is not"
            ));
        }
        read.train = Some(learnt);
    } else if learnt {
        // Only an assistant's turns are learnt; the flag is reported as a field that nobody reads.
        read.fields.insert(flag.to_owned(), value.clone());
    }
    Ok(())
}

/// A list, or a text that is one in JSON.
pub(super) fn list(place: &str, value: &Value) -> Result<Value, String> {
    match value {
        Value::Array(_) => Ok(value.clone()),
        Value::String(text) if text.trim().is_empty() => Ok(Value::Array(Vec::new())),
        Value::String(text) => serde_json::from_str::<Vec<Value>>(text)
            .map(Value::Array)
            .map_err(|error| format!("`{place}` is a text, and no list in JSON: {error}")),
        other => Err(format!("`{place}` is {}, not a list", kind(other))),
    }
}

/// The texts of parts, and their thoughts, each joined.
fn joined(place: &str, parts: &[Value]) -> Result<(String, Option<String>), String> {
    let (mut text, mut thought) = (String::new(), String::new());
    for (at, part) in parts.iter().enumerate() {
        let place = format!("{place}[{at}]");
        let fields = match part {
            Value::String(part) => {
                text.push_str(part);
                continue;
            }
            Value::Object(fields) => fields,
            other => return Err(format!("`{place}` is {}, not a part", kind(other))),
        };
        let own = |names: &[&str]| {
            let found = names
                .iter()
                .find_map(|name| fields.get(*name).filter(|v| !v.is_null()));
            match found {
                None => Ok(String::new()),
                Some(Value::String(text)) => Ok(text.clone()),
                // Mistral's thoughts are parts again.
                Some(Value::Array(parts)) => joined(&place, parts).map(|(text, _)| text),
                Some(other) => Err(format!("`{place}` holds {}, not text", kind(other))),
            }
        };
        match fields.get("type").and_then(Value::as_str) {
            Some("text" | "input_text" | "output_text") | None
                if fields.get("text").is_some_and(|text| !text.is_null()) =>
            {
                text.push_str(&own(&["text"])?);
            }
            Some("thinking" | "reasoning" | "think" | "thought") => {
                thought.push_str(&own(&["thinking", "reasoning", "text", "content"])?);
            }
            Some(other) => {
                return Err(format!(
                    "`{place}` is a part of type `{other}`, which is no text"
                ));
            }
            None => return Err(format!("`{place}` is a part without a text")),
        }
    }
    let thought = untagged(&thought).to_owned();
    Ok((
        text,
        Some(thought).filter(|thought| !thought.trim().is_empty()),
    ))
}

/// The thought in a field of its own; fields that repeat one another are one.
fn thought_of(name: &str, turn: &Map<String, Value>) -> Result<Option<String>, String> {
    let mut found: Option<(&str, String)> = None;
    for field in THOUGHTS {
        let text = match turn.get(field) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => {
                let (text, thought) = joined(&format!("{name}.{field}"), parts)?;
                thought.unwrap_or(text)
            }
            Some(other) => return Err(format!("`{name}.{field}` is {}, not text", kind(other))),
        };
        let text = untagged(&text).to_owned();
        if text.trim().is_empty() {
            continue;
        }
        match &found {
            None => found = Some((field, text)),
            Some((_, before)) if before.trim() == text.trim() => {}
            Some((before, _)) => {
                return Err(format!(
                    "`{name}` has two thoughts that differ: `{before}` and `{field}`"
                ));
            }
        }
    }
    if let Some((_, text)) = found {
        return Ok(Some(text));
    }
    let pieces = turn.get(DETAILS).and_then(Value::as_array);
    let texts = pieces
        .into_iter()
        .flatten()
        .filter_map(|piece| piece.get("text")?.as_str());
    let text: String = texts.collect();
    let text = untagged(&text).to_owned();
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

/// The content without a thought that it repeats, or an empty one.
fn without_its_own<'c>(name: &str, content: &'c str, thought: &str) -> Result<&'c str, String> {
    let start = content.trim_start();
    let Some((inside, rest)) = start
        .strip_prefix("<think>")
        .and_then(|rest| rest.split_once("</think>"))
    else {
        return Ok(content);
    };
    match inside.trim() {
        "" => Ok(rest.trim_start_matches(['\r', '\n'])),
        inside if inside == thought.trim() => Ok(rest.trim_start_matches(['\r', '\n'])),
        _ => Err(format!(
            "`{name}` has two thoughts that differ: one in its content, one beside it"
        )),
    }
}
