//! Reads problems and puts them into words for the teacher.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use records::benchmark::read_table;
use records::hash::{self, FileStamp};
use records::prompt::{Prompt, prompt_id};
use records::{LeftOut, Message, Place};

use crate::config::PromptsConfig;
use crate::error::{Error, Result};

/// What the column of gold answers is called where the recipe does not say.
const DEFAULT_ANSWER: &str = "answer";

/// A file of problems, or of traces to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptFile {
    pub path: PathBuf,
    /// The URL it was fetched from: what traces call it in place of its path.
    pub origin: Option<String>,
}

impl PromptFile {
    /// What traces call it.
    pub(crate) fn name(&self) -> String {
        match &self.origin {
            Some(url) => url.clone(),
            None => self.path.display().to_string(),
        }
    }

    /// As an input of a manifest.
    pub(crate) fn stamp(&self) -> Result<FileStamp> {
        let mut stamp = hash::stamp(&self.path)?;
        stamp.origin = self.origin.clone();
        Ok(stamp)
    }
}

impl From<PathBuf> for PromptFile {
    fn from(path: PathBuf) -> Self {
        Self { path, origin: None }
    }
}

/// The problems of a recipe, in the order of their files and lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptSet {
    pub prompts: Vec<Prompt>,
    /// The files they came from, sorted.
    pub files: Vec<PromptFile>,
    /// Rows without a problem of their own: [`REPEATED`] and [`EMPTY`].
    pub left_out: LeftOut,
}

/// The reason of rows whose problem an earlier row has.
pub const REPEATED: &str = "repeated_problem";
/// The reason of rows that have no problem.
pub const EMPTY: &str = "empty_problem";

/// Reads `[prompts]` from the files that its `source` names ([`files`], where they are local). Gold answers that are
/// numbers become text; `limit` counts what is kept.
///
/// # Errors
/// A missing column names file, line, column and the columns that are there.
pub fn load(config: &PromptsConfig, files: Vec<PromptFile>) -> Result<PromptSet> {
    config.validate()?;
    let mut set = PromptSet {
        files,
        ..PromptSet::default()
    };
    set.left_out.add_all(REPEATED, 0, None);
    set.left_out.add_all(EMPTY, 0, None);
    let limit = config.limit.unwrap_or(usize::MAX);
    let mut seen = HashSet::new();
    'files: for file in &set.files {
        let rows = read(&file.path, config).map_err(|error| match &file.origin {
            Some(url) => Error::Fetched {
                url: url.clone(),
                source: Box::new(error),
            },
            None => error,
        })?;
        let name = file.name();
        for ((problem, gold_answer), number) in rows.into_iter().zip(1..) {
            let place = || Place::new(&name, number);
            if set.prompts.len() == limit {
                break 'files;
            }
            if problem.trim().is_empty() {
                set.left_out.add(EMPTY, place);
                continue;
            }
            let id = prompt_id(&problem);
            if !seen.insert(id.clone()) {
                set.left_out.add(REPEATED, place);
                continue;
            }
            set.prompts.push(Prompt {
                prompt_id: id,
                source: name.clone(),
                messages: messages(config, &problem),
                problem,
                gold_answer,
            });
        }
    }
    if set.prompts.is_empty() {
        return Err(Error::NoPrompts {
            source_name: config.source.clone(),
        });
    }
    Ok(set)
}

/// What the names of files of problems end in.
pub const ENDINGS: &[&str] = &["jsonl", "json", "parquet", "csv"];

/// Whether a file's name has one of these endings.
pub fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| endings.contains(&extension))
}

/// The local files that `prompts.source` names, sorted.
pub fn files(source: &str) -> Result<Vec<PathBuf>> {
    local_files("prompts.source", source, ENDINGS)
}

