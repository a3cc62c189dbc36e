use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// `verdict(gold_answer, answer, text)`: how the answer compares with the gold answer.
///
/// Null where `text` is null, since a trace that failed is missing and not wrong. A null
/// `answer` beside a text is an unfinished thought (`no_answer`); a null gold cannot be read
/// (`gold_unreadable`).
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct VerdictOf {
    signature: Signature,
}

impl VerdictOf {
    pub fn new() -> Self {
        Self {
            signature: Signature::exact(vec![DataType::Utf8; 3], Volatility::Immutable),
        }
    }
}

fn verdict(gold: Option<&str>, answer: Option<&str>, text: Option<&str>) -> Option<&'static str> {
    text.map(|_| verify::verify_answer(gold.unwrap_or_default(), answer).as_str())
}

impl ScalarUDFImpl for VerdictOf {
    fn name(&self) -> &str {
        "verdict"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [gold, answer, text] = super::columns(&args)?;
        let (gold, answer, text) = (
            gold.as_string::<i32>(),
            answer.as_string::<i32>(),
            text.as_string::<i32>(),
        );
        let verdicts: StringArray = gold
            .iter()
            .zip(answer)
            .zip(text)
            .map(|((gold, answer), text)| verdict(gold, answer, text))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(verdicts)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn failed_traces_have_no_verdict_and_unfinished_ones_no_answer() {
        let check = |gold, answer, text, expected| {
            assert_eq!(
                verdict(gold, answer, text),
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
