//! JSON as servers write it: fast where it is right, mended where it is nearly.
//!
//! Python's `json` writes `NaN` and `Infinity` bare, some servers cut a character's escape in two (`"\ud83d"` alone), and
//! some send bytes that are no UTF-8. A parser refuses all of these, and the answer would be lost for one token's text.

use std::borrow::Cow;
use std::cell::RefCell;

use memchr::memmem;
use records::json;
use serde::de::DeserializeOwned;
use simd_json::Buffers;

/// From this size on a body is indexed before it is read, which for events of a stream would take longer than it saves.
const INDEXED: usize = 32 << 10;

/// Up to this size what an index is made in is kept for the next one: its pages need not be cleared again.
const KEPT: usize = 4 << 20;

/// Python's words for numbers that JSON does not have.
const NO_NUMBERS: [&str; 4] = ["-Infinity", "Infinity", "NaN", "-NaN"];

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Reads JSON, which it may change on the way.
///
/// # Errors
/// Says what does not parse.
pub fn parse<T: DeserializeOwned>(data: &mut [u8]) -> Result<T, String> {
    match mended(data) {
        Some(mut mended) => read(&mut mended),
        None => read(data),
    }
}

fn read<T: DeserializeOwned>(data: &mut [u8]) -> Result<T, String> {
    if data.len() >= INDEXED {
        let read = BUFFERS.with_borrow_mut(|buffers| {
            let mut fresh = Buffers::default();
            let kept = if data.len() <= KEPT {
                buffers
            } else {
                &mut fresh
            };
            simd_json::serde::from_slice_with_buffers(data, kept)
        });
        return read.map_err(|error| error.to_string());
    }
    // Checked once and not string by string.
    let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The same JSON as parsers want it; none where nothing had to be mended. A number that is none becomes null, half a
/// character and bytes that are no UTF-8 become U+FFFD.
fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let text = match String::from_utf8_lossy(data) {
        Cow::Owned(text) => Some(text.into_bytes()),
        Cow::Borrowed(_) => None,
    };
    let bytes = text.as_deref().unwrap_or(data);
    let suspect = memmem::find(bytes, b"\\ud").is_some()
        || memmem::find(bytes, b"\\uD").is_some()
        || memmem::find(bytes, b"NaN").is_some()
        || memmem::find(bytes, b"Infinity").is_some();
    if !suspect {
        return text;
    }
    json::mended(bytes, &NO_NUMBERS).or(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_nearly_json_is_mended() {
        let check = |text: &[u8], expected: Value| {
            let found: Value = parse(&mut text.to_vec()).unwrap();
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(text));
            // The same within a body that is indexed.
            let pad = " ".repeat(INDEXED);
            let mut long = [text, pad.as_bytes()].concat();
            assert_eq!(parse::<Value>(&mut long).unwrap(), expected);
        };
        check(
            br#"{"a": [NaN, -Infinity, Infinity, -1.5]}"#,
            json!({"a": [null, null, null, -1.5]}),
        );
        check(
            br#"{"NaN": "NaN \"Infinity\" \\", "b": NaN}"#,
            json!({"NaN": "NaN \"Infinity\" \\", "b": null}),
        );
        check(br#"["\ud83d"]"#, json!(["\u{fffd}"]));
        check(br#"["\uDE00 x", 1]"#, json!(["\u{fffd} x", 1]));
        check(br#"["\ud83d\ude00"]"#, json!(["\u{1f600}"]));
        check(br#"["\\ud83d"]"#, json!(["\\ud83d"]));
        check(br#"["\ud83d\ud83d\ude00"]"#, json!(["\u{fffd}\u{1f600}"]));
        check(b"[\"\xe4\xba\"]", json!(["\u{fffd}"]));
        check(br#"{"a": "\u0041\n"}"#, json!({"a": "A\n"}));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["{", "", "{\"a\": Na}", "\"\\ud8"] {
            assert!(
                parse::<Value>(&mut text.as_bytes().to_vec()).is_err(),
                "{text}"
            );
        }
    }
}
