//! What training measured, step by step, thinned out to what a picture can show.

use std::io::BufRead;
use std::path::Path;

use records::metric::{Split, StepMetrics};

use crate::error::{Error, Result};

/// Points of a curve, at most; a longer run has several steps in each.
const POINTS: usize = 400;

/// The steps from `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub first: u64,
    pub last: u64,
    pub least: f64,
    pub most: f64,
    pub mean: f64,
    n: u64,
}

impl Point {
    /// Where it is drawn.
    pub fn step(&self) -> f64 {
        (self.first + self.last) as f64 / 2.0
    }

    fn take(&mut self, other: &Point) {
        let n = self.n + other.n;
        self.mean += (other.mean - self.mean) * other.n as f64 / n as f64;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        (self.last, self.n) = (other.last, n);
    }
}

/// Values as they come, in bounded memory: whenever there are too many points, neighbours are joined.
#[derive(Debug, Clone)]
pub struct Series {
    points: Vec<Point>,
    /// Values that make a point.
    each: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            points: Vec::new(),
            each: 1,
        }
    }
}

impl Series {
    pub fn push(&mut self, step: u64, value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return;
        };
        let point = Point {
            first: step,
            last: step,
            least: value,
            most: value,
            mean: value,
            n: 1,
        };
        match self.points.last_mut().filter(|last| last.n < self.each) {
            Some(last) => last.take(&point),
            None => self.points.push(point),
        }
        if self.points.len() > POINTS {
            self.each *= 2;
            let join = |pair: &[Point]| {
                let mut point = pair[0];
                pair[1..].iter().for_each(|next| point.take(next));
                point
            };
            self.points = self.points.chunks(2).map(join).collect();
        }
    }

    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The mean of its last point.
    pub fn end(&self) -> Option<f64> {
        self.points.last().map(|point| point.mean)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Curves {
    pub loss: Series,
    pub validation: Series,
    pub hard: Series,
    pub soft: Series,
    pub features: Series,
    pub relations: Series,
    pub agreement: Series,
    pub grad_norm: Series,
    pub learning_rate: Series,
    pub tokens_per_second: Series,
}

impl Curves {
    /// Reads `metrics.jsonl`. The last line of a run that was killed may be torn, which is said; any other that does
    /// not read is an error.
    pub fn read(path: &Path) -> Result<Self> {
        let io = |source| Error::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = std::fs::File::open(path).map_err(io)?;
        let mut curves = Self::default();
        let mut torn = None;
        for (line, number) in std::io::BufReader::new(file).split(b'\n').zip(1..) {
            if let Some(error) = torn.take() {
                return Err(Error::Records(error));
            }
            match serde_json::from_slice::<StepMetrics>(&line.map_err(io)?) {
                Ok(step) => curves.take(&step),
                Err(source) => {
                    torn = Some(records::Error::Json {
                        path: path.to_path_buf(),
                        line: number,
                        source,
                    });
                }
            }
        }
        if let Some(error) = torn {
            eprintln!("report: the last line is torn and not shown: {error}");
        }
        Ok(curves)
    }

    fn take(&mut self, of: &StepMetrics) {
        if of.split == Split::Validation {
            return self.validation.push(of.step, Some(of.loss));
        }
        for (series, value) in [
            (&mut self.loss, Some(of.loss)),
            (&mut self.hard, of.measures.get("loss_hard")),
            (&mut self.soft, of.measures.get("loss_soft")),
            (&mut self.features, of.measures.get("loss_features")),
            (&mut self.relations, of.measures.get("loss_relations")),
            (&mut self.agreement, of.measures.get("agreement")),
            (&mut self.grad_norm, of.grad_norm),
            (&mut self.learning_rate, of.learning_rate),
            (&mut self.tokens_per_second, Some(of.tokens_per_second)),
        ] {
            series.push(of.step, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_line_may_be_torn() -> Result<()> {
        let line = r#"{"split":"train","step":1,"epoch":0.1,"loss":2.5,"loss_hard":null,"loss_soft":null,
            "loss_features":null,"loss_relations":null,"teacher_entropy":null,"top_k_mass":null,"agreement":null,
            "grad_norm":null,"learning_rate":null,"n_supervised_tokens":1,"n_tokens":1,"seconds":1.0,
            "tokens_per_second":1.0,"peak_memory_bytes":1}"#
            .replace('\n', " ");
        let dir = tempfile::tempdir().map_err(|source| Error::Io {
            path: "temporary".into(),
            source,
        })?;
        let path = dir.path().join("metrics.jsonl");
        let write = |text: String| {
            std::fs::write(&path, text).map_err(|source| Error::Io {
                path: path.clone(),
                source,
            })
        };
        write(format!("{line}\n{{\"split\": \"tr"))?;
        assert_eq!(Curves::read(&path)?.loss.points().len(), 1);
        write(format!("{line}\n{{\"split\": \"tr\n{line}\n"))?;
        let error = Curves::read(&path).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("metrics.jsonl:2")));
        Ok(())
    }

    #[test]
    fn long_series_keep_their_range_and_mean() {
        let mut series = Series::default();
        for step in 1..=100_000u64 {
            let value = if step == 70_001 {
                9.0
            } else {
                (step % 2) as f64
            };
            series.push(step, Some(value));
        }
        series.push(100_001, None);
        series.push(100_002, Some(f64::NAN));
        let points = series.points();
        assert!(
            points.len() <= POINTS && points.len() > POINTS / 4,
            "{}",
            points.len()
        );
        assert_eq!(
            (points[0].first, points[points.len() - 1].last),
            (1, 100_000)
        );
        let n: u64 = points.iter().map(|point| point.n).sum();
        assert_eq!(n, 100_000);
        let high = points.iter().filter(|point| point.most == 9.0);
        assert_eq!(high.count(), 1);
        assert!((points[0].mean - 0.5).abs() < 1e-9);
        assert!(
            points
                .windows(2)
                .all(|pair| pair[0].last + 1 == pair[1].first)
        );
    }
}
