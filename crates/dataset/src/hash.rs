//! 64-bit hashes, the same on every machine and in every version.

/// The first eight bytes of blake3, little-endian.
pub fn first_u64(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}
