//! Chat templates, rendered as transformers 5.23 renders them (`chat_template_utils.py`).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use records::Message;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::jinja::{Limits, Problem, Template};

/// A parsed template with its tokenizer's special tokens as variables.
///
/// A template comes with its model, from anywhere, so a rendering is bounded: by steps and by memory that grow with
/// the conversation (5 million steps, 2,000 for each of its values and 8 for each byte; 64 MiB and 32 times its text),
/// and by 250 levels of nesting. What exceeds them is refused with the template's file and line.
pub struct ChatTemplate {
    template: Template,
    special_tokens: Vec<(String, String)>,
    /// What `strftime_now` tells, in seconds since 1970, UTC.
    now: i64,
    /// The file it came from.
    path: PathBuf,
}

/// When the run started, in seconds since 1970, UTC.
static RUN_START: OnceLock<i64> = OnceLock::new();

/// Fixes what `strftime_now` tells in this process, so that a run that goes on a day later renders the same prompts. Only
/// the binaries call it, before they read a tokenizer; later calls change nothing.
pub fn fix_clock(unix_seconds: i64) {
    RUN_START.get_or_init(|| unix_seconds);
}

/// What a template is rendered with.
#[derive(Debug, Clone, Copy)]
pub struct Rendering<'a> {
    pub messages: &'a [Message],
    /// Opens the assistant's turn after the messages.
    pub add_generation_prompt: bool,
    /// The tools' JSON schemas, a list; `None` is none in the template, as transformers passes it.
    pub tools: Option<&'a Value>,
    /// Further variables: the recipe's `chat_template_kwargs`.
    pub kwargs: &'a Map<String, Value>,
}

/// Variables that a rendering gives by itself.
const OWN_VARIABLES: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

impl ChatTemplate {
    /// Parses `source`; `special_tokens` are (`bos_token`, text) pairs and their like.
    ///
    /// `strftime_now` gives the time of [`fix_clock`], else of this call (UTC), unless [`with_time`](Self::with_time) fixes
    /// another.
    pub fn new(source: &str, path: &Path, special_tokens: &[(String, String)]) -> Result<Self> {
        let now = || {
            let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
            elapsed.map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(0))
        };
        let now = RUN_START.get().copied().unwrap_or_else(now);
        Ok(Self {
            template: Template::parse(source).map_err(|problem| refused(path, problem))?,
            special_tokens: special_tokens.to_vec(),
            now,
            path: path.into(),
        })
    }

    /// Fixes what `strftime_now` tells: seconds since 1970, UTC.
    pub fn with_time(mut self, unix_seconds: i64) -> Self {
        self.now = unix_seconds;
        self
    }

    /// Whether the template asks for today's date. Its time then belongs to what makes a run the same run.
    pub fn reads_clock(&self) -> bool {
        self.template.reads("strftime_now")
    }

    /// The conversation as text.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] with the template's file and line; [`Error::Setting`] for `kwargs` that
    /// [`check_kwargs`](Self::check_kwargs) refuses.
    pub fn render(&self, rendering: &Rendering) -> Result<String> {
        self.check_kwargs(rendering.kwargs)?;
        let messages = rendering.messages.iter().map(serde_json::to_value);
        let messages = messages
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| self.problem(&error.to_string()))?;
        // As transformers calls it: what it has no value for is none, not undefined.
        let mut variables: Vec<(&str, Value)> = vec![("documents", Value::Null)];
        for (name, text) in &self.special_tokens {
            variables.push((name, text.as_str().into()));
        }
        let given = rendering.kwargs.iter();
        variables.extend(given.map(|(name, value)| (name.as_str(), value.clone())));
        variables.extend([
            ("messages", Value::Array(messages)),
            ("tools", rendering.tools.cloned().unwrap_or(Value::Null)),
            (
                "add_generation_prompt",
                Value::Bool(rendering.add_generation_prompt),
            ),
        ]);
        let (mut values, mut bytes) = (0, 0);
        for (_, value) in &variables {
            measure(value, &mut values, &mut bytes);
        }
        self.template
            .render(&variables, self.now, Limits::of_input(values, bytes))
            .map_err(|problem| refused(&self.path, problem))
    }

    /// Refuses `kwargs` that would replace the conversation itself.
    pub fn check_kwargs(&self, kwargs: &Map<String, Value>) -> Result<()> {
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
    pub fn unread<'k>(&self, kwargs: &'k Map<String, Value>) -> Vec<&'k str> {
        let names = kwargs.keys().map(String::as_str);
        names.filter(|name| !self.template.reads(name)).collect()
    }

    /// Whether the template reads a variable of this name, or an attribute or an entry.
    pub fn reads(&self, name: &str) -> bool {
        self.template.reads(name) || self.template.mentions(name)
    }

    /// The template's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn problem(&self, problem: &str) -> Error {
        Error::ChatTemplate {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }
}

fn refused(path: &Path, problem: Problem) -> Error {
    let line = problem
        .line
        .map(|line| format!(" (line {line} of the template)"));
    Error::ChatTemplate {
        path: path.into(),
        problem: problem.message + &line.unwrap_or_default(),
    }
}

/// Adds up a variable's values and the bytes of its texts.
fn measure(value: &Value, values: &mut usize, bytes: &mut usize) {
    *values += 1;
    match value {
        Value::String(text) => *bytes += text.len(),
        Value::Array(items) => items.iter().for_each(|item| measure(item, values, bytes)),
        Value::Object(map) => {
            for (key, item) in map {
                *bytes += key.len();
                measure(item, values, bytes);
            }
        }
        _ => {}
    }
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
    fn the_clock_is_read_once_and_can_be_fixed() {
        let source = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}";
        let parsed = || ChatTemplate::new(source, Path::new("t.jinja"), &[]).unwrap();
        assert!(parsed().reads_clock());
        let render = |template: &ChatTemplate, kwargs: serde_json::Value| {
            let kwargs = kwargs.as_object().unwrap();
            let rendering = Rendering {
                messages: &[],
                add_generation_prompt: true,
                tools: None,
                kwargs,
            };
            template.render(&rendering).unwrap()
        };
        let fixed = parsed().with_time(1_721_952_000);
        assert_eq!(render(&fixed, json!({})), "26 Jul 2024");
        assert_eq!(render(&fixed, json!({"date_string": "x"})), "x");
        let now = parsed();
        assert_eq!(render(&now, json!({})), render(&now, json!({})));
        assert_ne!(render(&now, json!({})), "26 Jul 2024");
        let plain = ChatTemplate::new("{{ messages }}", Path::new("t.jinja"), &[]).unwrap();
        assert!(!plain.reads_clock());
    }

    #[test]
    fn a_template_without_end_is_refused_by_name_and_line() {
        let source = "a\n{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}{% endfor %}{% endfor %}{% endfor %}";
        let message = render(source, &[]).unwrap_err().to_string();
        assert!(
            message.starts_with("t.jinja: chat template: takes more than"),
            "{message}"
        );
        assert!(message.ends_with("(line 2 of the template)"), "{message}");
    }
}
