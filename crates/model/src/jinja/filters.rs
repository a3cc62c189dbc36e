//! Jinja2's filters of single values; those of sequences are in [`sequence_filters`](super::sequence_filters).

use std::rc::Rc;

use super::ast::Invocation;
use super::calls::Given;
use super::lexer::is_space;
use super::scope::Scope;
use super::statements::Run;
use super::value::{Text, Value};
use super::{Problem, Result, formatting, printing, text_methods};

const NAMES: [&str; 52] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "xmlattr",
    "wordwrap",
    "random",
];

/// Names that exist in Jinja2, but that no chat template has a use for.
const MISSING: [&str; 5] = ["striptags", "xmlattr", "wordwrap", "random", "pprint"];

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name) && !MISSING.contains(&name)
}

impl Run<'_> {
    pub(super) fn filter(
        &self,
        value: Value,
        filter: &Invocation,
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let given = self.arguments(&filter.arguments, scope)?;
        self.apply(&filter.name, value, given)
            .map_err(|problem| problem.at(filter.line))
    }

    /// `value | name(…)`.
    pub(super) fn apply(&self, name: &str, value: Value, given: Given) -> Result<Value> {
        self.meter.work(1)?;
        // `map` applies filters, itself included.
        let _level = self.meter.deeper()?;
        if let Some(result) = self.apply_to_sequence(name, &value, &given)? {
            return Ok(result);
        }
        let whole = |value: &Option<Value>, default: i128| match value {
            None => Ok(default),
            Some(value) => value.as_int().ok_or_else(|| {
                let kind = value.kind();
                Problem::new(format!("`{name}` wants a whole number, not `{kind}`"))
            }),
        };
        let size = |value: &Option<Value>, default: usize| {
            let n = whole(value, default as i128)?;
            Ok::<_, Problem>(usize::try_from(n.max(0)).unwrap_or(usize::MAX))
        };
        let truth = |value: &Option<Value>| value.as_ref().is_some_and(Value::is_true);
        match name {
            "default" | "d" => {
                let [default, boolean] = given.bind(name, ["default_value", "boolean"])?;
                let replaced = match truth(&boolean) {
                    true => !value.is_true(),
                    false => matches!(value, Value::Undefined(_)),
                };
                match (replaced, default) {
                    (false, _) => Ok(value),
                    (true, Some(default)) => Ok(default),
                    (true, None) => self.meter.text(""),
                }
            }
            "length" | "count" => {
                let [] = given.bind(name, [])?;
                Ok(Value::Int(value.len()? as i128))
            }
            "tojson" => self.to_json(&value, given),
            "string" | "safe" => {
                let [] = given.bind(name, [])?;
                self.text_value(value)
            }
            "upper" | "lower" | "capitalize" | "title" => {
                let text = self.to_text(&value)?;
                let changed = match name {
                    "upper" => text.to_uppercase(),
                    "lower" => text.to_lowercase(),
                    "capitalize" => text_methods::capitalized(&text),
                    _ => title(&text),
                };
                let [] = given.bind(name, [])?;
                self.meter.text(changed)
            }
            "trim" => {
                let [chars] = given.bind(name, ["chars"])?;
                let text = self.to_text(&value)?;
                let chars = match &chars {
                    None | Some(Value::None) => None,
                    Some(chars) => Some(self.to_text(chars)?),
                };
                self.meter
                    .text(text_methods::stripped(&text, chars.as_deref(), true, true))
            }
            "replace" => {
                let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
                let (Some(old), Some(new)) = (old, new) else {
                    return Err(Problem::new("`replace` wants two texts"));
                };
                let count = match count {
                    None | Some(Value::None) => -1,
                    count => whole(&count, -1)?,
                };
                let text = self.to_text(&value)?;
                self.replaced(&text, &self.to_text(&old)?, &self.to_text(&new)?, count)
            }
            "indent" => {
                let [width, first, blank] = given.bind(name, ["width", "first", "blank"])?;
                let prefix = match &width {
                    Some(Value::Str(text)) => text.to_string(),
                    width => {
                        let n = size(width, 4)?;
                        self.meter.room(0, n)?;
                        " ".repeat(n)
                    }
                };
                self.indented(
                    &self.to_text(&value)?,
                    &prefix,
                    truth(&first),
                    truth(&blank),
                )
            }
            "center" => {
                let [width] = given.bind(name, ["width"])?;
                self.padded(&self.to_text(&value)?, size(&width, 80)?, ' ', '^')
            }
            "escape" | "e" | "forceescape" => {
                let [] = given.bind(name, [])?;
                let mut out = self.meter.buffer();
                for c in self.to_text(&value)?.chars() {
                    match c {
                        '&' => out.push("&amp;")?,
                        '<' => out.push("&lt;")?,
                        '>' => out.push("&gt;")?,
                        '"' => out.push("&#34;")?,
                        '\'' => out.push("&#39;")?,
                        c => out.push(c.encode_utf8(&mut [0; 4]))?,
                    }
                }
                out.into_value()
            }
            "urlencode" => {
                let [] = given.bind(name, [])?;
                let mut out = self.meter.buffer();
                for byte in self.to_text(&value)?.bytes() {
                    match byte {
                        b if b.is_ascii_alphanumeric() || b"/_.-~".contains(&b) => {
                            out.push(char::from(b).encode_utf8(&mut [0; 4]))?;
                        }
                        b => out.push(&format!("%{b:02X}"))?,
                    }
                }
                out.into_value()
            }
            "format" => {
                let format = self.to_text(&value)?;
                let values = match given.named.is_empty() {
                    true => self.meter.tuple(given.positional)?,
                    false => {
                        let entries = given.named.into_iter();
                        let entries =
                            entries.map(|(key, value)| Ok((self.meter.text(key)?, value)));
                        self.meter.dict(entries.collect::<Result<_>>()?)?
                    }
                };
                formatting::percent(self, &format, &values)
            }
            "truncate" => {
                let parameters = ["length", "killwords", "end", "leeway"];
                let [length, kill, end, leeway] = given.bind(name, parameters)?;
                let end = end.map_or(Ok("...".into()), |end| self.to_text(&end))?;
                let (length, leeway) = (size(&length, 255)?, size(&leeway, 5)?);
                self.truncated(&self.to_text(&value)?, length, truth(&kill), &end, leeway)
            }
            "wordcount" => {
                let [] = given.bind(name, [])?;
                let text = self.to_text(&value)?;
                let is_part = |c: char| c.is_alphanumeric() || c == '_';
                let words = text.split(|c| !is_part(c)).filter(|word| !word.is_empty());
                Ok(Value::Int(words.count() as i128))
            }
            "int" => {
                let [default, base] = given.bind(name, ["default", "base"])?;
                let base = u32::try_from(whole(&base, 10)?).unwrap_or(10);
                let found = formatting::whole_number(&value, base);
                Ok(found.map_or(default.unwrap_or(Value::Int(0)), Value::Int))
            }
            "float" => {
                let [default] = given.bind(name, ["default"])?;
                let found = match &value {
                    Value::Str(text) => formatting::float_number(text),
                    other => other.as_number(),
                };
                Ok(found.map_or(default.unwrap_or(Value::Float(0.0)), Value::Float))
            }
            "abs" => match (&value, value.as_int()) {
                (_, Some(n)) if n != i128::MIN => Ok(Value::Int(n.abs())),
                (Value::Float(x), _) => Ok(Value::Float(x.abs())),
                _ => Err(Problem::new(format!(
                    "`abs` wants a number, not `{}`",
                    value.kind()
                ))),
            },
            "round" => {
                let [precision, method] = given.bind(name, ["precision", "method"])?;
                let method = method.map_or(Ok("common".into()), |m| self.to_text(&m))?;
                let Some(x) = value.as_number() else {
                    let problem = format!("`round` wants a number, not `{}`", value.kind());
                    return Err(Problem::new(problem));
                };
                let digits = whole(&precision, 0)?.clamp(-300, 300) as i32;
                if method == "common" && matches!(value, Value::Int(_)) && digits >= 0 {
                    return Ok(value);
                }
                formatting::rounded(x, digits, &method).map(Value::Float)
            }
            "attr" => {
                let [attribute] = given.bind(name, ["name"])?;
                let attribute = self.to_text(&attribute.unwrap_or(Value::None))?;
                match &value {
                    // Entries of a dictionary are no attributes.
                    Value::Dict(_) => Ok(Value::Undefined(super::value::Missing::Element)),
                    _ => self.attribute(&value, &attribute.into()),
                }
            }
            _ => {
                let problem = format!("the filter `{name}` is unknown here");
                Err(Problem::new(problem))
            }
        }
    }

    /// `str(value)`.
    pub(super) fn to_text(&self, value: &Value) -> Result<String> {
        let mut out = self.meter.buffer();
        printing::print(value, &mut out)?;
        Ok(out.into_string())
    }

    pub(super) fn text_value(&self, value: Value) -> Result<Value> {
        match value {
            Value::Str(_) => Ok(value),
            Value::Undefined(_) => Ok(Value::Str(Text::constant(&"".into()))),
            other => self.meter.text(self.to_text(&other)?),
        }
    }

    /// Every line but the first behind `prefix`; empty ones only where `blank` asks for it.
    fn indented(&self, text: &str, prefix: &str, first: bool, blank: bool) -> Result<Value> {
        let mut out = self.meter.buffer();
        // A newline at the end begins another line.
        for (i, line) in text_methods::lines(&format!("{text}\n"), false)
            .into_iter()
            .enumerate()
        {
            if i > 0 {
                out.push("\n")?;
            }
            if (i == 0 && first) || (i > 0 && (blank || !line.is_empty())) {
                out.push(prefix)?;
            }
            out.push(line)?;
        }
        out.into_value()
    }

    fn truncated(
        &self,
        text: &str,
        length: usize,
        kill: bool,
        end: &str,
        leeway: usize,
    ) -> Result<Value> {
        let n = text.chars().count();
        let Some(kept) = length.checked_sub(end.chars().count()) else {
            return Err(Problem::new(
                "`truncate` wants a length above that of its end",
            ));
        };
        if n <= length.saturating_add(leeway) {
            return self.meter.text(text);
        }
        let cut: String = text.chars().take(kept).collect();
        let cut = match cut.rsplit_once(' ') {
            Some((words, _)) if !kill => words,
            _ => &cut,
        };
        self.meter.text(format!("{cut}{end}"))
    }
}

/// Words begin with a capital and go on small; a word ends at white space, `-`, `(`, `{`, `[` and `<`.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if begins {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        begins = is_space(c) || "-({[<".contains(c);
    }
    out
}
