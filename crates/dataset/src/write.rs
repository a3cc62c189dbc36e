//! The last step: every trace, whole, to its split.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use records::example;
use records::parquet_file::WrittenFile;

use crate::config::DatasetConfig;
use crate::engine::{Batches, Step};
use crate::error::Result;
use crate::example::examples;
use crate::gather::Parts;
use crate::progress::Progress;
use crate::rows::Rows;
use crate::shards::Shards;
use crate::split::is_validation;
use crate::stats::{Split, Stats};
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
    /// Key-value metadata of every file.
    pub metadata: &'a [(String, String)],
    pub progress: &'a Progress,
}

/// The splits, written, and the account of every trace.
pub struct Written {
    pub train: Shards,
    pub validation: Shards,
    pub rejected: Shards,
    pub stats: Stats,
}

/// The examples of one split in a window, and the size of each.
struct Cut {
    split: Split,
    examples: RecordBatch,
    bytes: Vec<u64>,
}

impl Write<'_> {
    /// Writes every trace; none when `stop` was set. One thread reads, another encodes.
    pub fn run(&self, mut rows: Batches<'_>, stop: &AtomicBool) -> Result<Option<Written>> {
        let closed = self.workshop.closed();
        let mut skip = Skip::of(&closed);
        let (sender, receiver) = sync_channel(1);
        std::thread::scope(|threads| {
            let encoding = threads.spawn(move || self.encode(&closed, &receiver));
            let read = self.read(&mut rows, &mut skip, &sender, stop);
            drop(sender);
            let encoded = encoding
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // An error in encoding ends reading too, and is the reason.
            let [mut train, mut validation, mut rejected] = encoded?;
            let Some(stats) = read? else {
                return Ok(None);
            };
            train.finish()?;
            validation.finish()?;
            rejected.finish()?;
            Ok(Some(Written {
                train,
                validation,
                rejected,
                stats,
            }))
        })
    }

    /// Sends the windows of all rows; none when `stop` was set.
    fn read(
        &self,
        rows: &mut Batches<'_>,
        skip: &mut Skip,
        sender: &SyncSender<Vec<Cut>>,
        stop: &AtomicBool,
    ) -> Result<Option<Stats>> {
        let limit = self
            .config
            .memory_limit
            .as_ref()
            .map_or(u64::MAX, |limit| limit.bytes as u64 / 32);
        let window_bytes = WINDOW_BYTES.min(limit);
        let memory = self.config.memory_limit.as_ref().map(|limit| limit.bytes);
        let (mut stats, mut payloads) = (
            Stats::new(),
            Parts::new(self.parts, memory.map(|limit| limit / 4)),
        );
        loop {
            let batch = match rows.next(stop)? {
                Step::Batch(batch) => batch,
                Step::End => break,
                Step::Stopped => return Ok(None),
            };
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
                stats.add(&row, split);
                if skip.next(split) {
                    continue;
                }
                window.places.push((row.part, row.part_row));
                window.rows.push(at as u32);
                window.bytes.push(row.payload_bytes);
                window.splits.push(split);
                window.n_bytes += row.payload_bytes;
                if window.n_bytes >= window_bytes || window.rows.len() >= WINDOW_ROWS {
                    let window = std::mem::take(&mut window);
                    if sender.send(window.cut(&batch, &mut payloads)?).is_err() {
                        return Ok(None);
                    }
                }
            }
            if !window.rows.is_empty() && sender.send(window.cut(&batch, &mut payloads)?).is_err() {
                return Ok(None);
            }
            self.progress.add(batch.num_rows() as u64);
        }
        Ok(Some(stats))
    }

    fn encode(&self, closed: &Closed, windows: &Receiver<Vec<Cut>>) -> Result<[Shards; 3]> {
        let shards = |split, schema, closed: &[_]| {
            let closed = closed.iter().map(WrittenFile::from).collect();
            let (folder, bytes) = (&self.workshop.shards, self.config.shard_size.bytes as u64);
            Shards::new(split, folder, schema, self.metadata, bytes, closed)
        };
        let mut splits = [
            shards("train", example::schema(), &closed.train),
            shards("validation", example::schema(), &closed.validation),
            shards("rejected", example::rejected_schema(), &closed.rejected),
        ];
        let n_closed = |splits: &[Shards; 3]| splits.each_ref().map(|s| s.written().len());
        let mut known = n_closed(&splits);
        for cuts in windows {
            for cut in cuts {
                let at = match cut.split {
                    Split::Train => 0,
                    Split::Validation => 1,
                    Split::Rejected => 2,
                };
                splits[at].push(&cut.examples, &cut.bytes)?;
            }
            if n_closed(&splits) != known {
                known = n_closed(&splits);
                let [train, validation, rejected] = splits
                    .each_ref()
                    .map(|shards| shards.written().iter().map(Into::into).collect());
                self.workshop.close(&Closed {
                    train,
                    validation,
                    rejected,
                })?;
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
    fn cut(self, batch: &RecordBatch, payloads: &mut Parts) -> Result<Vec<Cut>> {
        let traces = payloads.gather(&self.places)?;
        let rows = take_record_batch(batch, &UInt32Array::from(self.rows))?;
        let all = examples(&traces, &rows)?;
        let mut cuts = Vec::new();
        for split in [Split::Train, Split::Validation, Split::Rejected] {
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

/// How many rows of each split stand in closed shards.
struct Skip([u64; 3]);

impl Skip {
    fn of(closed: &Closed) -> Self {
        let rows = |shards: &[crate::workshop::Shard]| {
            shards
                .iter()
                .map(|shard| WrittenFile::from(shard).rows)
                .sum()
        };
        Self([
            rows(&closed.train),
            rows(&closed.validation),
            rows(&closed.rejected),
        ])
    }

    fn next(&mut self, split: Split) -> bool {
        let left = match split {
            Split::Train => &mut self.0[0],
            Split::Validation => &mut self.0[1],
            Split::Rejected => &mut self.0[2],
        };
        let skipped = *left > 0;
        *left = left.saturating_sub(1);
        skipped
    }
}
