//! The text of a recipe, and where in it a key stands: every complaint about a recipe names the
//! file, the line and the key, or the `--set` argument that brought the value.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Table;
use toml::de::DeTable;

use super::overrides::Override;
use crate::error::{Error, Result, io};

/// A recipe file as it was read, with the changes from the command line beside it.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    text: String,
    overrides: Vec<Override>,
}

impl Source {
    pub fn read(path: &Path, set: &[String]) -> Result<Self> {
        let overrides = set
            .iter()
            .map(|argument| Override::parse(argument))
            .collect::<Result<_>>()?;
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Usage {
                message: format!("{}: no such recipe", path.display()),
                hint: "recipes are TOML files; those that come along are under pipelines/".into(),
            },
            std::io::ErrorKind::InvalidData => Error::Usage {
                message: format!("{}: not a text file", path.display()),
                hint: "recipes are TOML files".into(),
            },
            _ => io(path)(error),
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            text,
            overrides,
        })
    }

    /// Reads the file by itself first, then with the overrides.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        let plain = toml::from_str(&self.text).map_err(|error| self.explain(&self.text, &error))?;
        if self.overrides.is_empty() {
            return Ok(plain);
        }
        let mut document: Table =
            toml::from_str(&self.text).map_err(|error| self.explain(&self.text, &error))?;
        for change in &self.overrides {
            change.apply(&mut document)?;
        }
        let text = document.to_string();
        toml::from_str(&text).map_err(|error| self.explain(&text, &error))
    }

    /// `FILE:LINE` of a key, the `--set` argument that gave it, or, for a key that is not written
    /// anywhere, the nearest section that is.
    pub fn place(&self, key: &str) -> String {
        let path: Vec<&str> = key.split('.').collect();
        let set = self.overrides.iter().rev().find(|change| {
            change.path.len() <= path.len() && change.path.iter().zip(&path).all(|(a, b)| a == b)
        });
        if let Some(change) = set {
            return format!("--set {}", change.argument);
        }
        let file = self.path.display();
        match DeTable::parse(&self.text)
            .ok()
            .and_then(|document| key_start(document.get_ref(), &path))
        {
            Some(offset) => format!("{file}:{}", line_of(&self.text, offset)),
            None => file.to_string(),
        }
    }

    /// Whether a key is written in the file or given with `--set`, and not left to its default.
    pub fn names(&self, key: &str) -> bool {
        let Ok(mut document) = toml::from_str::<Table>(&self.text) else {
            return false;
        };
        // An override that does not fit has been complained about when the recipe was read.
        if !(self.overrides.iter()).all(|change| change.apply(&mut document).is_ok()) {
            return false;
        }
        let mut value = &toml::Value::Table(document);
        for part in key.split('.') {
            match value.get(part) {
                Some(inner) => value = inner,
                None => return false,
            }
        }
        true
    }

    /// A complaint about what `section.key` says.
    pub fn complain(&self, key: &str, message: &str, hint: Option<String>) -> Error {
        Error::Recipe {
            place: self.place(key),
            message: format!("{key}: {message}"),
            hint,
        }
    }

    fn explain(&self, text: &str, error: &toml::de::Error) -> Error {
        let Ok(document) = DeTable::parse(text) else {
            let line = error
                .span()
                .map_or(1, |span| line_of(&self.text, span.start));
            return Error::Recipe {
                place: format!("{}:{line}", self.path.display()),
                message: format!("not valid TOML: {}", error.message()),
                hint: None,
            };
        };
        let mut path = Vec::new();
        if let Some(span) = error.span().filter(|span| !span.is_empty()) {
            path_at(document.get_ref(), &span, &mut path);
        }
        let message = error.message();
        let named = |prefix: &str| {
            message
                .strip_prefix(prefix)
                .and_then(|rest| rest.split('`').nth(1))
                .map(str::to_owned)
        };
        if let Some(field) = named("unknown field") {
            // Keys inside an array have no path of their own.
            if path.last() != Some(&field) {
                path.push(field);
            }
            let key = path.join(".");
            let allowed = alternatives(message);
            let section = path[..path.len().saturating_sub(1)].join(".");
            let scope = if section.is_empty() {
                "allowed at the top level".to_owned()
            } else {
                format!("allowed in [{section}]")
            };
            return self.complain(&key, "unknown key", Some(format!("{scope}: {allowed}")));
        }
        if let Some(field) = named("missing field") {
            path.push(field);
            return self.complain(&path.join("."), "this key is required", None);
        }
        if let Some(variant) = named("unknown variant") {
            return self.complain(
                &path.join("."),
                &format!("`{variant}` is not one of the values it takes"),
                Some(format!("allowed: {}", alternatives(message))),
            );
        }
        // A message that names its key by itself need not name it twice.
        let key = path.join(".");
        let message = message.strip_prefix(&key).unwrap_or(message).trim_start();
        self.complain(&key, message, None)
    }
}

