//! JSON files that stages leave, and texts that are nearly JSON.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result, io};

/// What a file holds; `None` where there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(path)(error)),
    };
    let value = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        line: source.line(),
        source,
    })?;
    Ok(Some(value))
}

/// The text with each of `numbers` (`NaN` and the like) as `null`, and halves of surrogate pairs as U+FFFD, where they stand
/// in the place of a value and of an escape; `None` where it has none.
pub fn mended(text: &[u8], numbers: &[&str]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let (mut at, mut in_string, mut changed) = (0, false, false);
    while let Some(&byte) = text.get(at) {
        let rest = &text[at..];
        if in_string && byte == b'\\' {
            let (taken, lone) = escape(rest);
            match lone {
                true => out.extend_from_slice(b"\\ufffd"),
                false => out.extend_from_slice(&rest[..taken]),
            }
            changed |= lone;
            at += taken;
            continue;
        }
        let number = numbers
            .iter()
            .find(|number| !in_string && rest.starts_with(number.as_bytes()));
        if let Some(number) = number {
            out.extend_from_slice(b"null");
            changed = true;
            at += number.len();
            continue;
        }
        in_string ^= byte == b'"';
        out.push(byte);
        at += 1;
    }
    changed.then_some(out)
}

/// How many bytes an escape takes, and whether it is half of a surrogate pair.
fn escape(text: &[u8]) -> (usize, bool) {
    match unit(text) {
        None => (text.len().min(2), false),
        Some(0xd800..=0xdbff) => match text.get(6..).and_then(unit) {
            Some(0xdc00..=0xdfff) => (12, false),
            _ => (6, true),
        },
        Some(0xdc00..=0xdfff) => (6, true),
        Some(_) => (6, false),
    }
}

/// The value of an escape of four hexadecimal digits that a text begins with.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
