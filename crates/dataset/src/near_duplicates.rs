//! Which texts are nearly the same as an earlier one.

use rayon::prelude::*;

use crate::minhash::{BANDS, Signature, similarity};

/// Earlier texts of its band that a text is compared with. A text that stands there a thousand
/// times is found by comparing with the first of them.
const COMPARED: usize = 16;

/// For every text the earlier one that it nearly repeats and that is no repetition itself.
///
/// Two texts are candidates when one of their 32 bands of 8 bytes is the same, which happens to
/// 99.7 % of the pairs with a similarity of 0.8, to all but 10⁻⁸ with 0.9, and to 12 % with 0.5; a
/// candidate counts when its estimated similarity is at least `threshold`. A text is compared
/// with those kept before it, so that a chain of small changes does not join its ends. The
/// work grows with n log n; beside the signatures 16 bytes of memory are taken per text and
/// thread, and 8 per pair.
pub fn find(signatures: &[Signature], threshold: f64) -> Vec<Option<u32>> {
    let mut pairs: Vec<(u32, u32)> = (0..BANDS)
        .into_par_iter()
        .flat_map_iter(|band| candidates(signatures, band))
        .collect();
    pairs.par_sort_unstable();
    pairs.dedup();
    let alike: Vec<bool> = pairs
        .par_iter()
        .map(|&(later, earlier)| {
            let pair = (
                signatures.get(later as usize),
                signatures.get(earlier as usize),
            );
            matches!(pair, (Some(a), Some(b)) if similarity(a, b) >= threshold)
        })
        .collect();
    let mut repeats: Vec<Option<u32>> = vec![None; signatures.len()];
    for ((later, earlier), _) in pairs.into_iter().zip(alike).filter(|(_, alike)| *alike) {
        let (later, at) = (later as usize, earlier as usize);
        if repeats[later].is_none() && repeats[at].is_none() {
            repeats[later] = Some(earlier);
        }
    }
    repeats
}

/// `(later, earlier)` for the texts with the same band.
fn candidates(signatures: &[Signature], band: usize) -> Vec<(u32, u32)> {
    let mut keyed: Vec<(u64, u32)> = signatures
        .iter()
        .zip(0..)
        .map(|(signature, at)| (signature.as_chunks().0[band], at))
        .map(|(bytes, at)| (u64::from_le_bytes(bytes), at))
        .collect();
    keyed.sort_unstable();
    let mut pairs = Vec::new();
    for bucket in keyed.chunk_by(|a, b| a.0 == b.0) {
        for (at, (_, later)) in bucket.iter().enumerate() {
            let earlier = bucket.iter().take(at.min(COMPARED));
            pairs.extend(earlier.map(|(_, earlier)| (*later, *earlier)));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::minhash::signature;

    fn find_in(texts: &[String]) -> Vec<Option<u32>> {
        let signatures: Vec<_> = texts.iter().map(|t| signature(t, 3).unwrap()).collect();
        find(&signatures, 0.8)
    }

    fn words(from: usize) -> Vec<String> {
        (from..from + 300).map(|i| format!("w{i}")).collect()
    }

    #[test]
    fn later_texts_point_to_the_first_of_their_kind() {
        let mut edited = words(0);
        edited[150] = "other".into();
        let texts = [
            words(0).join(" "),
            words(1000).join(" "),
            edited.join(" "),
            words(0).join("  "),
            words(2000).join(" "),
            words(1000).join(", "),
        ];
        assert_eq!(
            find_in(&texts),
            [None, None, Some(0), Some(0), None, Some(1)]
        );
        assert!(find(&[], 0.8).is_empty());
    }

    #[test]
    fn a_chain_of_changes_does_not_join_its_ends() {
        // Each shares 280 of 300 words with the one before it, and 260 with the one before that.
        let texts: Vec<_> = (0..4).map(|i| words(20 * i).join(" ")).collect();
        assert_eq!(find_in(&texts), [None, Some(0), None, Some(2)]);
    }

    #[test]
    fn a_crowd_of_equals_costs_no_square() {
        let texts = vec![words(0).join(" "); 20_000];
        let found = find_in(&texts);
        assert_eq!(found[0], None);
        assert!(found[1..].iter().all(|first| *first == Some(0)));
    }
}
