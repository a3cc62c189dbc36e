//! Documents and heads side by side on the CPU.

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::Relation;
use crate::element::{Values, tensor, with_slices};
use crate::gemm::{Arithmetic, Epilogue, Matrix, Term, Threads, product};
use crate::math::{exp_down, max, sum_by};
use crate::segments::Segments;
use crate::shared::Shared;

/// Rows of a document whose relations to all others exist at a time.
const BLOCK: usize = 64;

/// Norms below this count as this.
const SMALLEST_NORM: f32 = 1e-8;

pub fn relation(
    kind: Relation,
    student: &Tensor,
    teacher: &Tensor,
    segments: &Segments,
    scale: f32,
) -> Result<(f64, Tensor)> {
    let ((n, width), teacher_width) = (student.dims2()?, teacher.dim(1)?);
    let (student, teacher) = (student.to_dtype(DType::F32)?, teacher.to_dtype(DType::F32)?);
    let heads = match kind {
        Relation::Attention { heads } => heads,
        Relation::TokenSimilarity => 1,
    };
    let tasks: Vec<(usize, usize, usize)> = segments
        .spans()
        .flat_map(|(start, len)| (0..heads).map(move |head| (start, len, head)))
        .collect();
    with_slices([&student, &teacher], |[student, teacher]: [&[f32]; 2]| {
        let mut gradient = vec![0f32; n * width];
        let out = Shared::new(&mut gradient);
        let values: Vec<f64> = tasks
            .par_iter()
            .map(|&(start, len, head)| {
                let own = Part::of(student, width, (start, len), (head, heads));
                let other = Part::of(teacher, teacher_width, (start, len), (head, heads));
                let (value, d) = match kind {
                    Relation::Attention { .. } => attention(&own, &other, scale / heads as f32),
                    Relation::TokenSimilarity => similarity(&own, &other, scale),
                };
                let columns = width / heads;
                for (row, d) in d.chunks_exact(columns).enumerate() {
                    let at = (start + row) * width + head * columns;
                    // SAFETY: every task has rows or columns of its own.
                    unsafe { out.slice(at, columns) }.copy_from_slice(d);
                }
                value / heads as f64
            })
            .collect();
        Ok((values.iter().sum(), tensor(gradient, (n, width))?))
    })
}

/// A head's columns of a document, [n, d].
struct Part {
    values: Vec<f32>,
    n: usize,
    d: usize,
}

impl Part {
    fn of(
        all: &[f32],
        width: usize,
        (start, n): (usize, usize),
        (head, heads): (usize, usize),
    ) -> Self {
        let d = width / heads;
        let rows = all[start * width..(start + n) * width].chunks_exact(width);
        let values = rows.flat_map(|row| &row[head * d..(head + 1) * d]);
        Self {
            values: values.copied().collect(),
            n,
            d,
        }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::rows(Values::F32(&self.values), self.d)
    }

    /// Products of `rows` rows from `first` on with all, times `scale`: [rows, n].
    fn products(&self, first: usize, rows: usize, scale: f32) -> Vec<f32> {
        let mut out = vec![0f32; rows * self.n];
        let (a, b) = (self.matrix().skip_rows(first), self.matrix().t());
        multiply([rows, self.n, self.d], a, b, scale, &mut out, false);
        out
    }
}

/// out [m, n] = scale · a [m, depth] · b [depth, n], or added to it.
fn multiply(
    [m, n, depth]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    out: &mut [f32],
    accumulate: bool,
) {
    let term = Term {
        a,
        b,
        depth,
        arithmetic: Arithmetic::F32,
    };
    let epilogue = Epilogue {
        scale,
        accumulate,
        ..Epilogue::default()
    };
    product(Threads::One, [m, n], out.into(), n, &[term], epilogue);
}

/// Makes a row of scores its softmax, and returns log Σ exp with the largest taken away, and that.
fn softmax(row: &mut [f32]) -> (f32, f64) {
    let most = max(row);
    row.iter_mut().for_each(|x| *x = exp_down(*x - most));
    let sum: f64 = row.iter().map(|&x| f64::from(x)).sum();
    let inverse = (1.0 / sum) as f32;
    row.iter_mut().for_each(|x| *x *= inverse);
    (most, sum.ln())
}

