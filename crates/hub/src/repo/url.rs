//! `hf://datasets/ORG/NAME@REVISION/path` and `ORG/NAME@REVISION` as they are written.

use std::fmt;

use crate::error::{Error, Result};
use crate::pattern::{is_pattern, pattern};

const DATASET_FORM: &str = "write hf://datasets/ORG/NAME@REVISION/path/in/the/repository.parquet; the revision is a commit, a tag or a branch such as main";

const MODEL_FORM: &str =
    "write ORG/NAME@REVISION; the revision is a commit, a tag or a branch such as main";

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Dataset,
    Model,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Dataset => "dataset",
            Kind::Model => "model",
        }
    }

    /// What a reader who is not let in has to do.
    pub(crate) fn licence(self) -> &'static str {
        match self {
            Kind::Dataset => {
                "accept the dataset's licence on its page, and set HF_TOKEN to a token that may read it"
            }
            Kind::Model => {
                "accept the model's licence on its page, and set HF_TOKEN to a token that may read it"
            }
        }
    }

    /// What stands before `ORG/NAME`, in `hf://` URLs as in the Hub's addresses of files.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Kind::Dataset => "datasets/",
            Kind::Model => "",
        }
    }

    /// What the names of its folders in the Hub's cache begin with.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Kind::Dataset => "datasets",
            Kind::Model => "models",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A repository, whatever its revision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoId {
    pub kind: Kind,
    pub org: String,
    pub name: String,
}

impl RepoId {
    /// Reads `ORG/NAME`.
    ///
    /// # Errors
    /// [`Error::Source`], with how to write it.
    pub fn parse(kind: Kind, text: &str) -> Result<Self> {
        const FORM: &str = "write ORG/NAME: letters, digits, `-`, `_` and `.`, at most 96 of them in the name, and no revision";
        match parts(text) {
            Err(Problem::Revision) if text.matches('/').count() == 1 && text.len() <= 160 => {
                let (org, name) = text.split_once('/').unwrap_or_default();
                let odd = |part: &str| {
                    part.len() > 96
                        || part.contains("--")
                        || part.contains("..")
                        || part.starts_with('-')
                        || part.ends_with(['-', '.'])
                        || part.ends_with(".git")
                };
                if odd(org) || odd(name) {
                    return Err(wrong(text, "is no name that the Hub gives out", FORM));
                }
                Ok(Self {
                    kind,
                    org: org.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(wrong(text, "names no repository", FORM)),
        }
    }

    /// `ORG/NAME`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.org, self.name)
    }

    /// The address of its page.
    pub fn page(&self, endpoint: &str) -> String {
        let endpoint = endpoint.trim_end_matches('/');
        format!("{endpoint}/{}{}", self.kind.route(), self.id())
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}{}", self.kind.route(), self.id())
    }
}

/// A file or a folder of a repository, or a pattern of files, at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoUrl {
    pub kind: Kind,
    pub org: String,
    pub name: String,
    /// A commit, a tag or a branch.
    pub revision: String,
    /// In the repository; may be a glob. Of a model it is empty where its files lie in the root.
    pub path: String,
}

