//! Reads problems and puts them into words for the teacher.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use records::Message;
use records::benchmark::{read_values, text_of};
use records::conversation::{self, is_turns};
use records::prompt::{Prompt, problem_of, prompt_id};
use records::{LeftOut, Located, Place, Reference, Role, files, table};
use serde_json::Value;

use crate::config::PromptsConfig;
use crate::error::{Error, Result};

/// What the column of gold answers is called where the recipe does not say.
const DEFAULT_ANSWER: &str = "answer";

/// The problems of a recipe, in the order of their files and lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptSet {
    pub prompts: Vec<Prompt>,
    /// The files they came from, sorted.
    pub files: Vec<Located>,
    /// Rows left out, because an earlier row has the same problem or because they have none.
    pub left_out: LeftOut,
    /// Prompts that are conversations: they are asked as they are, without the template.
    pub conversations: u64,
}

/// The reason of a row whose problem an earlier row has.
pub const REPEATED: &str = "repeated_problem";

/// The reason of a row without a problem.
pub const EMPTY: &str = "empty_problem";

/// Reads `[prompts]` from the files that its `source` names ([`files`], where they are local). Gold answers that are
/// numbers become text; `limit` counts what is kept.
///
/// # Errors
/// A missing column names file, line, column and the columns that are there.
pub fn load(config: &PromptsConfig, files: Vec<Located>) -> Result<PromptSet> {
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
        for (number, asked, gold_answer) in rows {
            if set.prompts.len() == limit {
                break 'files;
            }
            let (problem, messages) = match asked {
                Asked::Problem(problem) => {
                    let messages = messages(config, &problem);
                    (problem, messages)
                }
                Asked::Turns(turns) => {
                    set.conversations += 1;
                    (problem_of(&turns), with_system(config, turns))
                }
            };
            let place = || Place::new(name.as_str(), number);
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
                messages,
                problem,
                gold_answer,
            });
        }
    }
    if set.prompts.is_empty() {
        return Err(Error::NoPrompts {
            source_name: config.source.to_string(),
        });
    }
    Ok(set)
}

/// What the names of files of problems end in.
pub const ENDINGS: &[&str] = &table::ENDINGS;

/// The files that `prompts.source` names, sorted.
pub fn files(source: &Reference) -> Result<Vec<PathBuf>> {
    named("prompts.source", source, ENDINGS)
}

/// The files that a key of the recipe names, sorted, all of these endings.
pub(crate) fn named(
    key: &'static str,
    source: &Reference,
    endings: &'static [&'static str],
) -> Result<Vec<PathBuf>> {
    files::named(source, endings).map_err(|error| Error::Config {
        key: key.into(),
        problem: error.to_string(),
        allowed: format!("local .{} files, or a glob over them", endings.join(", .")),
    })
}

/// What a row asks.
enum Asked {
    Problem(String),
    Turns(Vec<Message>),
}

/// What is asked with its gold answer, row by row, each with its number.
fn read(path: &Path, config: &PromptsConfig) -> Result<Vec<(u64, Asked, Option<String>)>> {
    let problem = config.problem.as_str();
    let answer = config.answer.as_deref().unwrap_or(DEFAULT_ANSWER);
    let rows = match read_values(path, &[problem, answer]) {
        Err(error) if config.answer.is_none() && has_no_answers(&error) => {
            read_values(path, &[problem])?
        }
        rows => rows?,
    };
    let wrong = |row: u64, problem: String| {
        Error::Records(records::Error::Row {
            path: path.to_path_buf(),
            row,
            problem,
        })
    };
    let rows = rows.into_iter().map(|(number, values)| {
        let mut values = values.into_iter();
        let asked = asked(problem, values.next().flatten());
        let asked = asked.map_err(|problem| wrong(number, problem))?;
        let gold = match values.next().flatten() {
            None => None,
            Some(Value::Array(golds)) if golds.is_empty() => None,
            Some(gold) => Some(text_of(&gold).ok_or_else(|| {
                let found = conversation::kind(&gold);
                wrong(
                    number,
                    format!("`{answer}` holds {found}, expected text, a number, or a list of them"),
                )
            })?),
        };
        Ok((number, asked, gold))
    });
    rows.collect()
}

