//! Training examples in one flat temporary file: a dataset larger than memory trains.
//!
//! What stays in memory is 24 bytes per example. The file never has a name (or loses it at once, where the system
//! cannot make one without), so nothing of it is left behind however a run ends; it is read with positioned reads,
//! whose pages the system may drop, not through a map, whose pages count as this process's.
//!
//! A record, little-endian: `k` u32, entries E u32 ([`NO_TOP`] where no top-k is stored), ragged u32, ranges R of context
//! u32, prompt ids u32 `[P]`, completion ids u32 `[T]`, starts and ends of the ranges u32 `[R, 2]`, then with a top-k:
//! ids u32 `[E]`, tails f32 `[T]`, logprobs f16 `[E]` and, when ragged, counts u16 `[T]`; last the id's bytes.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::f16;
use records::top_k::TopK;

use crate::Error;
use crate::example::TrainingExample;

const WRITE_BUFFER: usize = 1 << 18;
const HEADER_WORDS: usize = 4;
const NO_TOP: u32 = u32::MAX;

/// Where an example lies, and its lengths in tokens.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u64,
    n_prompt: u32,
    n_completion: u32,
    n_supervised: u32,
}

/// Takes examples one after another.
pub struct StoreWriter {
    folder: PathBuf,
    file: BufWriter<File>,
    index: Vec<Entry>,
    bytes: u64,
    record: Vec<u8>,
}

impl StoreWriter {
    /// An empty store on the file system of `folder`.
    ///
    /// # Errors
    /// [`Error::Store`] where no file can be made there.
    pub fn create(folder: &Path) -> Result<Self, Error> {
        let file = tempfile::tempfile_in(folder).map_err(failed(folder))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            file: BufWriter::with_capacity(WRITE_BUFFER, file),
            index: Vec::new(),
            bytes: 0,
            record: Vec::new(),
        })
    }

    /// # Errors
    /// [`Error::Store`] where the disk is full, or a stored distribution has not one position per completion id.
    pub fn push(&mut self, example: &TrainingExample) -> Result<(), Error> {
        self.record.clear();
        let written = encode(example, &mut self.record).and_then(|entry| {
            self.file.write_all(&self.record)?;
            Ok(entry)
        });
        let entry = written.map_err(failed(&self.folder))?;
        self.index.push(Entry {
            offset: self.bytes,
            ..entry
        });
        self.bytes += self.record.len() as u64;
        Ok(())
    }

    /// # Errors
    /// [`Error::Store`] where the disk is full.
    pub fn finish(self) -> Result<ExampleStore, Error> {
        let mut index = self.index;
        index.shrink_to_fit();
        let file = self.file.into_inner();
        Ok(ExampleStore {
            file: file.map_err(|error| failed(&self.folder)(error.into_error()))?,
            folder: self.folder,
            index,
            bytes: self.bytes,
        })
    }
}

/// The examples of a run, by number, in the order they were read.
#[derive(Debug)]
pub struct ExampleStore {
    folder: PathBuf,
    file: File,
    index: Vec<Entry>,
    bytes: u64,
}

impl ExampleStore {
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Prompt and completion tokens of example `i`; 0 where there is none.
    #[must_use]
    pub fn n_tokens(&self, i: usize) -> usize {
        self.index
            .get(i)
            .map_or(0, |entry| (entry.n_prompt + entry.n_completion) as usize)
    }

    /// Supervised tokens of example `i`; 0 where there is none.
    #[must_use]
    pub fn n_supervised(&self, i: usize) -> usize {
        self.index
            .get(i)
            .map_or(0, |entry| entry.n_supervised as usize)
    }

    /// Where the file lies; it has no name there.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads example `i`. Any number of threads may.
    ///
    /// # Errors
    /// [`Error::Store`] where there is none, or the file is not what was written.
    pub fn get(&self, i: usize) -> Result<TrainingExample, Error> {
        self.read(i).map_err(failed(&self.folder))
    }

