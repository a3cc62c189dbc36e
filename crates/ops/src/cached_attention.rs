//! Attention for decoding: new tokens against the keys and values of their own past.
//!
//! Every token's output is computed by itself, in one fixed order over its past, so that it
//! has the same bits in whatever batch or prefill chunk it arrives.

use rayon::prelude::*;

use crate::attention::Heads;
use crate::math::{dot, exp, max, sum_by, vectorized};

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
    let mut scores = vec![0.0; reader.n_visible];
    let queries = q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim));
    for (head, (q, out)) in queries.enumerate() {
        let offset = head / per_group * head_dim;
        let row = |values: &'_ [f32], t: usize| -> std::ops::Range<usize> {
            debug_assert!((t + 1) * stride <= values.len());
            t * stride + offset..t * stride + offset + head_dim
        };
        for (t, score) in scores.iter_mut().enumerate() {
            *score = dot(q, &reader.cache.keys[row(&reader.cache.keys, t)]) * scale;
        }
        let top = max(&scores);
        scores.iter_mut().for_each(|x| *x = exp(*x - top));
        let inverse = 1.0 / sum_by(&scores, &scores, |x, _| x);
        for (t, score) in scores.iter().enumerate() {
            let weight = score * inverse;
            let values = &reader.cache.values[row(&reader.cache.values, t)];
            for (out, value) in out.iter_mut().zip(values) {
                *out += weight * value;
            }
        }
    }
}
}
