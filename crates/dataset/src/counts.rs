//! Counts what became of every trace.

use std::collections::BTreeMap;

use records::stats::{BINS, LengthBin, Percentiles, Split, Stats};
use verify::Verdict;

use crate::rows::Row;

/// Counts over all traces. Nothing in it depends on when or in what order they came.
#[derive(Debug, Clone)]
pub struct Counts {
    stats: Stats,
    lengths: BTreeMap<Split, Vec<u32>>,
    current: Option<Prompt>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            stats: Stats::new(),
            lengths: BTreeMap::new(),
            current: None,
        }
    }
}

#[derive(Debug, Clone)]
struct Prompt {
    id: String,
    splits: Vec<Split>,
}

impl Counts {
    /// Counts one trace; the traces of a prompt come one after the other.
    pub fn add(&mut self, row: &Row<'_>, split: Split) {
        let source = entry(&mut self.stats.sources, row.source.unwrap_or_default());
        let n_tokens = u64::from(row.n_tokens.unwrap_or(0));
        self.stats.traces += 1;
        source.traces += 1;
        source.tokens += n_tokens;
        source.correct += u64::from(row.verdict == Some(Verdict::Correct.as_str()));
        let (total, of_source) = match split {
            Split::Train => (&mut self.stats.train, &mut source.train),
            Split::Validation => (&mut self.stats.validation, &mut source.validation),
            Split::Rejected => (&mut self.stats.rejected, &mut source.rejected),
        };
        *total += 1;
        *of_source += 1;
        if let Some(reason) = row.reason {
            *entry(&mut self.stats.rejected_by_reason, reason) += 1;
        }
        for (counts, name) in [
            (&mut self.stats.verdicts, row.verdict),
            (&mut self.stats.finish_reasons, row.finish_reason),
            (&mut self.stats.languages, row.language),
            (&mut self.stats.teachers, row.teacher),
        ] {
            *entry(counts, name.unwrap_or("none")) += 1;
        }
        if let Some(verdict) = row.judge_verdict {
            *entry(&mut self.stats.judge_verdicts, verdict) += 1;
        }
        for name in ["all", split.as_str()] {
            *entry(&mut self.stats.tokens, name) += n_tokens;
        }
        if let Some(n_tokens) = row.n_tokens {
            self.lengths.entry(split).or_default().push(n_tokens);
        }
        self.add_to_prompt(row, split);
    }

    fn add_to_prompt(&mut self, row: &Row<'_>, split: Split) {
        if self
            .current
            .as_ref()
            .is_none_or(|prompt| prompt.id != row.prompt_id)
        {
            self.current = Some(Prompt {
                id: row.prompt_id.to_owned(),
                splits: Vec::new(),
            });
            *entry(&mut self.stats.prompts, "all") += 1;
            if let Some(difficulty) = row.difficulty {
                *entry(&mut self.stats.difficulties, difficulty) += 1;
            }
            if let Some(rate) = row.pass_rate {
                // The rate is a quotient of two counts in f32: 3/10 must not fall below 0.3.
                let bin = ((f64::from(rate) * 10.0 + 1e-6) as usize).min(BINS - 1);
                if let Some(bin) = self.stats.pass_rate_histogram.get_mut(bin) {
                    bin.prompts += 1;
                }
            }
        }
        if let Some(prompt) = self
            .current
            .as_mut()
            .filter(|prompt| !prompt.splits.contains(&split))
        {
            prompt.splits.push(split);
            *entry(&mut self.stats.prompts, split.as_str()) += 1;
        }
    }

    /// The statistics, with percentiles and histograms, once every trace has been counted.
    pub fn finish(self) -> Stats {
        let mut stats = self.stats;
        let longest = self.lengths.values().flatten().max().copied();
        let width = bin_width(longest.unwrap_or(0));
        for (split, mut lengths) in self.lengths {
            lengths.sort_unstable();
            let split = split.as_str();
            let bins = lengths.chunk_by(|a, b| a / width == b / width).map(|bin| {
                let from = bin.first().map_or(0, |length| length / width) * width;
                LengthBin {
                    from: from.into(),
                    to: u64::from(from) + u64::from(width),
                    traces: bin.len() as u64,
                }
            });
            stats
                .length_histogram
                .insert(split.to_owned(), bins.collect());
            stats
                .length_percentiles
                .insert(split.to_owned(), percentiles(&lengths));
        }
        stats
    }
}