    fn read(&self, i: usize) -> io::Result<TrainingExample> {
        let Some(&entry) = self.index.get(i) else {
            let problem = format!("there is no example {i} among {}", self.len());
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        };
        let end = self.index.get(i + 1).map_or(self.bytes, |next| next.offset);
        let mut record = vec![0; (end - entry.offset) as usize];
        self.file
            .read_exact_at(&mut record, entry.offset)
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("example {i} of {} cannot be read back: {error}", self.len()),
                )
            })?;
        decode(&record, entry)
    }
}

fn failed(folder: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Store {
        folder: folder.to_path_buf(),
        source,
    }
}

fn encode(example: &TrainingExample, record: &mut Vec<u8>) -> io::Result<Entry> {
    let invalid = |problem: String| io::Error::new(ErrorKind::InvalidInput, problem);
    let length = |ids: &[u32]| {
        u32::try_from(ids.len())
            .map_err(|_| invalid(format!("{} tokens in one example", ids.len())))
    };
    let n_completion = length(&example.completion_ids)?;
    let ranges = example.context.len() as u32;
    let header = match &example.top {
        None => [0, NO_TOP, 0, ranges],
        Some(top) => {
            top.validate()
                .map_err(|error| invalid(format!("`{}`: {error}", example.id)))?;
            if top.len() != example.completion_ids.len() {
                return Err(invalid(format!(
                    "`{}`: {} stored distributions for {n_completion} tokens",
                    example.id,
                    top.len()
                )));
            }
            [
                u32::from(top.k),
                length(&top.ids)?,
                u32::from(top.counts.is_some()),
                ranges,
            ]
        }
    };
    extend(record, header, u32::to_le_bytes);
    extend(record, example.prompt_ids.iter().copied(), u32::to_le_bytes);
    extend(
        record,
        example.completion_ids.iter().copied(),
        u32::to_le_bytes,
    );
    let borders = example
        .context
        .iter()
        .flat_map(|range| [range.start, range.end]);
    extend(
        record,
        borders.map(|border| border as u32),
        u32::to_le_bytes,
    );
    if let Some(top) = &example.top {
        extend(record, top.ids.iter().copied(), u32::to_le_bytes);
        extend(record, top.tail_logprobs.iter().copied(), f32::to_le_bytes);
        extend(record, top.logprobs.iter().copied(), f16::to_le_bytes);
        let counts = top.counts.iter().flatten().copied();
        extend(record, counts, u16::to_le_bytes);
    }
    record.extend_from_slice(example.id.as_bytes());
    Ok(Entry {
        offset: 0,
        n_prompt: length(&example.prompt_ids)?,
        n_completion,
        n_supervised: example.n_supervised() as u32,
    })
}

fn extend<T, const N: usize>(
    record: &mut Vec<u8>,
    values: impl IntoIterator<Item = T>,
    bytes: fn(T) -> [u8; N],
) {
    record.extend(values.into_iter().flat_map(bytes));
}

fn decode(record: &[u8], entry: Entry) -> io::Result<TrainingExample> {
    let mut rest = record;
    let header: Vec<u32> = take(&mut rest, HEADER_WORDS, u32::from_le_bytes)?;
    let prompt_ids = take(&mut rest, entry.n_prompt as usize, u32::from_le_bytes)?;
    let n_completion = entry.n_completion as usize;
    let completion_ids = take(&mut rest, n_completion, u32::from_le_bytes)?;
    let [k, entries, ragged, ranges] = header[..] else {
        return Err(torn());
    };
    let borders: Vec<u32> = take(&mut rest, 2 * ranges as usize, u32::from_le_bytes)?;
    let (pairs, _) = borders.as_chunks::<2>();
    let context = pairs
        .iter()
        .map(|&[start, end]| start as usize..end as usize);
    let top = match entries {
        entries if entries != NO_TOP => {
            let entries = entries as usize;
            let top = TopK {
                k: u16::try_from(k).map_err(|_| torn())?,
                ids: take(&mut rest, entries, u32::from_le_bytes)?,
                tail_logprobs: take(&mut rest, n_completion, f32::from_le_bytes)?,
                logprobs: take(&mut rest, entries, f16::from_le_bytes)?,
                counts: match ragged {
                    0 => None,
                    _ => Some(take(&mut rest, n_completion, u16::from_le_bytes)?),
                },
            };
            top.validate().map_err(|_| torn())?;
            Some(top)
        }
        _ => None,
    };
    Ok(TrainingExample {
        id: String::from_utf8(rest.to_vec()).map_err(|_| torn())?,
        prompt_ids,
        completion_ids,
        context: context.collect(),
        top,
    })
}

