//! Divergences between two distributions over the same buckets, with their gradient.
//!
//! Both sides come as log-probabilities that sum to one. Sources: GKD (Agarwal et al. 2024, eq. 1–2) for the
//! generalised Jensen–Shannon divergence, in TRL's convention; total variation as half the L1 distance.

use crate::config::Divergence;

/// Logs below this stand for "no mass": exp(-100) is 4e-44, so it is nothing in a sum, and finite in a product.
pub const LOG_FLOOR: f64 = -100.0;

/// Divergence of the student's `log_q` from the teacher's `log_p` (both `[B]`), in nats.
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
        let p = lp.exp();
        if p > 0.0 {
            sum += p * (lp - lq);
        }
        *g = lq.exp() - p;
    }
    sum
}

/// KL(q‖p).
fn reverse_kl(log_p: &[f64], log_q: &[f64], grad: &mut [f64]) -> f64 {
    for ((&lp, &lq), g) in log_p.iter().zip(log_q).zip(grad.iter_mut()) {
        *g = lq - lp;
    }
    through_softmax(log_q, grad)
}

/// β·KL(p‖m) + (1−β)·KL(q‖m) with m = β·p + (1−β)·q.
fn jsd(beta: f64, log_p: &[f64], log_q: &[f64], grad: &mut [f64]) -> f64 {
    let (log_beta, log_rest) = (beta.ln(), (-beta).ln_1p());
    let mut sum = 0.0;
    for ((&lp, &lq), g) in log_p.iter().zip(log_q).zip(grad.iter_mut()) {
        let log_m = log_add(log_beta + lp, log_rest + lq);
        sum += beta * lp.exp() * (lp - log_m) + (1.0 - beta) * lq.exp() * (lq - log_m);
        *g = (1.0 - beta) * (lq - log_m);
    }
    through_softmax(log_q, grad);
    sum
}

/// ½ Σ|p − q|; the derivative at equality is taken as zero.
fn tvd(log_p: &[f64], log_q: &[f64], grad: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    for ((&lp, &lq), g) in log_p.iter().zip(log_q).zip(grad.iter_mut()) {
        let difference = lq.exp() - lp.exp();
        sum += 0.5 * difference.abs();
        *g = half_sign(difference);
    }
    through_softmax(log_q, grad);
    sum
}

/// ±½ with the sign of `difference`, or 0.
pub(super) fn half_sign(difference: f64) -> f64 {
    if difference == 0.0 {
        0.0
    } else {
        0.5 * difference.signum()
    }
}

/// Turns dD/dq (up to a constant) into dD/dlogits: q·(g − Σ q·g). Returns Σ q·g.
fn through_softmax(log_q: &[f64], grad: &mut [f64]) -> f64 {
    let mean: f64 = log_q
        .iter()
        .zip(grad.iter())
        .map(|(&lq, &g)| lq.exp() * g)
        .sum();
    for (&lq, g) in log_q.iter().zip(grad) {
        *g = lq.exp() * (*g - mean);
    }
    mean
}

/// log(exp a + exp b).
pub fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY {
        high
    } else {
        high + (low - high).exp().ln_1p()
    }
}

/// log Σ exp; −inf for nothing.
pub fn log_sum(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + values
        .iter()
        .map(|value| (value - max).exp())
        .sum::<f64>()
        .ln()
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

    fn normalise(logits: &[f64]) -> Vec<f64> {
        let sum = log_sum(logits);
        logits.iter().map(|logit| logit - sum).collect()
    }

    #[test]
    fn gradients_are_finite_differences() {
        let log_p = normalise(&[0.3, -1.2, 2.0, -0.4]);
        let logits = [1.0, 0.2, -0.7, 0.9];
        for kind in ALL {
            for beta in [0.0, 0.1, 0.5, 0.9, 1.0] {
                let mut grad = [0.0; 4];
                divergence(kind, beta, &log_p, &normalise(&logits), &mut grad);
                for i in 0..4 {
                    let at = |delta: f64| {
                        let mut moved = logits;
                        moved[i] += delta;
                        divergence(kind, beta, &log_p, &normalise(&moved), &mut [0.0; 4])
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
        let log_p = normalise(&[0.3, -1.2, 2.0, LOG_FLOOR]);
        for kind in ALL {
            let mut grad = [1.0; 4];
            assert!(divergence(kind, 0.3, &log_p, &log_p, &mut grad).abs() < 1e-15);
            assert!(grad.iter().all(|g| g.abs() < 1e-15), "{kind:?} {grad:?}");
        }
    }
}
