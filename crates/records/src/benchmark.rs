//! Named problem sets: what evaluation scores on and decontamination guards.
//!
//! - [`named`]: those that go by a name, with their files, columns and licences.
//! - `choices`: questions with choices, and the order in which they are put.

mod choices;
pub mod named;

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
#[serde(from = "Written")]
pub struct Benchmark {
    pub name: String,
    /// A JSONL, Parquet or CSV file: a path, or a URL as `prompts.source` has them.
    pub source: Reference,
    /// Column of the problem's text.
    pub problem: String,
    /// Column of the gold answer.
    pub answer: String,
    /// Columns of the wrong choices of a question; its answer is then a letter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distractors: Vec<String>,
    /// Column by whose values scores are divided; where the recipe names none, `subject` if the table has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The same of the level; where the recipe names none, `level` if the table has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// How far answers are looked for in responses.
    #[serde(skip_serializing_if = "AnswerSearch::is_default")]
    pub answer_from: AnswerSearch,
}

/// The table as a recipe has it: of a benchmark that goes by a name, what the recipe leaves out is known.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    source: Reference,
    problem: Option<String>,
    answer: Option<String>,
    distractors: Option<Vec<String>>,
    subject: Option<String>,
    level: Option<String>,
    answer_from: Option<AnswerSearch>,
}

impl From<Written> for Benchmark {
    fn from(written: Written) -> Self {
        let known = named::find(&written.name);
        let column = |known: Option<&str>, usual: &str| known.unwrap_or(usual).to_owned();
        let distractors = || match (&written.answer, known) {
            // Another answer column is another layout.
            (None, Some(known)) => known.distractors.iter().map(|&name| name.into()).collect(),
            _ => Vec::new(),
        };
        Self {
            distractors: written.distractors.clone().unwrap_or_else(distractors),
            problem: written
                .problem
                .unwrap_or_else(|| column(known.map(|known| known.problem), "problem")),
            answer: written
                .answer
                .unwrap_or_else(|| column(known.map(|known| known.answer), "answer")),
            answer_from: written
                .answer_from
                .unwrap_or_else(|| known.map(|known| known.answer_from).unwrap_or_default()),
            subject: written.subject,
            level: written.level,
            name: written.name,
            source: written.source,
        }
    }
}

impl Benchmark {
    /// The kind of its answers.
    pub fn answers(&self) -> AnswerKind {
        match named::find(&self.name) {
            _ if !self.distractors.is_empty() => AnswerKind::Letter,
            Some(known) => known.answers,
            None => AnswerKind::Mathematics,
        }
    }
}

/// The kind of a benchmark's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// From 0 to 999, as AIME has them.
    ThreeDigits,
    /// A number, with a worked solution before it in the gold field.
    Number,
    /// Anything that mathematics can write.
    Mathematics,
    /// The letter of a choice.
    Letter,
}

impl AnswerKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ThreeDigits => "integers from 0 to 999",
            Self::Number => "numbers",
            Self::Mathematics => "mathematics",
            Self::Letter => "letters of choices",
        }
    }
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
    /// A box, and nothing else.
    Boxed,
}

impl AnswerSearch {
    pub fn is_default(&self) -> bool {
        *self == Self::Written
    }

    /// Whether the last number is an answer where nothing else is.
    pub fn takes_last_number(self) -> bool {
        self == Self::LastNumber
    }

    /// Whether only a box is an answer.
    pub fn takes_boxes_only(self) -> bool {
        self == Self::Boxed
    }
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
            BenchmarkChoice::Name(name) => named::benchmark(name),
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
    /// The question, with its choices below it where it has some.
    pub problem: String,
    /// The question alone.
    pub question: String,
    /// In the order in which they are put.
    pub choices: Vec<String>,
    /// Of a question with choices, a letter.
    pub gold: String,
    pub subject: Option<String>,
    pub level: Option<String>,
}

/// Reads a benchmark's problems in file order.
///
/// # Errors
/// Those of [`read_table`], and a choice without a text.
pub fn load(benchmark: &Benchmark) -> Result<Vec<Problem>> {
    let path = benchmark.source.path();
    let known = named::find(&benchmark.name);
    let there = table::columns(path)?;
    let group = |named: &Option<String>, known: Option<&str>, usual: &str| match named {
        Some(column) => Some(column.clone()),
        None => {
            let column = known.unwrap_or(usual);
            there.iter().find(|name| *name == column).cloned()
        }
    };
    let subject = group(
        &benchmark.subject,
        known.and_then(|known| known.subject),
        "subject",
    );
    let level = group(
        &benchmark.level,
        known.and_then(|known| known.level),
        "level",
    );
    let n_choices = benchmark.distractors.len();
    let columns: Vec<&str> = [&benchmark.problem, &benchmark.answer]
        .into_iter()
        .chain(&benchmark.distractors)
        .chain(&subject)
        .chain(&level)
        .map(String::as_str)
        .collect();
    let rows = numbered(path, &columns)?;
    let mut problems = Vec::with_capacity(rows.len());
    for (number, row) in rows {
        let mut row = row.into_iter();
        let mut next = || row.next().flatten();
        let (question, answer) = (next().unwrap_or_default(), next().unwrap_or_default());
        let wrong: Vec<Option<String>> = (0..n_choices).map(|_| next()).collect();
        let subject = subject.as_ref().and_then(|_| next()).map(joined);
        let level = level.as_ref().and_then(|_| next()).map(joined);
        let (problem, choices, gold) = match n_choices {
            0 => (question.clone(), Vec::new(), answer),
            _ => {
                let missing = wrong.iter().position(Option::is_none);
                if let Some(column) = missing.and_then(|at| benchmark.distractors.get(at)) {
                    return Err(Error::Row {
                        path: path.to_path_buf(),
                        row: number,
                        problem: format!("its choice `{column}` is empty"),
                    });
                }
                let put = choices::put(&question, answer, wrong.into_iter().flatten().collect());
                (put.problem, put.choices, put.gold)
            }
        };
        problems.push(Problem {
            id: crate::prompt::prompt_id(&problem),
            problem,
            question,
            choices,
            gold,
            subject,
            level,
        });
    }
    Ok(problems)
}

