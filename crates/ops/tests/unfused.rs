//! Every fused operation against the same computation in candle's own differentiable
//! operations: values and gradients.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use stillroom_ops::attention::Heads;
use stillroom_ops::head_loss::{Parts, RowLoss};
use stillroom_ops::rope::RopeTable;
use stillroom_ops::segments::Segments;

fn var(shape: &[usize], seed: f32) -> Var {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.731 + seed).sin()).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
}

/// Compares values, then gradients of a weighted sum, to 2e-5 of the largest entry.
fn check(inputs: &[&Var], fused: &Tensor, unfused: &Tensor) {
    close("value", fused, unfused);
    let weights = var(fused.dims(), 0.2).as_tensor().detach();
    let gradients = |y: &Tensor| {
        (y * &weights)
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap()
    };
    let (fused, unfused) = (gradients(fused), gradients(unfused));
    for (index, input) in inputs.iter().enumerate() {
        let (a, b) = (fused.get(input).unwrap(), unfused.get(input).unwrap());
        close(&format!("gradient {index}"), a, b);
    }
}

fn close(what: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let largest = |t: &Tensor| {
        t.abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    let error = largest(&(a - b).unwrap()) / largest(b).max(1e-3);
    assert!(error < 2e-5, "{what}: relative error {error}");
}

#[test]
fn linear_layers() {
    let (x, w) = (var(&[5, 24], 0.0), var(&[7, 24], 1.0));
    let plain = x.matmul(&w.t().unwrap()).unwrap();
    check(
        &[&x, &w],
        &stillroom_ops::linear::trainable(&x, &w).unwrap(),
        &plain,
    );
    check(
        &[&x],
        &stillroom_ops::linear::frozen(&x, &w.as_tensor().detach()).unwrap(),
        &plain,
    );
    let (a, b) = (var(&[3, 24], 2.0), var(&[7, 3], 3.0));
    let low = x
        .matmul(&a.t().unwrap())
        .unwrap()
        .matmul(&b.t().unwrap())
        .unwrap();
    let adapted = (plain + (low * 1.5).unwrap()).unwrap();
    let frozen = w.as_tensor().detach();
    check(
        &[&x, &a, &b],
        &stillroom_ops::lora::lora_linear(&x, &frozen, &a, &b, 1.5).unwrap(),
        &adapted,
    );
}

#[test]
fn a_frozen_weight_gets_no_gradient() {
    let (x, a, b) = (var(&[5, 8], 0.0), var(&[2, 8], 1.0), var(&[6, 2], 2.0));
    let w = var(&[6, 8], 3.0);
    let y = stillroom_ops::lora::lora_linear(&x, w.as_tensor(), &a, &b, 1.0).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&w).is_none());
    assert!(gradients.get(&a).is_some());
}

#[test]
fn rms_norm() {
    let (x, w) = (var(&[70, 20], 0.0), var(&[20], 1.0));
    let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let inverse = (mean + 1e-6).unwrap().sqrt().unwrap().recip().unwrap();
    let plain = x
        .broadcast_mul(&inverse)
        .unwrap()
        .broadcast_mul(&w)
        .unwrap();
    check(
        &[&x, &w],
        &stillroom_ops::norm::rms_norm(&x, &w, 1e-6).unwrap(),
        &plain,
    );
}

#[test]
fn swiglu() {
    let (gate, up) = (var(&[9, 33], 0.0), var(&[9, 33], 1.0));
    let plain = (gate.silu().unwrap() * up.as_tensor()).unwrap();
    check(
        &[&gate, &up],
        &stillroom_ops::activation::swiglu(&gate, &up).unwrap(),
        &plain,
    );
}

