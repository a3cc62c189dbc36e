//! Passes over one row of logits [V]: what a softmax loss costs per token, at the speed memory is read.
//!
//! Terms are f32, their sums f64 after at most [`BLOCK`] of them: a sum's relative error stays that of its terms.
//! A NaN in the row comes out of every sum as NaN, wherever it stands; maxima pass over it.

use pulp::{Arch, NullaryFnOnce};

/// Running sums side by side, two vectors of AVX-512.
const LANES: usize = 32;
/// Terms that are added up in f32 before they are added to an f64: [`BLOCK`] / [`LANES`] per lane.
const BLOCK: usize = 512;

/// The largest of `row`; `-inf` for none.
#[must_use]
pub fn max(row: &[f32]) -> f32 {
    Arch::new().dispatch(Max(row))
}

/// Σ e^((x − shift)·scale), for a shift that is the row's maximum or above it and a positive scale.
#[must_use]
pub fn sum_exp(row: &[f32], shift: f32, scale: f32) -> f64 {
    Arch::new().dispatch(SumExp { row, shift, scale })
}

/// x ← e^(x − shift), and their sum, for a shift that is the row's maximum or above it.
#[must_use]
pub fn exp_in_place(row: &mut [f32], shift: f32) -> f64 {
    Arch::new().dispatch(ExpInPlace { row, shift })
}

/// x ← factor·x.
pub fn scale(row: &mut [f32], factor: f32) {
    Arch::new().dispatch(Scale { row, factor });
}

/// x ← a·e^(x − shift) + b·e^((x − shift)·scale), for a shift that is the row's maximum or above it.
pub fn mix_exp(row: &mut [f32], shift: f32, a: f32, (b, scale): (f32, f32)) {
    Arch::new().dispatch(MixExp {
        row,
        shift,
        factors: (a, b),
        scale,
    });
}

// A kernel is a type and not a closure: only a function can be told to be inlined, and one that is not is compiled
// without the instructions that it is dispatched for.

struct Max<'a>(&'a [f32]);

impl NullaryFnOnce for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        let mut maxima = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            for (max, &x) in maxima.iter_mut().zip(chunk) {
                *max = larger(*max, x);
            }
        }
        maxima
            .iter()
            .chain(rest)
            .fold(f32::NEG_INFINITY, |max, &x| larger(max, x))
    }
}

struct SumExp<'a> {
    row: &'a [f32],
    shift: f32,
    scale: f32,
}

impl NullaryFnOnce for SumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut sum = 0.0;
        for block in self.row.chunks(BLOCK) {
            let (chunks, rest) = block.as_chunks::<LANES>();
            let mut sums = [0f32; LANES];
            for chunk in chunks {
                for (sum, &x) in sums.iter_mut().zip(chunk) {
                    *sum += exp_down((x - self.shift) * self.scale);
                }
            }
            let mut last = 0.0;
            for &x in rest {
                last += f64::from(exp_down((x - self.shift) * self.scale));
            }
            sum += fold(&sums) + last;
        }
        sum
    }
}

struct ExpInPlace<'a> {
    row: &'a mut [f32],
    shift: f32,
}

impl NullaryFnOnce for ExpInPlace<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut sum = 0.0;
        for block in self.row.chunks_mut(BLOCK) {
            let (chunks, rest) = block.as_chunks_mut::<LANES>();
            let mut sums = [0f32; LANES];
            for chunk in chunks {
                for (sum, x) in sums.iter_mut().zip(chunk) {
                    *x = exp_down(*x - self.shift);
                    *sum += *x;
                }
            }
            let mut last = 0.0;
            for x in rest {
                *x = exp_down(*x - self.shift);
                last += f64::from(*x);
            }
            sum += fold(&sums) + last;
        }
        sum
    }
}

struct Scale<'a> {
    row: &'a mut [f32],
    factor: f32,
}

impl NullaryFnOnce for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for x in self.row {
            *x *= self.factor;
        }
    }
}

struct MixExp<'a> {
    row: &'a mut [f32],
    shift: f32,
    factors: (f32, f32),
    scale: f32,
}

impl NullaryFnOnce for MixExp<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (a, b) = self.factors;
        for x in self.row {
            let below = *x - self.shift;
            *x = a * exp_down(below) + b * exp_down(below * self.scale);
        }
    }
}

#[inline(always)]
fn larger(max: f32, x: f32) -> f32 {
    if x > max { x } else { max }
}

#[inline(always)]
fn fold(sums: &[f32; LANES]) -> f64 {
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

/// e^x for x ≤ 0, in the arithmetic of [`crate::exp`]; 0 below -87.3.
///
/// One half of its range needs one power of two, set without a conversion: a third of the instructions less.
#[inline(always)]
fn exp_down(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const LOWEST: f32 = -87.336_54;
    /// 1.5·2^23: adding it rounds to the nearest integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // `max` would replace a NaN.
    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { value * power }
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
    fn it_is_the_exponential_of_what_is_not_positive() {
        let mut x = -87.3f32;
        while x <= 0.0 {
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_down(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "{x}: {error}");
            x += 0.001_7;
        }
        assert_eq!(exp_down(0.0), 1.0);
        for x in [f32::NEG_INFINITY, -1e4, -88.0] {
            assert_eq!(exp_down(x), 0.0);
        }
        assert!(exp_down(f32::NAN).is_nan());
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
