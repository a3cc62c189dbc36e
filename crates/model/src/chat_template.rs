//! Chat templates: Jinja as transformers 5.23 renders it (`chat_template_utils.py`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error as JinjaError, ErrorKind};
use records::Message;
use serde_json::Map;

use crate::error::{Error, Result};

/// A compiled template with its tokenizer's special tokens as variables.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The file it came from.
    path: PathBuf,
}

/// What a template is rendered with.
#[derive(Debug, Clone, Copy)]
pub struct Rendering<'a> {
    pub messages: &'a [Message],
    /// Opens the assistant's turn after the messages.
    pub add_generation_prompt: bool,
    /// The tools' JSON schemas, a list; `None` is none in the template, as transformers passes it.
    pub tools: Option<&'a serde_json::Value>,
    /// Further variables: the recipe's `chat_template_kwargs`.
    pub kwargs: &'a Map<String, serde_json::Value>,
}

/// Variables that a rendering gives by itself.
const OWN_VARIABLES: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles `source`; `special_tokens` are (`bos_token`, text) pairs and their like.
    ///
    /// `strftime_now` gives the time of this call (UTC), so that one run has one date.
    pub fn new(source: &str, path: &Path, special_tokens: &[(String, String)]) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, JinjaError> {
                Err(JinjaError::new(ErrorKind::InvalidOperation, message))
            },
        );
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        environment.add_function("strftime_now", move |format: String| {
            strftime(&format, now).map_err(|directive| {
                JinjaError::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: %{directive} is not supported"),
                )
            })
        });
        for (name, text) in special_tokens {
            environment.add_global(name.clone(), Value::from(text.clone()));
        }
        let template = Self {
            environment,
            path: path.into(),
        };
        template.compiled(source)
    }

    fn compiled(mut self, source: &str) -> Result<Self> {
        match self
            .environment
            .add_template_owned(NAME, without_generation_tags(source))
        {
            Ok(()) => Ok(self),
            Err(error) => Err(self.error(&error)),
        }
    }

    /// The template itself.
    pub fn source(&self) -> &str {
        self.environment
            .get_template(NAME)
            .map_or("", |template| template.source())
    }

    /// The conversation as text.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] with the template's file and line; [`Error::Setting`] for `kwargs` that
    /// [`check_kwargs`](Self::check_kwargs) refuses.
    pub fn render(&self, rendering: &Rendering) -> Result<String> {
        self.check_kwargs(rendering.kwargs)?;
        // As transformers calls it: what it has no value for is none, not undefined.
        let mut variables: BTreeMap<&str, Value> = BTreeMap::from([
            ("messages", Value::from_serialize(rendering.messages)),
            (
                "add_generation_prompt",
                rendering.add_generation_prompt.into(),
            ),
            ("tools", Value::from_serialize(rendering.tools)),
            ("documents", Value::from(())),
        ]);
        for (name, value) in rendering.kwargs {
            variables.insert(name, Value::from_serialize(value));
        }
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(variables))
            .map_err(|error| self.error(&error))
    }

    /// Refuses `kwargs` that would replace the conversation itself.
    pub fn check_kwargs(&self, kwargs: &Map<String, serde_json::Value>) -> Result<()> {
        match OWN_VARIABLES.iter().find(|own| kwargs.contains_key(**own)) {
            None => Ok(()),
            Some(own) => Err(Error::Setting {
                key: "chat_template_kwargs",
                value: (*own).into(),
                allowed: format!(
                    "`{own}` comes from the conversation itself; take it out of chat_template_kwargs"
                ),
            }),
        }
    }

    /// The names in `kwargs` that the template never reads.
    pub fn unread<'k>(&self, kwargs: &'k Map<String, serde_json::Value>) -> Vec<&'k str> {
        let read = self
            .environment
            .get_template(NAME)
            .map(|template| template.undeclared_variables(false))
            .unwrap_or_default();
        let names = kwargs.keys().map(String::as_str);
        names.filter(|name| !read.contains(*name)).collect()
    }

    /// The template's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, error: &JinjaError) -> Error {
        let mut problem = error
            .detail()
            .map_or_else(|| error.to_string(), str::to_string);
        if let Some(line) = error.line() {
            let _ = write!(problem, " (line {line} of the template)");
        }
        Error::ChatTemplate {
            path: self.path.clone(),
            problem,
        }
    }
}

