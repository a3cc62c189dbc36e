//! Where the rows of stages lie in their folders.

use std::path::{Path, PathBuf};

use crate::error::{Result, io};
use crate::parquet_file;
use crate::stats::Split;

/// The `part-….parquet` files of a traces folder and of the shard folders in it, sorted; none where there is no folder.
pub fn trace_parts(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut parts = parquet_file::files(dir, "part-")?;
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(parts),
        entries => entries.map_err(io(dir))?,
    };
    for entry in entries {
        let path = entry.map_err(io(dir))?.path();
        if path.is_dir() {
            parts.extend(parquet_file::files(&path, "part-")?);
        }
    }
    parts.sort();
    Ok(parts)
}

/// The files of a split of the dataset in `dir`, sorted; none where there is no dataset.
pub fn split_files(dir: &Path, split: Split) -> Result<Vec<PathBuf>> {
    parquet_file::files(&dir.join(split.folder()), split.as_str())
}
