//! Python's `str` and `repr`.

use super::Result;
use super::bounds::Buffer;
use super::value::{Dict, Items, Value};

/// `str(value)`, which is what `{{ … }}` and `~` write; undefined is nothing.
pub(super) fn print(value: &Value, out: &mut Buffer) -> Result<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Str(text) => out.push(text),
        other => repr(other, out),
    }
}

/// `repr(value)`, which is how values inside lists and dictionaries look.
pub(super) fn repr(value: &Value, out: &mut Buffer) -> Result<()> {
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(n) => out.push(&n.to_string()),
        Value::Float(x) => out.push(&float(*x)),
        Value::Str(text) => quoted(text, out),
        Value::List(items) => {
            out.push("[")?;
            list(items, out)?;
            out.push("]")
        }
        Value::Tuple(items) => {
            out.push("(")?;
            list(items, out)?;
            out.push(if items.values.len() == 1 { ",)" } else { ")" })
        }
        Value::Dict(dict) => entries(dict, out),
        Value::Range(range) => {
            out.push(&format!("range({}, {}", range.start, range.stop))?;
            if range.step != 1 {
                out.push(&format!(", {}", range.step))?;
            }
            out.push(")")
        }
        Value::Namespace(_) => out.push("<Namespace>"),
        Value::Loop(state) => {
            let (at, of) = (state.index.get() + 1, state.items.len());
            out.push(&format!("<LoopContext {at}/{of}>"))
        }
        Value::Callable(_) => out.push("<function>"),
    }
}

fn list(items: &Items, out: &mut Buffer) -> Result<()> {
    out.meter.work(items.values.len())?;
    for (i, item) in items.values.iter().enumerate() {
        if i > 0 {
            out.push(", ")?;
        }
        repr(item, out)?;
    }
    Ok(())
}

fn entries(dict: &Dict, out: &mut Buffer) -> Result<()> {
    out.meter.work(dict.entries.len())?;
    out.push("{")?;
    for (i, (key, value)) in dict.entries.iter().enumerate() {
        if i > 0 {
            out.push(", ")?;
        }
        repr(key, out)?;
        out.push(": ")?;
        repr(value, out)?;
    }
    out.push("}")
}

/// The shortest digits that give the number again, with an exponent below 1e-4 and from 1e16.
pub(super) fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.into();
    }
    let size = x.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{x:e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = match power.strip_prefix('-') {
            Some(power) => ('-', power),
            None => ('+', power),
        };
        return format!("{digits}e{sign}{power:0>2}");
    }
    format!("{x:?}")
}

/// Python's quotes: single ones, unless they would have to be escaped and double ones would not.
fn quoted(text: &str, out: &mut Buffer) -> Result<()> {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for c in text.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c == quote => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if is_printable(c) => quoted.push(c),
            c if u32::from(c) < 0x100 => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push(quote);
    out.push(&quoted)
}

/// Python's `str.isprintable` for what occurs in texts: no control, separator, format, private or unassigned character.
pub(super) fn is_printable(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_whitespace()
            || matches!(
                c,
                '\u{ad}'
                    | '\u{600}'..='\u{605}'
                    | '\u{61c}'
                    | '\u{6dd}'
                    | '\u{70f}'
                    | '\u{180e}'
                    | '\u{200b}'..='\u{200f}'
                    | '\u{202a}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}'
                    | '\u{e000}'..='\u{f8ff}'
                    | '\u{feff}'
                    | '\u{fff0}'..='\u{fffb}'
                    | '\u{fffe}'..='\u{ffff}'
                    | '\u{e0000}'..='\u{10ffff}'
            ))
}
