//! Front matter of cards: JSON values as YAML in block style, so that people can edit it.

use serde_json::Value;

/// The value as YAML, each line with its end. Text that YAML 1.1 or 1.2 could read as anything else is quoted, in the form
/// of JSON's strings, which both read the same.
pub fn block(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value, 0);
    text
}

/// The front matter of a card: the value between its two lines.
pub fn front_matter(value: &Value) -> String {
    format!("---\n{}---\n", block(value))
}

fn write(text: &mut String, value: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                text.push_str(&format!("{pad}{}:", scalar(key)));
                below(text, value, indent);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                text.push_str(&pad);
                text.push('-');
                item(text, value, indent);
            }
        }
        value => text.push_str(&format!("{pad}{}\n", flow(value))),
    }
}

/// What stands behind a key.
fn below(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            write(text, value, indent + 2);
        }
        // At the key's own indentation, as the Hub writes it.
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            write(text, value, indent);
        }
        value => text.push_str(&format!(" {}\n", flow(value))),
    }
}

/// What stands behind the `-` of a list.
fn item(text: &mut String, value: &Value, indent: usize) {
    let mut inside = String::new();
    write(&mut inside, value, indent + 2);
    // Its first line goes on behind the dash.
    text.push(' ');
    text.push_str(inside.trim_start_matches(' '));
}

/// A value in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        value => value.to_string(),
    }
}

fn scalar(text: &str) -> String {
    let first = text.chars().next();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@+".contains(c);
    let begins = first.is_some_and(|c| c.is_ascii_alphabetic());
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_word = words.contains(&text.to_ascii_lowercase().as_str());
    match begins && text.chars().all(plain) && !is_word {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_as_people_write_them() {
        let value = json!({
            "license": "apache-2.0",
            "tags": ["a", "b c"],
            "model-index": [{"name": "x", "results": [{"task": {"type": "text-generation"}, "value": 92.5}]}],
            "args": {}, "none": null, "list": [], "nested": [[1, 2], ["z"]],
        });
        let expected = "license: apache-2.0\ntags:\n- a\n- \"b c\"\nmodel-index:\n- name: x\n  results:\n  - task:\n      type: text-generation\n    value: 92.5\nargs: {}\nnone: null\nlist: []\nnested:\n- - 1\n  - 2\n- - z\n";
        assert_eq!(block(&value), expected);
    }

    #[test]
    fn what_could_be_read_otherwise_is_quoted() {
        for (text, written) in [
            ("no", "\"no\""),
            ("Yes", "\"Yes\""),
            ("1.0", "\"1.0\""),
            ("1_000", "\"1_000\""),
            ("0o17", "\"0o17\""),
            ("", "\"\""),
            ("- a", "\"- a\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("*x", "\"*x\""),
            ("say \"so\"\n", "\"say \\\"so\\\"\\n\""),
            ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B"),
            ("10K<n<100K", "\"10K<n<100K\""),
            ("~", "\"~\""),
            ("12:30:45", "\"12:30:45\""),
        ] {
            assert_eq!(scalar(text), written);
        }
    }
}
