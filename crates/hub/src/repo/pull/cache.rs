//! The Hub's cache as all its tools lay it out, and our listings beside it.

use std::path::{Path, PathBuf};

use records::{atomic, hash};

use super::Entry;
use crate::Access;
use crate::error::{Error, Result, io};
use crate::repo::RepoUrl;

/// Where a repository's files lie.
pub(super) struct Cache<'a> {
    url: &'a RepoUrl,
    /// The repository's folder in the Hub's cache.
    folder: PathBuf,
    locks: PathBuf,
    /// Where listings of its commits are kept.
    listings: PathBuf,
}

impl<'a> Cache<'a> {
    pub fn of(url: &'a RepoUrl, access: &Access) -> Self {
        let folder = url.folder();
        Self {
            url,
            listings: access.cache.join("listings").join(&folder),
            locks: access.hub_cache.join(".locks").join(&folder),
            folder: access.hub_cache.join(folder),
        }
    }

    /// The files of a commit, by their paths.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The bytes of a file so far, whose transfer was interrupted.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The bytes of a file.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// What a process that writes the bytes of a file holds.
    pub fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// Whether a transfer of any file was interrupted.
    pub fn has_incomplete(&self) -> bool {
        let blobs = std::fs::read_dir(self.folder.join("blobs"));
        let names = blobs.into_iter().flatten().flatten();
        names
            .into_iter()
            .any(|entry| entry.file_name().to_string_lossy().ends_with(".incomplete"))
    }

    /// The commit that the URL's revision was when it was last asked for.
    pub fn commit(&self) -> Option<String> {
        let path = self.folder.join("refs").join(&self.url.revision);
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned())
    }

    pub fn keep_commit(&self, commit: &str) -> Result<()> {
        let path = self.folder.join("refs").join(&self.url.revision);
        Ok(atomic::write(&path, commit.as_bytes())?)
    }

    fn listing(&self, commit: &str, what: &str) -> PathBuf {
        let name = hash::bytes(what.as_bytes());
        self.listings.join(commit).join(name)
    }

    /// What `what` names at a commit, where that was asked before: it never changes.
    pub fn entries(&self, commit: &str, what: &str) -> Option<Vec<Entry>> {
        read_listing(&self.listing(commit, what))
    }

    pub fn keep_entries(&self, commit: &str, what: &str, entries: &[Entry]) -> Result<()> {
        let lines: String = entries
            .iter()
            .map(|entry| format!("{} {}\n", entry.size, entry.path))
            .collect();
        Ok(atomic::write(
            &self.listing(commit, what),
            lines.as_bytes(),
        )?)
    }

    /// The files of a commit that are in the cache, whoever fetched them, sorted.
    pub fn present(&self, commit: &str) -> Result<Vec<Entry>> {
        let snapshot = self.snapshot(commit);
        let (mut entries, mut folders) = (Vec::new(), vec![snapshot.clone()]);
        while let Some(folder) = folders.pop() {
            let listed = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                listed => listed.map_err(io(&folder))?,
            };
            for entry in listed {
                let path = entry.map_err(io(&folder))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(below) = path.strip_prefix(&snapshot) {
                    let below = below.to_string_lossy().into_owned();
                    let size = size(&path)?;
                    entries.push(Entry { path: below, size });
                }
            }
        }
        entries.sort();
        Ok(entries)
    }
}

fn read_listing(path: &Path) -> Option<Vec<Entry>> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines()
        .map(|line| {
            let (size, path) = line.split_once(' ')?;
            Some(Entry {
                path: path.to_owned(),
                size: size.parse().ok()?,
            })
        })
        .collect()
}

pub(super) fn size(path: &Path) -> Result<u64> {
    std::fs::metadata(path)
        .map(|metadata| metadata.len())
        .map_err(io(path))
}

/// Takes a file out of the Hub's cache: its name, and the bytes that the name points to.
pub(super) fn discard(path: &Path) -> Result<()> {
    let blob = path.canonicalize().map_err(io(path))?;
    std::fs::remove_file(path).map_err(io(path))?;
    match std::fs::remove_file(&blob) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(blob)(error)),
        _ => Ok(()),
    }
}

/// The error of something that is neither in the cache nor allowed to be asked for.
pub(super) fn not_cached(url: &str, what: &'static str) -> Error {
    Error::Offline {
        url: url.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn listings_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("listing");
        assert_eq!(read_listing(&path), None);
        std::fs::write(&path, "12 data/a b.parquet\n").unwrap();
        let entry = Entry {
            path: "data/a b.parquet".into(),
            size: 12,
        };
        assert_eq!(read_listing(&path), Some(vec![entry]));
        std::fs::write(&path, "twelve a\n").unwrap();
        assert_eq!(read_listing(&path), None);
    }
}
