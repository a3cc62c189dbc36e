//! One token from its logits: greedy, or by temperature, top-k, top-p and min-p.

use std::cmp::Ordering;

use half::f16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use records::top_k::TopK;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a token is chosen.
///
/// Applied in transformers' order (5.23, `_get_logits_processor`): temperature, top-k, top-p over what
/// top-k left, min-p over what top-p left. Equal logits count as ordered by id, lower first, so that
/// top-k keeps exactly k (transformers keeps all that tie with the last).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps the fewest most likely tokens whose probabilities reach this; 1 keeps all.
    pub top_p: f32,
    /// Keeps this many most likely tokens.
    pub top_k: Option<u32>,
    /// Keeps tokens at least this fraction as likely as the most likely one.
    pub min_p: Option<f32>,
}

impl Default for SamplingParams {
    /// Plain sampling from the model's distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: None,
        }
    }
}

impl SamplingParams {
    /// Checks ranges: temperature ≥ 0, 0 < top_p ≤ 1, top_k ≥ 1, 0 ≤ min_p ≤ 1.
    pub fn validate(&self) -> Result<()> {
        let setting = |key, value: String, allowed: &str| Error::Setting {
            key,
            value,
            allowed: allowed.into(),
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            let value = self.temperature.to_string();
            return Err(setting("temperature", value, "must be 0 (greedy) or above"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(setting(
                "top_p",
                self.top_p.to_string(),
                "must be above 0 and at most 1",
            ));
        }
        if self.top_k == Some(0) {
            return Err(setting(
                "top_k",
                "0".into(),
                "must be at least 1; leave it out for no limit",
            ));
        }
        match self.min_p {
            Some(min_p) if !(0.0..=1.0).contains(&min_p) => Err(setting(
                "min_p",
                min_p.to_string(),
                "must be between 0 and 1",
            )),
            _ => Ok(()),
        }
    }

    /// The tokens that may be sampled, most likely first, with weights relative to the first's.
    fn kept(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let best = max(logits);
        let weight = |id: u32| f64::from(((value(logits, id) - best) / self.temperature).exp());
        let mut kept = match self.top_k {
            Some(k) => top_indices(logits, k as usize)
                .into_iter()
                .map(|id| (id, weight(id)))
                .collect::<Vec<_>>(),
            None => return self.nucleus(logits, best),
        };
        let total = kept.iter().map(|(_, w)| w).sum();
        cut_at_top_p(&mut kept, self.top_p, total);
        self.cut_at_min_p(&mut kept);
        kept
    }

    /// e^((logit − best) / temperature) of every token, 0 for NaN.
    fn weights(&self, logits: &[f32], best: f32) -> Vec<f32> {
        let scaled = |logit: &f32| match logit.is_nan() {
            true => f32::NEG_INFINITY,
            false => (logit - best) / self.temperature,
        };
        let mut weights: Vec<f32> = logits.iter().map(scaled).collect();
        let _sum = ops::row::exp_in_place(&mut weights, 0.0);
        weights
    }

    /// Top-p and min-p over the whole vocabulary without sorting it: only tokens above a falling
    /// threshold are, until they carry the mass.
    fn nucleus(&self, logits: &[f32], best: f32) -> Vec<(u32, f64)> {
        let weights = self.weights(logits, best);
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        let min_p = self.min_p.unwrap_or(0.0);
        let mut threshold = if self.top_p < 1.0 {
            min_p.max(1e-2)
        } else {
            min_p
        };
        loop {
            let mut kept: Vec<(u32, f64)> = (0u32..)
                .zip(&weights)
                .filter(|(_, w)| **w >= threshold)
                .map(|(id, w)| (id, f64::from(*w)))
                .collect();
            let mass: f64 = kept.iter().map(|(_, w)| w).sum();
            if threshold <= min_p || mass >= f64::from(self.top_p) * total {
                // By logit: distinct logits far down may share a weight.
                kept.sort_unstable_by(|a, b| by_rank(logits, a.0, b.0));
                cut_at_top_p(&mut kept, self.top_p, total);
                self.cut_at_min_p(&mut kept);
                return kept;
            }
            threshold = if threshold > 1e-12 {
                threshold * 1e-2
            } else {
                0.0
            };
            threshold = threshold.max(min_p);
        }
    }

    fn cut_at_min_p(&self, kept: &mut Vec<(u32, f64)>) {
        if let Some(min_p) = self.min_p {
            let floor = f64::from(min_p);
            // The first weight is 1; sorted, so the rest goes together.
            let n = kept.partition_point(|(_, weight)| *weight >= floor);
            kept.truncate(n.max(1));
        }
    }
}

/// A token stays while those before it have not reached `top_p` of `total`.
fn cut_at_top_p(kept: &mut Vec<(u32, f64)>, top_p: f32, total: f64) {
    if top_p >= 1.0 {
        return;
    }
    let enough = f64::from(top_p) * total;
    let mut mass = 0.0;
    let n = kept.iter().position(|(_, weight)| {
        let reached = mass >= enough;
        mass += weight;
        reached
    });
    kept.truncate(n.unwrap_or(kept.len()).max(1));
}

/// Draws tokens with one request's own random stream.
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha8Rng,
}

impl Sampler {
    pub fn new(params: &SamplingParams, seed: u64) -> Self {
        Self {
            params: *params,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// The next token given its logits `[V]`, by inverting the cumulative distribution.
    ///
    /// The same parameters, seed and logits give the same tokens. NaN counts as −∞.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        if self.params.temperature <= 0.0 {
            return greedy(logits);
        }
        let best = max(logits);
        if !best.is_finite() {
            return greedy(logits);
        }
        let draw = self.rng.random::<f64>();
        let SamplingParams {
            top_p,
            top_k,
            min_p,
            ..
        } = self.params;
        if top_p >= 1.0 && top_k.is_none() && min_p.is_none() {
            let weights = self.params.weights(logits, best);
            return pick((0u32..).zip(weights.iter().map(|w| f64::from(*w))), draw);
        }
        let kept = self.params.kept(logits);
        pick(kept.iter().copied(), draw)
    }
}

/// The entry in whose share of the whole mass `draw` ∈ [0, 1) falls.
fn pick(weights: impl Iterator<Item = (u32, f64)> + Clone, draw: f64) -> u32 {
    let total: f64 = weights.clone().map(|(_, weight)| weight).sum();
    let mut left = draw * total;
    let mut last = 0;
    for (id, weight) in weights {
        if weight > 0.0 {
            if left < weight {
                return id;
            }
            last = id;
        }
        left -= weight;
    }
    last // Rounding left a sliver beyond the last entry.
}

/// The most likely token, the lowest id among equals.
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0u32, f32::NEG_INFINITY);
    for (id, logit) in (0u32..).zip(logits) {
        if *logit > best.1 {
            best = (id, *logit);
        }
    }
    best.0
}