/// The local files that a key of the recipe names, sorted, all of these endings.
pub(crate) fn local_files(
    key: &'static str,
    source: &str,
    endings: &[&str],
) -> Result<Vec<PathBuf>> {
    let unreadable = |problem: String| Error::Config {
        key,
        problem,
        allowed: format!("local .{} files, or a glob over them", endings.join(", .")),
    };
    if source.contains("://") {
        return Err(unreadable(format!("{source:?} is not a local file")));
    }
    // A file whose own name holds glob characters is still that file.
    let mut found = if Path::new(source).is_file() {
        vec![PathBuf::from(source)]
    } else {
        glob::glob(source)
            .map_err(|error| Error::Glob {
                key,
                pattern: source.to_owned(),
                source: error,
            })?
            .map(|entry| {
                entry.map_err(|error| Error::Io {
                    path: error.path().to_path_buf(),
                    source: error.into(),
                })
            })
            .filter(|entry| entry.as_ref().map_or(true, |path| path.is_file()))
            .collect::<Result<_>>()?
    };
    found.sort();
    if found.is_empty() {
        return Err(Error::NoFile {
            key,
            pattern: source.to_owned(),
        });
    }
    match found.iter().find(|path| !ends_in(path, endings)) {
        Some(path) => Err(unreadable(format!(
            "{:?} is of another kind",
            path.display().to_string()
        ))),
        None => Ok(found),
    }
}

/// Problems with their gold answers, row by row.
fn read(path: &Path, config: &PromptsConfig) -> Result<Vec<(String, Option<String>)>> {
    let problem = config.problem.as_str();
    let answer = config.answer.as_deref().unwrap_or(DEFAULT_ANSWER);
    let rows = match read_table(path, &[problem, answer]) {
        Err(error) if config.answer.is_none() && has_no_answers(&error) => {
            read_table(path, &[problem])?
        }
        rows => rows?,
    };
    Ok(rows
        .into_iter()
        .map(|row| {
            let mut values = row.into_iter();
            let problem = values.next().flatten().unwrap_or_default();
            (problem, values.next().flatten())
        })
        .collect())
}

/// The file lacks the default answer column from its start. A column that is only sometimes
/// there is an error instead: gold answers must not vanish unsaid.
fn has_no_answers(error: &records::Error) -> bool {
    match error {
        records::Error::MissingField { line, field, .. } => *line == 1 && field == DEFAULT_ANSWER,
        records::Error::MissingColumn { column, .. } => column == DEFAULT_ANSWER,
        records::Error::InFile { source, .. } => has_no_answers(source),
        _ => false,
    }
}

