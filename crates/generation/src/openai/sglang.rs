//! SGLang's `/generate`: ids natively; its log-probabilities are of the tempered logits unless the server was started
//! with SGLANG_RETURN_ORIGINAL_LOGPROB=1, which it does not say.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Position, finish_reason};
use super::dialect::{Ask, Dialect, root};

pub struct Sglang;

#[derive(Deserialize)]
struct Body {
    text: String,
    output_ids: Option<Vec<u32>>,
    meta_info: Meta,
}

#[derive(Deserialize)]
struct Meta {
    finish_reason: Option<Finish>,
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    output_token_logprobs: Option<Vec<Entry>>,
    output_top_logprobs: Option<Vec<Option<Vec<Entry>>>>,
}

#[derive(Deserialize)]
struct Finish {
    #[serde(rename = "type")]
    kind: String,
}

/// Log-probability, id, and the token's text where it was asked for.
#[derive(Deserialize)]
struct Entry(f64, u32, #[allow(dead_code)] Value);

impl Dialect for Sglang {
    fn url(&self, endpoint: &str) -> String {
        format!("{}/generate", root(endpoint))
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let params = &ask.options.params;
        let mut body = json!({
            "input_ids": ask.request.prompt_token_ids,
            "stream": true,
            "sampling_params": {
                "max_new_tokens": ask.options.max_new_tokens,
                "temperature": params.temperature,
                "top_p": params.top_p,
                "top_k": params.top_k.map_or(-1, i64::from),
                "min_p": params.min_p.unwrap_or(0.0),
                "sampling_seed": ask.seed(),
                "skip_special_tokens": false,
            },
        });
        if ask.options.top_k_logits > 0 {
            body["return_logprob"] = true.into();
            body["logprob_start_len"] = (-1).into();
            body["top_logprobs_num"] = ask.options.top_k_logits.into();
        }
        body
    }

    fn read(&self, data: &[u8], answer: &mut Answer) -> Result<(), String> {
        let body: Body = serde_json::from_slice(data).map_err(|error| error.to_string())?;
        let meta = body.meta_info;
        let mut tops = meta.output_top_logprobs.unwrap_or_default().into_iter();
        let entries = meta.output_token_logprobs.unwrap_or_default();
        if tops.len() != 0 && tops.len() != entries.len() {
            return Err(format!(
                "{} tokens with {} lists of the likeliest",
                entries.len(),
                tops.len()
            ));
        }
        // Every event has all that was said before.
        *answer = Answer {
            text: body.text,
            token_ids: body.output_ids.unwrap_or_default(),
            positions: entries
                .into_iter()
                .map(|Entry(logprob, id, _)| Position {
                    id: Some(id),
                    logprob,
                    top: tops
                        .next()
                        .flatten()
                        .unwrap_or_default()
                        .into_iter()
                        .map(|Entry(logprob, id, _)| (id, logprob))
                        .collect(),
                })
                .collect(),
            finish_reason: meta.finish_reason.map(|finish| finish_reason(&finish.kind)),
            n_prompt_tokens: meta.prompt_tokens,
            n_completion_tokens: meta.completion_tokens,
            ..Answer::default()
        };
        Ok(())
    }

    fn logprob_space(&self) -> &'static str {
        "tempered"
    }

    fn gives_ids(&self) -> bool {
        true
    }
}