/// Rotary embedding and masked attention of one document, head by head.
fn plain_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: Heads,
    inv_freq: &[f32],
) -> Result<Tensor> {
    let n = q.dim(0)?;
    let c = heads.head_dim;
    let positions = Tensor::arange(0f32, n as f32, &Device::Cpu)?.reshape((n, 1))?;
    let angles = positions.matmul(&Tensor::new(inv_freq, &Device::Cpu)?.reshape((1, c / 2))?)?;
    let (cos, sin) = (
        Tensor::cat(&[angles.cos()?, angles.cos()?], 1)?,
        Tensor::cat(&[angles.sin()?, angles.sin()?], 1)?,
    );
    let rotate = |x: &Tensor| -> Result<Tensor> {
        let turned = Tensor::cat(
            &[x.narrow(1, c / 2, c / 2)?.neg()?, x.narrow(1, 0, c / 2)?],
            1,
        )?;
        (x * &cos)? + (turned * &sin)?
    };
    let mask: Vec<f32> = (0..n * n)
        .map(|i| {
            if i % n > i / n {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        })
        .collect();
    let mask = Tensor::from_vec(mask, (n, n), &Device::Cpu)?;
    let mut outputs = Vec::new();
    for head in 0..heads.n_heads {
        let shared = head / (heads.n_heads / heads.n_kv_heads);
        let q = rotate(&q.narrow(1, head * c, c)?)?;
        let k = rotate(&k.narrow(1, shared * c, c)?)?;
        let scores = ((q.matmul(&k.t()?.contiguous()?)? * f64::from(heads.scale))? + &mask)?;
        let max = scores.max_keepdim(D::Minus1)?.detach();
        let weights = scores.broadcast_sub(&max)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        outputs.push(weights.matmul(&v.narrow(1, shared * c, c)?.contiguous()?)?);
    }
    Tensor::cat(&outputs, 1)
}

#[test]
fn attention_over_packed_documents() {
    let heads = Heads {
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        scale: 0.35,
    };
    let inv_freq = [1.0, 0.3, 0.1, 0.01];
    let lengths = vec![3, 70, 1, 130];
    let n: usize = lengths.iter().sum();
    let (q, k, v) = (var(&[n, 32], 0.0), var(&[n, 16], 1.0), var(&[n, 16], 2.0));
    let segments = Arc::new(Segments::new(lengths));
    let rope = Arc::new(RopeTable::new(&inv_freq, 1.0, &segments.positions()));
    let fused = stillroom_ops::attention::attention(&q, &k, &v, heads, &rope, &segments).unwrap();
    let documents: Vec<Tensor> = segments
        .spans()
        .map(|(start, len)| {
            let part = |x: &Var| x.narrow(0, start, len).unwrap();
            plain_attention(&part(&q), &part(&k), &part(&v), heads, &inv_freq).unwrap()
        })
        .collect();
    check(&[&q, &k, &v], &fused, &Tensor::cat(&documents, 0).unwrap());
}

/// Cross-entropy with target `row % V`.
struct CrossEntropy;

impl RowLoss for CrossEntropy {
    fn row(&self, row: usize, logits: &mut [f32]) -> Parts {
        let target = row % logits.len();
        let total = stillroom_ops::log_sum_exp(logits);
        let loss = total - f64::from(logits[target]);
        for (i, x) in logits.iter_mut().enumerate() {
            *x = (f64::from(*x) - total).exp() as f32 - f32::from(u8::from(i == target));
        }
        let mut parts = Parts::default();
        parts[0] = loss;
        parts
    }
}

#[test]
fn head_and_loss_in_chunks() {
    let (s, d, v) = (11, 6, 9);
    let (hidden, weight) = (var(&[s, d], 0.0), var(&[v, d], 1.0));
    let logits = hidden.matmul(&weight.t().unwrap()).unwrap();
    let max = logits.max_keepdim(1).unwrap().detach();
    let total = logits
        .broadcast_sub(&max)
        .unwrap()
        .exp()
        .unwrap()
        .sum_keepdim(1)
        .unwrap()
        .log()
        .unwrap();
    let total = (total + max).unwrap();
    let targets = Tensor::from_vec(
        (0..s).map(|r| (r % v) as u32).collect::<Vec<_>>(),
        (s, 1),
        &Device::Cpu,
    )
    .unwrap();
    let plain = (total - logits.gather(&targets, 1).unwrap())
        .unwrap()
        .sum_all()
        .unwrap();
    for chunk in [1, 4, 100] {
        let fused =
            stillroom_ops::head_loss::head_loss(&hidden, &weight, Arc::new(CrossEntropy), chunk)
                .unwrap();
        check(
            &[&hidden, &weight],
            &(fused.loss * 0.5).unwrap(),
            &(&plain * 0.5).unwrap(),
        );
        let frozen = weight.as_tensor().detach();
        let fused =
            stillroom_ops::head_loss::head_loss(&hidden, &frozen, Arc::new(CrossEntropy), chunk)
                .unwrap();
        assert!((fused.parts[0] as f32 - plain.to_scalar::<f32>().unwrap()).abs() < 1e-4);
        check(&[&hidden], &fused.loss, &plain);
    }
}

#[test]
fn wrong_dtypes_and_shapes_are_errors() {
    let x = Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap();
    let w = Tensor::zeros((4, 3), DType::F32, &Device::Cpu).unwrap();
    assert!(stillroom_ops::linear::frozen(&x, &w).is_err());
    let x = Tensor::zeros((2, 5), DType::F32, &Device::Cpu).unwrap();
    assert!(stillroom_ops::linear::frozen(&x, &w).is_err());
}
