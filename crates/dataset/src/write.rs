//! The last step: every trace, whole, to its split.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use records::stats::{Split, Stats};
use records::{LeftOut, Place};

use crate::annotations::Tools;
use crate::choose::Chosen;
use crate::config::DatasetConfig;
use crate::counts::Counts;
use crate::error::Result;
use crate::example::{examples, schema};
use crate::gather::Parts;
use crate::progress::Progress;
use crate::rows::Rows;
use crate::shards::Shards;
use crate::split::is_validation;
use crate::workshop::{Closed, Workshop};

/// Bytes of payload, and how many traces, that are gathered at once. There are four such
/// windows in memory: one that is gathered, one that waits, and one that is written and its columns.
const WINDOW_BYTES: u64 = 48 << 20;
const WINDOW_ROWS: usize = 4096;

/// What the last step reads and where it writes.
pub struct Write<'a> {
    pub parts: &'a [PathBuf],
    pub config: &'a DatasetConfig,
    pub workshop: &'a Workshop,
    pub tools: &'a Tools,
    /// Key-value metadata of every file.
    pub metadata: &'a [(String, String)],
    pub progress: &'a Progress,
}

/// The splits, written, and the account of every trace.
pub struct Written {
    /// Of each of [`Split::ALL`].
    pub splits: [Shards; 3],
    pub stats: Stats,
    /// The rejected traces by reason.
    pub left_out: LeftOut,
}

/// The examples of one split in a window, and the size of each.
struct Cut {
    split: Split,
    examples: RecordBatch,
    bytes: Vec<u64>,
}

impl Write<'_> {
    /// Writes every trace; none when `stop` was set. One thread reads, another encodes.
    pub fn run(&self, rows: Chosen<'_>, stop: &AtomicBool) -> Result<Option<Written>> {
        let closed = self.workshop.closed();
        // How many rows of each split stand in closed shards.
        let mut skip = closed
            .each_ref()
            .map(|shards| shards.iter().map(|shard| shard.rows).sum());
        let (sender, receiver) = sync_channel(1);
        std::thread::scope(|threads| {
            let encoding = threads.spawn(move || self.encode(closed, &receiver));
            let read = self.read(rows, &mut skip, &sender, stop);
            drop(sender);
            let encoded = encoding
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // An error in encoding ends reading too, and is the reason.
            let mut splits = encoded?;
            let Some((stats, left_out)) = read? else {
                return Ok(None);
            };
            splits.iter_mut().try_for_each(Shards::finish)?;
            Ok(Some(Written {
                splits,
                stats,
                left_out,
            }))
        })
    }

    /// Sends the windows of all rows; none when `stop` was set.
    fn read(
        &self,
        rows: Chosen<'_>,
        skip: &mut [u64; 3],
        sender: &SyncSender<Vec<Cut>>,
        stop: &AtomicBool,
    ) -> Result<Option<(Stats, LeftOut)>> {
        let memory = self.config.memory_limit.as_ref().map(|limit| limit.bytes);
        let window_bytes =
            memory.map_or(WINDOW_BYTES, |memory| WINDOW_BYTES.min(memory as u64 / 32));
        let mut payloads = Parts::new(self.parts, memory.map(|memory| memory / 4));
        let (mut counts, mut left_out) = (Counts::default(), LeftOut::default());
        for batch in rows {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch = batch?;
            let found = Rows::of(&batch)?;
            let mut window = Window::default();
            for at in 0..batch.num_rows() {
                let row = found.get(at);
                let split = match row.reason {
                    Some(_) => Split::Rejected,
                    None if is_validation(row.prompt_id, self.config.validation_fraction) => {
                        Split::Validation
                    }
                    None => Split::Train,
                };
                counts.add(&row, split);
                if let (Some(reason), Some(part)) = (row.reason, self.parts.get(row.part as usize))
                {
                    left_out.add(reason, || Place::new(part, row.part_row + 1));
                }
                if let Some(left) = skip[split as usize].checked_sub(1) {
                    skip[split as usize] = left;
                    continue;
                }
                window.places.push((row.part, row.part_row));
                window.rows.push(at as u32);
                window.bytes.push(row.payload_bytes);
                window.splits.push(split);
                window.n_bytes += row.payload_bytes;
                if window.n_bytes >= window_bytes || window.rows.len() >= WINDOW_ROWS {
                    let window = std::mem::take(&mut window);
                    if sender
                        .send(window.cut(&batch, &mut payloads, self.tools)?)
                        .is_err()
                    {
                        return Ok(None);
                    }
                }
            }
            if !window.rows.is_empty()
                && sender
                    .send(window.cut(&batch, &mut payloads, self.tools)?)
                    .is_err()
            {
                return Ok(None);
            }
            self.progress.add(batch.num_rows() as u64);
        }
        Ok(Some((counts.finish(), left_out)))
    }

    fn encode(&self, closed: Closed, windows: &Receiver<Vec<Cut>>) -> Result<[Shards; 3]> {
        let mut closed = closed.into_iter();
        let mut splits = Split::ALL.map(|split| {
            let schema = schema(split);
            let closed = closed.next().unwrap_or_default();
            let (folder, bytes) = (&self.workshop.shards, self.config.shard_size.bytes as u64);
            Shards::new(split.as_str(), folder, schema, self.metadata, bytes, closed)
        });
        let n_closed = |splits: &[Shards; 3]| splits.each_ref().map(|s| s.written().len());
        let mut known = n_closed(&splits);
        for cuts in windows {
            for cut in cuts {
                splits[cut.split as usize].push(&cut.examples, &cut.bytes)?;
            }
            if n_closed(&splits) != known {
                known = n_closed(&splits);
                self.workshop
                    .close(&splits.each_ref().map(|shards| shards.written().to_vec()))?;
            }
        }
        Ok(splits)
    }
}

/// Rows of one batch that are gathered together.
#[derive(Default)]
struct Window {
    places: Vec<(u32, u64)>,
    rows: Vec<u32>,
    bytes: Vec<u64>,
    splits: Vec<Split>,
    n_bytes: u64,
}

impl Window {
    fn cut(self, batch: &RecordBatch, payloads: &mut Parts, tools: &Tools) -> Result<Vec<Cut>> {
        let traces = payloads.gather(&self.places)?;
        let rows = take_record_batch(batch, &UInt32Array::from(self.rows))?;
        let all = examples(&traces, &rows, tools)?;
        let mut cuts = Vec::new();
        for split in Split::ALL {
            let mine = || {
                (0..)
                    .zip(&self.splits)
                    .filter(|(_, of)| **of == split)
                    .map(|(at, _)| at)
            };
            let taken = UInt32Array::from_iter_values(mine());
            if !taken.is_empty() {
                cuts.push(Cut {
                    split,
                    examples: take_record_batch(&all, &taken)?,
                    bytes: mine()
                        .filter_map(|at| self.bytes.get(at as usize).copied())
                        .collect(),
                });
            }
        }
        Ok(cuts)
    }
}
