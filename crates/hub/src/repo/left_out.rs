//! In the place of `pull`, in a build without the Hub.

use super::RepoUrl;
use crate::error::{Result, no_hub};
use crate::{Access, Fetched, Say, Wanted};

/// # Errors
/// [`crate::Error::LeftOut`], always.
pub fn fetch(url: &RepoUrl, _: &Access, _: Say) -> Result<Vec<Fetched>> {
    Err(no_hub(&url.to_string()))
}

/// # Errors
/// [`crate::Error::LeftOut`], always.
pub fn fetch_model(url: &RepoUrl, _: Wanted<'_>, _: &Access, _: Say) -> Result<Fetched> {
    Err(no_hub(&url.to_string()))
}
