//! Random streams by name: what a tensor draws depends on the seed and its name, not on order.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The stream of (`seed`, `purpose`, `name`).
pub(crate) fn named_rng(seed: u64, purpose: &str, name: &str) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for part in [purpose, name] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}
