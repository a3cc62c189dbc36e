//! `stillroom verify`: grades any JSONL file of gold answers and responses.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result, io};

/// Writes one JSON line per input line, in order: `verdict` and `extracted` (null where the
/// response has no final answer).
pub fn grade_file(path: &Path, gold: &str, response: &str, out: &mut dyn Write) -> Result<()> {
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
        let text = |field: &str| field_text(&row, field).map_err(&bad);
        let (gold, response) = (text(gold)?, text(response)?);
        let graded = json!({
            "verdict": verify::verify(&gold, &response).as_str(),
            "extracted": verify::extracted(&response),
        });
        match writeln!(out, "{graded}") {
            // A reader that has gone away, as in `… | head`, wants no more.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(io("stdout"))?,
        }
    }
    match out.flush() {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        flushed => flushed.map_err(io("stdout")),
    }
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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        grade_file(&path, "g", "r", &mut out)?;
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
                "{\"verdict\":\"correct\",\"extracted\":\"033\"}\n",
                "{\"verdict\":\"incorrect\",\"extracted\":\"34\"}\n",
                "{\"verdict\":\"no_answer\",\"extracted\":null}\n",
                "{\"verdict\":\"gold_unreadable\",\"extracted\":\"1\"}\n",
            )
        );
    }

    #[test]
    fn complaints_name_the_line_and_the_fields() {
        let message = |text| grade(text).unwrap_err().to_string();
        let missing = message("{\"g\": 1, \"r\": \"\"}\n{\"g\": 1, \"x\": 2}\n");
        assert!(
            missing.ends_with("in.jsonl:2: no field `r`; the fields are g, x"),
            "{missing}"
        );
        assert!(message("{\"g\": []}\n").contains("in.jsonl:1: field `g`"));
        assert!(message("nonsense\n").contains("in.jsonl:1: "));
    }
}
