//! A mean over questions and its 95 % interval.

use records::score::Estimate;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean with its standard error and Student-t interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub mean: f64,
    /// `sd / sqrt(Q)`, the standard deviation over Q − 1; None for a single question.
    pub standard_error: Option<f64>,
    pub ci95: Option<[f64; 2]>,
}

impl Interval {
    /// The same for a quantity that cannot leave [0, 1].
    pub(crate) fn of_rate(self) -> Self {
        Self {
            ci95: self.ci95.map(|ends| ends.map(|end| end.clamp(0.0, 1.0))),
            ..self
        }
    }

    pub(crate) fn estimate(self) -> Estimate {
        Estimate {
            value: self.mean,
            ci95: self.ci95,
        }
    }
}

/// The mean of one value per question; None without questions.
pub fn mean_interval(values: &[f64]) -> Option<Interval> {
    let q = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / q;
    let standard_error = (values.len() > 1).then(|| {
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / (q - 1.0) / q).sqrt()
    });
    let ci95 = standard_error.and_then(|error| {
        let half = error * t_quantile_975(q - 1.0)?;
        Some([mean - half, mean + half])
    });
    Some(Interval {
        mean,
        standard_error,
        ci95,
    })
}

/// The 0.975 quantile of Student's t with `freedom` degrees of freedom.
///
/// statrs inverts its own CDF only roughly, so its root is polished by Newton steps.
pub fn t_quantile_975(freedom: f64) -> Option<f64> {
    use statrs::distribution::Continuous;
    let t = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let mut x = t.inverse_cdf(0.975);
    for _ in 0..4 {
        let step = (t.cdf(x) - 0.975) / t.pdf(x);
        if !step.is_finite() {
            break;
        }
        x -= step;
    }
    Some(x)
}
