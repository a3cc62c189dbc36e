//! TensorBoard event files: `events.out.tfevents.<seconds>.<host>.<process>`.
//!
//! A file is a sequence of TFRecords (length u64, masked CRC-32C of the length u32, payload, masked CRC-32C of the
//! payload u32, little-endian; TensorFlow's `lib/io/record_writer`), each payload an `Event` message of
//! `tensorboard/compat/proto/event.proto`. The few fields that scalars need are encoded here.
//!
//! A file is never written to again: going on from a checkpoint opens a new one, which begins with `SessionLog START`
//! at the first step that is done again, and readers then forget what older files say of that step and later ones.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use records::atomic;
use records::metric::{Split, StepMetrics};

use crate::Error;
use crate::error::io;

const PREFIX: &str = "events.out.tfevents.";

/// The event file of one process's part of a run; made when there is something to write.
pub struct EventLog {
    folder: PathBuf,
    /// The first step that this process does.
    first_step: u64,
    open: Option<(PathBuf, File)>,
}

impl EventLog {
    /// For what follows `step`. A run that starts afresh (`step` 0) removes the files of the one before.
    ///
    /// # Errors
    /// Those of the disk, with the path.
    pub fn resume(folder: &Path, step: u64) -> Result<Self, Error> {
        if step == 0 {
            for (path, _) in event_files(folder)? {
                fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            first_step: step + 1,
            open: None,
        })
    }

    /// Moves the event files of a run that is replaced to where its checkpoints went.
    ///
    /// # Errors
    /// Those of the disk, with the path.
    pub fn move_to(folder: &Path, to: &Path) -> Result<(), Error> {
        for (path, _) in event_files(folder)? {
            let name = path.file_name().unwrap_or_default();
            atomic::publish(&path, &to.join(name))?;
        }
        Ok(())
    }

    /// Writes the numbers of one line of `metrics.jsonl`, as `train/loss`, `validation/loss` and so on.
    ///
    /// # Errors
    /// Those of the disk, with the path.
    pub fn write(&mut self, metrics: &StepMetrics) -> Result<(), Error> {
        let now = now();
        let record = record(&summary_event(now, metrics));
        let (path, file) = match &mut self.open {
            Some(open) => open,
            None => self
                .open
                .insert(create(&self.folder, self.first_step, now)?),
        };
        // One call per record: a reader that follows the file never sees half of one.
        file.write_all(&record).map_err(io(path))
    }
}

fn now() -> f64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0.0, |time| time.as_secs_f64())
}

/// A new file with its head: the format's version, and where this process goes on.
fn create(folder: &Path, first_step: u64, now: f64) -> Result<(PathBuf, File), Error> {
    // Readers take files in the order of their names.
    let newest = event_files(folder)?.into_iter().map(|(_, seconds)| seconds);
    let after = newest.max().map_or(0, |seconds| seconds + 1);
    let name = format!(
        "{PREFIX}{:010}.{}.{}",
        after.max(now as u64),
        host_name(),
        std::process::id()
    );
    let path = folder.join(name);
    let mut file = File::create_new(&path).map_err(io(&path))?;
    let mut head = record(&version_event(now));
    head.extend(record(&start_event(now, first_step)));
    file.write_all(&head).map_err(io(&path))?;
    Ok((path, file))
}

/// Event files directly in `folder`, with the seconds in their names.
fn event_files(folder: &Path) -> Result<Vec<(PathBuf, u64)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(rest) = name.and_then(|name| name.strip_prefix(PREFIX)) {
            let seconds = rest.split('.').next().unwrap_or_default();
            let seconds = seconds.parse().unwrap_or(0);
            found.push((path, seconds));
        }
    }
    Ok(found)
}

/// The machine's name as it can stand in a file's.
fn host_name() -> String {
    let mut buffer = [0u8; 256];
    // SAFETY: the pointer and the length are of one writable buffer, whose last byte stays zero.
    let failed = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(0);
    let name = String::from_utf8_lossy(&buffer[..end]);
    if failed != 0 || name.is_empty() {
        return "localhost".into();
    }
    name.replace(
        |letter: char| !letter.is_ascii_alphanumeric() && letter != '-',
        "-",
    )
}