fn messages(config: &PromptsConfig, problem: &str) -> Vec<Message> {
    let system = config
        .system
        .iter()
        .map(|text| Message::new("system", text.as_str()));
    let question = config.template.replace("{problem}", problem);
    system.chain([Message::new("user", question)]).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::R1_TEMPLATE;

    fn config(source: String) -> PromptsConfig {
        PromptsConfig {
            source,
            problem: "problem".into(),
            answer: None,
            limit: None,
            system: None,
            template: R1_TEMPLATE.into(),
        }
    }

    fn load(config: &PromptsConfig) -> Result<PromptSet> {
        let files = files(&config.source)?;
        super::load(config, files.into_iter().map(PromptFile::from).collect())
    }

    fn write(name: &str, text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (dir, path.display().to_string())
    }

    #[test]
    fn repeated_and_empty_problems_are_counted_and_numbers_become_text() {
        let rows = "{\"problem\":\"1+1\",\"answer\":2}\n{\"problem\":\"1+1\",\"answer\":2}\n{\"problem\":\" \",\"answer\":0}\n{\"problem\":\"2+2\",\"answer\":\"4\"}\n";
        let (_dir, path) = write("a.jsonl", rows);
        let set = load(&config(path.clone())).unwrap();
        assert_eq!(set.prompts.len(), 2);
        assert_eq!(
            set.left_out.lines(),
            [
                format!("1 × empty_problem, first: {path}, row 3"),
                format!("1 × repeated_problem, first: {path}, row 2"),
            ]
        );
        assert_eq!(set.prompts[0].gold_answer.as_deref(), Some("2"));
        assert!(
            set.prompts[0].messages[0]
                .content
                .starts_with("1+1\nPlease reason")
        );
        let limited = PromptsConfig {
            limit: Some(1),
            system: Some("s".into()),
            ..config(path)
        };
        let set = load(&limited).unwrap();
        assert_eq!(set.prompts.len(), 1);
        assert_eq!(set.prompts[0].messages[0], Message::new("system", "s"));
    }

    #[test]
    fn a_missing_column_is_named_and_answers_are_optional_until_named() {
        let (_dir, path) = write("a.jsonl", "{\"problem\":\"x\"}\n");
        assert_eq!(
            load(&config(path.clone())).unwrap().prompts[0].gold_answer,
            None
        );
        let named = PromptsConfig {
            answer: Some("gold".into()),
            ..config(path.clone())
        };
        let message = load(&named).unwrap_err().to_string();
        assert!(
            message.contains("a.jsonl:1") && message.contains("gold"),
            "{message}"
        );
        let other = PromptsConfig {
            problem: "question".into(),
            ..config(path)
        };
        let message = load(&other).unwrap_err().to_string();
        assert!(
            message.contains("question") && message.contains("problem"),
            "{message}"
        );
        let (_dir, path) = write(
            "a.jsonl",
            "{\"problem\":\"x\",\"answer\":1}\n{\"problem\":\"y\"}\n",
        );
        assert!(load(&config(path)).unwrap_err().to_string().contains(":2"));
    }

    #[test]
    fn fetched_files_are_called_by_their_url() {
        let (_dir, path) = write("a.jsonl", "{\"problem\":\"x\"}\n");
        let url = "hf://datasets/o/n@0123/a.jsonl";
        let file = PromptFile {
            path: PathBuf::from(&path),
            origin: Some(url.into()),
        };
        let set = super::load(&config(url.into()), vec![file.clone()]).unwrap();
        assert_eq!(set.prompts[0].source, url);
        let stamp = set.files[0].stamp().unwrap();
        assert_eq!(stamp.path, PathBuf::from(&path));
        assert_eq!(stamp.origin.as_deref(), Some(url));
        let other = PromptsConfig {
            problem: "question".into(),
            ..config(url.into())
        };
        let message = super::load(&other, vec![file]).unwrap_err().to_string();
        assert!(
            message.contains(url) && message.contains("question"),
            "{message}"
        );
    }

    #[test]
    fn csv_has_quotes_and_line_breaks_and_names_its_columns() {
        let text = "id,problem,answer\n1,\"What is \"\"2\"\",\nsquared?\",4\n2,1+1?,\n";
        let (_dir, path) = write("a.csv", text);
        let set = load(&config(path.clone())).unwrap();
        assert_eq!(set.prompts[0].problem, "What is \"2\",\nsquared?");
        assert_eq!(set.prompts[0].gold_answer.as_deref(), Some("4"));
        assert_eq!(set.prompts[1].gold_answer, None);
        let other = PromptsConfig {
            problem: "question".into(),
            ..config(path)
        };
        let message = load(&other).unwrap_err().to_string();
        assert!(
            message.contains("a.csv") && message.contains("id, problem, answer"),
            "{message}"
        );
        let (_dir, torn) = write("b.csv", "problem,answer\n1+1,2,3\n");
        let message = load(&config(torn)).unwrap_err().to_string();
        assert!(
            message.contains("b.csv") && message.contains("line: 2"),
            "{message}"
        );
    }

    #[test]
    fn globs_are_sorted_and_unreadable_sources_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            let row = format!("{{\"problem\":\"{name}\"}}\n");
            std::fs::write(dir.path().join(format!("{name}.jsonl")), row).unwrap();
        }
        let set = load(&config(dir.path().join("*.jsonl").display().to_string())).unwrap();
        let problems: Vec<_> = set.prompts.iter().map(|p| p.problem.as_str()).collect();
        assert_eq!(problems, ["a", "b"]);
        let check = |source: String, expected: &str| {
            let message = files(&source).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(
            dir.path().join("*.parquet").display().to_string(),
            "no file matches",
        );
        check("hf://datasets/a/b".into(), "not a local file");
        let (_dir, text) = write("a.txt", "x");
        check(text, "another kind");
    }
}
