//! In the place of `objects`, in a build without object stores.

use crate::error::{Result, no_clouds};
use crate::{Access, Fetched, Say, Wanted};

/// No text is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectUrl {}

impl ObjectUrl {
    /// # Errors
    /// [`crate::Error::LeftOut`], always.
    pub fn parse(text: &str) -> Result<Self> {
        Err(no_clouds(text))
    }

    pub fn path(&self) -> &str {
        match *self {}
    }
}

pub fn fetch(url: &ObjectUrl, _: &Access, _: Say) -> Result<Vec<Fetched>> {
    match *url {}
}

pub fn fetch_model(url: &ObjectUrl, _: Wanted<'_>, _: &Access, _: Say) -> Result<Fetched> {
    match *url {}
}
