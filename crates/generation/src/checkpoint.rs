//! Which files a local teacher is made of, and the hash that names their contents.

use std::path::{Path, PathBuf};

use records::hash::{self, FileStamp};
use records::stamps;

use crate::error::Result;

/// Stamps of [`model::checkpoint::files`]; those of `known` that still hold are taken over without reading the
/// file, since hashing a large teacher at every start would take minutes.
pub fn stamps(dir: &Path, known: &[FileStamp]) -> Result<Vec<FileStamp>> {
    stamps_of(model::checkpoint::files(dir)?, known)
}

/// The same for files that are known.
pub fn stamps_of(files: Vec<PathBuf>, known: &[FileStamp]) -> Result<Vec<FileStamp>> {
    files
        .into_iter()
        .map(|path| match known.iter().find(|stamp| stamp.path == path) {
            Some(stamp) if hash::unchanged(stamp)? => Ok(stamp.clone()),
            _ => Ok(stamps::stamp(&path)?),
        })
        .collect()
}

/// 32 hex digits over the files' names and contents, wherever the folder lies.
pub fn revision(stamps: &[FileStamp]) -> String {
    let mut hasher = blake3::Hasher::new();
    for stamp in stamps {
        let name = stamp.path.file_name().unwrap_or_default();
        hasher.update(name.as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(stamp.blake3.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_revision_follows_contents_and_not_places() {
        let make = |weights: &str| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("config.json"), "{}").unwrap();
            std::fs::write(dir.path().join("model.safetensors"), weights).unwrap();
            std::fs::write(dir.path().join("README.md"), weights).unwrap();
            let stamps = stamps(dir.path(), &[]).unwrap();
            assert_eq!(stamps.len(), 2);
            revision(&stamps)
        };
        assert_eq!(make("a"), make("a"));
        assert_ne!(make("a"), make("b"));
    }
}