/// A position's stored distribution: raw log-softmax, before temperature or filters.
#[derive(Debug, Clone, PartialEq)]
pub struct TopKRow {
    pub sampled_logprob: f32,
    /// K ids, most likely first; lower id first among equals.
    pub ids: Vec<u32>,
    /// Descending.
    pub logprobs: Vec<f32>,
    /// Log of the mass outside `ids`; −∞ where nothing is.
    pub tail_logprob: f32,
}

impl TopKRow {
    /// Appends the position. A vocabulary smaller than K gives fewer entries, the same number everywhere.
    pub fn append_to(self, top: &mut TopK) {
        top.k = self.ids.len() as u16;
        top.ids.extend(self.ids);
        let logprobs = self.logprobs.into_iter().map(f16::from_f32);
        top.logprobs.extend(logprobs);
        top.tail_logprobs.push(self.tail_logprob);
    }
}

/// The `k` most likely tokens of a position (all of them where V < k) and what is left.
///
/// The tail is summed from the tokens outside rather than as 1 − Σ, which loses it to rounding
/// where the model is sure.
pub fn raw_top_k(logits: &[f32], k: usize, sampled: u32) -> TopKRow {
    let ids = top_indices(logits, k);
    let best = max(logits);
    let mass = |logit: f32| f64::from((logit - best).exp());
    let mut is_kept = vec![false; logits.len()];
    for id in &ids {
        is_kept[*id as usize] = true;
    }
    let inside: f64 = ids.iter().map(|id| mass(value(logits, *id))).sum();
    let outside: f64 = logits
        .iter()
        .zip(&is_kept)
        .filter(|(logit, kept)| !**kept && !logit.is_nan())
        .map(|(logit, _)| mass(*logit))
        .sum();
    let log_total = (inside + outside).ln();
    let logprob = |id: u32| (f64::from(value(logits, id)) - f64::from(best) - log_total) as f32;
    TopKRow {
        sampled_logprob: logprob(sampled),
        logprobs: ids.iter().map(|id| logprob(*id)).collect(),
        ids,
        tail_logprob: (outside.ln() - log_total) as f32,
    }
}

