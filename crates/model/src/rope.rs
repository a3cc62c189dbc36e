//! Rotary position frequencies, as transformers 5.23 computes them (`modeling_rope_utils.py`).

use serde_json::Value;

use crate::error::Result;
use crate::json_keys::Keys;

/// RoPE's base and how its frequencies are stretched for longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base wavelength (`rope_theta`).
    pub theta: f64,
    /// Width of one head; there are `head_dim / 2` frequencies.
    pub head_dim: usize,
    pub scaling: RopeScaling,
}

/// `rope_type` with its keys.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: usize,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        attention_factor: Option<f64>,
        mscale: Option<f64>,
        mscale_all_dim: Option<f64>,
        original_max_position_embeddings: usize,
        /// Rounds the ramp's ends outwards to whole dimensions.
        truncate: bool,
    },
}

impl RopeScaling {
    /// The context length the unscaled model was trained for, where the scaling depends on it.
    pub fn original_max_position_embeddings(&self) -> Option<usize> {
        match self {
            Self::None | Self::Linear { .. } => None,
            Self::Llama3 {
                original_max_position_embeddings: original,
                ..
            }
            | Self::Yarn {
                original_max_position_embeddings: original,
                ..
            } => Some(*original),
        }
    }
}

/// transformers' base where the file names none.
const DEFAULT_THETA: f64 = 10_000.0;