fn entry<'a, T: Default>(counts: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    counts.entry(name.to_owned()).or_default()
}

/// The least of 1, 2, 5, 10, 20, … that makes at most 50 bins.
fn bin_width(longest: u32) -> u32 {
    let widths = (0..10u32).flat_map(|power| [1, 2, 5].map(|step| step * 10u32.pow(power.min(8))));
    widths
        .into_iter()
        .find(|width| longest / width < 50)
        .unwrap_or(u32::MAX)
}

fn percentiles(sorted: &[u32]) -> Percentiles {
    let at = |percent: usize| {
        let rank = (percent * sorted.len()).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(0)
    };
    Percentiles {
        min: at(0),
        p5: at(5),
        p25: at(25),
        p50: at(50),
        p75: at(75),
        p95: at(95),
        max: at(100),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use records::stats::Bin;

    use super::*;

    fn row<'a>(prompt: &'a str, n_tokens: u32, pass_rate: f32, reason: Option<&'a str>) -> Row<'a> {
        Row {
            prompt_id: prompt,
            source: Some("s"),
            n_tokens: Some(n_tokens),
            verdict: Some("correct"),
            pass_rate: Some(pass_rate),
            difficulty: Some("hard"),
            reason,
            ..Row::default()
        }
    }

    #[test]
    fn every_trace_is_counted_once_and_every_prompt_once_per_split() {
        let mut counts = Counts::default();
        counts.add(&row("a", 10, 0.3, None), Split::Train);
        counts.add(&row("a", 30, 0.3, Some("per_prompt")), Split::Rejected);
        counts.add(&row("a", 20, 0.3, None), Split::Train);
        counts.add(&row("b", 5, 1.0, None), Split::Validation);
        let stats = counts.finish();
        assert_eq!(
            (stats.traces, stats.train, stats.validation, stats.rejected),
            (4, 2, 1, 1)
        );
        let prompts: Vec<_> = stats
            .prompts
            .iter()
            .map(|(k, v)| (k.as_str(), *v))
            .collect();
        assert_eq!(
            prompts,
            [("all", 2), ("rejected", 1), ("train", 1), ("validation", 1)]
        );
        assert_eq!(stats.tokens["all"], 65);
        assert_eq!(stats.tokens["train"], 30);
        assert_eq!(stats.pass_rate_histogram[3].prompts, 1);
        assert_eq!(
            stats.pass_rate_histogram[10],
            Bin {
                from: 1.0,
                to: 1.0,
                prompts: 1
            }
        );
        assert_eq!(stats.length_percentiles["train"].p50, 10);
        let bin = |from| LengthBin {
            from,
            to: from + 1,
            traces: 1,
        };
        assert_eq!(stats.length_histogram["train"], [bin(10), bin(20)]);
        assert_eq!(stats.difficulties["hard"], 2);
        assert_eq!(stats.sources["s"].correct, 4);
    }

    #[test]
    fn bins_are_few_and_round() {
        let check = |longest: u32, expected: u32| assert_eq!(bin_width(longest), expected);
        check(0, 1);
        check(49, 1);
        check(50, 2);
        check(128, 5);
        check(32_768, 1_000);
        check(u32::MAX, 100_000_000);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<u32> = (1..=100).collect();
        let expected = Percentiles {
            min: 1,
            p5: 5,
            p25: 25,
            p50: 50,
            p75: 75,
            p95: 95,
            max: 100,
        };
        assert_eq!(percentiles(&sorted), expected);
        assert_eq!(percentiles(&[]), Percentiles::default());
    }
}
