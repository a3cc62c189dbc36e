//! Every fused operation against the same computation in candle's own differentiable
//! operations: values and gradients.

#![allow(clippy::unwrap_used)]

use candle_core::{D, DType, Device, Result, Tensor, Var};
use stillroom_ops::attention::{Attention, Heads};
use stillroom_ops::gemm::Arithmetic;
use stillroom_ops::head_loss::{Factors, Found, Head, RowLoss, Taken, Wanted, head_loss};
use stillroom_ops::linear::{Finish, Form, Product, column_dot, column_sum, products};
use stillroom_ops::rope::RopeTable;
use stillroom_ops::segments::Segments;

fn var(shape: &[usize], seed: f32) -> Var {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.731 + seed).sin()).collect();
    // Rounded to bf16, so that both precisions are given the same numbers.
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    let tensor = tensor.to_dtype(DType::BF16).unwrap();
    Var::from_tensor(&tensor.to_dtype(DType::F32).unwrap()).unwrap()
}

/// What a gradient of the result is multiplied back from.
fn upstream(like: &Tensor) -> Tensor {
    var(like.dims(), 0.2).as_tensor().detach()
}

/// In f32 to 2e-5 of the largest entry, in bf16 to the 2^-7 of two roundings.
const PRECISIONS: [(DType, f32); 2] = [(DType::F32, 2e-5), (DType::BF16, 8e-3)];

/// Compares values and the gradients of a weighted sum; `fused` gives the value and the inputs' gradients.
fn check(
    name: &str,
    tolerance: f32,
    inputs: &[&Var],
    unfused: &Tensor,
    (value, gradients): (Tensor, Vec<Tensor>),
) {
    close(&format!("{name}: value"), tolerance, &value, unfused);
    let weighted = (unfused * upstream(unfused)).unwrap().sum_all().unwrap();
    let expected = weighted.backward().unwrap();
    assert_eq!(inputs.len(), gradients.len());
    for (index, (input, found)) in inputs.iter().zip(&gradients).enumerate() {
        let what = format!("{name}: gradient {index}");
        close(&what, tolerance, found, expected.get(input).unwrap());
    }
}

fn close(what: &str, tolerance: f32, a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let a = a.to_dtype(DType::F32).unwrap();
    let largest = |t: &Tensor| {
        let flat = t.abs().unwrap().flatten_all().unwrap();
        flat.max(0).unwrap().to_scalar::<f32>().unwrap()
    };
    let error = largest(&(a - b).unwrap()) / largest(b).max(1e-3);
    assert!(error < tolerance, "{what}: relative error {error}");
}

fn product<'a>(a: &'a Tensor, b: &'a Tensor, form: Form, arithmetic: Arithmetic) -> Product<'a> {
    Product {
        a,
        b,
        form,
        arithmetic,
    }
}

fn arithmetic(dtype: DType) -> Arithmetic {
    if dtype == DType::BF16 {
        Arithmetic::Bf16
    } else {
        Arithmetic::F32
    }
}

