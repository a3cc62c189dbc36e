//! The tiles that both passes walk through.

mod backward;
mod forward;

use std::ops::Range;

use candle_core::DType;

use super::Attention;
use crate::element::{Element, Values};
use crate::gemm::{Arithmetic, Matrix, PANEL};
pub(super) use backward::backward;
pub(super) use forward::forward;

/// Queries of a tile.
const QUERIES: usize = 48;
/// Keys of a tile: a multiple of [`PANEL`].
const KEYS: usize = 512;
/// From this length on the heads that share keys are separate tasks in the backward pass: a document alone then gives
/// every thread some, and sums of its keys' gradients to add up.
const LONG: usize = 1024;

impl Attention<'_> {
    /// Every (document, key-value head) pair that has work.
    fn parts(&self) -> Vec<Part> {
        let spans = self.segments.spans().filter(|&(_, length)| length > 0);
        spans
            .flat_map(|(start, length)| {
                (0..self.heads.n_kv_heads).map(move |kv_head| Part {
                    start,
                    length,
                    kv_head,
                })
            })
            .collect()
    }

    /// The query heads of a key-value head.
    fn group(&self, kv_head: usize) -> Range<usize> {
        let size = self.heads.n_heads / self.heads.n_kv_heads;
        kv_head * size..(kv_head + 1) * size
    }

    /// One head's columns of some tokens as f32, [tokens, [`Attention::stride`]]; rotated and scaled for queries and
    /// keys.
    fn rows<E: Element>(
        &self,
        values: &[E],
        tokens: Range<usize>,
        (n_heads, head): (usize, usize),
        turn: Option<f32>,
    ) -> Vec<f32> {
        let (c, stride) = (self.heads.head_dim, self.stride());
        let mut rows = vec![0.0; tokens.len() * stride];
        for (token, row) in tokens.zip(rows.chunks_exact_mut(stride)) {
            let row = &mut row[..c];
            let at = token * n_heads * c + head * c;
            row.iter_mut()
                .zip(&values[at..at + c])
                .for_each(|(out, value)| *out = value.widen());
            if let Some(scale) = turn {
                self.rope.rotate(token, row);
                if scale != 1.0 {
                    row.iter_mut().for_each(|x| *x *= scale);
                }
            }
        }
        rows
    }

    fn queries<E: Element>(&self, q: &[E], tokens: Range<usize>, head: usize) -> Vec<f32> {
        let heads = self.heads;
        self.rows(q, tokens, (heads.n_heads, head), Some(heads.scale))
    }

    /// C, rounded up to whole panels.
    fn stride(&self) -> usize {
        self.heads.head_dim.next_multiple_of(PANEL)
    }
}

/// One document's tokens in one key-value head.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    length: usize,
    kv_head: usize,
}

impl Part {
    fn tokens(&self) -> Range<usize> {
        self.start..self.start + self.length
    }

    /// The queries of each tile, the last ones, which see most, first.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let length = self.length;
        let starts = (0..length).step_by(QUERIES).rev();
        starts.map(move |first| first..length.min(first + QUERIES))
    }

    /// Between rows of a tile's scores, which do not then all fall into a few cache sets.
    fn score_stride(&self) -> usize {
        KEYS.min(self.length.next_multiple_of(PANEL)) + 16
    }
}

fn view(values: &[f32], stride: usize) -> Matrix<'_> {
    Matrix::rows(Values::F32(values), stride)
}

fn arithmetic<E: Element>() -> Arithmetic {
    match E::DTYPE {
        DType::BF16 => Arithmetic::Bf16.of_this_cpu(),
        _ => Arithmetic::F32,
    }
}

/// The tiles of keys that a tile of queries sees.
fn key_tiles(queries: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = queries.end;
    (0..end)
        .step_by(KEYS)
        .map(move |first| first..end.min(first + KEYS))
}
