//! Clipping by the global norm, with PyTorch's `clip_grad_norm_` formula.

use std::collections::BTreeMap;

use candle_core::{D, DType, Tensor};

use crate::Error;

/// What PyTorch adds to the norm it divides by.
const EPSILON: f64 = 1e-6;

/// L2 norm of one gradient, its squares summed in f64 beyond the last dimension.
///
/// # Errors
/// Those of the tensor operations.
pub fn norm(gradient: &Tensor) -> Result<f64, Error> {
    let squares = gradient.sqr()?;
    let rows = if squares.rank() > 1 {
        squares.sum(D::Minus1)?
    } else {
        squares
    };
    Ok(rows
        .to_dtype(DType::F64)?
        .sum_all()?
        .to_scalar::<f64>()?
        .sqrt())
}

/// Scales `gradients` down to a global L2 norm of `max_norm` where it is above; returns the norm before.
///
/// # Errors
/// Those of the tensor operations. A norm that is not finite scales nothing: it is the caller's to refuse.
pub fn clip_global_norm(
    gradients: &mut BTreeMap<String, Tensor>,
    max_norm: f64,
) -> Result<f64, Error> {
    let mut squares = 0.0;
    for gradient in gradients.values() {
        squares += norm(gradient)?.powi(2);
    }
    let total = squares.sqrt();
    let scale = max_norm / (total + EPSILON);
    if total.is_finite() && scale < 1.0 {
        for gradient in gradients.values_mut() {
            *gradient = (&*gradient * scale)?;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    fn gradients() -> BTreeMap<String, Tensor> {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        BTreeMap::from([
            ("a".to_owned(), tensor(&[3.0, 0.0])),
            ("b".to_owned(), tensor(&[4.0])),
        ])
    }

    #[test]
    fn only_norms_above_the_limit_are_scaled() {
        let mut loose = gradients();
        assert_eq!(clip_global_norm(&mut loose, 10.0).unwrap(), 5.0);
        assert_eq!(loose["b"].to_vec1::<f32>().unwrap(), [4.0]);
        let mut tight = gradients();
        assert_eq!(clip_global_norm(&mut tight, 1.0).unwrap(), 5.0);
        assert!((tight["b"].to_vec1::<f32>().unwrap()[0] - 0.8).abs() < 1e-6);
        assert_eq!(
            clip_global_norm(&mut gradients(), f64::INFINITY).unwrap(),
            5.0
        );
    }
}
