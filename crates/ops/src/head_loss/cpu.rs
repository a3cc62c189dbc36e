//! The head with its loss on the CPU.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Head, HeadLoss, RowLoss, Wanted, add_measures};
use crate::element::{Element, Values, tensor, with, with_slices};
use crate::gemm::{Arithmetic, Epilogue, Matrix, Term, Threads, product};

/// Vocabulary entries that the gradient of the hidden states is summed over at a time: the weights of so many, packed,
/// stay in the cache while all rows read them.
const DEPTH: usize = 4096;

#[allow(clippy::too_many_arguments)]
pub fn chunks<E: Element>(
    hidden: &Tensor,
    weight: Values<'_>,
    [s, d, v]: [usize; 3],
    arithmetic: Arithmetic,
    teacher: Option<Head<'_>>,
    loss: &dyn RowLoss,
    chunk_rows: usize,
    wanted: Wanted,
) -> Result<HeadLoss>
where
    for<'a> Values<'a>: From<&'a [E]>,
{
    let n_measures = loss.n_measures();
    let mut sums = vec![0.0; n_measures];
    let mut measures = vec![0.0; chunk_rows * n_measures];
    let mut d_hidden = Vec::with_capacity(if wanted.hidden { s * d } else { 0 });
    let mut d_weight = vec![0f32; if wanted.weight { v * d } else { 0 }];
    let mut logits = vec![0f32; chunk_rows * v];
    let mut d_rows = vec![0f32; if wanted.hidden { chunk_rows * d } else { 0 }];
    let mut beside = Vec::new();
    let weight = Matrix::rows(weight, d);
    with_slices([hidden], |[hidden]: [&[E]; 1]| {
        for first in (0..s).step_by(chunk_rows) {
            let rows = chunk_rows.min(s - first);
            let hidden = Matrix::rows(Values::from(&hidden[first * d..(first + rows) * d]), d);
            let logits = &mut logits[..rows * v]; // [rows, V]
            multiply(arithmetic, [rows, v, d], logits, hidden, weight.t(), false);
            let measures = &mut measures[..rows * n_measures];
            if let Some(teacher) = &teacher {
                logits_of(teacher, first, rows, &mut beside)?;
            }
            let beside_v = beside.len() / rows;
            logits
                .par_chunks_mut(v)
                .zip(measures.par_chunks_mut(n_measures))
                .with_max_len(4)
                .enumerate()
                .for_each(|(row, (logits, measures))| {
                    let teacher = &beside[row * beside_v..][..beside_v];
                    loss.row(first + row, logits, teacher, measures);
                });
            add_measures(&mut sums, measures);
            let gradient = Matrix::rows(Values::F32(logits), v);
            if wanted.hidden {
                let d_rows = &mut d_rows[..rows * d];
                for k in (0..v).step_by(DEPTH) {
                    let sizes = [rows, d, DEPTH.min(v - k)];
                    let (gradient, weight) = (gradient.skip_columns(k), weight.skip_rows(k));
                    multiply(arithmetic, sizes, d_rows, gradient, weight, k > 0);
                }
                d_hidden.extend(d_rows.iter().map(|&x| E::narrow(x)));
            }
            if wanted.weight {
                let sizes = [v, d, rows];
                multiply(arithmetic, sizes, &mut d_weight, gradient.t(), hidden, true);
            }
        }
        Ok(())
    })?;
    let d_hidden = wanted.hidden.then(|| tensor(d_hidden, (s, d)));
    let d_weight = wanted.weight.then(|| tensor(d_weight, (v, d)));
    Ok(HeadLoss {
        sums,
        d_hidden: d_hidden.transpose()?,
        d_weight: d_weight.transpose()?,
    })
}

/// Makes `logits` those of `rows` rows of a head, from the `first` on.
fn logits_of(head: &Head<'_>, first: usize, rows: usize, logits: &mut Vec<f32>) -> Result<()> {
    let [_, d, v] = head.sizes()?;
    logits.resize(rows * v, 0.0);
    with(head.hidden, |hidden| {
        let hidden = Matrix::rows(hidden, d).skip_rows(first);
        with(head.weight, |weight| {
            let weight = Matrix::rows(weight, d).t();
            multiply(head.arithmetic, [rows, v, d], logits, hidden, weight, false);
            Ok(())
        })
    })
}

/// out [m, n] = a [m, depth] · b [depth, n], or added to it.
fn multiply(
    arithmetic: Arithmetic,
    [m, n, depth]: [usize; 3],
    out: &mut [f32],
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
) {
    let term = Term {
        a,
        b,
        depth,
        arithmetic,
    };
    let epilogue = Epilogue {
        accumulate,
        ..Epilogue::default()
    };
    product(Threads::All, [m, n], out.into(), n, &[term], epilogue);
}
