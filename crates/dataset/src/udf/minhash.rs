use std::sync::Arc;

use datafusion::arrow::array::{AsArray, FixedSizeBinaryBuilder};
use datafusion::arrow::datatypes::{DataType, UInt64Type};
use datafusion::logical_expr::ScalarUDF;

use crate::minhash::{FUNCTIONS, signature};

/// `minhash(text, n)`: the signature of the text's n-grams of words; null for a text without
/// words. The samples of one prompt stand together and have one problem, so a text is not
/// worked out twice in a row.
pub fn udf() -> ScalarUDF {
    let kind = DataType::FixedSizeBinary(FUNCTIONS as i32);
    let arguments = vec![DataType::Utf8, DataType::UInt64];
    super::function("minhash", arguments, kind, |[text, n]| {
        let rows = text
            .as_string::<i32>()
            .iter()
            .zip(n.as_primitive::<UInt64Type>());
        let mut signatures = FixedSizeBinaryBuilder::with_capacity(text.len(), FUNCTIONS as i32);
        let mut last = None;
        for (text, n) in rows {
            let (Some(text), Some(n)) = (text, n) else {
                signatures.append_null();
                continue;
            };
            let found = match last {
                Some((same, found)) if same == text => found,
                _ => signature(text, n as usize),
            };
            last = Some((text, found));
            match found {
                Some(signature) => signatures.append_value(signature)?,
                None => signatures.append_null(),
            }
        }
        Ok(Arc::new(signatures.finish()) as _)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use datafusion::arrow::array::{Array, StringArray, UInt64Array};

    use super::*;

    #[test]
    fn texts_without_words_have_no_signature() {
        let texts = StringArray::from(vec![Some("a b"), Some("a b"), None, Some("…"), Some("b")]);
        let columns: Vec<_> = vec![
            Arc::new(texts) as _,
            Arc::new(UInt64Array::from(vec![2; 5])) as _,
        ];
        let found = super::super::call(&udf(), columns);
        let found = found.as_fixed_size_binary();
        let nulls: Vec<_> = (0..5).map(|row| found.is_null(row)).collect();
        assert_eq!(nulls, [false, false, true, true, false]);
        assert_eq!(found.value(0), found.value(1));
        assert_eq!(found.value(4), signature("b", 2).unwrap());
    }
}
