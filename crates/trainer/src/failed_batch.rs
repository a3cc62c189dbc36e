//! `failed-batch-step-000012.json`: the rows that a loss or a gradient was not finite on.

use std::fs;
use std::path::Path;

use records::atomic;
use serde_json::json;

use crate::Error;
use crate::error::io;
use crate::store::ExampleStore;

const PREFIX: &str = "failed-batch-step-";

/// Saves examples `batch` in `folder`, and gives the error that names the file. `step` counts from 1.
///
/// # Errors
/// Those of reading the examples and writing the file.
pub(crate) fn save(
    folder: &Path,
    step: u64,
    what: String,
    examples: &ExampleStore,
    batch: &[usize],
) -> Result<Error, Error> {
    let rows = batch
        .iter()
        .map(|&index| {
            let example = examples.get(index)?;
            Ok(json!({
                "id": example.id,
                "prompt_token_ids": example.prompt_ids,
                "token_ids": example.completion_ids,
            }))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let path = folder.join(format!("{PREFIX}{step:06}.json"));
    let failed = json!({"step": step, "not_finite": what, "rows": rows});
    let bytes = serde_json::to_vec(&failed).map_err(|source| Error::Json {
        path: path.clone(),
        source,
    })?;
    atomic::write(&path, &bytes)?;
    Ok(Error::NotFinite {
        step,
        what,
        batch: path,
    })
}

/// Removes what an earlier attempt saved.
pub(crate) fn remove(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(PREFIX)) {
            fs::remove_file(&path).map_err(io(&path))?;
        }
    }
    Ok(())
}