/// A group's name: of a list of texts, all of them.
fn joined(text: String) -> String {
    match serde_json::from_str::<Vec<String>>(&text) {
        Ok(texts) => texts.join(", "),
        Err(_) => text,
    }
}

/// The named columns of a file as text, row by row, from every kind of file that [`table`] reads. Numbers and booleans
/// become their JSON form, lists of them a JSON list of texts (a list of one is its item), nulls stay null. A name may
/// be a dotted path into a column, such as `reward_model.ground_truth`.
///
/// # Errors
/// A file or a row that cannot be read, a column that is not there, a value that is none of these; with file and row.
pub fn read_table(path: &Path, columns: &[&str]) -> Result<Vec<Vec<Option<String>>>> {
    let rows = numbered(path, columns)?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// The rows of [`read_table`] with their numbers from 1.
fn numbered(path: &Path, columns: &[&str]) -> Result<Vec<(u64, Vec<Option<String>>)>> {
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
        rows.push((number, texts.collect::<Result<_>>()?));
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
    use serde_json::json;

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
            distractors: Vec::new(),
            subject: None,
            level: None,
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
    fn a_table_with_a_known_name_has_its_columns() {
        let table = |value| serde_json::from_value::<Benchmark>(value).unwrap();
        let gsm8k = table(json!({"name": "gsm8k", "source": "x.jsonl"}));
        assert_eq!((&*gsm8k.problem, &*gsm8k.answer), ("question", "answer"));
        assert_eq!(gsm8k.answer_from, AnswerSearch::LastNumber);
        assert_eq!(gsm8k.answers(), AnswerKind::Number);
        let own = table(
            json!({"name": "gsm8k", "source": "x", "problem": "p", "answer_from": "written"}),
        );
        assert_eq!(
            (&*own.problem, own.answer_from),
            ("p", AnswerSearch::Written)
        );
        let gpqa = table(json!({"name": "gpqa_diamond", "source": "x.csv"}));
        assert_eq!(gpqa.distractors.len(), 3);
        assert_eq!(gpqa.answers(), AnswerKind::Letter);
        let other = table(json!({"name": "gpqa_diamond", "source": "x.csv", "answer": "letter"}));
        assert_eq!(other.distractors, [""; 0]);
        let mine = table(json!({"name": "mine", "source": "x.csv"}));
        assert_eq!(
            (&*mine.problem, mine.answers()),
            ("problem", AnswerKind::Mathematics)
        );
        // What is written out reads back the same.
        assert_eq!(table(serde_json::to_value(&gpqa).unwrap()), gpqa);
    }

    #[test]
    fn choices_are_put_in_an_order_of_their_own_and_golds_are_letters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpqa.csv");
        let rows: String = (0..40)
            .map(|n| {
                format!(
                    "\"Which is {n}?\nOf these.\",{n},{},{},{},Physics\n",
                    n + 1,
                    n + 2,
                    n + 3
                )
            })
            .collect();
        let header = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,High-level domain\n";
        std::fs::write(&path, format!("{header}{rows}")).unwrap();
        let benchmark = json!({"name": "gpqa_diamond", "source": path});
        let benchmark: Benchmark = serde_json::from_value(benchmark).unwrap();
        let problems = load(&benchmark).unwrap();
        assert_eq!(problems, load(&benchmark).unwrap());
        let mut golds = std::collections::BTreeMap::<String, usize>::new();
        for (n, problem) in problems.iter().enumerate() {
            let at = usize::from(problem.gold.as_bytes()[0] - b'A');
            assert_eq!(problem.choices[at], n.to_string());
            let line = format!("\n{}) {n}", problem.gold);
            assert!(problem.problem.contains(&line), "{}", problem.problem);
            assert_eq!(problem.subject.as_deref(), Some("Physics"));
            *golds.entry(problem.gold.clone()).or_default() += 1;
        }
        assert!(
            golds.len() == 4 && golds.values().all(|&n| n > 3),
            "{golds:?}"
        );
        std::fs::write(&path, format!("{header}x,1,2,,4,Physics\n")).unwrap();
        let error = load(&benchmark).unwrap_err().to_string();
        assert!(error.contains("Incorrect Answer 2"), "{error}");
    }

    #[test]
    fn subjects_are_read_where_there_are_some() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.jsonl");
        let row = r#"{"problem":"1+1","answer":2,"subject":["Algebra","Sums"],"level":3}"#;
        std::fs::write(&path, row).unwrap();
        let load_with = |subject: Option<&str>| {
            let table = json!({"name": "b", "source": path, "subject": subject});
            load(&serde_json::from_value(table).unwrap())
        };
        let problem = load_with(None).unwrap().remove(0);
        assert_eq!(problem.subject.as_deref(), Some("Algebra, Sums"));
        assert_eq!(problem.level.as_deref(), Some("3"));
        // A column that the recipe names has to be there.
        let error = load_with(Some("topic")).unwrap_err().to_string();
        assert!(error.contains("topic"), "{error}");
        std::fs::write(&path, r#"{"problem":"1+1","answer":2}"#).unwrap();
        assert_eq!(load_with(None).unwrap()[0].subject, None);
    }
}
