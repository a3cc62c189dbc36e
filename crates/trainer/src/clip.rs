//! Clipping by the global norm, with PyTorch's `clip_grad_norm_` formula.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{Error, in_place};

/// What PyTorch adds to the norm it divides by.
const EPSILON: f64 = 1e-6;

/// Elements of one partial sum. Sums of fixed pieces, added in a fixed order, have the same bits on any
/// number of threads.
const CHUNK: usize = 1 << 14;

/// Partial sums kept side by side within a chunk, for the vector units.
const LANES: usize = 8;

/// The mean gradient of a step, described without making it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipped {
    /// Global L2 norm of the mean gradient, before clipping.
    pub norm: f64,
    /// What turns the summed gradients into the clipped mean: 1 / tokens, and smaller where `norm` is above
    /// the limit.
    pub scale: f64,
}

/// L2 norm of one gradient; squares are summed in f64. Not finite exactly when some element is not.
///
/// # Errors
/// A tensor that is not f32 on the CPU.
pub fn norm(gradient: &Tensor) -> Result<f64, Error> {
    Ok(sum_of_squares(&gradient.to_device(&Device::Cpu)?)?.sqrt())
}

/// Norm and scale of `gradients`, which are summed over `n_supervised` tokens, when their mean is clipped to a
/// global L2 norm of `max_norm`. Reads each gradient once and changes none.
///
/// # Errors
/// A tensor that is not f32 on the CPU. A norm that is not finite clips nothing: it is the caller's to refuse.
pub fn clip_global_norm(
    gradients: &BTreeMap<String, Tensor>,
    n_supervised: u64,
    max_norm: f64,
) -> Result<Clipped, Error> {
    let squares = sums_of_squares(gradients)?;
    let mean = 1.0 / n_supervised.max(1) as f64;
    let norm = squares.iter().sum::<f64>().sqrt() * mean;
    let clip = max_norm / (norm + EPSILON);
    let clips = norm.is_finite() && clip < 1.0;
    Ok(Clipped {
        norm,
        scale: if clips { mean * clip } else { mean },
    })
}

fn sums_of_squares(gradients: &BTreeMap<String, Tensor>) -> Result<Vec<f64>, Error> {
    #[cfg(feature = "cuda")]
    if gradients
        .values()
        .any(|gradient| gradient.device().is_cuda())
    {
        let gradients: Vec<&Tensor> = gradients.values().collect();
        return Ok(ops::optimizer::sums_of_squares(&gradients)?);
    }
    gradients
        .par_iter()
        .map(|(_, gradient)| sum_of_squares(gradient))
        .collect()
}

fn sum_of_squares(gradient: &Tensor) -> Result<f64, Error> {
    Ok(in_place::read(gradient, |values| {
        let partial: Vec<f64> = values.par_chunks(CHUNK).map(chunk_of_squares).collect();
        Ok(partial.iter().sum())
    })?)
}

fn chunk_of_squares(values: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    let (rows, rest) = values.as_chunks::<LANES>();
    for row in rows {
        for (lane, value) in lanes.iter_mut().zip(row) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*value) * f64::from(*value);
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn gradients() -> BTreeMap<String, Tensor> {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        BTreeMap::from([
            ("a".to_owned(), tensor(&[3.0, 0.0])),
            ("b".to_owned(), tensor(&[4.0])),
        ])
    }

    #[test]
    fn only_norms_above_the_limit_are_scaled() {
        let check = |n_supervised, max_norm, norm: f64, scale: f64| {
            let clipped = clip_global_norm(&gradients(), n_supervised, max_norm).unwrap();
            assert_eq!(clipped.norm, norm);
            assert!((clipped.scale - scale).abs() < 1e-7, "{}", clipped.scale);
        };
        check(1, 10.0, 5.0, 1.0);
        check(1, 1.0, 5.0, 0.2);
        check(1, f64::INFINITY, 5.0, 1.0);
        // The limit is on the mean.
        check(10, 1.0, 0.5, 0.1);
        check(10, 0.25, 0.5, 0.05);
    }

    #[test]
    fn the_norm_has_the_same_bits_on_any_number_of_threads() {
        let values: Vec<f32> = (0..300_001u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) as f32 / 4e9 - 0.5) * 1e-3)
            .collect();
        let exact: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        let gradients = BTreeMap::from([
            ("a".to_owned(), Tensor::new(values, &Device::Cpu).unwrap()),
            ("b".to_owned(), gradients()["b"].clone()),
        ]);
        let norm_on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap()
                .install(|| clip_global_norm(&gradients, 3, 1.0).unwrap())
        };
        let one = norm_on(1);
        assert!((one.norm - (exact + 16.0).sqrt() / 3.0).abs() < 1e-12);
        for threads in [2, 3, 7] {
            assert_eq!(norm_on(threads), one);
        }
    }

    #[test]
    fn one_bad_element_is_enough() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = vec![1e30f32; 40_000];
            let finite = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
            assert!(norm(&finite).unwrap().is_finite());
            values[39_999] = bad;
            let gradient = Tensor::new(values, &Device::Cpu).unwrap();
            assert!(!norm(&gradient).unwrap().is_finite());
            let gradients = BTreeMap::from([("a".to_owned(), gradient)]);
            let clipped = clip_global_norm(&gradients, 2, 1.0).unwrap();
            assert!(!clipped.norm.is_finite());
            assert_eq!(clipped.scale, 0.5);
        }
    }
}
