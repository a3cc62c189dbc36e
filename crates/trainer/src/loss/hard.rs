//! Cross-entropy with the sampled token.

/// −log q(target), in nats, from the target's logit and log Σ exp over all the others.
///
/// Equal to log Σ exp(z) − z_target; relative precision holds where the loss is far below one, too.
#[must_use]
pub fn cross_entropy(log_others: f64, target_logit: f64) -> f64 {
    let odds = log_others - target_logit;
    if odds > 0.0 {
        odds + (-odds).exp().ln_1p()
    } else {
        odds.exp().ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_losses_keep_their_digits() {
        for (log_others, target_logit, expected) in [
            (0.0, 0.0, 2f64.ln()),
            (-40.0, 0.0, (-40f64).exp()),
            (1e4 - 40.0, 1e4, (-40f64).exp()),
            (1e4, -1e4, 2e4),
            (f64::NEG_INFINITY, -3.0, 0.0),
            (0.0, f64::NEG_INFINITY, f64::INFINITY),
        ] {
            let found = cross_entropy(log_others, target_logit);
            assert!(
                found == expected || (found - expected).abs() <= 1e-9 * expected,
                "{log_others} {target_logit}: {found} {expected}"
            );
        }
        assert!(cross_entropy(f64::NAN, 0.0).is_nan());
        assert!(cross_entropy(0.0, f64::NAN).is_nan());
    }
}
