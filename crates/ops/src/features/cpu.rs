//! Rows side by side on the CPU.

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::Metric;
use crate::element::{tensor, with_slices};
use crate::math::{sum_by, vectorized};

/// Norms below this count as this.
const SMALLEST_NORM: f64 = 1e-8;

pub fn distance(
    metric: Metric,
    student: &Tensor,
    teacher: &Tensor,
    scale: f32,
) -> Result<(f64, Tensor)> {
    let (rows, columns) = student.dims2()?;
    let (student, teacher) = (student.to_dtype(DType::F32)?, teacher.to_dtype(DType::F32)?);
    with_slices([&student, &teacher], |[student, teacher]: [&[f32]; 2]| {
        let mut gradient = vec![0f32; rows * columns];
        let width = columns.max(1);
        let values: Vec<f64> = gradient
            .par_chunks_mut(width)
            .zip(student.par_chunks(width))
            .zip(teacher.par_chunks(width))
            .map(|((gradient, student), teacher)| match metric {
                Metric::Mse => mse(student, teacher, scale, gradient),
                Metric::Cosine => cosine(student, teacher, scale, gradient),
            })
            .collect();
        Ok((values.iter().sum(), tensor(gradient, (rows, columns))?))
    })
}

vectorized! {
    fn mse(student: &[f32], teacher: &[f32], scale: f32, gradient: &mut [f32]) -> f64 {
        let mean = 1.0 / student.len() as f32;
        for ((slot, a), b) in gradient.iter_mut().zip(student).zip(teacher) {
            *slot = 2.0 * mean * scale * (a - b);
        }
        f64::from(mean * sum_by(student, teacher, |a, b| (a - b) * (a - b)))
    }
}

vectorized! {
    /// In f64: of two directions that are almost the same, what is left of f32 has few digits.
    fn cosine(student: &[f32], teacher: &[f32], scale: f32, gradient: &mut [f32]) -> f64 {
        let inverse_norm = |x: &[f32]| {
            let norm = sum_wide(x, x, |a, b| a * b).sqrt();
            1.0 / if norm < SMALLEST_NORM { SMALLEST_NORM } else { norm }
        };
        let (own, other) = (inverse_norm(student), inverse_norm(teacher));
        let half = 0.5 * sum_wide(student, teacher, |a, b| {
            let apart = a * own - b * other;
            apart * apart
        });
        for ((slot, &a), &b) in gradient.iter_mut().zip(student).zip(teacher) {
            let direction = f64::from(a) * own;
            let step = (direction - f64::from(b) * other) - half * direction;
            *slot = (f64::from(scale) * own * step) as f32;
        }
        half
    }
}

/// Σ f(a_i, b_i) in f64, over eight running sums.
#[inline(always)]
fn sum_wide(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> f64) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += f(f64::from(a[lane]), f64::from(b[lane]));
        }
    }
    let rest = a_rest.iter().zip(b_rest);
    sums.iter().sum::<f64>()
        + rest
            .map(|(&a, &b)| f(f64::from(a), f64::from(b)))
            .sum::<f64>()
}