impl RepoUrl {
    /// Reads `hf://datasets/ORG/NAME@REVISION/PATH`. A `/` in the revision is written `%2F`, except in the Hub's own
    /// `refs/convert/…` and `refs/pr/…`.
    ///
    /// # Errors
    /// [`Error::Source`], with how to write it.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |problem: &str| wrong(text, problem, DATASET_FORM);
        let repository = text
            .strip_prefix("hf://datasets/")
            .ok_or_else(|| wrong("names no dataset"))?;
        let (org, name, rest) = parts(repository).map_err(|problem| match problem {
            Problem::Name => wrong("names no dataset"),
            Problem::Revision => wrong("says no revision"),
        })?;
        let (revision, path) = split_revision(rest).ok_or_else(|| wrong("names no file"))?;
        if revision.is_empty() {
            return Err(wrong("says no revision"));
        }
        if !is_path(path) || !is_path(&revision) {
            return Err(wrong("is no path"));
        }
        if is_pattern(path) {
            pattern(text, path)?;
        }
        Ok(Self {
            kind: Kind::Dataset,
            org: org.to_owned(),
            name: name.to_owned(),
            revision,
            path: path.to_owned(),
        })
    }

    /// Reads a model's id: `ORG/NAME@REVISION`, with `/FOLDER` or `/FILE` behind it where its files lie deeper, and with
    /// or without `hf://` before it. `None` where the text has not the form of an id.
    ///
    /// # Errors
    /// [`Error::Source`], with how to write it; `ORG/NAME` alone is one that says no revision.
    pub fn parse_model(text: &str) -> Result<Option<Self>> {
        let wrong = |problem: &str| wrong(text, problem, MODEL_FORM);
        let marked = text.strip_prefix("hf://");
        let repository = marked.unwrap_or(text);
        let repository = repository.strip_prefix("models/").unwrap_or(repository);
        let (org, name, rest) = match (parts(repository), marked) {
            (Ok(parts), _) => parts,
            // A path of several folders has no `@` either.
            (Err(Problem::Revision), None) if repository.matches('/').count() > 1 => {
                return Ok(None);
            }
            (Err(Problem::Revision), _) => return Err(wrong("says no revision")),
            (Err(Problem::Name), Some(_)) => return Err(wrong("names no model")),
            (Err(Problem::Name), None) => return Ok(None),
        };
        let (revision, path) = match split_revision(rest) {
            Some(split) => split,
            None => (rest.replace("%2F", "/").replace("%2f", "/"), ""),
        };
        if revision.is_empty() {
            return Err(wrong("says no revision"));
        }
        let whole = path.is_empty() && !rest.ends_with('/');
        if !is_path(&revision) || !(whole || is_path(path)) || is_pattern(path) {
            return Err(wrong("is no path"));
        }
        Ok(Some(Self {
            kind: Kind::Model,
            org: org.to_owned(),
            name: name.to_owned(),
            revision,
            path: path.to_owned(),
        }))
    }

    /// The URL of one file at a commit.
    pub(crate) fn at(&self, commit: &str, path: &str) -> String {
        let slash = match path {
            "" => "",
            _ => "/",
        };
        let route = self.kind.route();
        let (org, name) = (&self.org, &self.name);
        format!("hf://{route}{org}/{name}@{commit}{slash}{path}")
    }

    /// The repository's folder in the Hub's cache.
    pub(crate) fn folder(&self) -> String {
        format!("{}--{}--{}", self.kind.plural(), self.org, self.name)
    }
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at(&self.revision.replace('/', "%2F"), &self.path))
    }
}

fn wrong(text: &str, problem: &str, hint: &'static str) -> Error {
    Error::Source {
        text: text.to_owned(),
        problem: problem.to_owned(),
        hint,
    }
}

/// Why a text is no repository at a revision.
enum Problem {
    Name,
    Revision,
}

/// Organisation and name, and what follows the `@`.
fn parts(repository: &str) -> std::result::Result<(&str, &str, &str), Problem> {
    let (org, rest) = repository.split_once('/').ok_or(Problem::Name)?;
    let plain = |part: &str| {
        let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(letter)
    };
    let end = rest.find(['@', '/']).unwrap_or(rest.len());
    let name = &rest[..end];
    match rest[end..].strip_prefix('@') {
        Some(behind) if plain(org) && plain(name) => Ok((org, name, behind)),
        None if plain(org) && plain(name) => Err(Problem::Revision),
        _ => Err(Problem::Name),
    }
}

