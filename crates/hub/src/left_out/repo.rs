//! In the place of `repo::pull`.

use super::hub;
use crate::error::Result;
use crate::repo::RepoUrl;
use crate::{Access, Fetched, Say, Wanted};

/// # Errors
/// [`crate::Error::LeftOut`], always.
pub fn fetch(url: &RepoUrl, _: &Access, _: Say) -> Result<Vec<Fetched>> {
    Err(hub(&url.to_string()))
}

/// # Errors
/// [`crate::Error::LeftOut`], always.
pub fn fetch_model(url: &RepoUrl, _: Wanted<'_>, _: &Access, _: Say) -> Result<Fetched> {
    Err(hub(&url.to_string()))
}
