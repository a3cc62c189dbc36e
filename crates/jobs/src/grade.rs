//! `stillroom verify`: grades any table of gold answers and responses, row by row or as one score.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

use eval::statistics::{Tally, Vote, avg_at_k, maj_at_k, pass_at_k_of};
use records::benchmark::{AnswerSearch, heads, text_of};
use records::score::Estimate;
use records::{conversation, table};
use serde_json::{Map, Value, json};
use verify::Verdict;

use crate::error::{Error, Result, io};

/// Which fields of a row hold what; each may be a dotted path.
#[derive(Debug, Clone)]
pub struct Fields {
    pub gold: String,
    /// A text, or a list of texts: several samples.
    pub response: String,
    /// What rows of one question have in common; without, each row is a question of its own.
    pub question: Option<String>,
}

/// A response as it is graded.
struct Graded<'a> {
    verdict: Verdict,
    extracted: Option<&'a str>,
    answer_from: Option<verify::AnswerFrom>,
}

/// Writes one JSON line per response, in order: `verdict`, `extracted` (null where the response has no final answer) and
/// `answer_from`, where it was found. Where a row has a list of responses, `row` says which they are of.
pub fn grade_file(
    path: &Path,
    fields: &Fields,
    search: AnswerSearch,
    out: &mut dyn Write,
) -> Result<()> {
    let mut out = BufWriter::new(out);
    let graded = each(path, fields, search, &mut |row, graded| {
        let mut line = json!({
            "verdict": graded.verdict.as_str(),
            "extracted": graded.extracted,
            "answer_from": graded.answer_from,
        });
        if row.of_several {
            line["row"] = row.number.into();
        }
        writeln!(out, "{line}").map_err(io("stdout"))
    });
    // A reader that has gone away, as in `… | head`, wants no more.
    let gone = |error: &Error| matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe);
    match graded.and_then(|()| out.flush().map_err(io("stdout"))) {
        Err(error) if gone(&error) => Ok(()),
        graded => graded,
    }
}

/// The score of a file: avg@k, pass@k and maj@k over its questions, and how many responses have each verdict.
pub fn score_file(path: &Path, fields: &Fields, search: AnswerSearch) -> Result<String> {
    let mut questions: BTreeMap<String, Vec<Vote>> = BTreeMap::new();
    let mut verdicts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    each(path, fields, search, &mut |row, graded| {
        let count = verdicts
            .entry(graded.verdict.as_str())
            .or_insert((0, row.number));
        count.0 += 1;
        let has_answer = matches!(graded.verdict, Verdict::Correct | Verdict::Incorrect);
        if graded.verdict != Verdict::GoldUnreadable {
            questions.entry(row.question).or_default().push(Vote {
                answer: graded.extracted.filter(|_| has_answer).map(str::to_owned),
                correct: graded.verdict == Verdict::Correct,
            });
        }
        Ok(())
    })?;
    questions
        .values_mut()
        .for_each(|votes| eval::score::unite(votes));
    let tallies: Vec<Tally> = questions
        .values()
        .map(|votes| Tally::of(votes.iter().map(|vote| vote.correct)))
        .collect();
    let samples = || tallies.iter().map(|tally| tally.n);
    let (least, most) = (samples().min().unwrap_or(0), samples().max().unwrap_or(0));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let range = match least == most {
        true => most.to_string(),
        false => format!("{least} to {most}"),
    };
    let _ = writeln!(text, "{} questions × {range} samples", tallies.len());
    let interval = |ci95: Option<[f64; 2]>| {
        ci95.map_or(String::new(), |[low, high]| {
            format!(" [{:.1}, {:.1}]", 100.0 * low, 100.0 * high)
        })
    };
    let mut line = |name: &str, estimate: Option<Estimate>| {
        if let Some(Estimate { value, ci95 }) = estimate {
            let _ = writeln!(text, "{name:<10} {:.1}{}", 100.0 * value, interval(ci95));
        }
    };
    let avg = avg_at_k(&tallies);
    let error = avg.as_ref().and_then(|avg| avg.sampling_error);
    line(
        &format!("avg@{most}"),
        avg.map(|avg| Estimate {
            value: avg.value,
            ci95: avg.ci95,
        }),
    );
    if most > 1 {
        line(
            &format!("maj@{most}"),
            maj_at_k(questions.values().map(Vec::as_slice)),
        );
        line(
            &format!("pass@{least}"),
            pass_at_k_of(&tallies, least).filter(|_| least > 1),
        );
    }
    if let Some(error) = error {
        let _ = writeln!(text, "sampling error ±{:.1}", 100.0 * error);
    }
    for (name, (n, first)) in verdicts {
        let _ = writeln!(text, "{name}: {n}, first in row {first}");
    }
    Ok(text)
}

/// Where a response stands.
struct Row {
    /// From 1.
    number: u64,
    /// Whether the row has a list of responses.
    of_several: bool,
    question: String,
}

