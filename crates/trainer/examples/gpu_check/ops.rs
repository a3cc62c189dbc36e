//! Every operation on a GPU against the same on the CPU, forward and backward.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use ops::activation::{swiglu, swiglu_backward};
use ops::attention::{Attention, Heads};
use ops::dropout::{Dropout, key};
use ops::gemm::Arithmetic;
use ops::head_loss::{Head, Wanted, head_loss};
use ops::linear::{
    Finish, Form, Product, column_dot, column_sum, low_rank_dtype, products, tall_gradient,
};
use ops::norm::{rms_norm, rms_norm_backward};
use ops::rope::RopeTable;
use ops::rows;
use ops::segments::Segments;
use serde_json::json;
use stillroom_trainer::Place;
use stillroom_trainer::clip::clip_global_norm;
use stillroom_trainer::config::{Divergence, LossConfig, LossKind, MissingMass};
use stillroom_trainer::loss::{LogitLoss, LogitRows, TeacherRows};
use stillroom_trainer::optimizer::{AdamW, AdamWConfig};

const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

/// What the largest value counts as where it is smaller: of inputs about 1 a gradient may be nothing but rounding.
const LEAST: f64 = 0.1;

/// The error of a NaN, and of an operation that failed; JSON has no infinity.
const WRONG: f64 = 1e30;

/// Largest difference over the largest value.
fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2e-2,
        _ => 1e-5,
    }
}

fn arithmetic(dtype: DType) -> Arithmetic {
    match dtype {
        DType::BF16 => Arithmetic::Bf16,
        _ => Arithmetic::F32,
    }
}

/// Values without a pattern, in about ±1.
fn values(seed: u32, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n as u64)
        .map(|i| (key(u64::from(seed), i) >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        .collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?)
}

struct Check {
    gpu: Device,
    only: Option<String>,
    results: Vec<serde_json::Value>,
    failures: usize,
}

impl Check {
    /// Computes `f` of the inputs on both devices and compares what it gives.
    fn compare(
        &mut self,
        name: &str,
        dtype: DType,
        inputs: &[Tensor],
        f: impl Fn(&[Tensor]) -> Result<Vec<(&'static str, Tensor)>>,
    ) -> Result<()> {
        if self
            .only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            return Ok(());
        }
        let on_gpu = inputs
            .iter()
            .map(|input| input.to_device(&self.gpu))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let expected = f(inputs).with_context(|| format!("{name} on the CPU"))?;
        let found = match f(&on_gpu) {
            Ok(found) => found,
            // The others are still worth knowing.
            Err(error) => {
                println!("{name}: {error:#}");
                self.report(name, "error", dtype, &[0.0], &[f32::NAN]);
                return Ok(());
            }
        };
        for ((what, expected), (_, found)) in expected.into_iter().zip(found) {
            let floats = |tensor: Tensor| -> Result<Vec<f32>> {
                let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
                Ok(tensor.flatten_all()?.to_vec1()?)
            };
            let same_shape = expected.dims() == found.dims();
            match floats(found) {
                Ok(found) if same_shape => {
                    self.report(name, what, dtype, &floats(expected)?, &found)
                }
                found => {
                    println!("{name}: {what}: {:?}", found.map(|found| found.len()));
                    self.report(name, what, dtype, &[0.0], &[f32::NAN]);
                }
            }
        }
        Ok(())
    }

    fn report(&mut self, name: &str, what: &str, dtype: DType, expected: &[f32], found: &[f32]) {
        let largest = expected
            .iter()
            .fold(LEAST, |most, x| most.max(f64::from(x.abs())));
        let error = expected.iter().zip(found).fold(0f64, |most, (a, b)| {
            let difference = f64::from((a - b).abs()) / largest;
            // A NaN is as far as can be.
            if difference.is_nan() && a.to_bits() != b.to_bits() {
                WRONG
            } else {
                most.max(difference)
            }
        });
        let passes = error <= bound(dtype);
        self.failures += usize::from(!passes);
        let dtype = dtype.as_str();
        println!(
            "{} {dtype:>4} {name:<44} {what:<10} {error:.1e}",
            if passes { "ok  " } else { "FAR " }
        );
        self.results.push(
            json!({"op": name, "value": what, "dtype": dtype, "error": error, "passes": passes}),
        );
    }
}

