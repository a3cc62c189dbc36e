//! Named problem sets: what evaluation scores on and decontamination guards.

use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::{conversation, table};

/// A table of problems with gold answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    pub name: String,
    /// A JSONL, Parquet or CSV file: a path, or a URL as `prompts.source` has them.
    pub source: Reference,
    /// Column of the problem's text.
    #[serde(default = "problem_column")]
    pub problem: String,
    /// Column of the gold answer.
    #[serde(default = "answer_column")]
    pub answer: String,
    /// How far answers are looked for in responses.
    #[serde(default, skip_serializing_if = "AnswerSearch::is_default")]
    pub answer_from: AnswerSearch,
}

/// How far the answer of a response is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerSearch {
    /// A box, an announcement, or the last formula.
    #[default]
    Written,
    /// Where there is none of them, the last number, as users of GSM8K expect.
    LastNumber,
}

impl AnswerSearch {
    pub fn is_default(&self) -> bool {
        *self == Self::Written
    }

    /// Whether the last number is an answer where nothing else is.
    pub fn takes_last_number(self) -> bool {
        self == Self::LastNumber
    }
}

fn problem_column() -> String {
    "problem".to_owned()
}

fn answer_column() -> String {
    "answer".to_owned()
}

/// Benchmarks by name: source, problem column, answer column. Those on the Hub are at the commit that other harnesses pin
/// too, so that a score is of the same questions tomorrow.
const NAMED: [(&str, &str, &str, &str); 9] = [
    (
        "arithmetic",
        "data/arithmetic/heldout.jsonl",
        "problem",
        "answer",
    ),
    (
        "aime24",
        "hf://datasets/HuggingFaceH4/aime_2024@2fe88a2f1091d5048c0f36abc874fb997b3dd99a/data/train-00000-of-00001.parquet",
        "problem",
        "answer",
    ),
    (
        "aime25",
        "hf://datasets/yentinglin/aime_2025@6f71d77b0b89b9dabe07ab466c51df33f514df7f/data/train-00000-of-00001-243207c6c994e1bd.parquet",
        "problem",
        "answer",
    ),
    (
        "aime26",
        "hf://datasets/MathArena/aime_2026@d2de22f3c656b4f56cf8981212186377d1e23bc3/data/train-00000-of-00001.parquet",
        "problem",
        "answer",
    ),
    (
        "hmmt25",
        "hf://datasets/MathArena/hmmt_feb_2025@6fdc4277120810ff75aa22d2d5489b91f7a262a1/data/train-00000-of-00001.parquet",
        "problem",
        "answer",
    ),
    (
        "hmmt26",
        "hf://datasets/MathArena/hmmt_feb_2026@02fba4f74d8e68e73e66a02d540fd979c05c274c/data/train-00000-of-00001.parquet",
        "problem",
        "answer",
    ),
    (
        "math500",
        "hf://datasets/HuggingFaceH4/MATH-500@6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be/test.jsonl",
        "problem",
        "answer",
    ),
    (
        "gsm8k",
        "hf://datasets/openai/gsm8k@740312add88f781978c0658806c59bc2815b9866/main/test-00000-of-00001.parquet",
        "question",
        "answer",
    ),
    (
        "amc23",
        "hf://datasets/math-ai/amc23@80815d37005feb82cd7f8fbc6901d5d3eff43057/test-00000-of-00001.parquet",
        "question",
        "answer",
    ),
];

/// The benchmark of that name.
pub fn named(name: &str) -> Result<Benchmark> {
    let found = NAMED.iter().find(|row| row.0 == name);
    let &(name, source, problem, answer) = found.ok_or_else(|| {
        let known: Vec<_> = NAMED.iter().map(|row| row.0).collect();
        Error::UnknownBenchmark(name.to_owned(), known.join(", "))
    })?;
    Ok(Benchmark {
        name: name.to_owned(),
        source: source.into(),
        problem: problem.to_owned(),
        answer: answer.to_owned(),
        answer_from: match name {
            "gsm8k" => AnswerSearch::LastNumber,
            _ => AnswerSearch::Written,
        },
    })
}

/// A benchmark by name, or as a table of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum BenchmarkChoice {
    Name(String),
    Table(Benchmark),
}

impl BenchmarkChoice {
    /// # Errors
    /// [`Error::UnknownBenchmark`].
    pub fn benchmark(&self) -> Result<Benchmark> {
        match self {
            BenchmarkChoice::Table(table) => Ok(table.clone()),
            BenchmarkChoice::Name(name) => named(name),
        }
    }
}

// By hand: a derived untagged enum answers every mistake inside a table with "did not match any variant" and without its
// line.
impl<'de> Deserialize<'de> for BenchmarkChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct NameOrTable;
        impl<'de> Visitor<'de> for NameOrTable {
            type Value = BenchmarkChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a benchmark or a table { name, source, problem, answer }")
            }

            fn visit_str<E>(self, name: &str) -> std::result::Result<BenchmarkChoice, E> {
                Ok(BenchmarkChoice::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                map: A,
            ) -> std::result::Result<BenchmarkChoice, A::Error> {
                Benchmark::deserialize(MapAccessDeserializer::new(map)).map(BenchmarkChoice::Table)
            }
        }
        deserializer.deserialize_any(NameOrTable)
    }
}

/// One row of a benchmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// See [`crate::prompt::prompt_id`].
    pub id: String,
    pub problem: String,
    pub gold: String,
}

