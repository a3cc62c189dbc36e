//! Whether one model is ahead on more questions than chance would have it.

use statrs::distribution::{Binomial, DiscreteCDF};

use super::Tally;

/// Questions on which each of two models is ahead, and the two-sided p-value of the sign test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignTest {
    pub a_ahead: u64,
    pub b_ahead: u64,
    /// The probability of a split at least as uneven where both are ahead equally often; ties do not count.
    pub p_value: f64,
}

/// The sign test over questions that both models have samples of, in the same order.
pub fn sign_test(a: &[Tally], b: &[Tally]) -> SignTest {
    let shares = a
        .iter()
        .zip(b)
        .filter_map(|(a, b)| Some((a.share()?, b.share()?)));
    let (mut a_ahead, mut b_ahead) = (0, 0);
    for (a, b) in shares {
        a_ahead += u64::from(a > b);
        b_ahead += u64::from(b > a);
    }
    let n = a_ahead + b_ahead;
    let tail = Binomial::new(0.5, n).map_or(1.0, |binomial| binomial.cdf(a_ahead.min(b_ahead)));
    SignTest {
        a_ahead,
        b_ahead,
        p_value: (2.0 * tail).min(1.0),
    }
}
