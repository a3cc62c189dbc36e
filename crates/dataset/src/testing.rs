//! Made-up traces for the unit tests.

use records::trace::{Trace, trace_id};

/// A failed trace without anything optional; tests fill in what they look at.
pub fn trace(prompt_id: &str, sample_index: u32) -> Trace {
    Trace {
        trace_id: trace_id(prompt_id, sample_index),
        prompt_id: prompt_id.to_owned(),
        sample_index,
        source: "made up".to_owned(),
        problem: String::new(),
        gold_answer: None,
        prompt_messages: Vec::new(),
        reasoning: None,
        answer: None,
        text: None,
        finish_reason: None,
        n_prompt_tokens: None,
        n_completion_tokens: None,
        prompt_token_ids: None,
        token_ids: None,
        token_logprobs: None,
        top: None,
        logprob_space: None,
        temperature: None,
        top_p: None,
        seed: None,
        teacher: "teacher".to_owned(),
        teacher_revision: None,
        created_at: 0,
        latency_ms: None,
        error: None,
    }
}
