//! Files that are either whole or absent: write to a temporary name, fsync, rename.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Result, io};

/// The name a file has while it is being written: `.<name>.tmp` beside its final name.
///
/// It is the same at every attempt, so that a killed attempt is overwritten by the next
/// one instead of being left behind.
pub fn temporary_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// Writes `bytes` to `path`, creating its folder.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes a file through `fill` and gives it its name once its bytes are on the disk.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    let temporary = temporary_path(path);
    let mut file = File::create(&temporary).map_err(io(&temporary))?;
    let written = fill(&mut file).and_then(|()| file.sync_all());
    drop(file);
    if let Err(error) = written {
        // A full disk should not also keep the torn half.
        let _ = fs::remove_file(&temporary);
        return Err(io(path)(error));
    }
    publish(&temporary, path)
}

/// Renames `temporary` to `path` and makes the rename durable.
pub fn publish(temporary: &Path, path: &Path) -> Result<()> {
    fs::rename(temporary, path).map_err(io(path))?;
    sync_parent(path)
}

/// Writes only when the contents differ; returns whether it wrote.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    write(path, bytes)?;
    Ok(true)
}

/// Removes what a killed run left half-written directly in `dir` (`.<name>.tmp`, files or folders).
pub fn remove_stale_temporaries(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io(dir))?,
    };
    for entry in entries {
        let path = entry.map_err(io(dir))?.path();
        let stale = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"));
        if stale && path.is_dir() {
            fs::remove_dir_all(&path).map_err(io(&path))?;
        } else if stale {
            fs::remove_file(&path).map_err(io(&path))?;
        }
    }
    Ok(())
}

fn sync_parent(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        // Folders cannot be opened for syncing everywhere; the rename itself has succeeded.
        if let Ok(folder) = File::open(parent) {
            let _ = folder.sync_all();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unchanged_contents_leave_the_file_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/recipe.toml");
        assert!(write_if_changed(&path, b"one").unwrap());
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(!write_if_changed(&path, b"one").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert!(write_if_changed(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn a_failed_write_leaves_neither_file_nor_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let failed = write_with(&path, |_| Err(std::io::Error::other("disk full")));
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn stale_temporaries_go_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".part.tmp"), b"").unwrap();
        fs::create_dir(dir.path().join(".step.tmp")).unwrap();
        fs::write(dir.path().join("kept.tmp"), b"").unwrap();
        remove_stale_temporaries(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }
}
