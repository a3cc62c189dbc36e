//! The files that recipes name, and where the rows of stages lie in their folders.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io};
use crate::manifest::Manifest;
use crate::reference::Reference;
use crate::stats::Split;
use crate::{parquet_file, table};

/// The files that a reference names, sorted: those that were found for it, else a local path or what a glob matches.
///
/// # Errors
/// [`Error::Pattern`], also for a file whose name ends in none of `endings`; [`Error::NoMatch`]; a folder that cannot be
/// read.
pub fn named(reference: &Reference, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut paths = match reference.located() {
        Some(_) => reference.paths(),
        None => matching(reference.as_str())?,
    };
    paths.sort();
    if paths.is_empty() {
        return Err(Error::NoMatch(reference.to_string()));
    }
    match paths.iter().find(|path| !table::ends_in(path, endings)) {
        Some(path) => Err(Error::Pattern {
            pattern: path.display().to_string(),
            problem: format!("is of another kind; files end in .{}", endings.join(", .")),
        }),
        None => Ok(paths),
    }
}

/// The local files that a path or a glob names.
fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    // A file whose own name holds glob characters is still that file.
    if Path::new(pattern).is_file() {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let wrong = |problem: String| Error::Pattern {
        pattern: pattern.to_owned(),
        problem,
    };
    if pattern.contains("://") {
        return Err(wrong("is not a local file".to_owned()));
    }
    let entries = glob::glob(pattern).map_err(|error| wrong(format!("is not a glob: {error}")))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::Io {
            path: error.path().to_path_buf(),
            source: error.into(),
        })?;
        if path.is_file() {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// The `part-….parquet` files of a traces folder and of the shard folders in it, sorted; none where there is no folder.
///
/// # Errors
/// [`Error::StrayPart`] for one that a complete folder does not know of; a folder that cannot be read.
pub fn trace_parts(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut parts = parts_of(dir)?;
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(parts),
        entries => entries.map_err(io(dir))?,
    };
    for entry in entries {
        let path = entry.map_err(io(dir))?.path();
        if path.is_dir() {
            parts.extend(parts_of(&path)?);
        }
    }
    parts.sort();
    Ok(parts)
}

/// The parts of one folder, as its manifest lists them; of a folder without a manifest those that are there.
fn parts_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let found = parquet_file::files(dir, "part-")?;
    let manifest = match Manifest::read(dir) {
        // A torn one says nothing; the stage runs again.
        Err(Error::Json { .. }) => None,
        manifest => manifest?,
    };
    let outputs = manifest.map_or_else(Vec::new, |manifest| manifest.outputs);
    let listed: Vec<_> = outputs
        .iter()
        .filter_map(|stamp| stamp.path.file_name())
        .collect();
    let is_listed = |part: &&PathBuf| part.file_name().is_some_and(|name| listed.contains(&name));
    // Folders that were put together by hand may have a manifest without a list.
    match found.iter().find(|part| !is_listed(part)) {
        Some(stray) if found.iter().any(|part| is_listed(&part)) => {
            Err(Error::StrayPart(stray.clone()))
        }
        _ => Ok(found),
    }
}

/// The files of a split of the dataset in `dir`, sorted; none where there is no dataset.
pub fn split_files(dir: &Path, split: Split) -> Result<Vec<PathBuf>> {
    parquet_file::files(&dir.join(split.folder()), split.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hash;

    #[test]
    fn a_part_that_the_manifest_does_not_list_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let parts = [0, 1].map(|n| dir.path().join(format!("part-{n:05}.parquet")));
        for part in &parts {
            std::fs::write(part, "").unwrap();
        }
        let named = || trace_parts(dir.path());
        assert_eq!(named().unwrap(), parts);
        let mut manifest = Manifest::new("traces", serde_json::json!({}), 0);
        manifest.write(dir.path()).unwrap();
        assert_eq!(named().unwrap(), parts);
        manifest.outputs.push(hash::stamp(&parts[0]).unwrap());
        manifest.write(dir.path()).unwrap();
        let stray = named().unwrap_err().to_string();
        assert!(stray.contains("part-00001.parquet"), "{stray}");
        manifest.outputs.push(hash::stamp(&parts[1]).unwrap());
        manifest.write(dir.path()).unwrap();
        assert_eq!(named().unwrap(), parts);
    }
}