fn is_path(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The revision, decoded, and what follows it.
fn split_revision(rest: &str) -> Option<(String, &str)> {
    let of_the_hub = ["refs/convert/", "refs/pr/"]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix));
    if let Some(prefix) = of_the_hub {
        let (last, path) = rest[prefix.len()..].split_once('/')?;
        return Some((format!("{prefix}{last}"), path));
    }
    let (revision, path) = rest.split_once('/')?;
    let revision = revision.replace("%2F", "/").replace("%2f", "/");
    Some((revision, path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_name_dataset_revision_and_path() {
        let check = |text: &str, revision: &str, path: &str| {
            let url = RepoUrl::parse(text).unwrap();
            assert_eq!((url.org.as_str(), url.name.as_str()), ("org", "a.b-c"));
            assert_eq!((url.revision.as_str(), url.path.as_str()), (revision, path));
            assert_eq!(RepoUrl::parse(&url.to_string()).unwrap(), url);
        };
        check("hf://datasets/org/a.b-c@main/x.jsonl", "main", "x.jsonl");
        check(
            "hf://datasets/org/a.b-c@v1.0/data/*.parquet",
            "v1.0",
            "data/*.parquet",
        );
        check("hf://datasets/org/a.b-c@a%2Fb/x.csv", "a/b", "x.csv");
        check(
            "hf://datasets/org/a.b-c@refs/convert/parquet/default/train/0000.parquet",
            "refs/convert/parquet",
            "default/train/0000.parquet",
        );
    }

    #[test]
    fn what_is_missing_is_said_with_how_to_write_it() {
        let check = |text: &str, problem: &str| {
            let error = RepoUrl::parse(text).unwrap_err();
            assert!(error.to_string().contains(problem), "{text}: {error}");
            assert!(error.hint().unwrap().contains("ORG/NAME@REVISION"));
        };
        check("hf://datasets/org/name/x.jsonl", "says no revision");
        check("hf://datasets/org/name/x@main.jsonl", "says no revision");
        check("hf://datasets/org/name", "says no revision");
        check("hf://datasets/org/name@/x.jsonl", "says no revision");
        check("hf://datasets/org/name@main", "names no file");
        check("hf://datasets/org/name@main/", "is no path");
        check("hf://datasets/org/name@main/../x.jsonl", "is no path");
        check("hf://datasets/name@main", "names no dataset");
        check("hf://org/name@main/x.jsonl", "names no dataset");
    }

    #[test]
    fn repositories_are_named_by_organisation_and_name() {
        let repo = RepoId::parse(Kind::Dataset, "org/a.b-c").unwrap();
        assert_eq!((repo.org.as_str(), repo.name.as_str()), ("org", "a.b-c"));
        assert_eq!(repo.page("http://h/"), "http://h/datasets/org/a.b-c");
        for text in [
            "a",
            "org/a@main",
            "org/a/b",
            "org/",
            "org/a--b",
            "org/a.git",
            "org/-a",
            "hf://org/a",
        ] {
            let error = RepoId::parse(Kind::Model, text).unwrap_err();
            assert!(error.hint().unwrap().contains("ORG/NAME"), "{text}");
        }
    }

    #[test]
    fn models_are_named_by_organisation_name_and_revision() {
        let check = |text: &str, revision: &str, path: &str| {
            let url = RepoUrl::parse_model(text).unwrap().unwrap();
            assert_eq!(
                (url.org.as_str(), url.name.as_str()),
                ("Qwen", "Qwen2.5-1.5B")
            );
            assert_eq!((url.revision.as_str(), url.path.as_str()), (revision, path));
            assert_eq!(RepoUrl::parse_model(&url.to_string()).unwrap(), Some(url));
        };
        check("Qwen/Qwen2.5-1.5B@main", "main", "");
        check("hf://Qwen/Qwen2.5-1.5B@v1", "v1", "");
        check("hf://models/Qwen/Qwen2.5-1.5B@main/sub", "main", "sub");
        check("Qwen/Qwen2.5-1.5B@a%2Fb", "a/b", "");
        check("Qwen/Qwen2.5-1.5B@main/q4.gguf", "main", "q4.gguf");
        for path in [
            "./model",
            "/models/x",
            "model",
            "runs/a/student",
            "../x/y@main",
        ] {
            assert_eq!(RepoUrl::parse_model(path).ok(), Some(None), "{path}");
        }
        for (text, problem) in [
            ("Qwen/Qwen2.5-1.5B", "says no revision"),
            ("Qwen/Qwen2.5-1.5B@", "says no revision"),
            ("Qwen/Qwen2.5-1.5B@main/", "is no path"),
            ("Qwen/Qwen2.5-1.5B@main/*.safetensors", "is no path"),
            ("hf://Qwen", "names no model"),
        ] {
            let error = RepoUrl::parse_model(text).unwrap_err();
            assert!(error.to_string().contains(problem), "{text}: {error}");
            assert!(error.hint().unwrap().contains("ORG/NAME@REVISION"));
        }
    }
}