/// Reads a benchmark's problems in file order.
pub fn load(benchmark: &Benchmark) -> Result<Vec<Problem>> {
    let columns = [benchmark.problem.as_str(), benchmark.answer.as_str()];
    let rows = read_table(benchmark.source.path(), &columns)?;
    Ok(rows
        .into_iter()
        .map(|mut row| {
            let gold = row.pop().flatten().unwrap_or_default();
            let problem = row.pop().flatten().unwrap_or_default();
            Problem {
                id: crate::prompt::prompt_id(&problem),
                problem,
                gold,
            }
        })
        .collect())
}

/// The named columns of a file as text, row by row, from every kind of file that [`table`] reads. Numbers and booleans
/// become their JSON form, lists of them a JSON list of texts (a list of one is its item), nulls stay null. A name may
/// be a dotted path into a column, such as `reward_model.ground_truth`.
///
/// # Errors
/// A file or a row that cannot be read, a column that is not there, a value that is none of these; with file and row.
pub fn read_table(path: &Path, columns: &[&str]) -> Result<Vec<Vec<Option<String>>>> {
    let mut rows = Vec::new();
    for (number, values) in read_values(path, columns)? {
        let texts = columns.iter().zip(values).map(|(name, value)| {
            value.map_or(Ok(None), |value| {
                text_of(&value).map(Some).ok_or_else(|| Error::FieldType {
                    path: path.to_path_buf(),
                    line: number,
                    field: (*name).to_owned(),
                })
            })
        });
        rows.push(texts.collect::<Result<_>>()?);
    }
    Ok(rows)
}

/// The values of [`read_table`] as they are, each row with its number from 1.
///
/// # Errors
/// Those of [`read_table`], but for values.
pub fn read_values(path: &Path, columns: &[&str]) -> Result<Vec<(u64, Vec<Option<Value>>)>> {
    let heads: Vec<&str> = columns.iter().flat_map(|path| heads(path)).collect();
    let mut rows = Vec::new();
    table::read::<Error>(path, Some(&heads), |number, item| {
        let row = match item {
            table::Item::Row(row) => row,
            table::Item::Unreadable { problem, .. } => {
                return Err(Error::Row {
                    path: path.to_path_buf(),
                    row: number,
                    problem,
                });
            }
        };
        let value = |name: &&str| match conversation::at(&row, name) {
            Some(value) => Ok(Some(value.clone())),
            None if heads_of(name).any(|head| row.contains_key(head)) => Ok(None),
            None => Err(missing(path, number, name)),
        };
        rows.push((number, columns.iter().map(value).collect::<Result<_>>()?));
        Ok(true)
    })?;
    Ok(rows)
}

/// The columns that a dotted path may begin with: itself, and what stands before each of its dots.
pub fn heads(path: &str) -> Vec<&str> {
    heads_of(path).collect()
}

fn heads_of(path: &str) -> impl Iterator<Item = &str> {
    let before = path.match_indices('.').map(|(dot, _)| &path[..dot]);
    std::iter::once(path).chain(before)
}

fn missing(path: &Path, row: u64, column: &str) -> Error {
    let present =
        table::columns(path).map_or_else(|error| error.to_string(), |names| names.join(", "));
    if table::Kind::of(path) == Some(table::Kind::Json) {
        return Error::MissingField {
            path: path.to_path_buf(),
            line: row,
            field: column.to_owned(),
            present,
        };
    }
    Error::MissingColumn {
        column: column.to_owned(),
        present,
    }
    .in_file(path)
}

/// A value as a gold answer or a problem has it.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        // Any of several answers.
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| match item {
                    Value::Array(_) => None,
                    item => text_of(item),
                })
                .collect();
            match texts?.as_slice() {
                [] => None,
                [only] => Some(only.clone()),
                several => Some(Value::from(several.to_vec()).to_string()),
            }
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn jsonl_rows_become_problems_and_numbers_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.jsonl");
        std::fs::write(
            &path,
            "{\"q\":\"1+1\",\"a\":2}\n\n{\"q\":\"x\",\"a\":\"y\"}\n",
        )
        .unwrap();
        let benchmark = Benchmark {
            name: "b".into(),
            source: path.display().to_string().into(),
            problem: "q".into(),
            answer: "a".into(),
            answer_from: AnswerSearch::Written,
        };
        let problems = load(&benchmark).unwrap();
        assert_eq!(problems.len(), 2);
        assert_eq!(problems[0].gold, "2");
        let error = read_table(&path, &["answer"]).unwrap_err().to_string();
        assert!(
            error.contains("b.jsonl:1") && error.contains("the fields are"),
            "{error}"
        );
    }

    #[test]
    fn dotted_paths_and_lists_of_golds_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.jsonl");
        let rows = [
            r#"{"reward_model":{"ground_truth":["2","two"]},"x":NaN}"#,
            r#"{"reward_model":{"ground_truth":[3]}}"#,
            r#"{"reward_model":{"ground_truth":null}}"#,
        ];
        std::fs::write(&path, rows.join("\n")).unwrap();
        let column = "reward_model.ground_truth";
        let read: Vec<_> = read_table(&path, &[column]).unwrap().concat();
        let golds = [Some(r#"["2","two"]"#), Some("3"), None];
        assert_eq!(read, golds.map(|gold| gold.map(str::to_owned)));
        std::fs::write(&path, r#"{"reward_model":{"ground_truth":{"a":1}}}"#).unwrap();
        let error = read_table(&path, &[column]).unwrap_err().to_string();
        assert!(
            error.contains("b.jsonl:1") && error.contains(column),
            "{error}"
        );
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        assert!(named("aime24").is_ok());
        assert!(
            named("aime1900")
                .unwrap_err()
                .to_string()
                .contains("math500")
        );
    }
}
