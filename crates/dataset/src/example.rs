//! One training example from one trace and what was found out about it.

use records::Message;
use records::example::{Example, Quality};
use records::trace::Trace;

use crate::annotate::Row;

/// The row of the dataset: payload from the trace, annotations from the plan.
pub fn example(trace: Trace, row: &Row) -> Example {
    let completion = assistant(&trace);
    let mut messages = trace.prompt_messages;
    messages.extend(completion.map(|content| Message::new("assistant", content)));
    let n_ids = trace.token_ids.as_ref().map(|ids| ids.len() as u32);
    Example {
        id: trace.trace_id,
        prompt_id: Some(trace.prompt_id),
        sample_index: Some(trace.sample_index),
        messages,
        prompt_token_ids: trace.prompt_token_ids,
        token_ids: trace.token_ids,
        token_logprobs: trace.token_logprobs,
        top: trace.top,
        logprob_space: trace.logprob_space,
        temperature: trace.temperature,
        teacher: Some(trace.teacher),
        finish_reason: trace.finish_reason,
        n_tokens: row.n_tokens.or(n_ids),
        source: Some(trace.source),
        gold_answer: trace.gold_answer,
        verdict: row.verdict.clone(),
        pass_rate: row.pass_rate,
        quality: Some(Quality {
            repetition: row.repetition,
            truncated: Some(row.truncated),
            exact_duplicate: Some(row.exact_duplicate),
            contaminated_by: row.contaminated_by.clone(),
        }),
        reject_reason: row.reject_reason.clone(),
    }
}

/// The assistant's turn as `<think>\n…\n</think>\n\n…`, whether the template or the model
/// opened the thought. An unfinished thought stays open; a text without a thought stays as it
/// is; a failed trace has no turn.
fn assistant(trace: &Trace) -> Option<String> {
    let text = trace.text.as_deref()?;
    Some(
        match (trace.reasoning.as_deref(), trace.answer.as_deref()) {
            (Some(reasoning), Some(answer)) => {
                format!(
                    "<think>\n{}\n</think>\n\n{}",
                    reasoning.trim(),
                    answer.trim()
                )
            }
            (Some(reasoning), None) => format!("<think>\n{}", reasoning.trim()),
            (None, _) => text.to_owned(),
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn thoughts_are_written_one_way() {
        let check = |reasoning: Option<&str>,
                     answer: Option<&str>,
                     text: Option<&str>,
                     expected: Option<&str>| {
            let trace = Trace {
                reasoning: reasoning.map(str::to_owned),
                answer: answer.map(str::to_owned),
                text: text.map(str::to_owned),
                ..crate::testing::trace("p", 0)
            };
            assert_eq!(assistant(&trace).as_deref(), expected);
        };
        let full = "<think>\n1+1=2\n</think>\n\n\\boxed{2}";
        check(
            Some("\n1+1=2\n"),
            Some("\n\n\\boxed{2}"),
            Some("1+1=2\n</think>\n\n\\boxed{2}"),
            Some(full),
        );
        check(Some("1+1=2"), Some("\\boxed{2}"), Some(full), Some(full));
        check(Some("1+1"), None, Some("<think>1+1"), Some("<think>\n1+1"));
        check(
            Some(""),
            Some("\\boxed{2}"),
            Some("…"),
            Some("<think>\n\n</think>\n\n\\boxed{2}"),
        );
        check(None, Some(" 2 "), Some(" 2 "), Some(" 2 "));
        check(None, None, None, None);
    }
}