fn take<T, const N: usize>(
    rest: &mut &[u8],
    n: usize,
    value: fn([u8; N]) -> T,
) -> io::Result<Vec<T>> {
    let (taken, left) = rest.split_at_checked(n * N).ok_or_else(torn)?;
    *rest = left;
    let (values, _) = taken.as_chunks::<N>();
    Ok(values.iter().map(|&bytes| value(bytes)).collect())
}

fn torn() -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        "a record is not what was written there",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn example(i: u32, top: bool, ragged: bool) -> TrainingExample {
        let n = 1 + i % 7;
        let counts: Vec<u16> = (0..n).map(|t| (t % 3) as u16).collect();
        let entries = if ragged {
            counts.iter().map(|&count| usize::from(count)).sum()
        } else {
            2 * n as usize
        };
        TrainingExample {
            id: format!("row-{i}"),
            prompt_ids: (0..i % 5).collect(),
            completion_ids: (1000 * i..1000 * i + n).collect(),
            context: if i.is_multiple_of(4) && n > 3 && !top {
                vec![1..2, 3..4]
            } else {
                Vec::new()
            },
            top: top.then(|| TopK {
                k: 2,
                ids: (0..entries as u32).map(|id| id + i).collect(),
                logprobs: (0..entries)
                    .map(|e| f16::from_f32(-(e as f32) / 3.0))
                    .collect(),
                tail_logprobs: (0..n).map(|t| -(t as f32) * 0.7).collect(),
                counts: ragged.then_some(counts),
            }),
        }
    }

    fn store(examples: &[TrainingExample]) -> (tempfile::TempDir, ExampleStore) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = StoreWriter::create(dir.path()).unwrap();
        for example in examples {
            writer.push(example).unwrap();
        }
        (dir, writer.finish().unwrap())
    }

    #[test]
    fn examples_come_back_as_they_went_in_and_no_file_is_seen() {
        // Several times the write buffer, with records that lie across its borders.
        let examples: Vec<TrainingExample> = (0..20_000)
            .map(|i| example(i, i % 3 > 0, i % 3 == 2))
            .collect();
        let (dir, store) = store(&examples);
        assert!(store.bytes() > 3 * WRITE_BUFFER as u64);
        assert_eq!(store.len(), examples.len());
        for i in (0..examples.len()).rev() {
            assert_eq!(store.get(i).unwrap(), examples[i]);
            assert_eq!(store.n_tokens(i), examples[i].n_tokens());
            assert_eq!(store.n_supervised(i), examples[i].n_supervised());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_empty_store_holds_nothing() {
        let (_dir, store) = store(&[]);
        assert!(store.is_empty() && store.bytes() == 0);
        assert_eq!(store.n_tokens(0), 0);
        let message = store.get(0).unwrap_err().to_string();
        assert!(message.contains("no example 0 among 0"), "{message}");
    }

    #[test]
    fn a_file_that_lost_its_end_is_said_to_have() {
        let examples: Vec<TrainingExample> = (0..20).map(|i| example(i, true, false)).collect();
        let (dir, store) = store(&examples);
        store.file.set_len(store.bytes() - 1).unwrap();
        assert_eq!(store.get(18).unwrap(), examples[18]);
        let message = store.get(19).unwrap_err().to_string();
        assert!(
            message.contains("example 19 of 20 cannot be read back")
                && message.contains(&dir.path().display().to_string()),
            "{message}"
        );
    }

    #[test]
    fn a_distribution_of_another_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = StoreWriter::create(dir.path()).unwrap();
        let mut cut = example(6, true, false);
        cut.completion_ids.pop();
        assert!(writer.push(&cut).is_err());
        writer.push(&example(1, true, true)).unwrap();
        let store = writer.finish().unwrap();
        assert_eq!(store.get(0).unwrap(), example(1, true, true));
    }
}
