//! One row of JSON: wanted columns as values, the others passed over.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::json::mended;

/// Python's words for numbers that JSON does not have, and C's.
const NO_NUMBERS: [&str; 6] = ["-Infinity", "Infinity", "NaN", "-inf", "inf", "nan"];

/// A row, and whether it had to be mended to be JSON.
pub struct Parsed {
    pub row: Map<String, Value>,
    pub mended: bool,
}

/// Reads a row. Names of columns that are passed over are added to `unread`.
///
/// # Errors
/// Why the text is no JSON object, in general and in particular.
pub fn parse(
    text: &[u8],
    columns: Option<&[&str]>,
    unread: &mut BTreeSet<String>,
) -> Result<Parsed, (&'static str, String)> {
    if let Err(error) = std::str::from_utf8(text) {
        let at = error.valid_up_to() + 1;
        return Err(("invalid UTF-8", format!("invalid UTF-8 at byte {at}")));
    }
    match object(text, columns, unread) {
        Ok(row) => Ok(Parsed { row, mended: false }),
        Err(error) if error.is_data() => Err(("no JSON object", "no JSON object".to_owned())),
        Err(error) => {
            // What Python writes and JSON does not have.
            let Some(mended) = mended(text, &NO_NUMBERS) else {
                return Err(problem(&error));
            };
            match object(&mended, columns, unread) {
                Ok(row) => Ok(Parsed { row, mended: true }),
                Err(_) => Err(problem(&error)),
            }
        }
    }
}

fn problem(error: &serde_json::Error) -> (&'static str, String) {
    let text = error.to_string();
    // Its line is always the first: the row's own number stands beside this.
    let text = text.split(" at line ").next().unwrap_or_default();
    (
        "no JSON",
        format!("no JSON: {text} at byte {}", error.column()),
    )
}

fn object(
    text: &[u8],
    columns: Option<&[&str]>,
    unread: &mut BTreeSet<String>,
) -> serde_json::Result<Map<String, Value>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let row = Columns { columns, unread }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(row)
}

struct Columns<'a> {
    columns: Option<&'a [&'a str]>,
    unread: &'a mut BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for Columns<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Columns<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut row = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let wanted = self
                .columns
                .is_none_or(|columns| columns.contains(&name.as_str()));
            if wanted {
                row.insert(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
                if !self.unread.contains(&name) {
                    self.unread.insert(name);
                }
            }
        }
        Ok(row)
    }
}