/// Whether all that was compared is near enough.
pub fn run(only: Option<String>, json: Option<&Path>) -> Result<bool> {
    let mut check = Check {
        gpu: Place::Cuda(0).open()?,
        only,
        results: Vec::new(),
        failures: 0,
    };
    for dtype in DTYPES {
        linear(&mut check, dtype)?;
        elementwise(&mut check, dtype)?;
        attention(&mut check, dtype)?;
        head(&mut check, dtype)?;
    }
    optimizer(&mut check)?;
    println!(
        "{} values compared, {} too far off",
        check.results.len(),
        check.failures
    );
    if let Some(path) = json {
        let text = serde_json::to_vec_pretty(&check.results)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(check.failures == 0)
}

fn linear(check: &mut Check, dtype: DType) -> Result<()> {
    for (m, n, k) in [(1, 2, 3), (64, 96, 128), (200, 72, 33)] {
        for (form, a, b) in [
            (Form::Nt, [m, k], [n, k]),
            (Form::Nn, [m, k], [k, n]),
            (Form::Tn, [k, m], [k, n]),
        ] {
            let inputs = [values(1, &a, dtype)?, values(2, &b, dtype)?];
            let name = format!("product {form:?} {m}x{n}x{k}");
            check.compare(&name, dtype, &inputs, |t| {
                let term = Product {
                    a: &t[0],
                    b: &t[1],
                    form,
                    arithmetic: arithmetic(dtype),
                };
                let plain = products(&[term], Finish::plain(t[0].dtype()))?;
                let wide = products(&[term], Finish::plain(DType::F32))?;
                Ok(vec![("out", plain), ("f32 out", wide)])
            })?;
        }
    }
    let (m, n, k, r) = (130, 96, 64, 16);
    let inputs = [
        values(1, &[m, k], dtype)?,
        values(2, &[n, k], dtype)?,
        values(3, &[m, r], DType::F32)?,
        values(4, &[n, r], DType::F32)?,
        values(5, &[n], DType::F32)?,
        values(6, &[n], DType::F32)?,
        values(7, &[m, n], dtype)?,
    ];
    check.compare("products with an adapter", dtype, &inputs, |t| {
        let base = Product {
            a: &t[0],
            b: &t[1],
            form: Form::Nt,
            arithmetic: arithmetic(dtype),
        };
        let low = t[2]
            .to_device(&Device::Cpu)?
            .to_dtype(low_rank_dtype(&t[0]))?;
        let low = low.to_device(t[0].device())?;
        let adapter = Product {
            a: &low,
            b: &t[3],
            arithmetic: Arithmetic::F32,
            ..base
        };
        let terms = [base, adapter];
        let plain = Finish::plain(t[0].dtype());
        let biased = Finish {
            scale: 0.5,
            bias: Some(&t[4]),
            add: Some(&t[6]),
            ..plain
        };
        let scaled = Finish {
            column_scale: Some(&t[5]),
            ..biased
        };
        Ok(vec![
            ("plain", products(&terms, plain)?),
            (
                "added",
                products(
                    &terms,
                    Finish {
                        add: Some(&t[6]),
                        ..plain
                    },
                )?,
            ),
            ("biased", products(&terms, biased)?),
            ("scaled", products(&terms, scaled)?),
            ("b", tall_gradient(&t[6], &low)?),
        ])
    })?;
    let inputs = [values(1, &[333, 70], dtype)?, values(2, &[333, 70], dtype)?];
    check.compare("column sums", dtype, &inputs, |t| {
        Ok(vec![
            ("sum", column_sum(&t[0])?),
            ("dot", column_dot(&t[0], &t[1])?),
        ])
    })
}

fn elementwise(check: &mut Check, dtype: DType) -> Result<()> {
    for (n, d) in [(1, 2), (37, 128), (19, 1536), (3, 8192)] {
        let inputs = [
            values(1, &[n, d], dtype)?,
            values(2, &[d], DType::F32)?,
            values(3, &[n, d], dtype)?,
            values(4, &[n, d], dtype)?,
        ];
        check.compare(&format!("rms-norm {n}x{d}"), dtype, &inputs, |t| {
            let gradients = rms_norm_backward(&t[0], &t[1], 1e-6, &t[2], Some(&t[3]), true)?;
            let alone = rms_norm_backward(&t[0], &t[1], 1e-6, &t[2], None, false)?;
            let mut out = vec![
                ("out", rms_norm(&t[0], &t[1], 1e-6)?),
                ("dx + add", gradients.x),
                ("dx", alone.x),
            ];
            out.extend(gradients.weight.map(|weight| ("dw", weight)));
            Ok(out)
        })?;
        check.compare(&format!("swiglu {n}x{d}"), dtype, &inputs, |t| {
            let (d_gate, d_up) = swiglu_backward(&t[0], &t[2], &t[3])?;
            Ok(vec![
                ("out", swiglu(&t[0], &t[2])?),
                ("d gate", d_gate),
                ("d up", d_up),
            ])
        })?;
        let keys: Vec<u64> = (0..n as u64).map(|row| key(5, row)).collect();
        check.compare(&format!("dropout {n}x{d}"), dtype, &inputs, |t| {
            let dropout = Dropout {
                rate: 0.3,
                module: 9,
                rows: &keys,
            };
            Ok(vec![("out", dropout.apply(&t[0])?)])
        })?;
    }
    let inputs = [values(1, &[50, 24], dtype)?, values(2, &[6, 24], dtype)?];
    check.compare("rows by id", dtype, &inputs, |t| {
        Ok(vec![
            ("gather", rows::gather(&t[0], &[3, 49, 0, 3], DType::BF16)?),
            ("scatter", rows::scatter(&t[1], &[9, 2, 7, 0, 5, 4], 11)?),
            ("sum", rows::sum_by_id(&t[1], &[4, 1, 4, 0, 1, 4], 6)?),
        ])
    })
}

fn attention(check: &mut Check, dtype: DType) -> Result<()> {
    let packed: [&[usize]; 4] = [&[1], &[200], &[5, 64, 1, 130, 63, 65], &[257, 300]];
    for (heads, kv_heads, head_dim) in [(2, 1, 16), (4, 2, 64), (3, 1, 128), (2, 2, 96)] {
        for lengths in packed {
            let segments = Segments::new(lengths.to_vec());
            let n = segments.n_tokens();
            let inputs = [
                values(1, &[n, heads * head_dim], dtype)?,
                values(2, &[n, kv_heads * head_dim], dtype)?,
                values(3, &[n, kv_heads * head_dim], dtype)?,
                values(4, &[n, heads * head_dim], dtype)?,
            ];
            let frequencies: Vec<f32> = (0..head_dim / 2)
                .map(|i| 10_000f32.powf(-2.0 * i as f32 / head_dim as f32))
                .collect();
            let name = format!("attention {heads}/{kv_heads}x{head_dim} {lengths:?}");
            check.compare(&name, dtype, &inputs, |t| {
                let rope = RopeTable::new(&frequencies, 1.0, &segments.positions());
                let attention = Attention {
                    heads: Heads {
                        n_heads: heads,
                        n_kv_heads: kv_heads,
                        head_dim,
                        scale: 1.5 / (head_dim as f32).sqrt(),
                    },
                    rope: &rope,
                    segments: &segments,
                };
                let attended = attention.forward(&t[0], &t[1], &t[2])?;
                let d = attention.backward([&t[0], &t[1], &t[2]], &attended, &t[3])?;
                Ok(vec![
                    ("out", attended.out),
                    ("dq", d.q),
                    ("dk", d.k),
                    ("dv", d.v),
                ])
            })?;
        }
    }
    Ok(())
}

fn head(check: &mut Check, dtype: DType) -> Result<()> {
    let (s, d, v, k) = (45, 64, 1013, 6u32);
    let hidden = (values(1, &[s, d], DType::F32)? * 2.0)?.to_dtype(dtype)?;
    let inputs = [hidden, values(2, &[v, d], dtype)?];
    for (kind, divergence, temperature, missing_mass) in [
        (
            LossKind::Hard,
            Divergence::ForwardKl,
            1.0,
            MissingMass::Tail,
        ),
        (
            LossKind::Soft,
            Divergence::ForwardKl,
            1.0,
            MissingMass::Tail,
        ),
        (
            LossKind::Mixed,
            Divergence::ReverseKl,
            1.0,
            MissingMass::Tail,
        ),
        (LossKind::Mixed, Divergence::Jsd, 2.0, MissingMass::Tail),
        (
            LossKind::Soft,
            Divergence::ForwardKl,
            2.0,
            MissingMass::Renormalize,
        ),
        (
            LossKind::Soft,
            Divergence::ForwardKl,
            1.0,
            MissingMass::Zero,
        ),
    ] {
        let loss = LogitLoss::new(&LossConfig {
            kind,
            divergence,
            temperature,
            missing_mass,
            ..LossConfig::default()
        });
        let mut teacher = TeacherRows::default();
        let mut targets = Vec::new();
        for row in 0..s as u32 {
            let ids: Vec<u32> = (0..k).map(|i| (row * 37 + i * 101) % v as u32).collect();
            targets.push(if row % 3 == 0 {
                ids[1]
            } else {
                (row * 7 + 2) % v as u32
            });
            if kind != LossKind::Hard {
                let logprobs = (0..k).map(|i| -0.6 - 0.8 * i as f32);
                teacher.push(&ids, logprobs, -2.5);
            }
        }
        let rows = LogitRows {
            loss,
            targets: &targets,
            teacher: &teacher,
        };
        let name = format!("head {kind:?} {divergence:?} T={temperature} {missing_mass:?}");
        check.compare(&name, dtype, &inputs, |t| {
            let wanted = Wanted {
                hidden: true,
                weight: true,
            };
            let head = Head {
                hidden: &t[0],
                weight: &t[1],
                arithmetic: arithmetic(dtype),
            };
            let found = head_loss(head, None, &rows, 16, wanted)?;
            let parts: Vec<f32> = found.sums.iter().map(|&part| part as f32).collect();
            let mut out = vec![("parts", Tensor::new(parts, &Device::Cpu)?)];
            out.extend(found.d_hidden.map(|d| ("d hidden", d)));
            out.extend(found.d_weight.map(|d| ("d weight", d)));
            Ok(out)
        })?;
    }
    Ok(())
}

fn optimizer(check: &mut Check) -> Result<()> {
    let shapes: [&[usize]; 4] = [&[7, 9], &[70_001], &[1], &[300, 512]];
    let mut inputs = Vec::new();
    for (index, shape) in shapes.into_iter().enumerate() {
        inputs.push(values(index as u32, shape, DType::F32)?);
        inputs.push(values(index as u32 + 10, shape, DType::F32)?);
    }
    check.compare("adamw, three steps", DType::F32, &inputs, |t| {
        let (mut parameters, mut gradients) = (Vec::new(), BTreeMap::new());
        for (index, pair) in t.chunks_exact(2).enumerate() {
            let name = format!("p{index}.lora_B.x");
            parameters.push((name.clone(), Var::from_tensor(&pair[0])?));
            gradients.insert(name, pair[1].clone());
        }
        let config = AdamWConfig {
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.1,
        };
        let mut adamw = AdamW::new(parameters.clone(), config)?.with_loraplus(4.0);
        let mut norms = Vec::new();
        for _ in 0..3 {
            let clipped = clip_global_norm(&gradients, 10, 1.0)?;
            norms.push(clipped.norm as f32);
            adamw.update(&gradients, clipped.scale, 1e-2)?;
        }
        let names = ["a", "b", "c", "d"];
        let mut out = vec![("norm", Tensor::new(norms, &Device::Cpu)?)];
        for (name, (_, variable)) in names.into_iter().zip(&parameters) {
            out.push((name, variable.as_tensor().clone()));
        }
        Ok(out)
    })
}
