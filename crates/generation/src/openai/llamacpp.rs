//! llama.cpp's own `/completion`: raw softmax, ids with their probabilities. A token that ends inside a UTF-8 character
//! has none, and its id is in no event of a stream either (`process_token` sends nothing for it): answers are asked for
//! whole, where `tokens` has every id.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answers, Position, or_no_mass};
use super::dialect::{Ask, Dialect, Reading, decimal, root};
use super::ending::{ServerError, Word, end};
use super::json::parse;

pub struct LlamaCpp;

#[derive(Deserialize)]
struct Body {
    content: Option<String>,
    #[serde(default)]
    tokens: Vec<u32>,
    #[serde(default)]
    stop: bool,
    stop_type: Option<String>,
    /// Of builds before `stop_type`.
    #[serde(default)]
    stopped_limit: bool,
    tokens_evaluated: Option<u32>,
    tokens_predicted: Option<u32>,
    #[serde(default)]
    completion_probabilities: Vec<Probability>,
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct Probability {
    id: u32,
    logprob: Option<f64>,
    #[serde(default)]
    top_logprobs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: u32,
    logprob: Option<f64>,
}

impl Dialect for LlamaCpp {
    fn url(&self, endpoint: &str) -> String {
        format!("{}/completion", root(endpoint))
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let params = &ask.options.params;
        json!({
            // A router in front of several models needs it, a server of one does not look at it.
            "model": ask.model,
            "prompt": ask.request.prompt_token_ids,
            "n_predict": ask.options.max_new_tokens,
            "temperature": decimal(params.temperature),
            "top_p": decimal(params.top_p),
            "top_k": params.top_k.unwrap_or(0),
            "min_p": decimal(params.min_p.unwrap_or(0.0)),
            "typical_p": 1.0,
            "repeat_penalty": 1.0,
            "seed": ask.seed(),
            "samplers": ["top_k", "top_p", "min_p", "temperature"],
            "n_probs": ask.options.top_k_logits,
            "return_tokens": true,
            "post_sampling_probs": false,
            "cache_prompt": true,
            "stream": false,
        })
    }

    fn reading(&self) -> &dyn Reading {
        self
    }

    fn probes(&self, endpoint: &str) -> Vec<String> {
        vec![format!("{}/props", root(endpoint))]
    }

    fn names_models(&self) -> bool {
        false
    }

    fn gives_ids(&self) -> bool {
        true
    }

    fn leaves_gaps(&self) -> bool {
        true
    }

    fn streams(&self) -> bool {
        false
    }

    fn limit_keys(&self) -> &'static [&'static str] {
        &["n_predict"]
    }
}

impl Reading for LlamaCpp {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: Body = parse(data)?;
        answers.note_error(ServerError::of(&body.error));
        let Some(content) = body.content else {
            answers.skip(!body.error.is_null());
            return Ok(());
        };
        let answer = answers.choice(0)?;
        let probabilities = &body.completion_probabilities;
        if probabilities
            .iter()
            .any(|probability| probability.top_logprobs.is_empty())
        {
            // Drafted tokens have a log-probability of 0 there, whatever they are.
            return Err("a token has no likeliest tokens: llama.cpp gives none while it drafts tokens, so start it without speculative decoding".into());
        }
        answer.text += &content;
        answer.token_ids.extend(body.tokens);
        answer.positions.extend(
            body.completion_probabilities
                .into_iter()
                .map(|probability| Position {
                    id: Some(probability.id),
                    logprob: or_no_mass(probability.logprob),
                    top: probability
                        .top_logprobs
                        .into_iter()
                        .map(|entry| (entry.id, or_no_mass(entry.logprob)))
                        .collect(),
                }),
        );
        if body.stop {
            let older = if body.stopped_limit { "limit" } else { "eos" };
            let word = body.stop_type.as_deref().unwrap_or(older);
            answer.end = Some(end(&Word::new(word), &[]));
            answer.n_prompt_tokens = body.tokens_evaluated;
            answer.n_completion_tokens = body.tokens_predicted;
        }
        Ok(())
    }
}
