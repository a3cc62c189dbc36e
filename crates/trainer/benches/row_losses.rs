//! One row of logits through each response loss, gradient included, on one thread.
//!
//!     cargo bench --workspace --bench row_losses
//!
//! Throughput is in logits: a row of V is read and overwritten once per iteration, from a pool of rows that no cache
//! holds, as the chunked head leaves them.
#![allow(clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;
use std::time::Duration;
use stillroom_trainer::config::{Divergence, LossConfig, LossKind, MissingMass};
use stillroom_trainer::loss::{LogitLoss, TeacherRow};

const TOP_K: usize = 20;
/// Beyond the last-level cache of a desktop or a slice of a server's.
const POOL_BYTES: usize = 128 << 20;

fn objectives() -> Vec<(&'static str, LossConfig)> {
    let with = |kind, divergence, missing_mass, temperature| LossConfig {
        kind,
        divergence,
        missing_mass,
        temperature,
        ..LossConfig::default()
    };
    use Divergence::{ForwardKl, Jsd};
    use LossKind::{Hard, Mixed, Soft};
    use MissingMass::{Renormalize, Tail};
    vec![
        ("hard", with(Hard, ForwardKl, Tail, 1.0)),
        ("soft forward_kl tail", with(Soft, ForwardKl, Tail, 1.0)),
        ("soft jsd tail T=2", with(Soft, Jsd, Tail, 2.0)),
        ("mixed forward_kl tail", with(Mixed, ForwardKl, Tail, 1.0)),
        (
            "mixed forward_kl renormalize T=2",
            with(Mixed, ForwardKl, Renormalize, 2.0),
        ),
    ]
}

fn row_losses(criterion: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for vocabulary in [32_000, 151_936] {
        let rows = POOL_BYTES / 4 / vocabulary;
        let fresh: Vec<f32> = (0..rows * vocabulary)
            .map(|_| rng.random_range(-8.0f32..8.0))
            .collect();
        let mut pool = fresh.clone();
        let ids: Vec<u32> = (0..TOP_K)
            .map(|i| (i * vocabulary / TOP_K) as u32)
            .collect();
        let logprobs: Vec<f32> = (0..TOP_K).map(|i| -0.5 - 0.4 * i as f32).collect();
        let teacher = TeacherRow {
            ids: &ids,
            logprobs: &logprobs,
            tail: -4.0,
        };
        let mut group = criterion.benchmark_group(format!("V={vocabulary}"));
        group.throughput(Throughput::Elements(vocabulary as u64));
        for (name, config) in objectives() {
            let objective = LogitLoss::new(&config);
            let teacher = (config.kind != LossKind::Hard).then_some(teacher);
            pool.copy_from_slice(&fresh);
            let mut next = 0;
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| {
                    // Gradients are logits too: a second visit to a row costs what the first did.
                    let row = &mut pool[next * vocabulary..][..vocabulary];
                    next = (next + 1) % rows;
                    black_box(objective.row(black_box(row), 7, teacher))
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = row_losses
}
criterion_main!(benches);
