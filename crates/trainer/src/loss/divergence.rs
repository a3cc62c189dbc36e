//! Divergences between two distributions over the same buckets, with their gradient.
//!
//! Both sides come as log-probabilities that sum to one. Sources: GKD (Agarwal et al. 2024, eq. 1–2) for the
//! generalised Jensen–Shannon divergence, in TRL's convention; total variation as half the L1 distance.
//!
//! Differences of probabilities are taken through `exp_m1`, so that two sides which agree on a bucket that holds
//! almost everything still differ by their exact remainders.

use crate::config::Divergence;

/// Divergence of the student's `log_q` (`[B]`, finite) from the teacher's `log_p` (`[B]`; −inf for no mass, but not
/// where `reverse_kl` divides by it), in nats.
///
/// `grad` (`[B]`) receives the derivative with respect to the logits of a softmax that gives `q`; it sums to zero.
pub fn divergence(
    kind: Divergence,
    beta: f64,
    log_p: &[f64],
    log_q: &[f64],
    grad: &mut [f64],
) -> f64 {
    match kind {
        Divergence::ForwardKl => forward_kl(log_p, log_q, grad),
        Divergence::ReverseKl => reverse_kl(log_p, log_q, grad),
        // The mixture degenerates at both ends; GKD defines them by their limits (scaled), as TRL does.
        Divergence::Jsd if beta == 0.0 => forward_kl(log_p, log_q, grad),
        Divergence::Jsd if beta == 1.0 => reverse_kl(log_p, log_q, grad),
        Divergence::Jsd => jsd(beta, log_p, log_q, grad),
        Divergence::Tvd => tvd(log_p, log_q, grad),
    }
}

/// KL(p‖q).
fn forward_kl(log_p: &[f64], log_q: &[f64], grad: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    for ((&lp, &lq), g) in log_p.iter().zip(log_q).zip(grad) {
        sum += weighted(lp.exp(), lp - lq);
        *g = difference(lq, lp);
    }
    sum
}

/// KL(q‖p).
fn reverse_kl(log_p: &[f64], log_q: &[f64], grad: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    for ((&lp, &lq), g) in log_p.iter().zip(log_q).zip(grad.iter_mut()) {
        *g = lq - lp;
        sum += weighted(lq.exp(), *g);
    }
    through_softmax(log_q, grad);
    sum
}

/// β·KL(p‖m) + (1−β)·KL(q‖m) with m = β·p + (1−β)·q.
fn jsd(beta: f64, log_p: &[f64], log_q: &[f64], grad: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    for ((&lp, &lq), g) in log_p.iter().zip(log_q).zip(grad.iter_mut()) {
        // log m less the larger side, and from it the other.
        let (over_p, over_q) = if lp > lq {
            let over_p = ((1.0 - beta) * (lq - lp).exp_m1()).ln_1p();
            (over_p, over_p + (lp - lq))
        } else {
            let over_q = (beta * (lp - lq).exp_m1()).ln_1p();
            (over_q + (lq - lp), over_q)
        };
        sum -= beta * weighted(lp.exp(), over_p) + (1.0 - beta) * weighted(lq.exp(), over_q);
        *g = -(1.0 - beta) * over_q;
    }
    through_softmax(log_q, grad);
    sum
}

/// ½ Σ|p − q|; the derivative at equality is taken as zero.
fn tvd(log_p: &[f64], log_q: &[f64], grad: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    for ((&lp, &lq), g) in log_p.iter().zip(log_q).zip(grad.iter_mut()) {
        sum += 0.5 * difference(lq, lp).abs();
        *g = half_sign(lq, lp);
    }
    through_softmax(log_q, grad);
    sum
}

/// weight · value, where no weight is nothing, however large the value.
pub(super) fn weighted(weight: f64, value: f64) -> f64 {
    if weight == 0.0 { 0.0 } else { weight * value }
}

/// exp(a) − exp(b).
pub(super) fn difference(a: f64, b: f64) -> f64 {
    if a == b {
        0.0
    } else if a > b {
        -a.exp() * (b - a).exp_m1()
    } else {
        b.exp() * (a - b).exp_m1()
    }
}

/// ±½ with the sign of a − b, or 0.
pub(super) fn half_sign(a: f64, b: f64) -> f64 {
    if a == b { 0.0 } else { 0.5 * (a - b).signum() }
}

/// Turns dD/dq (up to a constant) into dD/dlogits: q·(g − Σ q·g).
pub(super) fn through_softmax(log_q: &[f64], grad: &mut [f64]) {
    // Relative to the likeliest bucket's, whose own term would otherwise be what little two large ones leave.
    let Some(&reference) = grad.get(largest(log_q)) else {
        return;
    };
    grad.iter_mut().for_each(|g| *g -= reference);
    let mean: f64 = log_q
        .iter()
        .zip(grad.iter())
        .map(|(&lq, &g)| lq.exp() * g)
        .sum();
    for (&lq, g) in log_q.iter().zip(grad) {
        *g = lq.exp() * (*g - mean);
    }
}

/// Index of the largest value, the first of equals; 0 for none.
fn largest(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// log(exp a + exp b).
#[must_use]
pub fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        high
    } else {
        high + (low - high).exp().ln_1p()
    }
}

/// Takes log Σ exp from `logs` and returns it; the largest keeps the digits of what it lacks to log 1.
pub(super) fn normalise(logs: &mut [f64]) -> f64 {
    let at = largest(logs);
    let Some(&max) = logs.get(at) else {
        return f64::NEG_INFINITY;
    };
    let others: f64 = logs
        .iter()
        .enumerate()
        .filter(|&(index, _)| index != at)
        .map(|(_, log)| (log - max).exp())
        .sum();
    let excess = others.ln_1p();
    logs.iter_mut().for_each(|log| *log = (*log - max) - excess);
    max + excess
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALL: [Divergence; 4] = [
        Divergence::ForwardKl,
        Divergence::ReverseKl,
        Divergence::Jsd,
        Divergence::Tvd,
    ];

    fn normalised(logits: &[f64]) -> Vec<f64> {
        let mut logs = logits.to_vec();
        normalise(&mut logs);
        logs
    }

    #[test]
    fn gradients_are_finite_differences() {
        let log_p = normalised(&[0.3, -1.2, 2.0, -0.4]);
        let logits = [1.0, 0.2, -0.7, 0.9];
        for kind in ALL {
            for beta in [0.0, 0.1, 0.5, 0.9, 1.0] {
                let mut grad = [0.0; 4];
                divergence(kind, beta, &log_p, &normalised(&logits), &mut grad);
                for i in 0..4 {
                    let at = |delta: f64| {
                        let mut moved = logits;
                        moved[i] += delta;
                        divergence(kind, beta, &log_p, &normalised(&moved), &mut [0.0; 4])
                    };
                    let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
                    assert!(
                        (grad[i] - numeric).abs() < 1e-8,
                        "{kind:?} β={beta}: {} {numeric}",
                        grad[i]
                    );
                }
            }
        }
    }

    #[test]
    fn equal_sides_diverge_nowhere() {
        let log_p = normalised(&[0.3, -1.2, 2.0, -100.0]);
        for kind in ALL {
            let mut grad = [1.0; 4];
            assert!(divergence(kind, 0.3, &log_p, &log_p, &mut grad).abs() < 1e-15);
            assert!(grad.iter().all(|g| g.abs() < 1e-15), "{kind:?} {grad:?}");
        }
    }
}
