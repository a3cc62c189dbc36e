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
    /// Opens the file for what follows `step`; lines of later steps are cut off, and what is torn behind the last
    /// line that is kept. `say` is told of what is missing.
    ///
    /// # Errors
    /// Those of the disk, with the path; [`Error::Metrics`] for a line among those to keep that does not read.
    pub fn resume(path: &Path, step: u64, say: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        let kept = match step {
            0 => Kept::default(),
            _ => Kept::read(path, step, say)?,
        };
        let validated = kept.validated;
        let kept = kept.lines;
        atomic::write(path, &kept)?;
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

/// The lines of steps that are done.
#[derive(Default)]
struct Kept {
    lines: Vec<u8>,
    validated: Option<u64>,
}

impl Kept {
    fn read(path: &Path, step: u64, say: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        let mut kept = Self::default();
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                say(&format!(
                    "{}: the metrics of the first {step} steps are gone",
                    path.display()
                ));
                return Ok(kept);
            }
            read => read.map_err(io(path))?,
        };
        // The end may be torn, or hold anything after a power cut; what stands before a line that is kept may not.
        let mut torn = None;
        for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let metrics = match serde_json::from_slice::<StepMetrics>(line) {
                Ok(metrics) if line.ends_with(b"\n") => metrics,
                Ok(_) => continue,
                Err(source) => {
                    torn.get_or_insert((index + 1, source));
                    continue;
                }
            };
            if metrics.step > step {
                continue;
            }
            if let Some((line, source)) = torn {
                let path = path.to_path_buf();
                return Err(Error::Metrics { path, line, source });
            }
            kept.lines.extend_from_slice(line);
            if metrics.split == Split::Validation {
                kept.validated = Some(metrics.step);
            }
        }
        if let Some((line, _)) = torn {
            say(&format!(
                "{}:{line}: the end was torn and is cut off; it belongs to steps that are done again",
                path.display()
            ));
        }
        Ok(kept)
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
            measures: [("loss_hard", 1.0), ("agreement", 0.5)]
                .into_iter()
                .collect(),
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
        let mut log = MetricsLog::resume(&path, 0, &mut |_| ()).unwrap();
        for step in 1..=5 {
            log.write(&metrics(step)).unwrap();
        }
        log.file.write_all(b"{\"split\": \"tr").unwrap();
        let mut said = Vec::new();
        let mut say = |line: &str| said.push(line.to_owned());
        let mut log = MetricsLog::resume(&path, 3, &mut say).unwrap();
        assert!(
            said[0].contains("metrics.jsonl:6: the end was torn"),
            "{said:?}"
        );
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

    #[test]
    fn a_line_among_those_to_keep_that_does_not_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::resume(&path, 0, &mut |_| ()).unwrap();
        log.write(&metrics(1)).unwrap();
        log.file.write_all(b"\xff\xfe{\n").unwrap();
        log.write(&metrics(2)).unwrap();
        log.write(&metrics(3)).unwrap();
        let before = fs::read(&path).unwrap();
        let error = MetricsLog::resume(&path, 2, &mut |_| ()).err().unwrap();
        assert!(error.to_string().contains("metrics.jsonl:2"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        // Behind what is kept it is cut off with the rest.
        MetricsLog::resume(&path, 1, &mut |_| ()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        fs::remove_file(&path).unwrap();
        let mut said = 0;
        MetricsLog::resume(&path, 1, &mut |_| said += 1).unwrap();
        assert_eq!(said, 1);
    }
}
