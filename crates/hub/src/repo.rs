//! `hf://datasets/ORG/NAME@REVISION/path` and `ORG/NAME@REVISION`: repositories of the Hub.

#[cfg(not(feature = "hub"))]
mod left_out;
#[cfg(feature = "hub")]
mod pull;
mod url;

#[cfg(not(feature = "hub"))]
pub use self::left_out::{fetch, fetch_model};
#[cfg(feature = "hub")]
pub use self::pull::{fetch, fetch_model};
pub use self::url::{Kind, RepoUrl};
