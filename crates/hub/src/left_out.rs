//! What a build says of places that it leaves out: the Hub without the feature `hub`, object stores without `clouds`.

#[cfg(not(feature = "clouds"))]
pub mod objects;
#[cfg(not(feature = "hub"))]
pub mod repo;

#[cfg(not(all(feature = "hub", feature = "clouds")))]
use crate::error::{Error, shown};

/// That this build has no Hub.
#[cfg(not(feature = "hub"))]
pub fn hub(text: &str) -> Error {
    Error::LeftOut {
        text: shown(text),
        place: "on the Hub",
        hint: "build with --features hub, or download it and name the local copy",
    }
}

/// That this build has no object stores.
#[cfg(not(feature = "clouds"))]
pub fn clouds(text: &str) -> Error {
    Error::LeftOut {
        text: shown(text),
        place: "in an object store or on a web server",
        hint: "build with --features clouds, or download it and name the local copy",
    }
}