/// Grades every response of a file in order.
fn each(
    path: &Path,
    fields: &Fields,
    search: AnswerSearch,
    done: &mut dyn FnMut(Row, Graded<'_>) -> Result<()>,
) -> Result<()> {
    let verifier = eval::verifier(search);
    if !path.is_file() {
        return Err(Error::Usage {
            message: format!("{}: there is no such file", path.display()),
            hint: "give a JSONL, Parquet or CSV file".into(),
        });
    }
    let names = [
        Some(&fields.gold),
        Some(&fields.response),
        fields.question.as_ref(),
    ];
    let columns: Vec<&str> = names
        .into_iter()
        .flatten()
        .flat_map(|name| heads(name))
        .collect();
    // A complaint about a line of JSON names its own fields.
    let columns = (table::Kind::of(path) != Some(table::Kind::Json)).then_some(&*columns);
    table::read::<Error>(path, columns, |number, item| {
        let bad = |message: String| Error::Usage {
            message: format!("{}:{number}: {message}", path.display()),
            hint: "every row has both fields; --gold and --response name them".into(),
        };
        let row = match item {
            table::Item::Row(row) => row,
            table::Item::Unreadable { problem, .. } => return Err(bad(problem)),
        };
        let value = |field: &str| field_value(path, &row, field).map_err(bad);
        let gold = text(&fields.gold, value(&fields.gold)?).map_err(bad)?;
        let question = match &fields.question {
            Some(field) => text(field, value(field)?).map_err(bad)?,
            None => number.to_string(),
        };
        let (responses, of_several) = match value(&fields.response)? {
            Some(Value::Array(items)) => (items.iter().map(Some).collect(), true),
            one => (vec![one], false),
        };
        for response in responses {
            let response = text(&fields.response, response).map_err(bad)?;
            let found = verifier.verify(&gold, &response);
            let row = Row {
                number,
                of_several,
                question: question.clone(),
            };
            let graded = Graded {
                verdict: found.verdict,
                extracted: found.extracted.as_deref(),
                answer_from: found.answer_from,
            };
            done(row, graded)?;
        }
        Ok(true)
    })?;
    Ok(())
}

/// A field's value; none where it is null.
fn field_value<'a>(
    path: &Path,
    row: &'a Map<String, Value>,
    field: &str,
) -> std::result::Result<Option<&'a Value>, String> {
    let value = conversation::at(row, field);
    let there = heads(field).iter().any(|head| row.contains_key(*head));
    if value.is_none() && !there {
        let present = match table::Kind::of(path) {
            Some(table::Kind::Json) => row.keys().cloned().collect(),
            _ => table::columns(path).unwrap_or_default(),
        };
        let present = present.join(", ");
        return Err(format!("no field `{field}`; the fields are {present}"));
    }
    Ok(value.filter(|value| !value.is_null()))
}

/// A text as it is, a number as it is written, golds as a list, null as nothing.
fn text(field: &str, value: Option<&Value>) -> std::result::Result<String, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(String::new());
    };
    text_of(value)
        .ok_or_else(|| format!("field `{field}` is neither text nor a number, nor a list of them"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(question: Option<&str>) -> Fields {
        Fields {
            gold: "g".into(),
            response: "r".into(),
            question: question.map(str::to_owned),
        }
    }

    fn with_file<T>(text: &str, work: impl FnOnce(&Path) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.jsonl");
        std::fs::write(&path, text).unwrap();
        work(&path)
    }

    fn grade(text: &str) -> Result<String> {
        let mut out = Vec::new();
        with_file(text, |path| {
            grade_file(path, &fields(None), AnswerSearch::Written, &mut out)
        })?;
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
    fn several_responses_of_a_row_are_several_lines() {
        let text = "{\"g\": 2, \"r\": [\"\\\\boxed{2}\", \"\\\\boxed{3}\"]}\n";
        assert_eq!(
            grade(text).unwrap(),
            concat!(
                "{\"verdict\":\"correct\",\"extracted\":\"2\",\"answer_from\":\"box\",\"row\":1}\n",
                "{\"verdict\":\"incorrect\",\"extracted\":\"3\",\"answer_from\":\"box\",\"row\":1}\n",
            )
        );
    }

    #[test]
    fn a_file_of_responses_has_a_score() {
        let row = |id: &str, response: &str| {
            json!({"id": id, "g": 2, "r": format!("\\boxed{{{response}}}")}).to_string() + "\n"
        };
        let text = row("a", "2") + &row("a", "3") + &row("b", "2") + &row("b", "2");
        let score = with_file(&text, |path| {
            score_file(path, &fields(Some("id")), AnswerSearch::Written).unwrap()
        });
        for expected in [
            "2 questions × 2 samples",
            "avg@2      75.0",
            "maj@2      75.0",
            "pass@2     100.0",
            "incorrect: 1, first in row 2",
        ] {
            assert!(score.contains(expected), "{expected} is not in\n{score}");
        }
        // Without the field each row is a question.
        let score = with_file(&text, |path| {
            score_file(path, &fields(None), AnswerSearch::Written).unwrap()
        });
        assert!(
            score.starts_with("4 questions × 1 samples\navg@1      75.0"),
            "{score}"
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
