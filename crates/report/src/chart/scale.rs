//! From values to places, with round numbers on the way.

/// Maps `from..to` linearly to `start..end`.
#[derive(Clone, Copy)]
pub struct Scale {
    pub from: f64,
    pub to: f64,
    pub start: f64,
    pub end: f64,
}

/// The ends of a scale around all values, with room at both; a single value is in the middle.
pub fn around(low: f64, high: f64) -> [f64; 2] {
    let room = match high - low {
        0.0 if high == 0.0 => 1.0,
        0.0 => high.abs() * 0.1,
        span => span * 0.05,
    };
    // What is never negative needs no room below zero.
    let bottom = match low >= 0.0 {
        true => (low - room).max(0.0),
        false => low - room,
    };
    [bottom, high + room]
}

impl Scale {
    pub fn at(&self, value: f64) -> f64 {
        let share = (value - self.from) / (self.to - self.from);
        self.start + share * (self.end - self.start)
    }

    /// About `wanted` round values within.
    pub fn ticks(&self, wanted: usize) -> Vec<f64> {
        let rough = (self.to - self.from) / wanted.max(1) as f64;
        if !(rough > 0.0 && rough.is_finite()) {
            return Vec::new();
        }
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|times| times * power)
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(rough);
        let first = (self.from / step - 1e-9).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        (first..=last.min(first + 50))
            .map(|n| n as f64 * step)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let scale = |from, to| Scale {
            from,
            to,
            start: 0.0,
            end: 100.0,
        };
        assert_eq!(
            scale(0.0, 100.0).ticks(5),
            [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
        );
        assert_eq!(scale(0.3, 2.4).ticks(4), [1.0, 2.0]);
        assert_eq!(scale(-10.0, 10.0).ticks(4), [-10.0, -5.0, 0.0, 5.0, 10.0]);
        assert!(scale(1.0, 1.0).ticks(4).is_empty());
        assert_eq!(scale(2.0, 4.0).at(3.0), 50.0);
        assert_eq!(around(5.0, 5.0), [4.5, 5.5]);
        assert_eq!(around(0.0, 2.0), [0.0, 2.1]);
        assert_eq!(around(-2.0, 0.0), [-2.1, 0.1]);
    }
}
