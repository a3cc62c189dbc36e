//! Dropout (Srivastava et al. 2014, JMLR 15) whose choices follow from what they are made for: the same token of the same
//! example drops the same inputs wherever it is packed, and whenever they are asked for again.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{Result, Tensor, bail};

use crate::device::on_gpu;
use crate::element::by_element;
use cpu::apply;

/// One module's dropout over the rows of a micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Dropout<'a> {
    /// The share of elements that become 0, in [0, 1); the others are divided by 1 − rate.
    pub rate: f32,
    /// Of the module; see [`key`].
    pub module: u64,
    /// One key per row, [N].
    pub rows: &'a [u64],
}

/// A key for `part`, within that of the whole.
#[must_use]
pub fn key(whole: u64, part: u64) -> u64 {
    mix(whole
        .wrapping_add(part.wrapping_mul(GAMMA))
        .wrapping_add(GAMMA))
}

/// A key for a name.
#[must_use]
pub fn key_of_name(name: &str) -> u64 {
    name.bytes().fold(0, |whole, byte| key(whole, byte.into()))
}

/// SplitMix64's odd constant, 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function (Steele, Lea and Flood 2014, OOPSLA).
#[inline(always)]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dropout<'_> {
    /// x ∘ mask / (1 − rate). The mask is the same at every call, so this is its own backward pass.
    ///
    /// # Shapes
    /// x [N, D] f32 or bf16 → [N, D].
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (n, _) = x.dims2()?;
        if self.rows.len() != n {
            bail!("dropout: {} keys for {n} rows", self.rows.len());
        }
        on_gpu!(x => cuda::apply(self, x));
        by_element!(x.dtype(), apply(self, x))
    }

    /// Numbers of 32 bits below it are dropped.
    pub(crate) fn threshold(&self) -> u64 {
        (f64::from(self.rate) * 4_294_967_296.0) as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device};

    fn kept(rate: f32, module: u64, keys: &[u64], d: usize) -> Vec<f32> {
        let dropout = Dropout {
            rate,
            module,
            rows: keys,
        };
        let ones = Tensor::ones((keys.len(), d), DType::F32, &Device::Cpu).unwrap();
        let out = dropout.apply(&ones).unwrap();
        out.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_share_is_the_rate_and_the_mean_stays() {
        let keys: Vec<u64> = (0..200).map(|token| key(7, token)).collect();
        for rate in [0.0f32, 0.05, 0.5, 0.9] {
            let values = kept(rate, 3, &keys, 512);
            let zeros = values.iter().filter(|&&x| x == 0.0).count() as f64 / values.len() as f64;
            // Five standard deviations of 102,400 draws.
            assert!((zeros - f64::from(rate)).abs() < 0.008, "{rate}: {zeros}");
            let scale = 1.0 / (1.0 - rate);
            assert!(values.iter().all(|&x| x == 0.0 || x == scale));
        }
    }

    #[test]
    fn a_row_is_the_same_in_any_company_and_differs_between_modules() {
        let keys: Vec<u64> = (0..40).map(|token| key(7, token)).collect();
        let all = kept(0.5, 3, &keys, 96);
        assert_eq!(kept(0.5, 3, &keys[33..34], 96), all[33 * 96..34 * 96]);
        let agree = |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|(a, b)| a == b).count();
        let other = kept(0.5, key_of_name("model.layers.0.mlp.up_proj"), &keys, 96);
        // Independent halves agree in half of 3,840 places, give or take 31.
        assert!(agree(&all, &other).abs_diff(1920) < 160);
        assert!(agree(&all[..96 * 20], &all[96 * 20..]).abs_diff(960) < 110);
    }
}
