//! Samples that are there already.
//!
//! While a model is sampled its rows lie in a traces folder of `parts/`, named after the model and its sampling key. A
//! finished `samples.parquet` has all of them, with the key of each model in its metadata, and the folder goes. A verdict is
//! made anew from the text each time; the one before only serves to say which have changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use records::parquet_file::Reader;
use records::trace::{self, Trace};
use verify::Verdict;

use crate::config::Role;
use crate::error::{Result, io};
use crate::sample::{self, Sample};

/// A sample's identity within a role.
pub(crate) type RowKey = (String, u32);

/// The file of all graded samples.
pub(crate) const SAMPLES: &str = "samples.parquet";

/// Metadata key that holds the sampling key of `role`'s rows.
pub(crate) fn metadata_key(role: &Role) -> String {
    format!("stillroom.sampling.{role}")
}

/// The folder where a role is sampled with this key.
pub(crate) fn folder(output: &Path, role: &Role, key: &str) -> PathBuf {
    parts(output).join(format!("{role}-{}", key.get(..12).unwrap_or(key)))
}

/// Removes the folders of every role, once `samples.parquet` holds their rows.
pub(crate) fn remove(output: &Path) -> Result<()> {
    let dir = parts(output);
    if dir.is_dir() {
        fs::remove_dir_all(&dir).map_err(io(&dir))?;
    }
    Ok(())
}

fn parts(output: &Path) -> PathBuf {
    output.join("parts")
}

/// Hands over the rows of a role in the `samples.parquet` of an evaluation before, if they have this key.
pub(crate) fn finished(
    output: &Path,
    role: &Role,
    key: &str,
    mut keep: impl FnMut(Sample),
) -> Result<()> {
    let path = output.join(SAMPLES);
    if !path.is_file() {
        return Ok(());
    }
    let reader = Reader::open(&path)?;
    if reader.metadata(&metadata_key(role)).as_deref() != Some(key) {
        return Ok(());
    }
    for batch in reader {
        let samples = sample::from_batch(&batch?, &path)?.into_iter();
        samples
            .filter(|sample| sample.role == role.as_str())
            .for_each(&mut keep);
    }
    Ok(())
}

/// A row, and its verdict on this benchmark in the evaluation before.
pub(crate) struct Kept {
    pub trace: Trace,
    pub before: Option<Verdict>,
}

/// Every row that `wanted` names, by identity: of a finished evaluation, and of the parts sampled since.
pub(crate) fn read(
    (output, role, key): (&Path, &Role, &str),
    benchmark: &str,
    sampled: &[PathBuf],
    wanted: impl Fn(&RowKey) -> bool,
) -> Result<BTreeMap<RowKey, Kept>> {
    let mut rows: BTreeMap<RowKey, Kept> = BTreeMap::new();
    finished(output, role, key, |sample| {
        let key = (sample.trace.prompt_id.clone(), sample.trace.sample_index);
        if !wanted(&key) {
            return;
        }
        // A question may stand in several benchmarks, each with a verdict of its own.
        let before = sample.verdict.filter(|_| sample.benchmark == benchmark);
        let kept = rows.entry(key).or_insert(Kept {
            trace: sample.trace,
            before: None,
        });
        kept.before = kept.before.or(before);
    })?;
    for path in sampled {
        for batch in Reader::open(path)? {
            let traces = trace::from_batch(&batch?).map_err(|error| error.in_file(path))?;
            for trace in traces {
                let key = (trace.prompt_id.clone(), trace.sample_index);
                if wanted(&key) {
                    let before = None;
                    rows.insert(key, Kept { trace, before });
                }
            }
        }
    }
    Ok(rows)
}
