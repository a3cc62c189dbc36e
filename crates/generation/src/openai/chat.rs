//! `/chat/completions` as OpenAI, DeepSeek and most servers have it: messages in, text out, the thought in
//! `reasoning_content` (or `reasoning`) where the server tells it apart.
//!
//! Tokens have names and no ids here, which different tokens may share: distributions are not kept, and traces are
//! scored with `score-traces` instead.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Position, finish_reason};
use super::dialect::{Ask, Dialect, Usage, only_choice, set};

pub struct Chat {
    /// DeepSeek's reasoner refuses requests that ask for them.
    pub logprobs: bool,
}

#[derive(Deserialize)]
struct Body {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Message>,
    message: Option<Message>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    logprob: f64,
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
            "temperature": params.temperature,
            "top_p": params.top_p,
            "seed": ask.seed(),
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        set(&mut body, "top_k", params.top_k);
        set(&mut body, "min_p", params.min_p);
        if self.logprobs && ask.options.top_k_logits > 0 {
            body["logprobs"] = true.into();
        }
        body
    }

    fn read(&self, data: &[u8], answer: &mut Answer) -> Result<(), String> {
        let body: Body = serde_json::from_slice(data).map_err(|error| error.to_string())?;
        let Some(choice) = only_choice(body.choices, body.usage, answer)? else {
            return Ok(());
        };
        if let Some(message) = choice.delta.or(choice.message) {
            answer.text += message.content.as_deref().unwrap_or_default();
            if let Some(thought) = message.reasoning_content.or(message.reasoning) {
                *answer.reasoning.get_or_insert_default() += &thought;
            }
        }
        let entries = choice.logprobs.and_then(|logprobs| logprobs.content);
        answer
            .positions
            .extend(entries.into_iter().flatten().map(|entry| Position {
                logprob: entry.logprob,
                ..Position::default()
            }));
        if let Some(word) = choice.finish_reason {
            answer.finish_reason = Some(finish_reason(&word));
        }
        Ok(())
    }

    fn logprob_space(&self) -> &'static str {
        "server"
    }

    fn gives_ids(&self) -> bool {
        false
    }
}
