//! `tojson`: Python's `json.dumps`, as transformers puts it in the place of Jinja2's filter.

use std::io::{self, Write};

use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::ser::{CharEscape, Formatter};

use super::bounds::Buffer;
use super::calls::Given;
use super::printing;
use super::statements::Run;
use super::value::Value;
use super::{Problem, Result};

impl Run<'_> {
    pub(super) fn to_json(&self, value: &Value, given: Given) -> Result<Value> {
        let parameters = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let [ascii, indent, separators, sort] = given.bind("tojson", parameters)?;
        let flag = |value: Option<Value>| value.is_some_and(|value| value.is_true());
        let indent = match indent {
            None | Some(Value::None) => None,
            Some(Value::Str(text)) => Some(text.to_string()),
            Some(value) => match value.as_int().and_then(|n| usize::try_from(n.max(0)).ok()) {
                Some(n) if n <= 64 => Some(" ".repeat(n)),
                _ => return Err(Problem::new("`tojson` wants an indent of at most 64")),
            },
        };
        let separators = match separators {
            None | Some(Value::None) => None,
            Some(value) => {
                let parts = value.elements(&self.meter)?;
                match parts.as_slice() {
                    [Value::Str(item), Value::Str(key)] => {
                        Some((item.to_string(), key.to_string()))
                    }
                    _ => return Err(Problem::new("`tojson` wants two texts as separators")),
                }
            }
        };
        let item = if indent.is_some() { "," } else { ", " };
        let (item, key) = separators.unwrap_or_else(|| (item.into(), ": ".into()));
        self.meter.work(value.extent().weight.min(1 << 20))?;
        let style = Style {
            indent,
            ascii: flag(ascii),
            item,
            key,
            depth: 0,
            empty: true,
        };
        let mut out = Bounded {
            buffer: self.meter.buffer(),
            problem: None,
        };
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, style);
        let node = Node {
            value,
            sort: flag(sort),
        };
        let written = node.serialize(&mut serializer);
        match (out.problem, written) {
            (Some(problem), _) => Err(problem),
            (None, Err(error)) => Err(Problem::new(error.to_string())),
            (None, Ok(())) => out.buffer.into_value(),
        }
    }
}

/// Text that asks the meter for its room.
struct Bounded {
    buffer: Buffer,
    problem: Option<Problem>,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // serde_json writes whole characters.
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        match self.buffer.push(text) {
            Ok(()) => Ok(bytes.len()),
            Err(problem) => {
                self.problem = Some(problem);
                Err(io::Error::other("no room"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Node<'v> {
    value: &'v Value,
    sort: bool,
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let inner = |value| Node {
            value,
            sort: self.sort,
        };
        match self.value {
            Value::None => serializer.serialize_unit(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Int(n) => serializer.serialize_i128(*n),
            // serde_json would write null for these two.
            Value::Float(x) if !x.is_finite() => {
                Err(S::Error::custom("a number that is not finite has no JSON"))
            }
            Value::Float(x) => serializer.serialize_f64(*x),
            Value::Str(text) => serializer.serialize_str(text),
            Value::List(items) | Value::Tuple(items) => {
                let mut seq = serializer.serialize_seq(Some(items.values.len()))?;
                for item in &items.values {
                    seq.serialize_element(&inner(item))?;
                }
                seq.end()
            }
            Value::Dict(dict) => {
                let mut entries = Vec::with_capacity(dict.entries.len());
                for (key, value) in &dict.entries {
                    entries.push((key_text(key).map_err(S::Error::custom)?, value));
                }
                if self.sort {
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(&key, &inner(value))?;
                }
                map.end()
            }
            other => Err(S::Error::custom(format!(
                "`{}` object has no JSON",
                other.kind()
            ))),
        }
    }
}

fn key_text(key: &Value) -> Result<String, String> {
    Ok(match key {
        Value::Str(text) => text.to_string(),
        Value::None => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(x) => printing::float(*x),
        other => return Err(format!("`{}` cannot be a key in JSON", other.kind())),
    })
}

/// Python's separators, indents, numbers and escapes.
struct Style {
    indent: Option<String>,
    ascii: bool,
    item: String,
    key: String,
    depth: usize,
    /// Whether the array or object that is open has no element yet.
    empty: bool,
}

impl Style {
    fn line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        if let Some(indent) = &self.indent {
            out.write_all(b"\n")?;
            for _ in 0..self.depth {
                out.write_all(indent.as_bytes())?;
            }
        }
        Ok(())
    }

    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.line(out)?;
        }
        self.empty = false;
        out.write_all(bracket)
    }

    fn separate<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.empty = false;
        self.line(out)
    }
}

impl Formatter for Style {
    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, x: f64) -> io::Result<()> {
        out.write_all(printing::float(x).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        if !self.ascii || text.is_ascii() {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            if c.is_ascii() {
                out.write_all(&[c as u8])?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(out, escape)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.separate(out, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.separate(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }
}
