//! What a text names that is no local path, and the one call that fetches it.

use crate::error::{Error, Result, shown};
use crate::objects::{self, ObjectUrl};
use crate::progress::Say;
use crate::repo::{self, RepoUrl};
use crate::{Access, Fetched};

/// How sources are written.
const ALLOWED: &str = "a local path, hf://datasets/ORG/NAME@REVISION/path, s3://bucket/path, gs://bucket/path, az://container/path or https://host/path";

/// Files that lie elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Repo(RepoUrl),
    Objects(ObjectUrl),
}

impl Source {
    /// Reads a source; a local path is none.
    ///
    /// # Errors
    /// [`Error::Source`], with how to write it.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let Some((scheme, _)) = text.split_once("://") else {
            return Ok(None);
        };
        match scheme {
            #[cfg(not(feature = "hub"))]
            "hf" => Err(crate::error::no_hub(text)),
            #[cfg(feature = "hub")]
            "hf" => RepoUrl::parse(text).map(Self::Repo).map(Some),
            "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" | "adl" | "http" | "https" => {
                ObjectUrl::parse(text).map(Self::Objects).map(Some)
            }
            _ => Err(Error::Source {
                text: shown(text),
                problem: format!("is of a kind that is not fetched, `{scheme}://`"),
                hint: ALLOWED,
            }),
        }
    }

    /// The path that is asked for, or a pattern of paths.
    pub fn path(&self) -> &str {
        match self {
            Self::Repo(url) => &url.path,
            Self::Objects(url) => url.path(),
        }
    }

    /// The files that it names, sorted by URL, each fetched unless it is in a cache.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoMatch`] and [`Error::Denied`] are for the recipe or the credentials to mend;
    /// the others may pass by themselves.
    pub fn fetch(&self, access: &Access, say: Say) -> Result<Vec<Fetched>> {
        match self {
            Self::Repo(url) => repo::fetch(url, access, say),
            Self::Objects(url) => objects::fetch(url, access, say),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_are_local_and_other_kinds_of_url_are_refused() {
        assert_eq!(Source::parse("data/*.jsonl").unwrap(), None);
        assert!(matches!(
            Source::parse("hf://datasets/a/b@main/c.jsonl").unwrap(),
            Some(Source::Repo(_))
        ));
        assert!(matches!(
            Source::parse("s3://bucket/c.jsonl").unwrap(),
            Some(Source::Objects(_))
        ));
        for text in ["ftp://host/c.jsonl", "file:///c.jsonl"] {
            let error = Source::parse(text).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.hint().unwrap().contains("s3://bucket/path"));
        }
    }
}