/// `{% generation %}` marks the assistant's tokens for transformers and renders as its contents.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start..].find("%}").map(|n| start + n) else {
            break;
        };
        let inside = &rest[start + 2..end];
        let word = inside.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        let replacement = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => word,
        };
        result.push_str(&rest[..start + 2]);
        if replacement == word {
            result.push_str(inside);
        } else {
            result.push_str(&inside.replace(word, &format!(" {replacement} ")));
        }
        result.push_str("%}");
        rest = &rest[end + 2..];
    }
    result.push_str(rest);
    result
}

/// Python's `json.dumps(x, ensure_ascii=False)`: Jinja's own filter would escape `<` and `>`.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, JinjaError> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let separators = match separators.as_deref() {
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            let text = "tojson: separators must be two strings";
            return Err(JinjaError::new(ErrorKind::InvalidOperation, text));
        }
    };
    let json = serde_json::to_value(value)
        .map_err(|e| JinjaError::new(ErrorKind::BadSerialization, e.to_string()))?;
    let style = JsonStyle {
        indent,
        ascii: ascii.unwrap_or(false),
        sort: sort.unwrap_or(false),
        item: separators.0,
        key: separators.1,
    };
    let mut text = String::new();
    style.write(&json, 0, &mut text);
    // Safe: a string that auto-escaping would leave alone, as Python's is.
    Ok(Value::from_safe_string(text))
}

struct JsonStyle {
    indent: Option<usize>,
    ascii: bool,
    sort: bool,
    item: String,
    key: String,
}

