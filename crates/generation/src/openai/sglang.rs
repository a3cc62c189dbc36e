//! SGLang's `/generate`: ids natively; its log-probabilities are of the tempered logits unless the server was started
//! with SGLANG_RETURN_ORIGINAL_LOGPROB=1, which it does not say.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Answers, Position, finish_reason};
use super::dialect::{Ask, Dialect, Reading, Scoring, parse, root};
use crate::teacher::ScoreRequest;

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

    fn reading(&self) -> &dyn Reading {
        self
    }

    fn probes(&self, endpoint: &str) -> Vec<String> {
        let root = root(endpoint);
        vec![
            format!("{root}/v1/models"),
            format!("{root}/get_server_info"),
        ]
    }

    fn names_models(&self) -> bool {
        false
    }

    fn scoring(&self) -> Option<&dyn Scoring> {
        Some(&InputLogprobs)
    }

    fn logprob_space(&self) -> &'static str {
        "tempered"
    }

    fn gives_ids(&self) -> bool {
        true
    }
}

impl Reading for Sglang {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: Body = parse(data)?;
        let meta = body.meta_info;
        let mut tops = meta.output_top_logprobs.unwrap_or_default().into_iter();
        let entries = meta.output_token_logprobs.unwrap_or_default();
        if tops.len() != 0 && tops.len() != entries.len() {
            return Err(differing(entries.len(), tops.len()));
        }
        // Every event has all that was said before.
        *answers.choice(0)? = Answer {
            text: body.text,
            token_ids: body.output_ids.unwrap_or_default(),
            positions: entries
                .into_iter()
                .map(|Entry(logprob, id, _)| Position {
                    id: Some(id),
                    logprob,
                    top: entries_of(tops.next().flatten()),
                })
                .collect(),
            finish_reason: meta.finish_reason.map(|finish| finish_reason(&finish.kind)),
            n_prompt_tokens: meta.prompt_tokens,
            n_completion_tokens: meta.completion_tokens,
            ..Answer::default()
        };
        Ok(())
    }
}

/// `input_token_logprobs`: those of the prompt's last tokens, which here are the completion. Asked at temperature 1,
/// they are of the logits as they are.
struct InputLogprobs;

#[derive(Deserialize)]
struct ScoredBody {
    meta_info: ScoredMeta,
}

#[derive(Deserialize)]
struct ScoredMeta {
    completion_tokens: Option<u32>,
    input_token_logprobs: Vec<ScoredEntry>,
    #[serde(default)]
    input_top_logprobs: Option<Vec<Option<Vec<Entry>>>>,
}

/// As [`Entry`], without a log-probability at the first token that is read.
#[derive(Deserialize)]
struct ScoredEntry(Option<f64>, u32, #[allow(dead_code)] Value);

impl Scoring for InputLogprobs {
    fn url(&self, endpoint: &str) -> String {
        Sglang.url(endpoint)
    }

    fn body(&self, _model: &str, request: &ScoreRequest, top_k: u16) -> Value {
        json!({
            "input_ids": request.all_ids(),
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            "return_logprob": true,
            // The token before the completion has none.
            "logprob_start_len": request.prompt_token_ids.len() - 1,
            "top_logprobs_num": top_k,
        })
    }

    fn reading(&self) -> &dyn Reading {
        self
    }
}

impl Reading for InputLogprobs {
    fn read(&self, data: &mut [u8], answers: &mut Answers) -> Result<(), String> {
        let body: ScoredBody = parse(data)?;
        let meta = body.meta_info;
        let entries = meta.input_token_logprobs;
        let mut tops = meta.input_top_logprobs.unwrap_or_default().into_iter();
        if tops.len() != 0 && tops.len() != entries.len() {
            return Err(differing(entries.len(), tops.len()));
        }
        answers.n_completion_tokens = meta.completion_tokens;
        answers.choice(0)?.positions = entries
            .into_iter()
            .map(|ScoredEntry(logprob, id, _)| Position {
                id: Some(id),
                logprob: logprob.unwrap_or(f64::NAN),
                top: entries_of(tops.next().flatten()),
            })
            .collect();
        Ok(())
    }
}

fn differing(tokens: usize, lists: usize) -> String {
    format!("{tokens} tokens with {lists} lists of the likeliest")
}

fn entries_of(top: Option<Vec<Entry>>) -> Vec<(u32, f64)> {
    let entries = top.into_iter().flatten();
    entries.map(|Entry(logprob, id, _)| (id, logprob)).collect()
}
