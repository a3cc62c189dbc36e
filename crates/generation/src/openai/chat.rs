//! `/chat/completions` as OpenAI, DeepSeek and most servers have it: messages in, text out, the thought in
//! `reasoning_content` (or `reasoning`) where the server tells it apart.
//!
//! Tokens have names and no ids here, which different tokens may share: distributions are not kept, and traces are
//! scored with `score-traces` instead.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answers, Position, finish_reason};
use super::dialect::{Ask, Dialect, Reading, Usage, parse, set};

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
    #[serde(default)]
    index: usize,
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
        if ask.n > 1 {
            body["n"] = ask.n.into();
        }
        set(&mut body, "top_k", params.top_k);
        set(&mut body, "min_p", params.min_p);
        if self.logprobs && ask.options.top_k_logits > 0 {
            body["logprobs"] = true.into();
        }
        body
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

    fn logprob_space(&self) -> &'static str {
        "server"
    }

    fn gives_ids(&self) -> bool {
        false
    }
}

impl Reading for Chat {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: Body = parse(data)?;
        Usage::note(body.usage, answers);
        for choice in body.choices {
            choice.read(answers)?;
        }
        Ok(())
    }
}

impl Choice {
    fn read(self, answers: &mut Answers) -> Result<(), String> {
        let said = self.delta.as_ref().or(self.message.as_ref());
        let texts = said.into_iter().flat_map(|message| {
            [
                &message.content,
                &message.reasoning_content,
                &message.reasoning,
            ]
        });
        let entries = self.logprobs.as_ref().and_then(|l| l.content.as_ref());
        let brings = texts.flatten().any(|text| !text.is_empty())
            || entries.is_some_and(|entries| !entries.is_empty());
        let Some(answer) = answers.going_on(self.index, brings)? else {
            return Ok(());
        };
        if let Some(message) = self.delta.or(self.message) {
            answer.text += message.content.as_deref().unwrap_or_default();
            if let Some(thought) = message.reasoning_content.or(message.reasoning) {
                *answer.reasoning.get_or_insert_default() += &thought;
            }
        }
        let entries = self.logprobs.and_then(|logprobs| logprobs.content);
        answer
            .positions
            .extend(entries.into_iter().flatten().map(|entry| Position {
                logprob: entry.logprob,
                ..Position::default()
            }));
        if let Some(word) = self.finish_reason {
            answer.finish_reason = Some(finish_reason(&word));
        }
        Ok(())
    }
}
