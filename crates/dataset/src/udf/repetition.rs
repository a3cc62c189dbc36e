use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, Float32Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// Words in a repeated sequence.
const N: usize = 4;

/// Characters after which a word is cut, so that a loop without spaces is a loop of pieces.
const LONGEST_WORD: usize = 16;

/// `repetition(text)`: the share of 4-grams of words that stood in the text before, in [0, 1].
///
/// This is seq-rep-4 of Welleck et al., "Neural Text Generation with Unlikelihood Training"
/// (ICLR 2020, section 6): 1 − |distinct 4-grams| / |4-grams|. Words are lower-cased and split
/// at white space as in open-r1's `get_repetition_penalty_reward`; words of more than 16
/// characters are cut into pieces of 16. A text of fewer than four words repeats nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Repetition {
    signature: Signature,
}

impl Repetition {
    pub fn new() -> Self {
        Self {
            signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
        }
    }
}

fn repetition(text: &str) -> f32 {
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split_whitespace().flat_map(pieces).collect();
    let n_grams = words.len().saturating_sub(N - 1);
    if n_grams == 0 {
        return 0.0;
    }
    let distinct: HashSet<&[&str]> = words.windows(N).collect();
    ((n_grams - distinct.len()) as f64 / n_grams as f64) as f32
}

fn pieces(mut word: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = word
            .char_indices()
            .nth(LONGEST_WORD)
            .map_or(word.len(), |(at, _)| at);
        let (piece, rest) = word.split_at(end);
        word = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

impl ScalarUDFImpl for Repetition {
    fn name(&self) -> &str {
        "repetition"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [text] = super::columns(&args)?;
        let shares: Float32Array = text
            .as_string::<i32>()
            .iter()
            .map(|t| t.map(repetition))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(shares)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_repeat_and_worked_solutions_do_not() {
        let check = |text: &str, low: f32, high: f32| {
            let share = repetition(text);
            assert!((low..=high).contains(&share), "{share} for {text:.60}");
        };
        check("", 0.0, 0.0);
        check("a b c", 0.0, 0.0);
        check("a b c d", 0.0, 0.0);
        // Six 4-grams, of which abcd and bcda stand twice.
        check("a b c d a b c d a", 0.33, 0.34);
        check("A b C d a B c D a", 0.33, 0.34);
        check(
            "<think>\n402-921=570\n570-345=235\n235*2:40,60,01=460\n</think>\n\n\\boxed{64}",
            0.0,
            0.0,
        );
        check(&"402-921=570\n".repeat(40), 0.97, 1.0);
        check(&"wait, let me check. ".repeat(40), 0.9, 1.0);
        check(&"0".repeat(2000), 0.9, 1.0);
        check(&"等等，让我再检查一下。".repeat(200), 0.9, 1.0);
    }
}
