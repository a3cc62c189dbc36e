//! Attention for decoding: new tokens against the keys and values of their own past.
//!
//! Every token's output is computed by itself, in one fixed order over its past, so that it
//! has the same bits in whatever batch or prefill chunk it arrives.

use rayon::prelude::*;

use crate::attention::Heads;
use crate::cpu;
use crate::math::{LANES, exp, fold, lane_sums, max, sum_by, vectorized};

/// The rotated keys and the values of one sequence in one layer, each [T, G·C].
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

/// A new token: the cache of its sequence, and how many of its entries it sees (its own included).
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub cache: &'a LayerCache,
    pub n_visible: usize,
}

/// # Shapes
/// q [N, H·C] rotated, one reader per token → [N, H·C].
pub fn cached_attention(q: &[f32], heads: Heads, readers: &[Reader<'_>]) -> Vec<f32> {
    let columns = heads.n_heads * heads.head_dim;
    let mut out = vec![0.0; q.len()];
    let tokens = out
        .par_chunks_mut(columns)
        .zip(q.par_chunks(columns))
        .zip(readers);
    tokens.for_each(|((out, q), reader)| token(out, q, heads, *reader));
    out
}

/// Tokens of the past that are read for all heads before the next: their keys or values stay in the first cache.
const BLOCK: usize = 16;

/// Columns of the output that are summed in registers.
const COLUMNS: usize = 32;

/// Heads take a row in pieces, which no CPU foresees: memory is asked for the next block as a whole.
#[inline(always)]
fn fetch_block_after(block: &[f32]) {
    const LINE: usize = 16;
    for line in (0..block.len()).step_by(LINE) {
        cpu::fetch(block.as_ptr_range().end.wrapping_add(line));
    }
}

vectorized! {
fn token(out: &mut [f32], q: &[f32], heads: Heads, reader: Reader<'_>) {
    let Heads {
        n_heads,
        n_kv_heads,
        head_dim,
        scale,
    } = heads;
    let stride = n_kv_heads * head_dim;
    let per_group = n_heads / n_kv_heads;
    let n_visible = reader.n_visible;
    // [H, T]
    let mut scores = vec![0.0; n_heads * n_visible];
    let keys = reader.cache.keys[..n_visible * stride].chunks(BLOCK * stride);
    for (block, keys) in keys.enumerate() {
        fetch_block_after(keys);
        for (head, q) in q.chunks_exact(head_dim).enumerate() {
            let offset = head / per_group * head_dim;
            let scores = &mut scores[head * n_visible + block * BLOCK..];
            let keys = keys.chunks_exact(stride).map(|key| &key[offset..offset + head_dim]);
            // Folded apart: beside the products the compiler would fold pairs of them in narrow vectors.
            let mut sums = [[0.0; LANES]; BLOCK];
            for (sums, key) in sums.iter_mut().zip(keys.clone()) {
                *sums = lane_sums(q, key, |x, y| x * y).0;
            }
            for ((score, sums), key) in scores.iter_mut().zip(sums).zip(keys) {
                let whole = head_dim / LANES * LANES;
                let rest = q[whole..].iter().zip(&key[whole..]);
                *score = rest.fold(fold(sums), |sum, (x, y)| sum + x * y) * scale;
            }
        }
    }
    for scores in scores.chunks_exact_mut(n_visible) {
        let top = max(scores);
        scores.iter_mut().for_each(|x| *x = exp(*x - top));
        let inverse = 1.0 / sum_by(scores, scores, |x, _| x);
        scores.iter_mut().for_each(|x| *x *= inverse);
    }
    let values = reader.cache.values[..n_visible * stride].chunks(BLOCK * stride);
    for (block, values) in values.enumerate() {
        fetch_block_after(values);
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let offset = head / per_group * head_dim;
            let weights = &scores[head * n_visible + block * BLOCK..];
            let (wide, narrow) = out.as_chunks_mut::<COLUMNS>();
            let start = offset + wide.len() * COLUMNS;
            for (chunk, out) in wide.iter_mut().enumerate() {
                let start = offset + chunk * COLUMNS;
                let mut sums = *out;
                for (weight, value) in weights.iter().zip(values.chunks_exact(stride)) {
                    let value = &value[start..start + COLUMNS];
                    for column in 0..COLUMNS {
                        sums[column] += weight * value[column];
                    }
                }
                *out = sums;
            }
            for (weight, value) in weights.iter().zip(values.chunks_exact(stride)) {
                for (out, value) in narrow.iter_mut().zip(&value[start..]) {
                    *out += weight * value;
                }
            }
        }
    }
}
}