/// The numbers of a line, by TensorBoard tag; what a run does not measure has no tag.
fn scalars(metrics: &StepMetrics) -> Vec<(String, f64)> {
    let split = match metrics.split {
        Split::Train => "train",
        Split::Validation => "validation",
    };
    let values = [
        ("grad_norm", metrics.grad_norm),
        ("learning_rate", metrics.learning_rate),
        ("epoch", Some(metrics.epoch)),
        ("n_tokens", Some(metrics.n_tokens as f64)),
        (
            "n_supervised_tokens",
            Some(metrics.n_supervised_tokens as f64),
        ),
        ("seconds", Some(metrics.seconds)),
        ("tokens_per_second", Some(metrics.tokens_per_second)),
        ("peak_memory_bytes", Some(metrics.peak_memory_bytes as f64)),
    ];
    [("loss", Some(metrics.loss))]
        .into_iter()
        .chain(metrics.measures.iter())
        .chain(values)
        .filter_map(|(name, value)| Some((format!("{split}/{name}"), value?)))
        .collect()
}

/// Event { wall_time = 1: double, file_version = 3: string }
fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_double(&mut event, 1, wall_time);
    put_bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// Event { wall_time = 1, step = 2: int64, session_log = 7: SessionLog { status = 1: START (1) } }
fn start_event(wall_time: f64, step: u64) -> Vec<u8> {
    let mut session = Vec::new();
    put_integer(&mut session, 1, 1);
    let mut event = Vec::new();
    put_double(&mut event, 1, wall_time);
    put_integer(&mut event, 2, step);
    put_bytes(&mut event, 7, &session);
    event
}

/// Event { wall_time = 1, step = 2, summary = 5: Summary { repeated value = 1: { tag = 1, simple_value = 2: float } } }
fn summary_event(wall_time: f64, metrics: &StepMetrics) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, scalar) in scalars(metrics) {
        let mut value = Vec::new();
        put_bytes(&mut value, 1, tag.as_bytes());
        put_float(&mut value, 2, scalar as f32);
        put_bytes(&mut summary, 1, &value);
    }
    let mut event = Vec::new();
    put_double(&mut event, 1, wall_time);
    put_integer(&mut event, 2, metrics.step);
    put_bytes(&mut event, 5, &summary);
    event
}

// Protocol buffers' wire types.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn put_key(message: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(message, field << 3 | wire_type);
}

fn put_integer(message: &mut Vec<u8>, field: u64, value: u64) {
    put_key(message, field, VARINT);
    put_varint(message, value);
}

fn put_double(message: &mut Vec<u8>, field: u64, value: f64) {
    put_key(message, field, FIXED_64);
    message.extend(value.to_le_bytes());
}

fn put_float(message: &mut Vec<u8>, field: u64, value: f32) {
    put_key(message, field, FIXED_32);
    message.extend(value.to_le_bytes());
}

fn put_bytes(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(message, field, LENGTH_DELIMITED);
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(payload.len() + 16);
    record.extend(length);
    record.extend(masked_crc32c(&length).to_le_bytes());
    record.extend_from_slice(payload);
    record.extend(masked_crc32c(payload).to_le_bytes());
    record
}

