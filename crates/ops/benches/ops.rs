//! Every operation, forward and backward, at the sizes of one layer of Qwen2.5-0.5B and 1,024 tokens.
//!
//!     cargo bench --workspace --bench ops
//!
//! Throughput of products and of attention is in floating-point operations (a multiply-add is two, and what the
//! causal mask hides is not counted), that of the others in elements.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use stillroom_ops::activation::{swiglu, swiglu_backward};
use stillroom_ops::attention::{Attention, Heads};
use stillroom_ops::dropout::{Dropout, key};
use stillroom_ops::gemm::Arithmetic;
use stillroom_ops::head_loss::{Factors, Found, Head, RowLoss, Taken, Wanted, head_loss};
use stillroom_ops::linear::{Finish, Form, Product, products};
use stillroom_ops::norm::{rms_norm, rms_norm_backward};
use stillroom_ops::rope::RopeTable;
use stillroom_ops::segments::Segments;

const TOKENS: usize = 1024;
const HIDDEN: usize = 896;
const INNER: usize = 4864;
const RANK: usize = 16;
const HEADS: Heads = Heads {
    n_heads: 14,
    n_kv_heads: 2,
    head_dim: 64,
    scale: 0.125,
};

const DTYPES: [(&str, DType, Arithmetic); 2] = [
    ("f32", DType::F32, Arithmetic::F32),
    ("bf16", DType::BF16, Arithmetic::Bf16),
];

fn values(shape: &[usize], dtype: DType) -> Tensor {
    let wave = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.37).sin() * 0.1);
    let wave = Tensor::from_vec(wave.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap();
    wave.to_dtype(dtype).unwrap()
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(2));
    group
}

