use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;
use verify::Verifier;

/// `verdict(gold_answer, answer, text)`: how the answer compares with the gold answer.
///
/// Null where `text` is null, since a trace that failed is missing and not wrong. A null
/// `answer` beside a text is an unfinished thought (`no_answer`); a null gold cannot be read
/// (`gold_unreadable`).
pub fn udf(verifier: Verifier) -> ScalarUDF {
    let arguments = vec![DataType::Utf8; 3];
    super::function(
        "verdict",
        arguments,
        DataType::Utf8,
        move |[gold, answer, text]| {
            let rows = gold
                .as_string::<i32>()
                .iter()
                .zip(answer.as_string::<i32>())
                .zip(text.as_string::<i32>());
            let verdicts: StringArray = rows
                .map(|((gold, answer), text)| verdict(verifier, gold, answer, text))
                .collect();
            Ok(Arc::new(verdicts))
        },
    )
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
