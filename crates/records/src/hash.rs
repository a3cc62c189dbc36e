//! Content hashes, and how a file is recognised as unchanged without reading it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io};

/// blake3 of a file's bytes, in hex.
pub fn file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut source = File::open(path).map_err(io(path))?;
    std::io::copy(&mut source, &mut hasher).map_err(io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// blake3 of bytes in memory, in hex.
pub fn bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// A file as it was when a stage read or wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    pub path: PathBuf,
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime_ns: u64,
    pub blake3: String,
    /// The URL of a file that was fetched; it may have left its cache since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

pub fn stamp(path: &Path) -> Result<FileStamp> {
    let (size, mtime_ns) = size_and_mtime(path)?;
    Ok(FileStamp {
        path: path.to_path_buf(),
        size,
        mtime_ns,
        blake3: file(path)?,
        origin: None,
    })
}

/// Whether the file still has the stamped contents. Size and modification time are
/// looked at first; the bytes are hashed only when the size agrees and the time does not.
/// A file that is gone is changed; one that cannot be looked at is an error, since what was made of it would be
/// made again for nothing.
pub fn unchanged(stamp: &FileStamp) -> Result<bool> {
    let (size, mtime_ns) = match size_and_mtime(&stamp.path) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(false);
        }
        found => found?,
    };
    if size != stamp.size {
        return Ok(false);
    }
    Ok(mtime_ns == stamp.mtime_ns || file(&stamp.path)? == stamp.blake3)
}

fn size_and_mtime(path: &Path) -> Result<(u64, u64)> {
    let metadata = fs::metadata(path).map_err(io(path))?;
    let modified = metadata.modified().map_err(io(path))?;
    let since_epoch = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), since_epoch.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_touched_file_is_unchanged_and_an_edited_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"abc").unwrap();
        let mut old = stamp(&path).unwrap();
        assert_eq!(old.blake3, bytes(b"abc"));
        old.mtime_ns -= 1;
        assert!(unchanged(&old).unwrap());
        fs::write(&path, b"abd").unwrap();
        assert!(!unchanged(&old).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!unchanged(&old).unwrap());
    }
}
