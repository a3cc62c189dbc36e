//! `stillroom verify`: grades any JSONL file of gold answers and responses.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};
use verify::Verifier;

use crate::error::{Error, Result, io};

/// Writes one JSON line per input line, in order: `verdict`, `extracted` and `answer_from` (both
/// null where the response has no final answer). A list of golds means that any of them is right.
pub fn grade_file(
    path: &Path,
    gold: &str,
    response: &str,
    verifier: Verifier,
    out: &mut dyn Write,
) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::Usage {
        message: format!("{}: {error}", path.display()),
        hint: "give a JSONL file: one JSON object a line".into(),
    })?;
    let mut out = BufWriter::new(out);
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(io(path))?;
        let bad = |message: String| Error::Usage {
            message: format!("{}:{}: {message}", path.display(), index + 1),
            hint: "every line is a JSON object with both fields".into(),
        };
        let row: Value = serde_json::from_str(&line).map_err(|error| bad(error.to_string()))?;
        let golds = gold_texts(&row, gold).map_err(&bad)?;
        let golds: Vec<&str> = golds.iter().map(String::as_str).collect();
        let response = field_text(&row, response).map_err(&bad)?;
        let graded = verifier.verify_any(&golds, &response);
        let graded = json!({
            "verdict": graded.verdict.as_str(),
            "extracted": graded.extracted,
            "answer_from": graded.answer_from,
        });
        // A reader that has gone away, as in `… | head`, wants no more.
        if writeln!(out, "{graded}").is_err() {
            return Ok(());
        }
    }
    let _ = out.flush();
    Ok(())
}

/// The golds of a row: one, or a list of them.
fn gold_texts(row: &Value, field: &str) -> std::result::Result<Vec<String>, String> {
    let Some(Value::Array(golds)) = row.get(field) else {
        return Ok(vec![field_text(row, field)?]);
    };
    golds
        .iter()
        .map(|gold| match gold {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(format!(
                "field `{field}` is a list that holds more than texts and numbers"
            )),
        })
        .collect()
}

/// A text as it is, a number as it is written, null as nothing.
fn field_text(row: &Value, field: &str) -> std::result::Result<String, String> {
    match row.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Null) => Ok(String::new()),
        Some(_) => Err(format!("field `{field}` is neither text nor a number")),
        None => {
            let present = row.as_object().map_or_else(
                || "none, as the line is no object".to_owned(),
                |object| object.keys().cloned().collect::<Vec<_>>().join(", "),
            );
            Err(format!("no field `{field}`; the fields are {present}"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn grade(text: &str) -> Result<String> {
        grade_with(text, Verifier::default())
    }

    fn grade_with(text: &str, verifier: Verifier) -> Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        grade_file(&path, "g", "r", verifier, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn one_line_out_per_line_in() {
        let text = concat!(
            "{\"g\": \"33\", \"r\": \"<think>x</think>\\\\boxed{033}\"}\n",
            "{\"g\": 33, \"r\": \"\\\\boxed{34}\"}\n",
            "{\"g\": \"33\", \"r\": \"<think>x\"}\n",
            "{\"g\": null, \"r\": \"\\\\boxed{1}\"}\n",
        );
        assert_eq!(
            grade(text).unwrap(),
            concat!(
                "{\"verdict\":\"correct\",\"extracted\":\"033\",\"answer_from\":\"box\"}\n",
                "{\"verdict\":\"incorrect\",\"extracted\":\"34\",\"answer_from\":\"box\"}\n",
                "{\"verdict\":\"no_answer\",\"extracted\":null,\"answer_from\":null}\n",
                "{\"verdict\":\"gold_unreadable\",\"extracted\":\"1\",\"answer_from\":\"box\"}\n",
            )
        );
    }

    #[test]
    fn the_last_number_and_several_golds() {
        let text = concat!(
            "{\"g\": [\"7\", \"6.5\"], \"r\": \"It costs $6.50 in all.\"}\n",
            "{\"g\": [7, 8], \"r\": \"It costs $6.50 in all.\"}\n",
        );
        let verifier = Verifier { last_number: true };
        assert_eq!(
            grade_with(text, verifier).unwrap(),
            concat!(
                "{\"verdict\":\"correct\",\"extracted\":\"6.50\",\"answer_from\":\"last_number\"}\n",
                "{\"verdict\":\"incorrect\",\"extracted\":\"6.50\",\"answer_from\":\"last_number\"}\n",
            )
        );
        let without = grade(text).unwrap();
        assert!(without.starts_with("{\"verdict\":\"no_answer\""), "{without}");
    }

    #[test]
    fn complaints_name_the_line_and_the_fields() {
        let message = |text| grade(text).unwrap_err().to_string();
        let missing = message("{\"g\": 1, \"r\": \"\"}\n{\"g\": 1, \"x\": 2}\n");
        assert!(
            missing.ends_with("in.jsonl:2: no field `r`; the fields are g, x"),
            "{missing}"
        );
        assert!(message("{\"g\": {}}\n").contains("in.jsonl:1: field `g`"));
        assert!(message("{\"g\": [[]]}\n").contains("in.jsonl:1: field `g`"));
        assert!(message("nonsense\n").contains("in.jsonl:1: "));
    }
}
