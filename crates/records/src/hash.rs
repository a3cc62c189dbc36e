//! Content hashes, and how a file is recognised as unchanged without reading it.

use std::fs::{self, File, Metadata};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io};

/// blake3 of a file's bytes, in hex.
///
/// # Errors
/// A file that cannot be opened or read.
pub fn file(path: &Path) -> Result<String> {
    hex(path, &File::open(path).map_err(io(path))?)
}

/// blake3 of bytes in memory, in hex.
pub fn bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// A writer that hashes the bytes on their way, so that a file need not be read again for its hash.
///
/// It cannot seek: bytes that are written over would be hashed twice.
#[derive(Debug)]
pub struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W> Hashing<W> {
    /// `inner` should be at its beginning, so that the hash is that of the whole file.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: blake3::Hasher::new(),
        }
    }

    /// The writer, not flushed, and blake3 of the bytes it has taken, in hex.
    pub fn into_parts(self) -> (W, String) {
        let blake3 = self.hasher.finalize().to_hex().to_string();
        (self.inner, blake3)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..taken).unwrap_or(bytes));
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// A file as it was when a stage read or wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime_ns: u64,
    /// In hex.
    pub blake3: String,
    /// The URL of a file that was fetched; it may have left its cache since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

impl FileStamp {
    /// The stamp of the same file under another name: a rename changes neither contents nor modification time.
    #[must_use]
    pub fn moved_to(self, path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            ..self
        }
    }
}

/// Reads the whole file; [`Stamps`](crate::stamps::Stamps) spare it where they know the file.
///
/// # Errors
/// A file that cannot be opened or read.
pub fn stamp(path: &Path) -> Result<FileStamp> {
    // One handle, so that size, time and hash are of the same file if another takes its name meanwhile.
    let file = File::open(path).map_err(io(path))?;
    let metadata = file.metadata().map_err(io(path))?;
    stamped(path, &metadata, hex(path, &file)?)
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

/// The stamp of a file whose hash is known.
pub(crate) fn stamped(path: &Path, metadata: &Metadata, blake3: String) -> Result<FileStamp> {
    Ok(FileStamp {
        path: path.to_path_buf(),
        size: metadata.len(),
        mtime_ns: mtime_ns(path, metadata)?,
        blake3,
        origin: None,
    })
}

/// Size in bytes, and modification time in nanoseconds since the epoch.
pub(crate) fn size_and_mtime(path: &Path) -> Result<(u64, u64)> {
    let metadata = fs::metadata(path).map_err(io(path))?;
    Ok((metadata.len(), mtime_ns(path, &metadata)?))
}

fn mtime_ns(path: &Path, metadata: &Metadata) -> Result<u64> {
    let modified = metadata.modified().map_err(io(path))?;
    let since_epoch = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(since_epoch.as_nanos() as u64)
}

fn hex(path: &Path, file: &File) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
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

    #[test]
    fn what_passes_through_is_hashed_once_however_it_is_cut() {
        /// Takes three bytes at a time, as a pipe may.
        struct Narrow(Vec<u8>);
        impl Write for Narrow {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.extend(bytes.iter().take(3));
                Ok(bytes.len().min(3))
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let text: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let mut narrow = Hashing::new(Narrow(Vec::new()));
        narrow.write_all(&text).unwrap();
        let (narrow, blake3) = narrow.into_parts();
        assert_eq!(
            (narrow.0.as_slice(), blake3),
            (text.as_slice(), bytes(&text))
        );
    }
}
