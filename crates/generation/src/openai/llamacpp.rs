//! llama.cpp's own `/completion`: raw softmax, ids with their probabilities. A token that ends inside a UTF-8 character
//! has none, and its id is in no event of a stream either (`process_token` sends nothing for it): answers are asked for
//! whole, where `tokens` has every id.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answers, Position, finish_reason};
use super::dialect::{Ask, Dialect, Reading, parse, root};

pub struct LlamaCpp;

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    content: String,
    #[serde(default)]
    tokens: Vec<u32>,
    #[serde(default)]
    stop: bool,
    stop_type: Option<String>,
    tokens_evaluated: Option<u32>,
    tokens_predicted: Option<u32>,
    #[serde(default)]
    completion_probabilities: Vec<Probability>,
}

#[derive(Deserialize)]
struct Probability {
    id: u32,
    logprob: f64,
    #[serde(default)]
    top_logprobs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: u32,
    logprob: f64,
}

impl Dialect for LlamaCpp {
    fn url(&self, endpoint: &str) -> String {
        format!("{}/completion", root(endpoint))
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let params = &ask.options.params;
        json!({
            "prompt": ask.request.prompt_token_ids,
            "n_predict": ask.options.max_new_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k.unwrap_or(0),
            "min_p": params.min_p.unwrap_or(0.0),
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
}

impl Reading for LlamaCpp {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: Body = parse(data)?;
        let answer = answers.choice(0)?;
        let probabilities = &body.completion_probabilities;
        if probabilities
            .iter()
            .any(|probability| probability.top_logprobs.is_empty())
        {
            // Drafted tokens have a log-probability of 0 there, whatever they are.
            return Err("a token has no likeliest tokens: llama.cpp gives none while it drafts tokens, so start it without speculative decoding".into());
        }
        answer.text += &body.content;
        answer.token_ids.extend(body.tokens);
        answer.positions.extend(
            body.completion_probabilities
                .into_iter()
                .map(|probability| Position {
                    id: Some(probability.id),
                    logprob: probability.logprob,
                    top: probability
                        .top_logprobs
                        .into_iter()
                        .map(|entry| (entry.id, entry.logprob))
                        .collect(),
                }),
        );
        if body.stop {
            let word = body.stop_type.as_deref().unwrap_or("eos");
            answer.finish_reason = Some(finish_reason(word));
            answer.n_prompt_tokens = body.tokens_evaluated;
            answer.n_completion_tokens = body.tokens_predicted;
        }
        Ok(())
    }
}
