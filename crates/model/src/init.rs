//! Fresh random weights, as transformers' `_init_weights` distributes them.

use candle_core::{Device, Tensor};
use rand::Rng;
use rayon::prelude::*;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::named_rng::named_rng;

/// One parameter's initial values, F32 on the CPU: norms 1, biases 0, all else normal(0, `initializer_range`).
///
/// Depends on (`seed`, `name`, `shape`) only, so tensors may be made in any order, or in parallel.
pub fn initial_tensor(
    config: &ModelConfig,
    name: &str,
    shape: &[usize],
    seed: u64,
) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let values = if name.ends_with(".bias") {
        vec![0f32; n]
    } else if name.ends_with("norm.weight") {
        vec![1f32; n]
    } else {
        normal(n, config.initializer_range, seed, name)
    };
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// Values that one task draws, an even number.
const BLOCK: usize = 1 << 16;

/// Box–Muller in f64, both halves used.
fn normal(n: usize, deviation: f64, seed: u64, name: &str) -> Vec<f32> {
    let start = named_rng(seed, "init", name);
    let mut values = vec![0f32; n];
    let blocks = values.par_chunks_mut(BLOCK).enumerate();
    blocks.for_each(|(block, values)| {
        let mut rng = start.clone();
        // Two f64 of two words each make two values.
        rng.set_word_pos(block as u128 * BLOCK as u128 * 2);
        for pair in values.chunks_mut(2) {
            // 1 − u is in (0, 1], where the logarithm is finite.
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * deviation;
            let angle = std::f64::consts::TAU * rng.random::<f64>();
            let both = [angle.cos(), angle.sin()];
            for (value, turn) in pair.iter_mut().zip(both) {
                *value = (radius * turn) as f32;
            }
        }
    });
    values
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::parameters::parameter_names;
    use std::path::Path;

    fn config() -> ModelConfig {
        let text = r#"{"model_type": "qwen3", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
            "max_position_embeddings": 64, "attention_bias": true, "initializer_range": 0.05}"#;
        ModelConfig::from_json(text, Path::new("config.json")).unwrap()
    }

    fn values(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
        let tensor = initial_tensor(&config(), name, shape, seed).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn every_parameter_has_its_distribution() {
        for (name, shape) in parameter_names(&config()) {
            let values = values(&name, &shape, 3);
            let n = values.len() as f32;
            let mean = values.iter().sum::<f32>() / n;
            let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
            let (want_mean, want_deviation) = match name.as_str() {
                name if name.ends_with("norm.weight") => (1.0, 0.0),
                name if name.ends_with("bias") => (0.0, 0.0),
                _ => (0.0, 0.05),
            };
            assert!((mean - want_mean).abs() < 0.01, "{name}: mean {mean}");
            assert!(
                (deviation - want_deviation).abs() < 0.01,
                "{name}: deviation {deviation}"
            );
        }
    }

    #[test]
    fn blocks_are_parts_of_one_stream() {
        let n = BLOCK + 5;
        let mut rng = named_rng(9, "init", "a.weight");
        let mut expected = Vec::new();
        while expected.len() < n {
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * 0.02;
            let angle = std::f64::consts::TAU * rng.random::<f64>();
            expected.extend([radius * angle.cos(), radius * angle.sin()].map(|x| x as f32));
        }
        assert_eq!(normal(n, 0.02, 9, "a.weight"), expected[..n]);
    }

    #[test]
    fn values_follow_seed_and_name() {
        let shape = [5, 7];
        assert_eq!(values("a.weight", &shape, 1), values("a.weight", &shape, 1));
        assert_ne!(values("a.weight", &shape, 1), values("b.weight", &shape, 1));
        assert_ne!(values("a.weight", &shape, 1), values("a.weight", &shape, 2));
    }
}
