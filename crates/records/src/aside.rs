//! Moves what was made before out of the way: it is renamed, never overwritten.

use std::fs;
use std::path::{Path, PathBuf};

use crate::atomic;
use crate::error::{Result, io};

/// How many of those that were replaced stay.
pub const KEPT: usize = 2;

/// The word in the names of what was replaced.
pub const REPLACED: &str = "replaced";

/// What became of a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Its new name.
    pub to: PathBuf,
    /// Older ones that were removed.
    pub removed: Vec<PathBuf>,
}

/// Renames `path` to `NAME.replaced-N`, where N counts up, and removes all but the newest [`KEPT`] of that name.
///
/// # Errors
/// Those of listing, renaming and removing, with the path.
pub fn replace(path: &Path) -> Result<Aside> {
    let to = next(path, REPLACED)?;
    atomic::publish(path, &to)?;
    Ok(Aside {
        to,
        removed: remove_old(path)?,
    })
}

/// Removes all but the newest [`KEPT`] of what was replaced under that name, and gives what is gone.
///
/// # Errors
/// Those of listing and removing, with the path.
pub fn remove_old(path: &Path) -> Result<Vec<PathBuf>> {
    let mut numbered = numbered(path, REPLACED)?;
    numbered.truncate(numbered.len().saturating_sub(KEPT));
    let mut removed = Vec::new();
    for (_, old) in numbered {
        let gone = match old.is_dir() {
            true => fs::remove_dir_all(&old),
            false => fs::remove_file(&old),
        };
        gone.map_err(io(&old))?;
        removed.push(old);
    }
    Ok(removed)
}

/// Renames `path` to `NAME.WORD-N`, where N counts up, and gives that name. Nothing is removed.
///
/// # Errors
/// Those of listing and renaming, with the path.
pub fn rename(path: &Path, word: &str) -> Result<PathBuf> {
    let to = next(path, word)?;
    atomic::publish(path, &to)?;
    Ok(to)
}

/// The name that `path` would be moved to.
///
/// # Errors
/// Those of listing its folder.
pub fn next(path: &Path, word: &str) -> Result<PathBuf> {
    let last = numbered(path, word)?.pop().map_or(0, |(number, _)| number);
    Ok(path.with_file_name(format!("{}{}", prefix(path, word), last + 1)))
}

/// What lies beside `path` as `NAME.WORD-N`, by N.
fn numbered(path: &Path, word: &str) -> Result<Vec<(u64, PathBuf)>> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let prefix = prefix(path, word);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let name = entry.map_err(io(folder))?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix)?.parse().ok());
        found.extend(number.map(|number| (number, path.with_file_name(&name))));
    }
    found.sort();
    Ok(found)
}

fn prefix(path: &Path, word: &str) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}.{word}-")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_newest_two_stay_and_numbers_count_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("student");
        let replaced = |n: u64| dir.path().join(format!("student.replaced-{n}"));
        for n in 1..=11 {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("weights"), n.to_string()).unwrap();
            let aside = replace(&path).unwrap();
            assert_eq!(aside.to, replaced(n));
            let removed: Vec<_> = (n > 2).then(|| replaced(n - 2)).into_iter().collect();
            assert_eq!(aside.removed, removed);
        }
        let read = |n| fs::read_to_string(replaced(n).join("weights")).unwrap();
        assert_eq!((read(10), read(11)), ("10".to_owned(), "11".to_owned()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_only_renamed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step-000003");
        for n in 1..=4 {
            fs::write(&path, "x").unwrap();
            let to = dir.path().join(format!("step-000003.torn-{n}"));
            assert_eq!(rename(&path, "torn").unwrap(), to);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }
}