/// The seed of one request's [`Sampler`], so that a trace depends on nothing else.
pub fn request_seed(seed: u64, prompt_id: &str, sample_index: u32) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&sample_index.to_le_bytes());
    hasher.update(prompt_id.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The `k` highest ids by logit, best first, in O(V + k log k): a buffer of 2k is cut to its best k
/// whenever it is full, and nothing below its worst enters again.
fn top_indices(logits: &[f32], k: usize) -> Vec<u32> {
    let n = logits.len();
    let k = k.min(n);
    if k == 0 {
        return Vec::new();
    }
    let mut best: Vec<u32> = Vec::with_capacity((2 * k).min(n));
    let mut floor = f32::NEG_INFINITY;
    let mut is_cut = false;
    for id in 0..n as u32 {
        // An equal logit with a higher id ranks below the floor's.
        if is_cut && (value(logits, id) <= floor) {
            continue;
        }
        best.push(id);
        if best.len() == 2 * k {
            best.select_nth_unstable_by(k - 1, |a, b| by_rank(logits, *a, *b));
            best.truncate(k);
            floor = value(logits, best[k - 1]);
            is_cut = true;
        }
    }
    best.sort_unstable_by(|a, b| by_rank(logits, *a, *b));
    best.truncate(k);
    best
}

fn by_rank(logits: &[f32], a: u32, b: u32) -> Ordering {
    value(logits, b)
        .total_cmp(&value(logits, a))
        .then(a.cmp(&b))
}

/// A logit with NaN as −∞ (and −0 as 0, which `total_cmp` would tell apart).
fn value(logits: &[f32], id: u32) -> f32 {
    match logits.get(id as usize) {
        Some(logit) if !logit.is_nan() => *logit + 0.0,
        _ => f32::NEG_INFINITY,
    }
}

fn max(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn params(
        temperature: f32,
        top_k: Option<u32>,
        top_p: f32,
        min_p: Option<f32>,
    ) -> SamplingParams {
        SamplingParams {
            temperature,
            top_p,
            top_k,
            min_p,
        }
    }

    fn ids(params: &SamplingParams, logits: &[f32]) -> Vec<u32> {
        params.kept(logits).into_iter().map(|(id, _)| id).collect()
    }

    /// Made by scripts/fixtures/make_model_fixtures.py with transformers' logits warpers.
    #[test]
    fn kept_tokens_are_transformers() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/model/sampling.json"
        );
        let cases: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cases = cases["cases"].as_array().unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let logits: Vec<f32> = serde_json::from_value(case["logits"].clone()).unwrap();
            let params: SamplingParams = serde_json::from_value(case["params"].clone()).unwrap();
            let expected: Vec<(u32, f64)> = serde_json::from_value(case["kept"].clone()).unwrap();
            let kept = params.kept(&logits);
            let total: f64 = kept.iter().map(|(_, w)| w).sum();
            let mut found: Vec<_> = kept.iter().map(|(id, w)| (*id, w / total)).collect();
            found.sort_by_key(|(id, _)| *id);
            let (found_ids, expected_ids): (Vec<_>, Vec<_>) = (
                found.iter().map(|f| f.0).collect(),
                expected.iter().map(|e| e.0).collect(),
            );
            assert_eq!(found_ids, expected_ids, "{params:?}");
            for (f, e) in found.iter().zip(&expected) {
                assert!((f.1 - e.1).abs() < 1e-5, "{params:?}: {f:?} {e:?}");
            }
        }
    }

    #[test]
    fn ties_go_to_the_lower_id() {
        let logits = [1.0, 3.0, 3.0, -0.0, 0.0, 3.0, f32::NAN];
        assert_eq!(greedy(&logits), 1);
        assert_eq!(ids(&params(1.0, Some(2), 1.0, None), &logits), [1, 2]);
        assert_eq!(ids(&params(1.0, None, 0.5, None), &logits), [1, 2]);
        assert_eq!(top_indices(&logits, 9), [1, 2, 5, 0, 3, 4, 6]);
        for k in 1..8 {
            assert_eq!(top_indices(&logits, k), top_indices(&logits, 9)[..k.min(7)]);
        }
    }

    #[test]
    fn draws_follow_the_distribution_and_the_seed() {
        let logits = [0.0, 1.0, 2.0, -1.0];
        let weights: Vec<f64> = logits
            .iter()
            .map(|l: &f32| f64::from(l / 0.7).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        for top_p in [1.0, 0.999_999] {
            let mut sampler = Sampler::new(&params(0.7, None, top_p, None), 5);
            let mut counts = [0u32; 4];
            const N: u32 = 40_000;
            for _ in 0..N {
                counts[sampler.sample(&logits) as usize] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let (p, found) = (weight / total, f64::from(*count) / f64::from(N));
                let five_sigma = 5.0 * (p * (1.0 - p) / f64::from(N)).sqrt();
                assert!((found - p).abs() < five_sigma, "{top_p}: {found} {p}");
            }
        }
        let draws = |seed| -> Vec<u32> {
            let mut sampler = Sampler::new(&params(1.0, None, 1.0, None), seed);
            (0..50).map(|_| sampler.sample(&logits)).collect()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn degenerate_logits_give_a_token() {
        for params in [
            params(0.0, None, 1.0, None),
            params(1.0, None, 0.9, None),
            params(1.0, None, 1.0, None),
        ] {
            let mut sampler = Sampler::new(&params, 0);
            assert_eq!(sampler.sample(&[f32::NAN, f32::NEG_INFINITY]), 0);
            assert_eq!(sampler.sample(&[f32::NEG_INFINITY, 2.0, f32::NAN]), 1);
            assert_eq!(sampler.sample(&[0.0, f32::INFINITY]), 1);
        }
    }

    #[test]
    fn top_k_rows_sum_to_one() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 37 % 101) as f32) / 7.0).collect();
        for k in [1, 20, 999, 1000, 2000] {
            let row = raw_top_k(&logits, k, 3);
            assert_eq!(row.ids.len(), k.min(1000));
            assert!(row.logprobs.is_sorted_by(|a, b| a >= b));
            let inside: f64 = row.logprobs.iter().map(|l| f64::from(*l).exp()).sum();
            let sum = inside + f64::from(row.tail_logprob).exp();
            assert!((sum - 1.0).abs() < 1e-5, "k = {k}: {sum}");
        }
        assert_eq!(raw_top_k(&logits, 1000, 0).tail_logprob, f32::NEG_INFINITY);
        let zero = raw_top_k(&logits, 0, 3);
        assert_eq!(zero.tail_logprob, 0.0);
        assert_eq!(
            zero.sampled_logprob,
            raw_top_k(&logits, 9, 3).sampled_logprob
        );

        // A sure model: 1 − Σ would be 0 in f32.
        let row = raw_top_k(&[40.0, 0.0, 0.0], 1, 0);
        assert!(
            (row.tail_logprob - (2f32.ln() - 40.0)).abs() < 1e-4,
            "{}",
            row.tail_logprob
        );
    }

    #[test]
    fn request_seeds_depend_on_all_three() {
        let seed = request_seed(7, "abc", 0);
        assert_eq!(seed, request_seed(7, "abc", 0));
        for other in [
            request_seed(8, "abc", 0),
            request_seed(7, "abd", 0),
            request_seed(7, "abc", 1),
        ] {
            assert_ne!(seed, other);
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        assert!(params(0.6, Some(20), 0.95, Some(0.1)).validate().is_ok());
        for (bad, key) in [
            (params(-1.0, None, 1.0, None), "temperature"),
            (params(f32::NAN, None, 1.0, None), "temperature"),
            (params(1.0, None, 0.0, None), "top_p"),
            (params(1.0, Some(0), 1.0, None), "top_k"),
            (params(1.0, None, 1.0, Some(1.5)), "min_p"),
        ] {
            assert!(bad.validate().unwrap_err().to_string().contains(key));
        }
    }
}
