//! In the place of `pull` and `push`, in a build without the Hub.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::upload::{Account, Comparison, Look, Pushed, Upload};
use super::{RepoId, RepoUrl};
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

/// No build without the Hub has one.
pub struct Pusher<'a>(std::marker::PhantomData<&'a ()>);

impl<'a> Pusher<'a> {
    /// # Errors
    /// [`crate::Error::LeftOut`], always.
    pub fn new(_: &'a Access, _: Say, _: &'a AtomicBool) -> Result<Self> {
        Err(no_hub("push-hub"))
    }

    #[must_use]
    pub fn pausing(self, _: Duration) -> Self {
        self
    }

    /// # Errors
    /// [`crate::Error::LeftOut`], always.
    pub fn who(&self) -> Result<Account> {
        Err(no_hub("push-hub"))
    }

    /// # Errors
    /// [`crate::Error::LeftOut`], always.
    pub fn look(&self, repo: &RepoId) -> Result<Look> {
        Err(no_hub(&repo.to_string()))
    }

    /// # Errors
    /// [`crate::Error::LeftOut`], always.
    pub fn licence(&self, url: &RepoUrl) -> Result<Option<String>> {
        Err(no_hub(&url.to_string()))
    }

    /// # Errors
    /// [`crate::Error::LeftOut`], always.
    pub fn create(&self, repo: &RepoId, _: bool) -> Result<bool> {
        Err(no_hub(&repo.to_string()))
    }

    /// # Errors
    /// [`crate::Error::LeftOut`], always.
    pub fn check(&self, upload: &Upload) -> Result<()> {
        Err(no_hub(&upload.repo.to_string()))
    }

    /// # Errors
    /// [`crate::Error::LeftOut`], always.
    pub fn compare(&self, upload: &Upload) -> Result<Comparison> {
        Err(no_hub(&upload.repo.to_string()))
    }

    /// # Errors
    /// [`crate::Error::LeftOut`], always.
    pub fn push(&self, upload: &Upload) -> Result<Pushed> {
        Err(no_hub(&upload.repo.to_string()))
    }
}
