//! Files that are either whole or absent: write to a temporary name, fsync, rename.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Result, io};
use crate::hash::{self, FileStamp, Hashing};

/// The coarsest step in which a file system keeps modification times: FAT's two seconds. A change less than a step after
/// another may leave the time as it was.
pub const MTIME_STEP: Duration = Duration::from_secs(2);

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
    let temporary = temporary_path(path);
    let mut file = create(&temporary)?;
    let written = fill(&mut file).and_then(|()| file.sync_all());
    drop(file);
    or_removed(written, &temporary, path)?;
    publish(&temporary, path)
}

/// [`write`] that also gives the file's stamp, hashed on the way; see [`publish_hashed`] about its time.
///
/// # Errors
/// Those of creating the folder, writing and renaming, with the path.
pub fn write_stamped(path: &Path, bytes: &[u8]) -> Result<FileStamp> {
    write_with_stamped(path, |file| file.write_all(bytes))
}

/// [`write_with`] that also gives the file's stamp, hashed on the way; see [`publish_hashed`] about its time.
///
/// # Errors
/// Those of creating the folder, of `fill`, of writing and renaming, with the path.
pub fn write_with_stamped(
    path: &Path,
    fill: impl FnOnce(&mut Hashing<File>) -> std::io::Result<()>,
) -> Result<FileStamp> {
    let temporary = temporary_path(path);
    let mut file = Hashing::new(create(&temporary)?);
    let written = fill(&mut file);
    or_removed(written, &temporary, path)?;
    publish_hashed(file, path)
}

/// Gives a file that was written to [`temporary_path`] its name once its bytes are on the disk, and says what it is.
///
/// The file's modification time is set back by [`MTIME_STEP`]. Whoever changes the file from now on gives it a later time,
/// however coarsely the file system counts: the stamp holds from the start, without another look at the bytes. (Mercurial
/// moves the times of its own files for the same reason.)
///
/// # Errors
/// Those of syncing and renaming, with the path; the temporary file is removed where its bytes did not reach the disk.
pub fn publish_hashed(file: Hashing<File>, path: &Path) -> Result<FileStamp> {
    let temporary = temporary_path(path);
    let (file, blake3) = file.into_parts();
    let written = file.metadata().and_then(|metadata| metadata.modified());
    if let Some(earlier) = written.ok().and_then(|time| time.checked_sub(MTIME_STEP)) {
        // Where a file system refuses, the stamp is one of a file just written, which is read again once.
        let _ = file.set_modified(earlier);
    }
    or_removed(file.sync_all(), &temporary, path)?;
    publish(&temporary, path)?;
    // Asked of the handle: by now another file may have the name.
    let metadata = file.metadata().map_err(io(path))?;
    hash::stamped(path, &metadata, blake3)
}

/// [`write`] for a file that several processes may write at once: each has a temporary name of its own, and the last
/// rename stands.
///
/// A killed attempt is left behind; [`remove_abandoned`] finds it.
///
/// # Errors
/// Those of creating the folder, writing and renaming, with the path.
pub fn write_shared(path: &Path, bytes: &[u8]) -> Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let nth = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Process ids repeat among the machines and containers that share a folder; the time hardly does, and `create_new`
    // refuses what is left.
    let (id, nanos) = (process::id(), now.unwrap_or_default().as_nanos());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{id}-{nanos}-{nth}.tmp"));
    create_folder(&temporary)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).open(&temporary);
    let mut file = file.map_err(io(&temporary))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    or_removed(written, &temporary, path)?;
    or_removed(fs::rename(&temporary, path), &temporary, path)?;
    sync_parent(path)
}

/// Removes what attempts of [`write_shared`] that were killed more than `age` ago left beside `path`.
///
/// # Errors
/// Those of listing and removing, with the path.
pub fn remove_abandoned(path: &Path, age: Duration) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!(".{name}.");
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io(folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(io(folder))?;
        let found = entry.file_name();
        let theirs = found.to_str().and_then(|name| name.strip_prefix(&prefix));
        if !theirs.is_some_and(|rest| rest.ends_with(".tmp")) {
            continue;
        }
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|since| since > age));
        if old {
            let removed = fs::remove_file(entry.path());
            // Another process may have been faster.
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(io(&entry.path())(error));
            }
        }
    }
    Ok(())
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

/// Creates the file `path`, and its folder.
pub(crate) fn create(path: &Path) -> Result<File> {
    create_folder(path)?;
    File::create(path).map_err(io(path))
}

fn create_folder(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(io(parent)),
        None => Ok(()),
    }
}

/// A full disk should not also keep the torn half.
fn or_removed(written: std::io::Result<()>, temporary: &Path, path: &Path) -> Result<()> {
    written.map_err(|error| {
        let _ = fs::remove_file(temporary);
        io(path)(error)
    })
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
    fn a_stamp_from_writing_is_the_one_from_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/weights");
        let before = SystemTime::now();
        let stamp = write_stamped(&path, b"abc").unwrap();
        assert_eq!(stamp, hash::stamp(&path).unwrap());
        assert_eq!(stamp.blake3, hash::bytes(b"abc"));
        // A change within the same tick of the clock would show.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(modified < before);
        let moved = dir.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        assert_eq!(stamp.moved_to(&moved), hash::stamp(&moved).unwrap());
    }

    #[test]
    fn a_failed_stamped_write_leaves_neither_file_nor_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let failed = write_with_stamped(&path, |file| {
            file.write_all(b"half")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn abandoned_attempts_go_once_they_are_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stamps.json");
        write_shared(&path, b"{}").unwrap();
        let young = dir.path().join(".stamps.json.2-2-2.tmp");
        let old = dir.path().join(".stamps.json.1-1-1.tmp");
        let other = dir.path().join(".status.json.1-1-1.tmp");
        let hours = |n: u64| SystemTime::now() - Duration::from_secs(3600 * n);
        for (file, time) in [(&young, hours(0)), (&old, hours(2)), (&other, hours(2))] {
            File::create(file).unwrap().set_modified(time).unwrap();
        }
        remove_abandoned(&path, Duration::from_secs(3600)).unwrap();
        assert!(path.exists() && young.exists() && other.exists() && !old.exists());
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