fn linear(criterion: &mut Criterion) {
    let mut group = group(criterion, "linear");
    for (name, dtype, arithmetic) in DTYPES {
        let (x, grad) = (
            values(&[TOKENS, HIDDEN], dtype),
            values(&[TOKENS, INNER], dtype),
        );
        let weight = values(&[INNER, HIDDEN], dtype);
        let (low, b) = (
            values(&[TOKENS, RANK], DType::F32),
            values(&[INNER, RANK], DType::F32),
        );
        let term = |a, b, form, arithmetic| Product {
            a,
            b,
            form,
            arithmetic,
        };
        let forward = [
            term(&x, &weight, Form::Nt, arithmetic),
            term(&low, &b, Form::Nt, Arithmetic::F32),
        ];
        let backward = [term(&grad, &weight, Form::Nn, arithmetic)];
        let down = [term(&grad, &b, Form::Nn, Arithmetic::F32)];
        let low_gradient = [term(&low, &x, Form::Tn, Arithmetic::F32)];
        let base = 2 * TOKENS * HIDDEN * INNER;
        let cases: [(&str, &[Product<'_>], usize, DType); 4] = [
            (
                "forward with adapter",
                &forward,
                base + 2 * TOKENS * RANK * INNER,
                dtype,
            ),
            ("input gradient", &backward, base, dtype),
            ("to low rank", &down, 2 * TOKENS * RANK * INNER, DType::F32),
            (
                "low-rank gradient",
                &low_gradient,
                2 * TOKENS * RANK * HIDDEN,
                DType::F32,
            ),
        ];
        for (case, terms, operations, dtype) in cases {
            group.throughput(Throughput::Elements(operations as u64));
            group.bench_function(BenchmarkId::new(case, name), |bencher| {
                bencher.iter(|| products(black_box(terms), Finish::plain(dtype)).unwrap());
            });
        }
    }
}

fn elementwise(criterion: &mut Criterion) {
    let mut group = group(criterion, "elementwise");
    for (name, dtype, _) in DTYPES {
        let (x, grad) = (
            values(&[TOKENS, HIDDEN], dtype),
            values(&[TOKENS, HIDDEN], dtype),
        );
        let weight = values(&[HIDDEN], DType::F32);
        let (gate, up) = (
            values(&[TOKENS, INNER], dtype),
            values(&[TOKENS, INNER], dtype),
        );
        let keys: Vec<u64> = (0..TOKENS as u64).map(|token| key(0, token)).collect();
        let dropout = Dropout {
            rate: 0.05,
            module: 1,
            rows: &keys,
        };
        group.throughput(Throughput::Elements((TOKENS * HIDDEN) as u64));
        group.bench_function(BenchmarkId::new("RMSNorm", name), |bencher| {
            bencher.iter(|| rms_norm(&x, &weight, 1e-6).unwrap());
        });
        group.bench_function(BenchmarkId::new("RMSNorm backward", name), |bencher| {
            bencher.iter(|| rms_norm_backward(&x, &weight, 1e-6, &grad, Some(&x), false).unwrap());
        });
        group.bench_function(BenchmarkId::new("dropout", name), |bencher| {
            bencher.iter(|| dropout.apply(&x).unwrap());
        });
        group.throughput(Throughput::Elements((TOKENS * INNER) as u64));
        group.bench_function(BenchmarkId::new("SwiGLU", name), |bencher| {
            bencher.iter(|| swiglu(&gate, &up).unwrap());
        });
        group.bench_function(BenchmarkId::new("SwiGLU backward", name), |bencher| {
            bencher.iter(|| swiglu_backward(&gate, &up, &gate).unwrap());
        });
    }
}

/// The same tokens as one document and as eight.
fn attention(criterion: &mut Criterion) {
    let mut group = group(criterion, "attention");
    for length in [TOKENS, TOKENS / 8] {
        let segments = Segments::new(vec![length; TOKENS / length]);
        let frequencies: Vec<f32> = (0..HEADS.head_dim / 2)
            .map(|i| 1e6f32.powf(-2.0 * i as f32 / HEADS.head_dim as f32))
            .collect();
        let rope = RopeTable::new(&frequencies, 1.0, &segments.positions());
        let op = Attention {
            heads: HEADS,
            rope: &rope,
            segments: &segments,
        };
        for (name, dtype, _) in DTYPES {
            let q = values(&[TOKENS, HEADS.n_heads * HEADS.head_dim], dtype);
            let k = values(&[TOKENS, HEADS.n_kv_heads * HEADS.head_dim], dtype);
            let case =
                |pass: &str| BenchmarkId::new(format!("{pass}, documents of {length}"), name);
            let product = TOKENS * (length + 1) / 2 * HEADS.n_heads * HEADS.head_dim * 2;
            group.throughput(Throughput::Elements(2 * product as u64));
            group.bench_function(case("forward"), |bencher| {
                bencher.iter(|| op.forward(&q, &k, &k).unwrap());
            });
            let attended = op.forward(&q, &k, &k).unwrap();
            group.throughput(Throughput::Elements(5 * product as u64));
            group.bench_function(case("backward"), |bencher| {
                bencher.iter(|| op.backward([&q, &k, &k], &attended, &q).unwrap());
            });
        }
    }
}

/// Leaves the logits as their own gradient: what the head costs without a loss.
struct Nothing;

impl RowLoss for Nothing {
    fn n_measures(&self) -> usize {
        1
    }

    fn row(&self, _: usize, _: &mut [f32], _: &[f32], _: &mut [f64]) {}

    fn taken(&self, _: usize) -> Taken<'_> {
        Taken {
            ids: &[],
            target: 0,
            scale: 1.0,
        }
    }

    fn charge(
        &self,
        _: usize,
        _: &Found<'_>,
        _: &mut [f32],
        _: &mut f32,
        _: &mut [f64],
    ) -> Factors {
        Factors {
            plain: 1.0,
            tempered: 0.0,
            shift: 0.0,
            scale: 1.0,
        }
    }
}

fn head(criterion: &mut Criterion) {
    const VOCABULARY: usize = 32_000;
    const ROWS: usize = 256;
    let mut group = group(criterion, "head");
    let wanted = Wanted {
        hidden: true,
        weight: false,
    };
    for (name, dtype, arithmetic) in DTYPES {
        let (hidden, weight) = (
            values(&[ROWS, HIDDEN], dtype),
            values(&[VOCABULARY, HIDDEN], dtype),
        );
        let head = Head {
            hidden: &hidden,
            weight: &weight,
            arithmetic,
        };
        group.throughput(Throughput::Elements(
            (4 * ROWS * HIDDEN * VOCABULARY) as u64,
        ));
        group.bench_function(BenchmarkId::new("forward and backward", name), |bencher| {
            bencher.iter(|| head_loss(head, None, &Nothing, ROWS, wanted).unwrap());
        });
    }
}

criterion_group!(benches, linear, elementwise, attention, head);
criterion_main!(benches);