impl JsonStyle {
    fn write(&self, value: &serde_json::Value, depth: usize, out: &mut String) {
        match value {
            serde_json::Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.separate(i, depth + 1, out);
                    self.write(item, depth + 1, out);
                }
                self.close(items.is_empty(), depth, out);
                out.push(']');
            }
            serde_json::Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort {
                    entries.sort_by_key(|(key, _)| *key);
                }
                out.push('{');
                for (i, (key, item)) in entries.iter().enumerate() {
                    self.separate(i, depth + 1, out);
                    self.string(key, out);
                    out.push_str(&self.key);
                    self.write(item, depth + 1, out);
                }
                self.close(entries.is_empty(), depth, out);
                out.push('}');
            }
            serde_json::Value::String(text) => self.string(text, out),
            other => {
                let _ = write!(out, "{other}");
            }
        }
    }

    fn separate(&self, i: usize, depth: usize, out: &mut String) {
        if i > 0 {
            out.push_str(&self.item);
        }
        self.line(depth, out);
    }

    fn close(&self, empty: bool, depth: usize, out: &mut String) {
        if !empty {
            self.line(depth, out);
        }
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ascii {
            out.push_str(&quoted);
            return;
        }
        for c in quoted.chars() {
            if c.is_ascii() {
                out.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// The directives templates use; an unknown one is returned as the error.
fn strftime(format: &str, unix_seconds: u64) -> Result<String, char> {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil(days);
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next().unwrap_or('%');
        let (value, width) = match directive {
            'Y' => (year, 4),
            'm' => (month, 2),
            'd' => (day, 2),
            'H' => (seconds / 3600, 2),
            'M' => (seconds / 60 % 60, 2),
            'S' => (seconds % 60, 2),
            'y' => (year % 100, 2),
            'B' | 'b' | 'A' | 'a' | '%' => {
                out.push_str(match directive {
                    'B' => month_name,
                    'b' => &month_name[..3],
                    'A' => day_name,
                    'a' => &day_name[..3],
                    _ => "%",
                });
                continue;
            }
            other => return Err(other),
        };
        let _ = write!(out, "{value:0width$}");
    }
    Ok(out)
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: &[Message]) -> Result<String> {
        let tokens = [("eos_token".to_string(), "<e>".to_string())];
        ChatTemplate::new(source, Path::new("t.jinja"), &tokens)?.render(&Rendering {
            messages,
            add_generation_prompt: true,
            tools: None,
            kwargs: &Map::new(),
        })
    }

    #[test]
    fn kwargs_are_variables_of_the_template() {
        let source = "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{{ tools | tojson }}{{ eos_token }}";
        let tokens = [("eos_token".to_string(), "<e>".to_string())];
        let template = ChatTemplate::new(source, Path::new("t.jinja"), &tokens).unwrap();
        let render = |kwargs: serde_json::Value, tools: Option<&serde_json::Value>| {
            template.render(&Rendering {
                messages: &[],
                add_generation_prompt: true,
                tools,
                kwargs: kwargs.as_object().unwrap(),
            })
        };
        let tools = json!([{"name": "f"}]);
        assert_eq!(render(json!({}), None).unwrap(), "null<e>");
        assert_eq!(
            render(json!({"enable_thinking": false}), Some(&tools)).unwrap(),
            "<think></think>[{\"name\": \"f\"}]<e>"
        );
        // transformers lets them replace special tokens, too.
        assert_eq!(render(json!({"eos_token": "E"}), None).unwrap(), "nullE");
        for own in OWN_VARIABLES {
            let message = render(json!({own: []}), None).unwrap_err().to_string();
            assert!(
                message.contains(&format!("`{own}` comes from")),
                "{message}"
            );
        }
        let kwargs = json!({"enable_thinking": true, "enabel_thinking": true, "eos_token": "E"});
        assert_eq!(
            template.unread(kwargs.as_object().unwrap()),
            ["enabel_thinking"]
        );
    }

    #[test]
    fn python_habits_are_understood() {
        for (source, expected) in [
            ("{{ ' a '.strip() }}{{ eos_token }}", "a<e>"),
            (
                "{{ messages[-1]['content'].split('</think>')[-1].lstrip('\\n') }}",
                "b <x>",
            ),
            (
                "{% for m in messages[::-1] %}\n  {% if loop.last %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}",
                "user\n",
            ),
            (
                "{% if tools is not none %}T{% endif %}{% if tools %}T{% endif %}.",
                ".",
            ),
            (
                "{% if nothing is defined %}T{% endif %}{% if nothing %}T{% endif %}.",
                ".",
            ),
            (
                "{{ {'a': [1, 'é<', none], 'b': {}} | tojson }}",
                "{\"a\": [1, \"é<\", null], \"b\": {}}",
            ),
            (
                "{{ {'a': [1]} | tojson(indent=2) }}",
                "{\n  \"a\": [\n    1\n  ]\n}",
            ),
            ("{{ 'é' | tojson(ensure_ascii=true) }}", "\"\\u00e9\""),
            ("a{%- generation -%} b {%- endgeneration %}c", "abc"),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "1",
            ),
        ] {
            let messages = [Message::new("user", "a</think>\n\nb <x>")];
            assert_eq!(render(source, &messages).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn a_template_can_refuse() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("t.jinja: chat template: roles must alternate"),
            "{error}"
        );
        assert!(render("{% for %}", &[]).is_err());
    }

    #[test]
    fn dates_are_civil() {
        for (seconds, expected) in [
            (0, "Thu 01 Jan 1970 00:00:00"),
            (951_868_799, "Tue 29 Feb 2000 23:59:59"),
            (1_721_952_000, "Fri 26 Jul 2024 00:00:00"),
        ] {
            assert_eq!(strftime("%a %d %b %Y %H:%M:%S", seconds).unwrap(), expected);
        }
        assert_eq!(strftime("%Q", 0), Err('Q'));
    }
}