/// Mean over rows of KL(teacher ‖ student), and its gradient.
fn attention(student: &Part, teacher: &Part, scale: f32) -> (f64, Vec<f32>) {
    let (n, d) = (student.n, student.d);
    let (own, other) = (1.0 / (d as f32).sqrt(), 1.0 / (teacher.d as f32).sqrt());
    let mut value = 0.0;
    let mut gradient = vec![0f32; n * d];
    for first in (0..n).step_by(BLOCK) {
        let rows = BLOCK.min(n - first);
        let mut q = student.products(first, rows, own);
        let mut p = teacher.products(first, rows, other);
        for (q, p) in q.chunks_exact_mut(n).zip(p.chunks_exact_mut(n)) {
            let scores: Vec<(f32, f32)> = p.iter().copied().zip(q.iter().copied()).collect();
            let (p_shift, p_log) = softmax(p);
            let (q_shift, q_log) = softmax(q);
            for ((p, q), (p_score, q_score)) in p.iter().zip(q.iter_mut()).zip(scores) {
                let log_p = f64::from(p_score - p_shift) - p_log;
                let log_q = f64::from(q_score - q_shift) - q_log;
                let apart = log_p - log_q;
                // As in `divergence`: q − p summed over the row is nothing, and no term is negative.
                value += f64::from(*p) * (apart + (-apart).exp_m1());
                *q = (f64::from(*p) * (-apart).exp_m1()) as f32;
            }
        }
        // q is d loss / d scores now: scores are X Xᵀ, to whose both factors it goes.
        let step = own * scale / n as f32;
        let difference = Matrix::rows(Values::F32(&q), n);
        let target = &mut gradient[first * d..(first + rows) * d];
        multiply(
            [rows, d, n],
            difference,
            student.matrix(),
            step,
            target,
            true,
        );
        let block = student.matrix().skip_rows(first);
        multiply(
            [n, d, rows],
            difference.t(),
            block,
            step,
            &mut gradient,
            true,
        );
    }
    (value / n as f64, gradient)
}

/// Mean over pairs of the squared difference of cosines, and its gradient.
fn similarity(student: &Part, teacher: &Part, scale: f32) -> (f64, Vec<f32>) {
    let (n, d) = (student.n, student.d);
    let (unit, norms) = normalised(student);
    let (other, _) = normalised(teacher);
    let mut value = 0.0;
    // By the normalised rows; the matrix is symmetric, so that both factors' shares are one product, twice.
    let mut gradient = vec![0f32; n * d];
    let pairs = (n * n) as f64;
    for first in (0..n).step_by(BLOCK) {
        let rows = BLOCK.min(n - first);
        let mut own = unit.products(first, rows, 1.0);
        let theirs = other.products(first, rows, 1.0);
        for (own, theirs) in own.iter_mut().zip(theirs) {
            *own -= theirs;
            value += f64::from(*own) * f64::from(*own);
        }
        let step = 4.0 * scale / pairs as f32;
        let difference = Matrix::rows(Values::F32(&own), n);
        let target = &mut gradient[first * d..(first + rows) * d];
        multiply([rows, d, n], difference, unit.matrix(), step, target, true);
    }
    let rows = gradient
        .chunks_exact_mut(d)
        .zip(unit.values.chunks_exact(d));
    for ((gradient, unit), norm) in rows.zip(norms) {
        let along = sum_by(gradient, unit, |a, b| a * b);
        for (slot, unit) in gradient.iter_mut().zip(unit) {
            *slot = (*slot - along * unit) / norm;
        }
    }
    (value / pairs, gradient)
}

fn normalised(of: &Part) -> (Part, Vec<f32>) {
    let norm = |row: &[f32]| sum_by(row, row, |a, b| a * b).sqrt().max(SMALLEST_NORM);
    let norms: Vec<f32> = of.values.chunks_exact(of.d).map(norm).collect();
    let rows = of.values.chunks_exact(of.d).zip(&norms);
    let values = rows.flat_map(|(row, norm)| row.iter().map(move |x| x / norm));
    let part = Part {
        values: values.collect(),
        n: of.n,
        d: of.d,
    };
    (part, norms)
}