/// What serde lists after "expected", as a plain enumeration.
fn alternatives(message: &str) -> String {
    let list = message.split_once(", ").map_or("", |(_, rest)| rest);
    let names: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

/// 1-based.
fn line_of(text: &str, offset: usize) -> usize {
    let end = offset.min(text.len());
    text.as_bytes()[..end]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// Where the key at `path` is written; of a path that ends in nothing, its last written section.
fn key_start(table: &DeTable<'_>, path: &[&str]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == first)?;
    let inner = value
        .get_ref()
        .as_table()
        .and_then(|inner| key_start(inner, rest));
    Some(inner.unwrap_or_else(|| key.span().start))
}

/// The deepest key whose name or value covers `span`.
fn path_at(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>) {
    let covers = |range: Range<usize>| range.start <= span.start && span.end <= range.end;
    for (key, value) in table {
        let depth = path.len();
        path.push(key.get_ref().to_string());
        if let Some(inner) = value.get_ref().as_table() {
            path_at(inner, span, path);
        }
        if path.len() > depth + 1 || covers(key.span()) || covers(value.span()) {
            return;
        }
        path.truncate(depth);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Small {
        name: String,
        train: Option<Train>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Train {
        method: Method,
        rank: u32,
        loss: Option<Loss>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Method {
        Lora,
        Full,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Loss {
        weight: f32,
    }

    fn source(text: &str, set: &[&str]) -> Source {
        Source {
            path: "r.toml".into(),
            text: text.into(),
            overrides: set.iter().map(|s| Override::parse(s).unwrap()).collect(),
        }
    }

    fn complaint(text: &str, set: &[&str]) -> String {
        let error = source(text, set).parse::<Small>().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        format!("{error} | {}", error.hint().unwrap_or(""))
    }

    #[test]
    fn complaints_name_file_line_key_and_what_is_allowed() {
        let check = |text: &str, expected: &str| assert_eq!(complaint(text, &[]), expected);
        let train = "name = 'x'\n[train]\nmethod = 'lora'\nrank = 3\n";
        check(
            "name = 'x'\nsed = 3\n",
            "r.toml:2: sed: unknown key | allowed at the top level: name, train",
        );
        check(
            &format!("{train}rnk = 3\n"),
            "r.toml:5: train.rnk: unknown key | allowed in [train]: method, rank, loss",
        );
        check(
            &format!("{train}loss.weigth = 3\n"),
            "r.toml:5: train.loss.weigth: unknown key | allowed in [train.loss]: weight",
        );
        check(
            "name = 'x'\n[train]\nmethod = 'lor'\nrank = 3\n",
            "r.toml:3: train.method: `lor` is not one of the values it takes | allowed: lora, full",
        );
        check(
            "name = 'x'\n[train]\nmethod = 'lora'\nrank = 'a'\n",
            "r.toml:4: train.rank: invalid type: string \"a\", expected u32 | ",
        );
        check(
            "name = 'x'\n\n[train]\nrank = 3\n",
            "r.toml:3: train.method: this key is required | ",
        );
        check(
            "[train]\nrank = 3",
            "r.toml:1: train.method: this key is required | ",
        );
        check(
            "name = 'x\n",
            "r.toml:1: not valid TOML: invalid literal string, expected `'` | ",
        );
    }

    #[test]
    fn complaints_about_an_override_name_the_argument() {
        let text = "name = 'x'\n[train]\nmethod = 'lora'\nrank = 3\n";
        let check = |set: &[&str], expected: &str| assert_eq!(complaint(text, set), expected);
        check(
            &["train.rnk=3"],
            "--set train.rnk=3: train.rnk: unknown key | allowed in [train]: method, rank, loss",
        );
        check(
            &["train.rank=4", "train.method=half"],
            "--set train.method=half: train.method: `half` is not one of the values it takes | allowed: lora, full",
        );
        check(
            &["train.loss={weight='a'}"],
            "--set train.loss={weight='a'}: train.loss.weight: invalid type: string \"a\", expected f32 | ",
        );
        let set = source(text, &["train.rank=9"]).parse::<Small>().unwrap();
        assert_eq!(set.train.unwrap().rank, 9);
    }

    #[test]
    fn a_key_is_placed_where_it_is_written_or_in_its_section() {
        let source = source(
            "name = 'x'\n\n[train]\nrank = 3\n",
            &["train.loss.weight=2"],
        );
        assert_eq!(source.place("train.rank"), "r.toml:4");
        assert_eq!(source.place("train.method"), "r.toml:3");
        assert_eq!(
            source.place("train.loss.weight"),
            "--set train.loss.weight=2"
        );
        assert_eq!(source.place("eval.samples"), "r.toml");
        let named = ["train", "train.rank", "train.loss.weight"];
        assert!(named.iter().all(|key| source.names(key)));
        let unnamed = ["eval", "train.method", "train.rank.deep", "train.loss.kind"];
        assert!(!unnamed.iter().any(|key| source.names(key)));
    }
}
