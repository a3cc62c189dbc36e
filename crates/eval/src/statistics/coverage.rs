//! Simulation: models whose probabilities are known are sampled and scored again and again, and the 95 % intervals have to
//! hold the truth in 93 to 97 of 100.
//!
//! Each repetition draws its questions from a population, so that the truth of an interval over questions is the
//! population's mean; a question's probability p is a draw from a Beta distribution. Wrong answers are one of three, so that
//! majorities can be wrong.

#![allow(clippy::unwrap_used)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    NORMAL_975, Tally, Vote, avg_at_k, half_width, maj_at_k, majority_score, paired_difference,
    pass_at_k_of, sampling_error,
};
use crate::rounds::{Rounds, Seen};

const REPETITIONS: usize = 2000;

/// A population of questions: p is Beta(a, b), for whole or half a and b.
#[derive(Clone, Copy)]
struct Population {
    /// Twice a and b.
    twice: [u32; 2],
}

impl Population {
    /// A draw by sums of exponentials and squared normals.
    fn p(self, rng: &mut ChaCha8Rng) -> f64 {
        let [x, y] = self.twice.map(|twice| {
            let whole: f64 = (0..twice / 2).map(|_| -uniform(rng).ln()).sum();
            let half = match twice % 2 {
                1 => normal(rng).powi(2) / 2.0,
                _ => 0.0,
            };
            whole + half
        });
        x / (x + y)
    }
}

fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    1.0 - rng.random::<f64>()
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (-2.0 * uniform(rng).ln()).sqrt() * (std::f64::consts::TAU * uniform(rng)).cos()
}

/// The votes of `k` samples: the right answer with probability p, else one of three wrong ones, of which the first is as
/// likely as the other two together.
fn votes(p: f64, k: u64, rng: &mut ChaCha8Rng) -> Vec<Vote> {
    let vote = |rng: &mut ChaCha8Rng| {
        let correct = rng.random::<f64>() < p;
        let wrong = ["a", "a", "b", "c"][rng.random_range(0..4)];
        Vote {
            answer: Some(if correct { "right" } else { wrong }.to_owned()),
            correct,
        }
    };
    (0..k).map(|_| vote(rng)).collect()
}

fn tally(votes: &[Vote]) -> Tally {
    Tally::of(votes.iter().map(|vote| vote.correct))
}

/// How often an interval held the truth.
#[derive(Default)]
struct Coverage {
    n: usize,
    held: usize,
    sum: f64,
}

impl Coverage {
    fn add(&mut self, value: f64, ci95: Option<[f64; 2]>, truth: f64) {
        self.n += 1;
        self.sum += value - truth;
        self.held += usize::from(ci95.is_some_and(|[low, high]| low <= truth && truth <= high));
    }

    /// Asserts that 93 to 97 of 100 intervals held the truth, and that values miss it to both sides alike.
    fn check(&self, what: &str, spread: f64) {
        let share = self.held as f64 / self.n as f64;
        let bias = self.sum / self.n as f64;
        println!("{what}: {:.1} %, bias {bias:+.4}", 100.0 * share);
        assert!((0.93..=0.97).contains(&share), "{what}: {share}");
        let error = spread / (self.n as f64).sqrt();
        assert!(
            bias.abs() < 4.0 * error,
            "{what}: bias {bias}, error {error}"
        );
    }
}

/// The mean of a question's score over many questions of the population.
fn truth(
    population: Population,
    rng: &mut ChaCha8Rng,
    score: impl Fn(f64, &mut ChaCha8Rng) -> f64,
) -> f64 {
    const DRAWS: usize = 400_000;
    let sum: f64 = (0..DRAWS).map(|_| score(population.p(rng), rng)).sum();
    sum / DRAWS as f64
}

/// As hard as AIME for a small model, as AIME for a good one, and as MATH-500: half of the questions mostly right or mostly
/// wrong. Questions, samples, population.
const CASES: [(usize, u64, Population); 3] = [
    (30, 16, Population { twice: [1, 2] }),
    (30, 64, Population { twice: [1, 1] }),
    (500, 4, Population { twice: [3, 1] }),
];

