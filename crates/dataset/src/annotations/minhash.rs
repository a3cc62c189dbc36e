use arrow::array::StringArray;

use crate::error::Result;
use crate::minhash::{Signature, signature};

/// Hands out the signature of each text's n-grams of `n` words; none for a text without words. The samples of one prompt
/// stand together and have one problem, so a text is not worked out twice in a row.
pub fn signatures(
    texts: &StringArray,
    n: usize,
    mut each: impl FnMut(Option<&Signature>) -> Result<()>,
) -> Result<()> {
    let mut last = None;
    for text in texts {
        let Some(text) = text else {
            each(None)?;
            continue;
        };
        let found = match last {
            Some((same, found)) if same == text => found,
            _ => signature(text, n),
        };
        last = Some((text, found));
        each(found.as_ref())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts_without_words_have_no_signature() {
        let texts = StringArray::from(vec![Some("a b"), Some("a b"), None, Some("…"), Some("b")]);
        let mut found = Vec::new();
        let keep = |signature: Option<&Signature>| {
            found.push(signature.copied());
            Ok(())
        };
        signatures(&texts, 2, keep).unwrap();
        let nulls: Vec<_> = found.iter().map(Option::is_none).collect();
        assert_eq!(nulls, [false, false, true, true, false]);
        assert_eq!(found[0], found[1]);
        assert_eq!(found[4], signature("b", 2));
    }
}
