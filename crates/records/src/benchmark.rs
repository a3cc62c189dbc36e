//! Named problem sets: what evaluation scores on and decontamination guards.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use arrow::array::Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io};
use crate::parquet_file::Reader;

/// A table of problems with gold answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    pub name: String,
    /// JSONL, Parquet or CSV path. Named benchmarks have `hf://datasets/…`: where their file can be downloaded, which
    /// nothing here does.
    pub source: String,
    /// Column of the problem's text.
    #[serde(default = "problem_column")]
    pub problem: String,
    /// Column of the gold answer.
    #[serde(default = "answer_column")]
    pub answer: String,
}

fn problem_column() -> String {
    "problem".to_owned()
}

fn answer_column() -> String {
    "answer".to_owned()
}

/// The benchmarks that have a name of their own: name, source, problem and answer columns. Only `arithmetic` can be
/// read as it stands; of the others the file has to be downloaded and named.
const NAMED: [(&str, &str, &str, &str); 7] = [
    (
        "arithmetic",
        "data/arithmetic/heldout.jsonl",
        "problem",
        "answer",
    ),
    (
        "aime24",
        "hf://datasets/HuggingFaceH4/aime_2024/data/train-00000-of-00001.parquet",
        "problem",
        "answer",
    ),
    (
        "aime25",
        "hf://datasets/yentinglin/aime_2025/data/train-00000-of-00001.parquet",
        "problem",
        "answer",
    ),
    (
        "aime26",
        "hf://datasets/MathArena/aime_2026/data/train-00000-of-00001.parquet",
        "problem",
        "answer",
    ),
    (
        "math500",
        "hf://datasets/HuggingFaceH4/MATH-500/test.jsonl",
        "problem",
        "answer",
    ),
    (
        "gsm8k",
        "hf://datasets/openai/gsm8k/main/test-00000-of-00001.parquet",
        "question",
        "answer",
    ),
    (
        "amc23",
        "hf://datasets/math-ai/amc23/test-00000-of-00001.parquet",
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
        source: source.to_owned(),
        problem: problem.to_owned(),
        answer: answer.to_owned(),
    })
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
    let rows = read_table(Path::new(&benchmark.source), &columns)?;
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

/// The named columns of a Parquet (`.parquet`), CSV (`.csv`) or JSONL (any other) file as text,
/// row by row. Numbers and booleans become their JSON form; nulls stay null.
pub fn read_table(path: &Path, columns: &[&str]) -> Result<Vec<Vec<Option<String>>>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => read_parquet(path, columns),
        Some("csv") => read_csv(path, columns),
        _ => read_jsonl(path, columns),
    }
}

fn read_parquet(path: &Path, columns: &[&str]) -> Result<Vec<Vec<Option<String>>>> {
    let reader = Reader::open_columns(path, Some(columns))?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch?;
        let mut formatted = Vec::with_capacity(columns.len());
        for &name in columns {
            let array = batch
                .column_by_name(name)
                .ok_or_else(|| missing_parquet_column(path, name))?;
            formatted.push((
                array,
                ArrayFormatter::try_new(array, &FormatOptions::default())?,
            ));
        }
        for row in 0..batch.num_rows() {
            let value = |(array, text): &(&arrow::array::ArrayRef, ArrayFormatter<'_>)| {
                array.is_valid(row).then(|| text.value(row).to_string())
            };
            rows.push(formatted.iter().map(value).collect());
        }
    }
    Ok(rows)
}

fn missing_parquet_column(path: &Path, name: &str) -> Error {
    let present = Reader::open(path).map_or_else(
        |error| error.to_string(),
        |reader| {
            let fields = reader.schema().fields();
            fields
                .iter()
                .map(|f| f.name().as_str())
                .collect::<Vec<_>>()
                .join(", ")
        },
    );
    Error::MissingColumn {
        column: name.to_owned(),
        present,
    }
    .in_file(path)
}

/// The first line names the columns; an empty field is no value.
fn read_csv(path: &Path, columns: &[&str]) -> Result<Vec<Vec<Option<String>>>> {
    let wrong = |source: csv::Error| Error::Csv {
        path: path.to_path_buf(),
        source,
    };
    let mut reader = csv::Reader::from_path(path).map_err(wrong)?;
    let present = reader.headers().map_err(wrong)?.clone();
    let at = columns
        .iter()
        .map(|&column| {
            let at = present.iter().position(|name| name.trim() == column);
            at.ok_or_else(|| {
                Error::MissingColumn {
                    column: column.to_owned(),
                    present: present.iter().collect::<Vec<_>>().join(", "),
                }
                .in_file(path)
            })
        })
        .collect::<Result<Vec<_>>>()?;
    reader
        .records()
        .map(|record| {
            let record = record.map_err(wrong)?;
            let value = |&at: &usize| record.get(at).filter(|text| !text.is_empty());
            Ok(at.iter().map(|at| value(at).map(str::to_owned)).collect())
        })
        .collect()
}

fn read_jsonl(path: &Path, columns: &[&str]) -> Result<Vec<Vec<Option<String>>>> {
    let lines = BufReader::new(File::open(path).map_err(io(path))?).lines();
    let mut rows = Vec::new();
    for (index, line) in lines.enumerate() {
        let line = line.map_err(io(path))?;
        if line.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line)
            .map_err(|source| Error::Json {
                path: path.to_path_buf(),
                line: number,
                source,
            })?;
        let field = |name: &&str| match object.get(*name) {
            Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
            Some(serde_json::Value::Null) => Ok(None),
            Some(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => {
                Ok(Some(value.to_string()))
            }
            Some(_) => Err(Error::FieldType {
                path: path.to_path_buf(),
                line: number,
                field: (*name).to_owned(),
            }),
            None => Err(Error::MissingField {
                path: path.to_path_buf(),
                line: number,
                field: (*name).to_owned(),
                present: object.keys().cloned().collect::<Vec<_>>().join(", "),
            }),
        };
        rows.push(columns.iter().map(field).collect::<Result<_>>()?);
    }
    Ok(rows)
}

/// The local file a benchmark is read from; `None` where its file lies elsewhere and has to be downloaded.
pub fn local_path(benchmark: &Benchmark) -> Option<PathBuf> {
    (!benchmark.source.contains("://")).then(|| PathBuf::from(&benchmark.source))
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
            source: path.display().to_string(),
            problem: "q".into(),
            answer: "a".into(),
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
