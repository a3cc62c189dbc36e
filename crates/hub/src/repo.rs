//! `hf://datasets/ORG/NAME@REVISION/path` and `ORG/NAME@REVISION`: repositories of the Hub, to pull from and to push to.

#[cfg(not(feature = "hub"))]
mod left_out;
#[cfg(feature = "hub")]
mod pull;
#[cfg(feature = "hub")]
mod push;
pub mod upload;
mod url;

#[cfg(not(feature = "hub"))]
pub use self::left_out::{Pusher, fetch, fetch_model};
#[cfg(feature = "hub")]
pub use self::pull::{fetch, fetch_model};
#[cfg(feature = "hub")]
pub use self::push::Pusher;
pub use self::url::{Kind, RepoId, RepoUrl};