fn asked(column: &str, value: Option<Value>) -> std::result::Result<Asked, String> {
    match value {
        None => Ok(Asked::Problem(String::new())),
        Some(value) if value.is_array() || value.as_str().is_some_and(is_turns) => {
            conversation::turns(column, &value).map(Asked::Turns)
        }
        Some(value) => match text_of(&value) {
            Some(text) => Ok(Asked::Problem(text)),
            None => {
                let found = conversation::kind(&value);
                Err(format!(
                    "`{column}` holds {found}, expected text, or a list of {{role, content}}"
                ))
            }
        },
    }
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
    let question = config.template.replace("{problem}", problem);
    with_system(config, vec![Message::new("user", question)])
}

/// The turns after the recipe's system turn, where they have none of their own.
fn with_system(config: &PromptsConfig, mut turns: Vec<Message>) -> Vec<Message> {
    if let Some(system) = &config.system
        && turns.first().is_none_or(|first| first.role != Role::System)
    {
        turns.insert(0, Message::new("system", system.as_str()));
    }
    turns
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::R1_TEMPLATE;

    fn config(source: String) -> PromptsConfig {
        PromptsConfig {
            source: source.into(),
            problem: "problem".into(),
            answer: None,
            limit: None,
            system: None,
            template: R1_TEMPLATE.into(),
        }
    }

    fn load(config: &PromptsConfig) -> Result<PromptSet> {
        let files = files(&config.source)?;
        super::load(config, files.into_iter().map(Located::from).collect())
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
        let left_out = [REPEATED, EMPTY].map(|reason| set.left_out.count(reason));
        assert_eq!((set.prompts.len(), left_out), (2, [1, 1]));
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
        let file = Located {
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
    fn g18_conversations_are_asked_as_they_are_and_golds_lie_within_columns() {
        let rows = concat!(
            r#"{"prompt":[{"role":"user","content":"1+1"}],"reward_model":{"ground_truth":["2","two"]}}"#,
            "\n",
            r#"{"prompt":[{"role":"system","content":"s"},{"role":"user","content":"2+2"}],"reward_model":{"ground_truth":"4"}}"#,
            "\n",
            r#"{"prompt":"[{\"role\":\"user\",\"content\":\"3+3\"}]","reward_model":{"ground_truth":6}}"#
        );
        let (_dir, path) = write("a.jsonl", rows);
        let config = PromptsConfig {
            problem: "prompt".into(),
            answer: Some("reward_model.ground_truth".into()),
            system: Some("own".into()),
            ..config(path)
        };
        let set = load(&config).unwrap();
        assert_eq!((set.prompts.len(), set.conversations), (3, 3));
        assert_eq!(set.prompts[2].problem, "3+3");
        let first = &set.prompts[0];
        assert_eq!(first.problem, "1+1");
        assert_eq!(first.gold_answer.as_deref(), Some(r#"["2","two"]"#));
        let own = [Message::new("system", "own"), Message::new("user", "1+1")];
        assert_eq!(first.messages, own);
        assert_eq!(set.prompts[1].messages[0], Message::new("system", "s"));
        let (_dir, path) = write(
            "a.jsonl",
            "{\"prompt\":[{\"role\":\"user\"}],\"reward_model\":{\"ground_truth\":1}}",
        );
        let config = PromptsConfig {
            source: path.into(),
            ..config
        };
        let message = load(&config).unwrap_err().to_string();
        assert!(
            message.contains("a.jsonl:1: `prompt[0].content` is null"),
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
            let message = files(&source.into()).unwrap_err().to_string();
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
