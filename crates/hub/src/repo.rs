//! `hf://datasets/ORG/NAME@REVISION/path` and `ORG/NAME@REVISION`: repositories of the Hub.

#[cfg(feature = "hub")]
mod pull;
mod url;

#[cfg(feature = "hub")]
pub use self::pull::{fetch, fetch_model};
pub use self::url::{Kind, RepoUrl};
#[cfg(not(feature = "hub"))]
pub use crate::left_out::repo::{fetch, fetch_model};
