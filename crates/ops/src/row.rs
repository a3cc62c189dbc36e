//! Passes over one row of logits [V]: what a softmax loss costs per token, at the speed memory is read.
//!
//! Terms are f32, their sums f64 after at most [`BLOCK`] of them: a sum's relative error stays that of its terms.
//! A NaN in the row comes out of every sum as NaN, wherever it stands; maxima pass over it.

use crate::math::{self, exp_down, vectorized};

/// Running sums side by side, two vectors of AVX-512.
const LANES: usize = 32;
/// Terms that are added up in f32 before they are added to an f64: [`BLOCK`] / [`LANES`] per lane.
const BLOCK: usize = 512;

vectorized! {
    /// The largest of `row`; `-inf` for none.
    #[must_use]
    pub fn max(row: &[f32]) -> f32 {
        math::max(row)
    }
}

vectorized! {
    /// Σ e^((x − shift)·scale), for a shift that is the row's maximum or above it and a positive scale.
    #[must_use]
    pub fn sum_exp(row: &[f32], shift: f32, scale: f32) -> f64 {
        let mut sum = 0.0;
        for block in row.chunks(BLOCK) {
            let (chunks, rest) = block.as_chunks::<LANES>();
            let mut sums = [0f32; LANES];
            for chunk in chunks {
                for (sum, &x) in sums.iter_mut().zip(chunk) {
                    *sum += exp_down((x - shift) * scale);
                }
            }
            let mut last = 0.0;
            for &x in rest {
                last += f64::from(exp_down((x - shift) * scale));
            }
            sum += fold(&sums) + last;
        }
        sum
    }
}

vectorized! {
    /// x ← e^(x − shift), and their sum, for a shift that is the row's maximum or above it.
    #[must_use]
    pub fn exp_in_place(row: &mut [f32], shift: f32) -> f64 {
        let mut sum = 0.0;
        for block in row.chunks_mut(BLOCK) {
            let (chunks, rest) = block.as_chunks_mut::<LANES>();
            let mut sums = [0f32; LANES];
            for chunk in chunks {
                for (sum, x) in sums.iter_mut().zip(chunk) {
                    *x = exp_down(*x - shift);
                    *sum += *x;
                }
            }
            let mut last = 0.0;
            for x in rest {
                *x = exp_down(*x - shift);
                last += f64::from(*x);
            }
            sum += fold(&sums) + last;
        }
        sum
    }
}

vectorized! {
    /// x ← factor·x.
    pub fn scale(row: &mut [f32], factor: f32) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

vectorized! {
    /// x ← a·e^(x − shift) + b·e^((x − shift)·scale), `tempered` being (b, scale), for a shift that is the row's maximum or above it.
    pub fn mix_exp(row: &mut [f32], shift: f32, a: f32, tempered: (f32, f32)) {
        let (b, scale) = tempered;
        for x in row {
            let below = *x - shift;
            *x = a * exp_down(below) + b * exp_down(below * scale);
        }
    }
}

#[inline(always)]
fn fold(sums: &[f32; LANES]) -> f64 {
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths that fill no block, one lane, several blocks and a rest.
    const LENGTHS: [usize; 6] = [0, 1, 31, 32, 545, 1613];

    fn row(length: usize) -> Vec<f32> {
        (0..length)
            .map(|i| ((i * 7919) % 1009) as f32 * -0.02 + 3.0)
            .collect()
    }

    fn exact(row: &[f32], shift: f32, scale: f64) -> Vec<f64> {
        row.iter()
            .map(|&x| ((f64::from(x) - f64::from(shift)) * scale).exp())
            .collect()
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= 2e-6 * expected.abs()
    }

    #[test]
    fn passes_equal_their_definitions_at_every_length() {
        for length in LENGTHS {
            let logits = row(length);
            let shift = max(&logits);
            assert_eq!(
                shift,
                logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
            );
            let shift = if length == 0 { 0.0 } else { shift };
            for scale in [0.5f32, 1.0, 2.0] {
                let expected = exact(&logits, shift, f64::from(scale)).iter().sum();
                assert!(close(sum_exp(&logits, shift, scale), expected), "{length}");
            }
            let (plain, tempered) = (exact(&logits, shift, 1.0), exact(&logits, shift, 0.5));
            let mut terms = logits.clone();
            assert!(close(
                exp_in_place(&mut terms, shift),
                plain.iter().sum::<f64>()
            ));
            scale(&mut terms, -3.0);
            let mut mixed = logits.clone();
            mix_exp(&mut mixed, shift, 2.0, (-1.0, 0.5));
            for i in 0..length {
                assert!(close(f64::from(terms[i]), -3.0 * plain[i]));
                let error = f64::from(mixed[i]) - (2.0 * plain[i] - tempered[i]);
                assert!(error.abs() < 1e-6, "{error}");
            }
        }
    }

    #[test]
    fn a_nan_is_never_summed_away() {
        for position in [0, 40, 600] {
            let mut logits = row(601);
            logits[position] = f32::NAN;
            assert!(max(&logits).is_finite());
            assert!(sum_exp(&logits, 3.0, 1.0).is_nan());
            assert!(exp_in_place(&mut logits, 3.0).is_nan());
        }
    }

    #[test]
    fn large_logits_lose_nothing_to_their_size() {
        let logits = [1e4, 1e4 - 1.0, -1e4, f32::NEG_INFINITY];
        let sum = sum_exp(&logits, max(&logits), 1.0);
        assert!(close(sum, 1.0 + (-1f64).exp()), "{sum}");
        assert_eq!(sum_exp(&[f32::NEG_INFINITY; 3], 0.0, 1.0), 0.0);
    }
}