#[test]
fn intervals_over_questions_hold_the_truth() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (q, k, population) in CASES {
        let avg = truth(population, &mut rng, |p, _| p);
        let pass = truth(population, &mut rng, |p, _| 1.0 - (1.0 - p).powi(4));
        let maj = truth(population, &mut rng, |p, rng| {
            majority_score(&votes(p, k, rng)).unwrap()
        });
        let mut found: [Coverage; 3] = Default::default();
        for _ in 0..REPETITIONS {
            let votes: Vec<Vec<Vote>> = (0..q)
                .map(|_| votes(population.p(&mut rng), k, &mut rng))
                .collect();
            let tallies: Vec<Tally> = votes.iter().map(|votes| tally(votes)).collect();
            let of_avg = avg_at_k(&tallies).unwrap();
            found[0].add(of_avg.value, of_avg.ci95, avg);
            let of_pass = pass_at_k_of(&tallies, 4).unwrap();
            found[1].add(of_pass.value, of_pass.ci95, pass);
            let of_maj = maj_at_k(votes.iter().map(Vec::as_slice)).unwrap();
            found[2].add(of_maj.value, of_maj.ci95, maj);
        }
        for (coverage, what) in found.iter().zip(["avg", "pass@4", "maj"]) {
            let spread = 0.5 / (q as f64).sqrt();
            coverage.check(&format!("{what} of {q} questions × {k}"), spread);
        }
    }
}

#[test]
fn intervals_of_paired_differences_hold_the_truth() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    // The second model is better at every question, by less where there is less to gain.
    let better = |p: f64| p + 0.3 * p * (1.0 - p);
    for (q, k, population) in CASES {
        let gain = truth(population, &mut rng, |p, _| better(p) - p);
        let mut found = Coverage::default();
        for _ in 0..REPETITIONS {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for _ in 0..q {
                let p = population.p(&mut rng);
                a.push(tally(&votes(p, k, &mut rng)));
                b.push(tally(&votes(better(p), k, &mut rng)));
            }
            let difference = paired_difference(&a, &b).unwrap();
            found.add(difference.mean, difference.ci95, gain);
        }
        let spread = (0.5 / (q as f64 * k as f64)).sqrt();
        found.check(&format!("difference on {q} questions × {k}"), spread);
    }
}

#[test]
fn missing_samples_leave_estimates_unbiased() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let population = Population { twice: [1, 2] };
    let avg = truth(population, &mut rng, |p, _| p);
    let pass = truth(population, &mut rng, |p, _| 1.0 - (1.0 - p).powi(2));
    let mut found: [Coverage; 2] = Default::default();
    for _ in 0..REPETITIONS {
        // A server that fails refuses some questions more than others.
        let tallies: Vec<Tally> = (0..50)
            .map(|_| {
                let k = rng.random_range(2..=16);
                tally(&votes(population.p(&mut rng), k, &mut rng))
            })
            .collect();
        let of_avg = avg_at_k(&tallies).unwrap();
        found[0].add(of_avg.value, of_avg.ci95, avg);
        let of_pass = pass_at_k_of(&tallies, 2).unwrap();
        found[1].add(of_pass.value, of_pass.ci95, pass);
    }
    found[0].check("avg with missing samples", 0.07);
    found[1].check("pass@2 with missing samples", 0.07);
}

#[test]
fn early_stopped_runs_are_unbiased_and_their_intervals_hold() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for (q, wanted, precision, population) in [
        (30, 256, 3.0, Population { twice: [1, 2] }),
        (500, 64, 1.0, Population { twice: [3, 1] }),
    ] {
        let mean = truth(population, &mut rng, |p, _| p);
        let (mut over_questions, mut over_samples) = (Coverage::default(), Coverage::default());
        let mut stopped = std::collections::BTreeMap::<u32, usize>::new();
        for _ in 0..REPETITIONS {
            let probabilities: Vec<f64> = (0..q).map(|_| population.p(&mut rng)).collect();
            let mut tallies = vec![Tally { n: 0, correct: 0 }; q];
            let mut rounds = Rounds::new([(q as u64, wanted)], Some(precision), None);
            loop {
                let target = u64::from(rounds.benchmarks[0].target);
                for (tally, &p) in tallies.iter_mut().zip(&probabilities) {
                    while tally.n < target {
                        tally.n += 1;
                        tally.correct += u64::from(rng.random::<f64>() < p);
                    }
                }
                let seen = Seen {
                    half_widths: vec![half_width(&tallies)],
                    n_samples: 1,
                    n_tokens: 1,
                };
                if !rounds.is_open() || !rounds.next(&seen) {
                    break;
                }
            }
            *stopped.entry(rounds.benchmarks[0].target).or_default() += 1;
            let avg = avg_at_k(&tallies).unwrap();
            over_questions.add(avg.value, avg.ci95, mean);
            let half = NORMAL_975 * sampling_error(&tallies).unwrap();
            let own = probabilities.iter().sum::<f64>() / q as f64;
            over_samples.add(avg.value, Some([avg.value - half, avg.value + half]), own);
        }
        println!("{q} questions, ±{precision}: samples {stopped:?}");
        let spread = 0.5 / (q as f64).sqrt();
        over_questions.check("early stopped, over questions", spread);
        over_samples.check("early stopped, over samples", precision / 100.0);
    }
}