#[test]
fn linear_layers() {
    // Sizes that fill no tile, and depths that are odd and beyond one run of the kernels.
    for (n, i, o, r) in [(5, 24, 7, 3), (61, 1037, 75, 16), (130, 33, 140, 5)] {
        let (x, w, bias, add) = (
            var(&[n, i], 0.0),
            var(&[o, i], 1.0),
            var(&[o], 4.0),
            var(&[n, o], 5.0),
        );
        let (a, b) = (var(&[r, i], 2.0), var(&[o, r], 3.0));
        let low = x.matmul(&a.t().unwrap()).unwrap();
        let low = (low.matmul(&b.t().unwrap()).unwrap() * 1.5).unwrap();
        let plain = (x.matmul(&w.t().unwrap()).unwrap() + low)
            .unwrap()
            .broadcast_add(&bias)
            .unwrap();
        let plain = (plain + add.as_tensor()).unwrap();
        for (dtype, tolerance) in PRECISIONS {
            let cast = |t: &Tensor| t.detach().to_dtype(dtype).unwrap();
            let (x_, w_, add_) = (cast(&x), cast(&w), cast(&add));
            let (a_, b_) = (a.as_tensor(), b.as_tensor());
            let low = |a: &Tensor, b: &Tensor, form| {
                let finish = Finish {
                    scale: 1.5,
                    ..Finish::plain(DType::F32)
                };
                products(&[product(a, b, form, Arithmetic::F32)], finish).unwrap()
            };
            let down = low(&x_, a_, Form::Nt);
            let base = arithmetic(dtype);
            let value = products(
                &[
                    product(&x_, &w_, Form::Nt, base),
                    product(&down, b_, Form::Nt, Arithmetic::F32),
                ],
                Finish {
                    bias: Some(&bias),
                    add: Some(&add_),
                    ..Finish::plain(dtype)
                },
            )
            .unwrap();
            let g = cast(&upstream(&plain));
            let d_down = low(&g, b_, Form::Nn);
            let dx = products(
                &[
                    product(&g, &w_, Form::Nn, base),
                    product(&d_down, a_, Form::Nn, Arithmetic::F32),
                ],
                Finish::plain(dtype),
            )
            .unwrap();
            let weight_gradient = |g: &Tensor, x: &Tensor, arithmetic| {
                products(
                    &[product(g, x, Form::Tn, arithmetic)],
                    Finish::plain(DType::F32),
                )
                .unwrap()
            };
            let gradients = vec![
                dx,
                weight_gradient(&g, &x_, base),
                weight_gradient(&d_down, &x_, Arithmetic::F32),
                weight_gradient(&down, &g, Arithmetic::F32).t().unwrap(),
                column_sum(&g).unwrap(),
            ];
            let name = format!("{n} x {i} x {o}, {dtype:?}");
            check(
                &name,
                tolerance,
                &[&x, &w, &a, &b, &bias],
                &plain,
                (value, gradients),
            );
        }
    }
}

#[test]
fn columns_are_scaled_and_summed() {
    let (x, w, scale) = (var(&[40, 9], 0.0), var(&[35, 9], 1.0), var(&[35], 2.0));
    let plain = x.matmul(&w.t().unwrap()).unwrap();
    let scaled = plain.broadcast_mul(&scale).unwrap();
    let term = Product {
        a: &x,
        b: &w,
        form: Form::Nt,
        arithmetic: Arithmetic::F32,
    };
    let finish = Finish {
        column_scale: Some(&scale),
        ..Finish::plain(DType::F32)
    };
    let value = products(&[term], finish).unwrap();
    let d_scale = column_dot(&upstream(&plain), &plain.detach()).unwrap();
    check("scaled", 2e-5, &[&scale], &scaled, (value, vec![d_scale]));
}

#[test]
fn rms_norm() {
    let (x, w, add) = (var(&[70, 100], 0.0), var(&[100], 1.0), var(&[70, 100], 2.0));
    let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let inverse = (mean + 1e-6).unwrap().sqrt().unwrap().recip().unwrap();
    let plain = x
        .broadcast_mul(&inverse)
        .unwrap()
        .broadcast_mul(&w)
        .unwrap();
    for (dtype, tolerance) in PRECISIONS {
        let cast = |t: &Tensor| t.detach().to_dtype(dtype).unwrap();
        let value = stillroom_ops::norm::rms_norm(&cast(&x), &w, 1e-6).unwrap();
        let g = cast(&upstream(&plain));
        let backward = |add: Option<&Tensor>, weight| {
            stillroom_ops::norm::rms_norm_backward(&cast(&x), &w, 1e-6, &g, add, weight).unwrap()
        };
        let d = backward(None, true);
        let more = backward(Some(&cast(&add)), false);
        assert!(more.weight.is_none());
        let expected = (d.x.to_dtype(DType::F32).unwrap() + add.as_tensor()).unwrap();
        close("added", tolerance, &more.x, &expected);
        check(
            "norm",
            tolerance,
            &[&x, &w],
            &plain,
            (value, vec![d.x, d.weight.unwrap()]),
        );
    }
}

