//! 64-bit hashes, the same on every machine and in every version.

/// The first eight bytes of blake3, little-endian: for what a hash stands for alone.
pub fn first_u64(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// A quick hash of something as short as a word; two words meet about as often as random
/// numbers do, but one can be found that meets a given one.
pub fn of_word(bytes: &[u8]) -> u64 {
    let mut hash = 0x9E37_79B9_7F4A_7C15 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        hash = folded(hash ^ u64::from_le_bytes(eight));
    }
    let rest = chunks
        .remainder()
        .iter()
        .fold(0, |rest, &byte| rest << 8 | u64::from(byte));
    folded(hash ^ rest)
}

/// A hash of a sequence of hashes in which their order counts.
pub fn of_sequence(hashes: &[u64]) -> u64 {
    hashes.iter().fold(hashes.len() as u64, |sequence, &hash| {
        folded(sequence.rotate_left(23) ^ hash)
    })
}

/// The halves of the product with a constant, on each other.
fn folded(value: u64) -> u64 {
    let product = u128::from(value ^ 0xA076_1D64_78BD_642F) * 0xE703_7ED1_A0B4_28DB;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_and_their_sequences_do_not_meet() {
        let words: Vec<_> = (0..100_000).map(|i| i.to_string()).collect();
        let hashes: HashSet<_> = words.iter().map(|word| of_word(word.as_bytes())).collect();
        assert_eq!(hashes.len(), words.len());
        let longer: HashSet<_> = words
            .iter()
            .map(|word| of_word(format!("a word of {word} and more").as_bytes()))
            .collect();
        assert_eq!(longer.len(), words.len());
        let pairs: HashSet<_> = (0..300u64)
            .flat_map(|a| (0..300).map(move |b| of_sequence(&[a, b])))
            .collect();
        assert_eq!(pairs.len(), 300 * 300);
        assert_ne!(of_word(b""), of_word(b"\0"));
    }
}
