//! Cross-entropy with the sampled token.

/// What the softmax of one row of logits needs to be known by: log Σ exp, and where its largest entry is.
#[derive(Clone, Copy, Debug)]
pub struct RowStatistics {
    pub log_sum: f64,
    pub argmax: usize,
}

/// Statistics of `logits` (`[V]`, f32; exponentials in f32, their sum in f64). Ties go to the lower id.
#[must_use]
pub fn row_statistics(logits: &[f32]) -> RowStatistics {
    let (mut argmax, mut max) = (0, f32::NEG_INFINITY);
    for (index, &logit) in logits.iter().enumerate() {
        if logit > max {
            (argmax, max) = (index, logit);
        }
    }
    RowStatistics {
        log_sum: log_sum_exp(logits, max),
        argmax,
    }
}

/// log Σ exp(logits), or −inf where there is no mass. A NaN in the row comes out as NaN.
#[must_use]
pub fn log_sum_exp(logits: &[f32], max: f32) -> f64 {
    if max == f32::NEG_INFINITY {
        return if logits.iter().any(|logit| logit.is_nan()) {
            f64::NAN
        } else {
            f64::NEG_INFINITY
        };
    }
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from((logit - max).exp()))
        .sum();
    f64::from(max) + sum.ln()
}

/// −log q(target), in nats.
#[must_use]
pub fn cross_entropy(logits: &[f32], statistics: RowStatistics, target: u32) -> f64 {
    logits
        .get(target as usize)
        .map_or(f64::NAN, |&logit| statistics.log_sum - f64::from(logit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn uniform_logits_cost_the_log_of_their_number() {
        for level in [-1e4, 0.0, 1e4] {
            let row = [level; 50];
            let loss = cross_entropy(&row, row_statistics(&row), 7);
            assert!((loss - 50f64.ln()).abs() < 1e-9, "{loss}");
        }
    }

    #[test]
    fn impossible_tokens_have_no_mass() {
        let row = [0.0, f32::NEG_INFINITY, 0.0];
        assert!((cross_entropy(&row, row_statistics(&row), 2) - 2f64.ln()).abs() < 1e-9);
        assert!(row_statistics(&[f32::NAN, 0.0]).log_sum.is_nan());
    }
}
