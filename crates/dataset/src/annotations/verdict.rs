use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use verify::Verifier;

use super::Traces;
use crate::error::Result;

/// How each answer compares with the gold answer.
///
/// Null where `text` is null, since a trace that failed is missing and not wrong. A null
/// `answer` beside a text is an unfinished thought (`no_answer`); a null gold cannot be read
/// (`gold_unreadable`).
pub fn verdicts(traces: &Traces<'_>) -> Result<ArrayRef> {
    let [golds, answers, texts] = ["gold_answer", "answer", "text"].map(|name| traces.texts(name));
    let rows = golds?.iter().zip(answers?).zip(texts?);
    let verifier = traces.tools.verifier;
    let verdicts: StringArray = rows
        .map(|((gold, answer), text)| verdict(verifier, gold, answer, text))
        .collect();
    Ok(Arc::new(verdicts))
}

fn verdict(
    verifier: Verifier,
    gold: Option<&str>,
    answer: Option<&str>,
    text: Option<&str>,
) -> Option<&'static str> {
    let golds = [gold.unwrap_or_default()];
    text.map(|_| verifier.verify_answer(&golds, answer).verdict.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn failed_traces_have_no_verdict_and_unfinished_ones_no_answer() {
        let check = |gold, answer, text, expected| {
            assert_eq!(
                verdict(Verifier::default(), gold, answer, text),
                expected,
                "{gold:?} {answer:?} {text:?}"
            );
        };
        check(Some("64"), Some("\\boxed{64}"), Some("…"), Some("correct"));
        check(
            Some("64"),
            Some("\\boxed{65}"),
            Some("…"),
            Some("incorrect"),
        );
        check(
            Some("64"),
            None,
            Some("<think>\\boxed{64}"),
            Some("no_answer"),
        );
        check(Some("64"), None, None, None);
        check(
            None,
            Some("\\boxed{64}"),
            Some("…"),
            Some("gold_unreadable"),
        );
    }
}
