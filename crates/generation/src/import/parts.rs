//! Numbers the samples of each prompt, and writes traces as parts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use records::parquet_file::Writer;
use records::trace::{self, Trace, trace_id};

use crate::error::Result;
use crate::seal::part_path;

/// Bytes of text that are handed to the Parquet writer at once.
const BATCH_BYTES: usize = 8 << 20;

/// The part that is being filled, and how many samples each prompt has had.
pub struct Parts<'a> {
    dir: &'a Path,
    max_bytes: usize,
    /// By the bits of the prompt's id, not its text: 20 bytes.
    samples: HashMap<[u8; 16], u32>,
    traces: Vec<Trace>,
    bytes: usize,
    pub written: Vec<PathBuf>,
}

impl<'a> Parts<'a> {
    pub fn new(dir: &'a Path, max_bytes: u64) -> Self {
        Self {
            dir,
            max_bytes: max_bytes as usize,
            samples: HashMap::new(),
            traces: Vec::new(),
            bytes: 0,
            written: Vec::new(),
        }
    }

    /// Prompts that have a sample.
    pub fn n_prompts(&self) -> u64 {
        self.samples.len() as u64
    }

    /// Takes a trace, all but its number and its name.
    pub fn push(&mut self, mut trace: Trace) -> Result<()> {
        let key = u128::from_str_radix(&trace.prompt_id, 16).unwrap_or_default();
        let next = self.samples.entry(key.to_be_bytes()).or_default();
        trace.sample_index = *next;
        *next += 1;
        trace.trace_id = trace_id(&trace.prompt_id, trace.sample_index);
        self.bytes += bytes(&trace);
        self.traces.push(trace);
        if self.bytes >= self.max_bytes {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the part that is being filled.
    pub fn flush(&mut self) -> Result<()> {
        let mut traces = std::mem::take(&mut self.traces);
        self.bytes = 0;
        if traces.is_empty() {
            return Ok(());
        }
        traces.sort_by(|a, b| (&a.prompt_id, a.sample_index).cmp(&(&b.prompt_id, b.sample_index)));
        let path = part_path(self.dir, self.written.len() as u32);
        let mut writer = Writer::create(&path, trace::schema(), &[])?;
        let (mut start, mut held) = (0, 0);
        for at in 0..traces.len() {
            held += traces.get(at).map_or(0, bytes);
            if held >= BATCH_BYTES || at + 1 == traces.len() {
                writer.write(&trace::to_batch(
                    traces.get(start..=at).unwrap_or_default(),
                )?)?;
                (start, held) = (at + 1, 0);
            }
        }
        writer.finish()?;
        self.written.push(path);
        Ok(())
    }
}

/// About how much memory a trace takes.
fn bytes(trace: &Trace) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let prompt: usize = trace
        .prompt_messages
        .iter()
        .map(|turn| turn.content.len() + 32)
        .sum();
    let texts = [
        &trace.text,
        &trace.reasoning,
        &trace.answer,
        &trace.gold_answer,
        &trace.error,
    ];
    prompt + trace.problem.len() + texts.into_iter().map(text).sum::<usize>() + 512
}
