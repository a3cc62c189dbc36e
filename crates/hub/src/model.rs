//! A model that lies elsewhere: what names it, and the one call that fetches it.

use crate::error::Result;
use crate::objects::{self, ObjectUrl};
use crate::progress::Say;
use crate::repo::{self, RepoUrl};
use crate::wanted::Wanted;
use crate::{Access, Fetched};

/// A folder of a model, or its one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    Repo(RepoUrl),
    /// Everything directly in a folder of an object store.
    Objects(ObjectUrl),
}

impl Model {
    /// Reads `ORG/NAME@REVISION`, as [`RepoUrl::parse_model`] does, or the URL of a folder in an object store; a local path
    /// is none.
    ///
    /// # Errors
    /// [`crate::Error::Source`], with how to write it.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        match text.split_once("://") {
            None | Some(("hf", _)) => {
                let url = RepoUrl::parse_model(text)?;
                #[cfg(not(feature = "hub"))]
                if url.is_some() {
                    return Err(crate::error::no_hub(text));
                }
                Ok(url.map(Self::Repo))
            }
            Some(_) => {
                let inside = format!("{}/*", text.trim_end_matches('/'));
                ObjectUrl::parse(&inside).map(Self::Objects).map(Some)
            }
        }
    }

    /// The folder with those of the model's files that are wanted, each fetched unless it is in a cache. The URL of a GGUF
    /// file gives that file.
    ///
    /// # Errors
    /// As [`crate::Source::fetch`]; [`crate::Error::NotFound`] where the model has none of the files.
    pub fn fetch(&self, wanted: Wanted<'_>, access: &Access, say: Say) -> Result<Fetched> {
        match self {
            Self::Repo(url) => repo::fetch_model(url, wanted, access, say),
            Self::Objects(url) => objects::fetch_model(url, wanted, access, say),
        }
    }
}