impl RopeConfig {
    /// Reads `rope_theta` and `rope_scaling` (transformers 4), or `rope_parameters` (transformers 5).
    pub(crate) fn read(
        keys: &Keys,
        head_dim: usize,
        max_position_embeddings: usize,
    ) -> Result<Self> {
        // transformers 5 prefers `rope_scaling` where a file has both, to honour hand-edited files.
        let section = ["rope_scaling", "rope_parameters"].into_iter().find(|key| {
            keys.get(key)
                .is_some_and(|v| v.as_object().is_none_or(|m| !m.is_empty()))
        });
        let empty = serde_json::Map::new();
        let (name, map) = match section {
            None => ("rope_parameters", &empty),
            Some(name) => match keys.get(name) {
                Some(Value::Object(map)) => (name, map),
                _ => return Err(keys.problem(name, "must be an object or null")),
            },
        };
        let inner = Keys {
            path: keys.path,
            map,
        };
        let problem = |key: &str, text: String| keys.problem(&format!("{name}.{key}"), text);
        let required = |key: &str| -> Result<f64> {
            match inner.number(key)? {
                Some(value) if value.is_finite() && value > 0.0 => Ok(value),
                Some(value) => Err(problem(key, format!("must be positive, is {value}"))),
                None => Err(problem(key, "is missing".into())),
            }
        };

        if let Some((nested, _)) = map.iter().find(|(_, value)| value.is_object()) {
            let text = "positions that differ by layer type are not supported";
            return Err(problem(nested, text.into()));
        }
        for source in [keys, &inner] {
            if let Some(part) = source.number("partial_rotary_factor")?
                && part != 1.0
            {
                return Err(keys.problem(
                    "partial_rotary_factor",
                    format!("{part} is not supported; only 1.0 is"),
                ));
            }
        }
        let theta = match inner.number("rope_theta")? {
            Some(theta) => theta,
            None => match keys.number("rope_theta")? {
                Some(theta) => theta,
                None if name == "rope_scaling" && keys.get("rope_parameters").is_some() => {
                    // transformers would silently fall back to its default base here.
                    return Err(keys.problem(
                        "rope_parameters",
                        "stands beside rope_scaling, which wins but names no rope_theta; keep one of the two",
                    ));
                }
                None => DEFAULT_THETA,
            },
        };
        if !(theta.is_finite() && theta > 1.0) {
            return Err(keys.problem("rope_theta", format!("must be above 1, is {theta}")));
        }

        let original = match keys.optional_size("original_max_position_embeddings")? {
            Some(original) => original,
            None => inner
                .optional_size("original_max_position_embeddings")?
                .unwrap_or(max_position_embeddings),
        };
        let type_key = if inner.get("rope_type").is_some() {
            "rope_type"
        } else {
            "type"
        };
        let scaling = match inner.get(type_key).and_then(Value::as_str) {
            None if inner.get(type_key).is_some() => {
                return Err(problem(type_key, "must be text".into()));
            }
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear {
                factor: required("factor")?,
            },
            Some("llama3") => RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_max_position_embeddings: original,
            },
            Some("yarn") => RopeScaling::Yarn {
                factor: match inner.number("factor")? {
                    Some(_) => required("factor")?,
                    None => max_position_embeddings as f64 / original as f64,
                },
                // `or`: transformers takes 0 as unset too.
                beta_fast: inner
                    .number("beta_fast")?
                    .filter(|b| *b != 0.0)
                    .unwrap_or(32.0),
                beta_slow: inner
                    .number("beta_slow")?
                    .filter(|b| *b != 0.0)
                    .unwrap_or(1.0),
                attention_factor: inner.number("attention_factor")?,
                mscale: inner.number("mscale")?,
                mscale_all_dim: inner.number("mscale_all_dim")?,
                original_max_position_embeddings: original,
                truncate: inner.flag("truncate")?.unwrap_or(true),
            },
            Some(other) => {
                return Err(problem(
                    type_key,
                    format!(
                        "`{other}` is not supported; supported are default, linear, llama3 and yarn"
                    ),
                ));
            }
        };
        Ok(Self {
            theta,
            head_dim,
            scaling,
        })
    }

    /// The angle each pair of dimensions turns per position, and the factor on cos and sin.
    ///
    /// Frequencies are `[head_dim / 2]`, in radians per position, computed in f32 as
    /// `ROPE_INIT_FUNCTIONS` does.
    pub fn inv_freq(&self) -> (Vec<f32>, f32) {
        let dim = self.head_dim;
        // Powers go through f64 and are rounded once: torch's f32 pow is within an ulp of that.
        let base = f64::from(self.theta as f32);
        let powers: Vec<f32> = (0..dim / 2)
            .map(|i| base.powf(f64::from((2 * i) as f32 / dim as f32)) as f32)
            .collect();
        let plain = || powers.iter().map(|p| 1.0 / p);
        match self.scaling {
            RopeScaling::None => (plain().collect(), 1.0),
            RopeScaling::Linear { factor } => (plain().map(|f| f / factor as f32).collect(), 1.0),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let context = original_max_position_embeddings as f64;
                let low_wavelength = (context / low_freq_factor) as f32;
                let high_wavelength = (context / high_freq_factor) as f32;
                let stretch = |frequency: f32| {
                    let wavelength = std::f64::consts::TAU as f32 / frequency;
                    if wavelength > low_wavelength {
                        frequency / factor as f32
                    } else if wavelength < high_wavelength {
                        frequency
                    } else {
                        let smooth = (context as f32 / wavelength - low_freq_factor as f32)
                            / (high_freq_factor - low_freq_factor) as f32;
                        (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
                    }
                };
                (plain().map(stretch).collect(), 1.0)
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                attention_factor,
                mscale,
                mscale_all_dim,
                original_max_position_embeddings,
                truncate,
            } => {
                let boundary = |rotations: f64| {
                    let context = original_max_position_embeddings as f64;
                    dim as f64 * (context / (rotations * std::f64::consts::TAU)).ln()
                        / (2.0 * self.theta.ln())
                };
                let (mut low, mut high) = (boundary(beta_fast), boundary(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let low = low.max(0.0);
                let mut high = high.min(dim as f64 - 1.0);
                if low == high {
                    high += 0.001; // Keeps the ramp's slope finite.
                }
                let (low, width) = (low as f32, (high - low) as f32);
                let frequencies = powers
                    .iter()
                    .enumerate()
                    .map(|(i, power)| {
                        let keep = 1.0 - ((i as f32 - low) / width).clamp(0.0, 1.0);
                        1.0 / (factor as f32 * power) * (1.0 - keep) + 1.0 / power * keep
                    })
                    .collect();
                let magnitude = |scale: f64| {
                    if factor <= 1.0 {
                        1.0
                    } else {
                        0.1 * scale * factor.ln() + 1.0
                    }
                };
                let attention = attention_factor.unwrap_or_else(|| {
                    match (
                        mscale.filter(|m| *m != 0.0),
                        mscale_all_dim.filter(|m| *m != 0.0),
                    ) {
                        (Some(mscale), Some(all)) => magnitude(mscale) / magnitude(all),
                        _ => magnitude(1.0),
                    }
                });
                (frequencies, attention as f32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::ModelConfig;
    use serde_json::Value;
    use std::path::Path;

    fn check(case: &Value, config: &ModelConfig) {
        let expected: Vec<f32> = serde_json::from_value(case["inv_freq"].clone()).unwrap();
        let (found, scaling) = config.rope.inv_freq();
        assert_eq!(found.len(), expected.len());
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            let close = (f - e).abs() <= 5e-7 * e.abs();
            assert!(
                close,
                "{:?}: frequency {i} is {f}, expected {e}",
                config.rope
            );
        }
        let expected = case["attention_scaling"].as_f64().unwrap() as f32;
        assert!(
            (scaling - expected).abs() < 1e-6,
            "{:?}: {scaling} {expected}",
            config.rope
        );
    }

    fn fixture(name: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/model")
            .join(name);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn frequencies_are_transformers() {
        let cases = fixture("rope.json");
        let cases = cases["cases"].as_array().unwrap();
        assert!(cases.len() >= 10);
        for case in cases {
            let newer = case["config"].clone();
            check(
                case,
                &ModelConfig::from_json(&newer.to_string(), Path::new("c")).unwrap(),
            );

            // The same as transformers 4 wrote it.
            let mut older = newer;
            let mut scaling = older
                .as_object_mut()
                .unwrap()
                .remove("rope_parameters")
                .unwrap();
            older["rope_theta"] = scaling
                .as_object_mut()
                .unwrap()
                .remove("rope_theta")
                .unwrap();
            let kind = scaling
                .as_object_mut()
                .unwrap()
                .remove("rope_type")
                .unwrap();
            if kind != "default" {
                scaling["type"] = kind;
                older["rope_scaling"] = scaling;
            }
            check(
                case,
                &ModelConfig::from_json(&older.to_string(), Path::new("c")).unwrap(),
            );
        }
    }

    #[test]
    fn saved_models_keep_their_frequencies() {
        for name in ["qwen2", "qwen3-yarn", "llama-llama3", "llama-linear-bias"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../tests/fixtures/model")
                .join(name);
            let config = ModelConfig::from_dir(&dir).unwrap();
            check(&fixture(&format!("{name}/expected.json")), &config);
        }
    }
}
