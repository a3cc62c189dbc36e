//! `hf://datasets/ORG/NAME@REVISION/path` as it is written.

use std::fmt;

use crate::error::{Error, Result};
use crate::pattern::{is_pattern, pattern};

const FORM: &str = "write hf://datasets/ORG/NAME@REVISION/path/in/the/repository.parquet; the revision is a commit, a tag or a branch such as main";

/// A file of a dataset's repository, or a pattern of files, at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoUrl {
    pub org: String,
    pub name: String,
    /// A commit, a tag or a branch.
    pub revision: String,
    /// In the repository; may be a glob.
    pub path: String,
}

impl RepoUrl {
    /// Reads `hf://datasets/ORG/NAME@REVISION/PATH`. A `/` in the revision is written `%2F`, except in the Hub's own
    /// `refs/convert/…` and `refs/pr/…`.
    ///
    /// # Errors
    /// [`Error::Source`], with how to write it.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |problem: &str| Error::Source {
            text: text.to_owned(),
            problem: problem.to_owned(),
            hint: FORM,
        };
        let repository = text
            .strip_prefix("hf://datasets/")
            .ok_or_else(|| wrong("names no dataset"))?;
        let (org, rest) = repository
            .split_once('/')
            .ok_or_else(|| wrong("names no dataset"))?;
        let (name, rest) = match rest.find(['@', '/']) {
            Some(at) if rest[at..].starts_with('@') => (&rest[..at], &rest[at + 1..]),
            _ => return Err(wrong("says no revision")),
        };
        let plain = |part: &str| {
            let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(letter)
        };
        if !plain(org) || !plain(name) {
            return Err(wrong("names no dataset"));
        }
        let (revision, path) = split_revision(rest).ok_or_else(|| wrong("names no file"))?;
        if revision.is_empty() {
            return Err(wrong("says no revision"));
        }
        let steps = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !steps(path) || !steps(&revision) {
            return Err(wrong("is no path"));
        }
        if is_pattern(path) {
            pattern(text, path)?;
        }
        Ok(Self {
            org: org.to_owned(),
            name: name.to_owned(),
            revision,
            path: path.to_owned(),
        })
    }

    /// The URL of one file at a commit.
    pub(super) fn at(&self, commit: &str, path: &str) -> String {
        format!("hf://datasets/{}/{}@{commit}/{path}", self.org, self.name)
    }
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at(&self.revision.replace('/', "%2F"), &self.path))
    }
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
}
