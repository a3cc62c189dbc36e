//! `metrics.jsonl`: one line per optimizer step and per validation.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use records::atomic;
use records::metric::{Split, StepMetrics};

use crate::Error;
use crate::error::io;

/// The open file.
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    /// The last step that was validated after.
    validated: Option<u64>,
}

impl MetricsLog {
    /// Opens the file for what follows `step`; lines of later steps, and a torn last line, are cut off.
    ///
    /// # Errors
    /// Those of the disk, with the path.
    pub fn resume(path: &Path, step: u64) -> Result<Self, Error> {
        let (mut kept, mut validated) = (String::new(), None);
        if step > 0 {
            let text = match fs::read_to_string(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io(path)(error));
                }
                read => read.unwrap_or_default(),
            };
            for line in text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
            {
                let Ok(metrics) = serde_json::from_str::<StepMetrics>(line) else {
                    continue;
                };
                if metrics.step <= step {
                    kept.push_str(line);
                    if metrics.split == Split::Validation {
                        validated = Some(metrics.step);
                    }
                }
            }
        }
        atomic::write(path, kept.as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(io(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            validated,
        })
    }

    /// Whether a validation after `step` is among the lines that were there.
    #[must_use]
    pub fn validated(&self, step: u64) -> bool {
        self.validated == Some(step)
    }

    /// # Errors
    /// Those of the disk, with the path.
    pub fn write(&mut self, metrics: &StepMetrics) -> Result<(), Error> {
        let mut line = serde_json::to_string(metrics).map_err(|source| Error::Json {
            path: self.path.clone(),
            source,
        })?;
        line.push('\n');
        // One call per line: a reader that follows the file never sees half of one.
        self.file.write_all(line.as_bytes()).map_err(io(&self.path))
    }

    /// Puts the lines on the disk, before a checkpoint counts on them.
    ///
    /// # Errors
    /// Those of the disk, with the path.
    pub fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(io(&self.path))
    }
}

/// The most memory this process has held, in bytes; 0 where the system does not say.
#[must_use]
pub fn peak_memory_bytes() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole, writable `rusage`, and all-zero bytes are a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    fn metrics(step: u64) -> StepMetrics {
        StepMetrics {
            split: Split::Train,
            step,
            epoch: 0.5,
            loss: 1.0,
            loss_hard: Some(1.0),
            loss_soft: None,
            loss_features: None,
            loss_relations: None,
            teacher_entropy: None,
            top_k_mass: None,
            agreement: Some(0.5),
            grad_norm: Some(1.0),
            learning_rate: Some(1e-3),
            n_supervised_tokens: 1,
            n_tokens: 2,
            seconds: 0.1,
            tokens_per_second: 20.0,
            peak_memory_bytes: peak_memory_bytes(),
        }
    }

    #[test]
    fn resuming_cuts_what_will_be_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::resume(&path, 0).unwrap();
        for step in 1..=5 {
            log.write(&metrics(step)).unwrap();
        }
        log.file.write_all(b"{\"split\": \"tr").unwrap();
        let mut log = MetricsLog::resume(&path, 3).unwrap();
        log.write(&metrics(4)).unwrap();
        log.sync().unwrap();
        let steps: Vec<u64> = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<StepMetrics>(line).unwrap().step)
            .collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        assert!(peak_memory_bytes() > 1 << 20);
    }
}
