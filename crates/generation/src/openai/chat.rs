//! `/chat/completions` as OpenAI, DeepSeek and most servers have it: messages in, text out, the thought in
//! `reasoning_content` (or `reasoning`) where the server tells it apart.
//!
//! Tokens have names and no ids here, which different tokens may share: distributions are not kept, and traces are
//! scored with `score-traces` instead.

use records::LogprobSpace;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answers, Position, or_no_mass};
use super::dialect::{Ask, Dialect, Reading, Usage, decimal, set};
use super::ending::{ServerError, Word, end, word};
use super::json::parse;

pub struct Chat {
    /// DeepSeek's reasoner refuses requests that ask for them.
    pub logprobs: bool,
}

/// What OpenAI and DeepSeek document beside `stop` and `length`. They end the completion for good, and the trace keeps the
/// word: a filter asks for `finish_reason = 'stop'`.
const ENDS: &[&str] = &["content_filter", "tool_calls", "function_call"];

#[derive(Deserialize)]
struct Body {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: usize,
    delta: Option<Message>,
    message: Option<Message>,
    logprobs: Option<Logprobs>,
    #[serde(default, deserialize_with = "word")]
    finish_reason: Option<Word>,
    /// As OpenRouter reports what befell the server behind it.
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
    reasoning_content: Option<Content>,
    reasoning: Option<Content>,
    refusal: Option<String>,
}

/// A text, or a list of parts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
    /// What is none of either, and says nothing.
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Keys {
        text: Option<String>,
        /// Mistral's thoughts are parts, of parts.
        thinking: Option<Content>,
        reasoning: Option<String>,
    },
}

impl Content {
    /// The text and the thought in it.
    fn texts(self) -> [String; 2] {
        match self {
            Content::Text(text) => [text, String::new()],
            Content::Other(_) => [String::new(), String::new()],
            Content::Parts(parts) => {
                let mut texts = [String::new(), String::new()];
                for part in parts {
                    let (text, thinking) = match part {
                        Part::Text(text) => (text, None),
                        Part::Keys {
                            text,
                            thinking,
                            reasoning,
                        } => {
                            let thinking = thinking.or(reasoning.map(Content::Text));
                            (text.unwrap_or_default(), thinking)
                        }
                    };
                    texts[0] += &text;
                    let [words, thought] = thinking.map_or_else(Default::default, Content::texts);
                    texts[1] += &words;
                    texts[1] += &thought;
                }
                texts
            }
        }
    }
}

impl Message {
    /// The text and the thought. A field that is empty is not there, and two that hold the thought hold the same.
    fn texts(self) -> [String; 2] {
        let of = |content: Option<Content>| content.map_or_else(Default::default, Content::texts);
        let [mut text, within] = of(self.content);
        if text.is_empty() {
            text = self.refusal.unwrap_or_default();
        }
        let fields = [self.reasoning_content, self.reasoning].map(|field| of(field).concat());
        let thought = fields.into_iter().find(|field| !field.is_empty());
        [text, thought.unwrap_or(within)]
    }
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    logprob: Option<f64>,
}

impl Dialect for Chat {
    fn url(&self, endpoint: &str) -> String {
        format!("{endpoint}/chat/completions")
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let params = &ask.options.params;
        let mut body = json!({
            "model": ask.model,
            "messages": ask.request.messages,
            "max_tokens": ask.options.max_new_tokens,
            "temperature": decimal(params.temperature),
            "top_p": decimal(params.top_p),
            "seed": ask.seed(),
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if ask.n > 1 {
            body["n"] = ask.n.into();
        }
        set(&mut body, "top_k", params.top_k);
        set(&mut body, "min_p", params.min_p.map(decimal));
        if self.logprobs && ask.options.top_k_logits > 0 {
            body["logprobs"] = true.into();
        }
        body
    }

    fn renders(&self) -> bool {
        true
    }

    fn reading(&self) -> &dyn Reading {
        self
    }

    fn probes(&self, endpoint: &str) -> Vec<String> {
        vec![format!("{endpoint}/models")]
    }

    /// Lists of hosted models leave some of them out.
    fn names_models(&self) -> bool {
        false
    }

    fn logprob_space(&self) -> LogprobSpace {
        LogprobSpace::Server
    }

    fn gives_ids(&self) -> bool {
        false
    }
}

impl Reading for Chat {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: Body = parse(data)?;
        let counts = body.usage.is_some();
        Usage::note(body.usage, answers);
        answers.note_error(ServerError::of(&body.error));
        let Some(choices) = body.choices else {
            answers.skip(counts || !body.error.is_null());
            return Ok(());
        };
        for choice in choices {
            choice.read(answers)?;
        }
        Ok(())
    }
}

impl Choice {
    fn read(self, answers: &mut Answers) -> Result<(), String> {
        answers.note_error(ServerError::of(&self.error));
        let message = self.delta.or(self.message);
        let [text, thought] = message.map_or_else(Default::default, Message::texts);
        let entries = self.logprobs.and_then(|logprobs| logprobs.content);
        let entries = entries.unwrap_or_default();
        let brings = !text.is_empty() || !thought.is_empty() || !entries.is_empty();
        let Some(answer) = answers.going_on(self.index, brings)? else {
            return Ok(());
        };
        answer.text += &text;
        if !thought.is_empty() {
            *answer.reasoning.get_or_insert_default() += &thought;
        }
        let positions = entries.into_iter().map(|entry| Position {
            logprob: or_no_mass(entry.logprob),
            ..Position::default()
        });
        answer.positions.extend(positions);
        if let Some(word) = self.finish_reason {
            answer.end = Some(end(&word, ENDS));
        }
        Ok(())
    }
}
