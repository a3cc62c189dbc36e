//! How a vocabulary entry's spelling stands for bytes of running text.

use serde_json::Value;

/// The convention a tokenizer's decoder follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenSpelling {
    /// GPT-2's: every byte is one printable character.
    ByteLevel,
    /// SentencePiece's: `▁` is a space, `<0x0A>` a byte.
    Metaspace,
    /// The entry is the text.
    Verbatim,
}

impl TokenSpelling {
    pub(crate) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let decoder = serde_json::to_value(tokenizer.get_decoder()).unwrap_or(Value::Null);
        let mut types = Vec::new();
        collect_types(&decoder, &mut types);
        if types.contains(&"ByteLevel") {
            Self::ByteLevel
        } else if types.contains(&"ByteFallback") || types.contains(&"Metaspace") {
            Self::Metaspace
        } else {
            Self::Verbatim
        }
    }

    /// The bytes of a vocabulary entry that is no added token (those are always verbatim).
    pub(crate) fn bytes(self, token: &str) -> Vec<u8> {
        match self {
            Self::Verbatim => token.as_bytes().to_vec(),
            Self::Metaspace => match byte_fallback(token) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            },
            // Text that was put into the vocabulary as it is, as the `ByteLevel` decoder takes it.
            Self::ByteLevel => match token.chars().map(byte_of).collect() {
                Some(bytes) => bytes,
                None => token.as_bytes().to_vec(),
            },
        }
    }
}

fn collect_types<'a>(value: &'a Value, types: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            types.extend(map.get("type").and_then(Value::as_str));
            map.values().for_each(|inner| collect_types(inner, types));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect_types(inner, types)),
        _ => {}
    }
}

fn byte_fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The inverse of GPT-2's `bytes_to_unicode`: printable Latin-1 stands for itself, the 68 other
/// bytes, in order, for U+0100 onwards.
fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8), // 0x00–0x20
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8), // 0x7f–0xa0
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn byte_level_covers_every_byte_once() {
        let bytes: Vec<u8> = (0..0x200u32)
            .filter_map(|code| byte_of(char::from_u32(code)?))
            .collect();
        let mut sorted = bytes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..=255).collect::<Vec<u8>>());
        assert_eq!(TokenSpelling::ByteLevel.bytes("Ġa"), b" a");
        assert_eq!(TokenSpelling::ByteLevel.bytes("Ċ"), b"\n");
        assert_eq!(TokenSpelling::ByteLevel.bytes("Ã©"), "é".as_bytes());
        assert_eq!(TokenSpelling::ByteLevel.bytes("中"), "中".as_bytes());
    }

    #[test]
    fn sentencepiece_entries() {
        for (token, expected) in [
            ("▁the", " the"),
            ("<0x0A>", "\n"),
            ("<0xZZ>", "<0xZZ>"),
            ("a", "a"),
        ] {
            assert_eq!(TokenSpelling::Metaspace.bytes(token), expected.as_bytes());
        }
    }
}
