//! `stillroom verify`: grades any JSONL file of gold answers and responses.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;

use records::benchmark::{AnswerSearch, heads, text_of};
use records::conversation;
use serde_json::{Value, json};
use verify::Verifier;

use crate::error::{Error, Result, io};

/// Writes one JSON line per input line, in order: `verdict`, `extracted` (null where the response has no final answer)
/// and `answer_from`, where it was found. `gold` and `response` are fields, or dotted paths into them.
pub fn grade_file(
    path: &Path,
    gold: &str,
    response: &str,
    search: AnswerSearch,
    out: &mut dyn Write,
) -> Result<()> {
    let verifier = Verifier {
        last_number: search.takes_last_number(),
    };
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
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        let row: Value = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        let text = |field: &str| field_text(&row, field).map_err(&bad);
        let (gold, response) = (text(gold)?, text(response)?);
        let found = verifier.verify(&gold, &response);
        let graded = json!({
            "verdict": found.verdict.as_str(),
            "extracted": found.extracted,
            "answer_from": found.answer_from,
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

/// A text as it is, a number as it is written, golds as a list, null as nothing.
fn field_text(row: &Value, field: &str) -> std::result::Result<String, String> {
    let fields = row.as_object();
    let there =
        fields.is_some_and(|fields| heads(field).iter().any(|head| fields.contains_key(*head)));
    let value = fields.and_then(|fields| conversation::at(fields, field));
    match value {
        Some(value) => text_of(value).ok_or_else(|| {
            format!("field `{field}` is neither text nor a number, nor a list of them")
        }),
        None if there => Ok(String::new()),
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
        grade_file(&path, "g", "r", AnswerSearch::Written, &mut out)?;
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
