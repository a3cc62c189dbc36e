//! The learning rate of every optimizer step.
//!
//! With W = ceil(warmup_ratio · steps), m = min_lr_ratio, and step index s from 0 (the first step has s = 0):
//! - warm-up, s < W: s / W, as in HF `transformers` (its first step has rate 0);
//! - after it, x = (s − W) / (steps − W):
//!   `cosine` m + (1 − m)·½(1 + cos πx) (HF `cosine_with_min_lr`), `linear` m + (1 − m)(1 − x),
//!   `constant` 1, `wsd` 1 until the last tenth of all steps, then m + (1 − m)(1 − x') over that tenth
//!   (HF `warmup_stable_decay` with linear decay; `linear` with m = 0 is HF's too).

use std::f64::consts::PI;

use crate::config::Schedule;

/// Share of the steps that `wsd` decays in.
const WSD_DECAY: f64 = 0.1;

/// Learning rate as a share of its peak, per optimizer step.
#[derive(Clone, Copy, Debug)]
pub struct LearningRate {
    pub schedule: Schedule,
    pub peak: f64,
    pub warmup_steps: u64,
    pub total_steps: u64,
    pub min_ratio: f64,
}

impl LearningRate {
    #[must_use]
    pub fn new(
        schedule: Schedule,
        peak: f64,
        warmup_ratio: f64,
        min_ratio: f64,
        total_steps: u64,
    ) -> Self {
        let warmup_steps = (warmup_ratio * total_steps as f64).ceil() as u64;
        Self {
            schedule,
            peak,
            warmup_steps,
            total_steps,
            min_ratio,
        }
    }

    /// Learning rate of the step with index `step` (from 0).
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let after = |start: u64| {
            let length = self.total_steps.saturating_sub(start).max(1);
            ((step - start) as f64 / length as f64).min(1.0)
        };
        let share = match self.schedule {
            Schedule::Cosine => 0.5 * (1.0 + (PI * after(self.warmup_steps)).cos()),
            Schedule::Linear => 1.0 - after(self.warmup_steps),
            Schedule::Constant => return self.peak,
            Schedule::Wsd => {
                let decay_steps = (WSD_DECAY * self.total_steps as f64).ceil() as u64;
                let start = self
                    .total_steps
                    .saturating_sub(decay_steps)
                    .max(self.warmup_steps);
                if step < start {
                    1.0
                } else {
                    1.0 - after(start)
                }
            }
        };
        self.peak * (self.min_ratio + (1.0 - self.min_ratio) * share)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rates(schedule: Schedule, warmup: f64, min: f64, steps: u64) -> Vec<f64> {
        let rate = LearningRate::new(schedule, 1.0, warmup, min, steps);
        (0..steps).map(|step| rate.at(step)).collect()
    }

    #[test]
    fn warm_up_rises_and_the_rest_falls_to_its_floor() {
        for schedule in [Schedule::Cosine, Schedule::Linear, Schedule::Wsd] {
            let rates = rates(schedule, 0.1, 0.1, 100);
            assert!(rates[..11].is_sorted_by(|a, b| a < b), "{schedule:?}");
            assert_eq!(rates[10], 1.0);
            assert!(rates[10..].is_sorted_by(|a, b| a >= b), "{schedule:?}");
            assert!(
                rates[99] > 0.1 && rates[99] < 0.2,
                "{schedule:?} {}",
                rates[99]
            );
        }
        assert!(
            rates(Schedule::Constant, 0.0, 0.0, 10)
                .iter()
                .all(|&rate| rate == 1.0)
        );
        assert!(
            rates(Schedule::Wsd, 0.0, 0.0, 100)[..91]
                .iter()
                .all(|&rate| rate == 1.0)
        );
    }

    #[test]
    fn cosine_is_halfway_in_the_middle() {
        let rates = rates(Schedule::Cosine, 0.0, 0.0, 100);
        assert!((rates[50] - 0.5).abs() < 1e-12);
    }
}