#[test]
fn swiglu() {
    let (gate, up) = (var(&[9, 33], 0.0), var(&[9, 33], 1.0));
    let plain = (gate.silu().unwrap() * up.as_tensor()).unwrap();
    for (dtype, tolerance) in PRECISIONS {
        let cast = |t: &Tensor| t.detach().to_dtype(dtype).unwrap();
        let (gate_, up_, g) = (cast(&gate), cast(&up), cast(&upstream(&plain)));
        let value = stillroom_ops::activation::swiglu(&gate_, &up_).unwrap();
        let (d_gate, d_up) = stillroom_ops::activation::swiglu_backward(&gate_, &up_, &g).unwrap();
        check(
            "swiglu",
            tolerance,
            &[&gate, &up],
            &plain,
            (value, vec![d_gate, d_up]),
        );
    }
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
    // One query, several tiles of queries and of keys, and one that is LONG.
    let lengths = vec![3, 70, 1, 530, 1030];
    let n: usize = lengths.iter().sum();
    let (q, k, v) = (var(&[n, 32], 0.0), var(&[n, 16], 1.0), var(&[n, 16], 2.0));
    let segments = Segments::new(lengths);
    let rope = RopeTable::new(&inv_freq, 1.0, &segments.positions());
    let op = Attention {
        heads,
        rope: &rope,
        segments: &segments,
    };
    let documents: Vec<Tensor> = segments
        .spans()
        .map(|(start, len)| {
            let part = |x: &Var| x.narrow(0, start, len).unwrap();
            plain_attention(&part(&q), &part(&k), &part(&v), heads, &inv_freq).unwrap()
        })
        .collect();
    let plain = Tensor::cat(&documents, 0).unwrap();
    for (dtype, tolerance) in PRECISIONS {
        let cast = |t: &Tensor| t.detach().to_dtype(dtype).unwrap();
        let (q_, k_, v_, g) = (cast(&q), cast(&k), cast(&v), cast(&upstream(&plain)));
        let value = op.forward(&q_, &k_, &v_).unwrap();
        let d = op.backward([&q_, &k_, &v_], &value, &g).unwrap();
        check(
            "attention",
            tolerance,
            &[&q, &k, &v],
            &plain,
            (value.out, vec![d.q, d.k, d.v]),
        );
    }
}

/// Cross-entropy with target `row % V`.
struct CrossEntropy;

impl RowLoss for CrossEntropy {
    fn n_measures(&self) -> usize {
        1
    }

    fn row(&self, row: usize, logits: &mut [f32], _: &[f32], measures: &mut [f64]) {
        let target = row % logits.len();
        let total = stillroom_ops::log_sum_exp(logits);
        let loss = total - f64::from(logits[target]);
        for (i, x) in logits.iter_mut().enumerate() {
            *x = (f64::from(*x) - total).exp() as f32 - f32::from(u8::from(i == target));
        }
        measures[0] = loss;
    }

    fn taken(&self, _: usize) -> Taken<'_> {
        unreachable!("logits on the CPU are charged whole")
    }

    fn charge(
        &self,
        _: usize,
        _: &Found<'_>,
        _: &mut [f32],
        _: &mut f32,
        _: &mut [f64],
    ) -> Factors {
        unreachable!("logits on the CPU are charged whole")
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
    let expected = plain.backward().unwrap();
    for (dtype, tolerance) in PRECISIONS {
        let cast = |t: &Tensor| t.detach().to_dtype(dtype).unwrap();
        for chunk in [1, 4, 100] {
            let run = |wanted| {
                let (hidden, weight) = (cast(&hidden), cast(&weight));
                let head = Head {
                    hidden: &hidden,
                    weight: &weight,
                    arithmetic: arithmetic(dtype),
                };
                head_loss(head, None, &CrossEntropy, chunk, wanted).unwrap()
            };
            let all = run(Wanted {
                hidden: true,
                weight: true,
            });
            let loss = plain.to_scalar::<f32>().unwrap();
            assert!((all.sums[0] as f32 - loss).abs() < tolerance * loss);
            close(
                "hidden",
                tolerance,
                &all.d_hidden.unwrap(),
                expected.get(&hidden).unwrap(),
            );
            close(
                "weight",
                tolerance,
                &all.d_weight.unwrap(),
                expected.get(&weight).unwrap(),
            );
            let none = run(Wanted {
                hidden: false,
                weight: false,
            });
            assert_eq!(none.sums, all.sums);
            assert!(none.d_hidden.is_none() && none.d_weight.is_none());
        }
    }
}

#[test]
fn wrong_dtypes_and_shapes_are_errors() {
    let w = Tensor::zeros((4, 3), DType::F32, &Device::Cpu).unwrap();
    for (shape, dtype) in [((2, 3), DType::F64), ((2, 5), DType::F32)] {
        let x = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let term = Product {
            a: &x,
            b: &w,
            form: Form::Nt,
            arithmetic: Arithmetic::F32,
        };
        assert!(products(&[term], Finish::plain(DType::F32)).is_err());
    }
}
