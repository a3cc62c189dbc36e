use arrow::array::{Array, FixedSizeBinaryArray, FixedSizeBinaryBuilder, StringArray};

use crate::error::Result;
use crate::minhash::{FUNCTIONS, signature};

/// The signature of each text's n-grams of `n` words; null for a text without words. The samples of one prompt stand
/// together and have one problem, so a text is not worked out twice in a row.
pub fn signatures(texts: &StringArray, n: usize) -> Result<FixedSizeBinaryArray> {
    let mut signatures = FixedSizeBinaryBuilder::with_capacity(texts.len(), FUNCTIONS as i32);
    let mut last = None;
    for text in texts {
        let Some(text) = text else {
            signatures.append_null();
            continue;
        };
        let found = match last {
            Some((same, found)) if same == text => found,
            _ => signature(text, n),
        };
        last = Some((text, found));
        match found {
            Some(signature) => signatures.append_value(signature)?,
            None => signatures.append_null(),
        }
    }
    Ok(signatures.finish())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn texts_without_words_have_no_signature() {
        let texts = StringArray::from(vec![Some("a b"), Some("a b"), None, Some("…"), Some("b")]);
        let found = signatures(&texts, 2).unwrap();
        let nulls: Vec<_> = (0..5).map(|row| found.is_null(row)).collect();
        assert_eq!(nulls, [false, false, true, true, false]);
        assert_eq!(found.value(0), found.value(1));
        assert_eq!(found.value(4), signature("b", 2).unwrap());
    }
}