/// TFRecord's guard against the CRC of data that holds CRCs: rotated, plus a constant.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli; RFC 3720, B.4), bytewise: an event is a few hundred bytes, so a table is fast enough.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !bytes.iter().fold(!0, step)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            // The reflected polynomial.
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn metrics(split: Split, step: u64, loss: f64) -> StepMetrics {
        StepMetrics {
            split,
            step,
            epoch: 0.5,
            loss,
            measures: [("loss_hard", loss), ("agreement", 0.25)]
                .into_iter()
                .collect(),
            grad_norm: (split == Split::Train).then_some(2.0),
            learning_rate: (split == Split::Train).then_some(1e-3),
            n_supervised_tokens: 300,
            n_tokens: 1000,
            seconds: 0.5,
            tokens_per_second: 2000.0,
            peak_memory_bytes: 1 << 30,
        }
    }

    /// The payloads of a file, both checksums of every record checked.
    fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut rest, mut found) = (bytes, Vec::new());
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(12);
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            assert_eq!(head[8..], masked_crc32c(&head[..8]).to_le_bytes());
            let (payload, tail) = tail.split_at(length);
            let (crc, tail) = tail.split_at(4);
            assert_eq!(crc, masked_crc32c(payload).to_le_bytes());
            found.push(payload.to_vec());
            rest = tail;
        }
        found
    }

    /// A message's fields: number, wire type, and the value's bytes (a varint's as u64).
    fn fields(mut message: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
        fn varint(message: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = message[0];
                *message = &message[1..];
                value |= u64::from(byte & 0x7F) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        }
        let mut found = Vec::new();
        while !message.is_empty() {
            let key = varint(&mut message);
            let length = match key & 7 {
                VARINT => {
                    let value = varint(&mut message);
                    found.push((key >> 3, VARINT, value.to_le_bytes().to_vec()));
                    continue;
                }
                FIXED_64 => 8,
                FIXED_32 => 4,
                LENGTH_DELIMITED => varint(&mut message) as usize,
                other => panic!("wire type {other}"),
            };
            let (value, rest) = message.split_at(length);
            found.push((key >> 3, key & 7, value.to_vec()));
            message = rest;
        }
        found
    }

    /// Step and scalars of an event; none where it has no summary.
    fn event(payload: &[u8]) -> (u64, Vec<(String, f32)>) {
        let (mut step, mut scalars) = (0, Vec::new());
        for (field, _, value) in fields(payload) {
            match field {
                2 => step = u64::from_le_bytes(value.try_into().unwrap()),
                5 => {
                    for (_, _, value) in fields(&value) {
                        let parts = fields(&value);
                        let tag = String::from_utf8(parts[0].2.clone()).unwrap();
                        let scalar = parts[1].2.clone().try_into().unwrap();
                        scalars.push((tag, f32::from_le_bytes(scalar)));
                    }
                }
                _ => {}
            }
        }
        (step, scalars)
    }

    #[test]
    fn crc32c_is_the_standards() {
        // RFC 3720, B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
    }

    #[test]
    fn a_file_holds_version_start_and_scalars() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::resume(dir.path(), 0).unwrap();
        assert_eq!(event_files(dir.path()).unwrap(), []);
        log.write(&metrics(Split::Train, 1, 2.5)).unwrap();
        log.write(&metrics(Split::Validation, 300, 1.5)).unwrap();
        let files = event_files(dir.path()).unwrap();
        assert_eq!(files.len(), 1);
        let payloads = payloads(&fs::read(&files[0].0).unwrap());
        assert_eq!(payloads.len(), 4);
        let version = &fields(&payloads[0])[1];
        assert_eq!(*version, (3, LENGTH_DELIMITED, b"brain.Event:2".to_vec()));
        assert_eq!(fields(&payloads[1])[2], (7, LENGTH_DELIMITED, vec![8, 1]));
        assert_eq!(event(&payloads[1]), (1, vec![]));
        let (step, scalars) = event(&payloads[2]);
        assert_eq!((step, scalars.len()), (1, 11));
        for expected in [
            ("train/loss", 2.5),
            ("train/learning_rate", 1e-3),
            ("train/peak_memory_bytes", (1u64 << 30) as f32),
        ] {
            assert!(scalars.contains(&(expected.0.to_owned(), expected.1)));
        }
        let (step, scalars) = event(&payloads[3]);
        assert_eq!((step, scalars.len()), (300, 9));
        assert_eq!(scalars[0], ("validation/loss".to_owned(), 1.5));
    }

    #[test]
    fn going_on_begins_a_later_file_that_takes_its_steps_back() {
        let dir = tempfile::tempdir().unwrap();
        for done in [0, 3, 3] {
            let mut log = EventLog::resume(dir.path(), done).unwrap();
            for step in done + 1..=5 {
                log.write(&metrics(Split::Train, step, 1.0)).unwrap();
            }
        }
        let mut files = event_files(dir.path()).unwrap();
        files.sort();
        // Three within one second: the names still go up.
        assert!(files.is_sorted_by(|a, b| a.1 < b.1));
        assert_eq!(files.len(), 3);
        for (path, _) in &files[1..] {
            let payloads = payloads(&fs::read(path).unwrap());
            assert_eq!(event(&payloads[1]).0, 4);
            assert_eq!(event(&payloads[2]).0, 4);
        }
        EventLog::resume(dir.path(), 0).unwrap();
        assert_eq!(event_files(dir.path()).unwrap(), []);
    }
}
