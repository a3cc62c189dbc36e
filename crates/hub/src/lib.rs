//! Files that lie elsewhere: repositories of the Hugging Face Hub, to pull from and to push to, and object stores.
//!
//! # Layout
//!
//! - [`source`]: what a text names that is no local path, and the one call that fetches it; [`model`]: the same of models.
//! - [`repo`]: `hf://…` and models by their ids, a revision resolved to its commit, files listed and pulled into the Hub's own cache;
//!   `repo::push`: a repository is made to hold a set of files by one commit ([`repo::upload`] says what it is given).
//! - [`card`]: the `README.md` of what is pushed; [`yaml`]: its front matter.
//! - [`objects`]: `s3://…`, `gs://…`, `az://…`, `https://…`, kept by URL and ETag.
//! - [`progress`]: what is said while bytes arrive; `pattern`: globs. `network`: the runtime, TLS, and transfers that stand still.
//!
//! A build without the feature `hub` or `clouds` refuses what lies there by name (`left_out`).
//!
//! Everything here blocks. Endpoints, tokens, options and cache folders are the caller's ([`Access`]): this crate reads
//! no environment, save that hf-hub looks for a token by itself where none is given.

// A build without one of them has no use for much of this.
#![cfg_attr(not(all(feature = "hub", feature = "clouds")), allow(dead_code))]

pub mod card;
mod error;
pub mod model;
#[cfg(any(feature = "hub", feature = "clouds"))]
mod network;
#[cfg(feature = "clouds")]
pub mod objects;
#[cfg(not(feature = "clouds"))]
#[path = "objects/left_out.rs"]
pub mod objects;
mod pattern;
pub mod progress;
pub mod repo;
pub mod source;
mod wanted;
pub mod yaml;

use std::path::PathBuf;

pub use error::{Error, Result};
pub use model::Model;
pub use progress::Say;
pub use repo::upload::Account;
pub use repo::{Kind, Pusher, RepoId, RepoUrl};
pub use source::Source;
pub use wanted::Wanted;

/// How to reach what lies elsewhere, and where to keep it.
#[derive(Clone)]
pub struct Access {
    /// The Hub's address.
    pub endpoint: String,
    /// The Hub's token. Without one hf-hub looks where its command line tool leaves it; a push does not.
    pub token: Option<String>,
    /// The Hub's cache folder, in the layout that all its tools share.
    pub hub_cache: PathBuf,
    /// Where objects and listings are kept.
    pub cache: PathBuf,
    /// Whether the Hub may not be asked: what its cache has is all there is.
    pub offline: bool,
    /// Of object stores, by the names of their environment variables (`AWS_REGION`, …).
    pub options: Vec<(String, String)>,
}

// Without the secrets.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("endpoint", &self.endpoint)
            .field("hub_cache", &self.hub_cache)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// A file that was fetched, or was in a cache already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies here.
    pub path: PathBuf,
    /// Where it came from: a URL of this one file, at its commit where it has one.
    pub url: String,
}
