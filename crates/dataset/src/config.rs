//! The recipe's `[dataset]` section.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use records::benchmark::{AnswerSearch, Benchmark, BenchmarkChoice};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which traces become training examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatasetConfig {
    /// SQL expression over the annotation columns ([`crate::columns`]); a row for which it is
    /// not true is rejected.
    pub filter: String,
    /// Examples kept per prompt; all that pass by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_prompt: Option<NonZeroU32>,
    /// SQL `ORDER BY` list over the annotation columns: which rows `per_prompt` prefers.
    pub order_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decontaminate: Option<Decontaminate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deduplicate: Option<Deduplicate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mix: Option<Mix>,
    /// How far the answers of traces are looked for when they are graded.
    #[serde(skip_serializing_if = "AnswerSearch::is_default")]
    pub answer_from: AnswerSearch,
    /// Share of the prompts, in [0, 1), that goes to validation with all their examples.
    pub validation_fraction: f64,
    /// What the stage may hold in memory, about. Rows are sorted by way of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<ByteSize>,
    /// Encoded bytes after which a Parquet file of the output is closed.
    pub shard_size: ByteSize,
    /// The card's licence, by its identifier on the Hub (`apache-2.0`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

impl Default for DatasetConfig {
    fn default() -> Self {
        Self {
            filter: "verdict = 'correct' AND finish_reason = 'stop' AND repetition < 0.3"
                .to_owned(),
            per_prompt: None,
            order_by: "n_tokens ASC".to_owned(),
            decontaminate: None,
            deduplicate: None,
            mix: None,
            answer_from: AnswerSearch::Written,
            validation_fraction: 0.0,
            memory_limit: None,
            shard_size: ByteSize::of("256MiB", 256 << 20),
            license: None,
        }
    }
}

impl DatasetConfig {
    /// Checks what can be judged without parsing SQL; [`crate::check`] does both.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.validation_fraction) {
            return Err(Error::config(
                "dataset.validation_fraction",
                format!("is {}", self.validation_fraction),
                "a number of at least 0 and below 1",
            ));
        }
        let sizes = [
            (
                "dataset.memory_limit",
                self.memory_limit.as_ref(),
                64 << 20,
                "64MiB",
            ),
            (
                "dataset.shard_size",
                Some(&self.shard_size),
                1 << 20,
                "1MiB",
            ),
        ];
        for (key, size, least, written) in sizes {
            if let Some(size) = size.filter(|size| size.bytes < least) {
                let message = format!("is {} bytes", size.bytes);
                return Err(Error::config(key, message, format!("at least {written}")));
            }
        }
        if self
            .license
            .as_ref()
            .is_some_and(|license| !is_identifier(license))
        {
            return Err(Error::config(
                "dataset.license",
                format!("is {:?}", self.license.as_deref().unwrap_or_default()),
                "an identifier such as `apache-2.0`, `mit` or `cc-by-4.0`",
            ));
        }
        if let Some(deduplicate) = &self.deduplicate {
            deduplicate.validate()?;
        }
        if let Some(mix) = &self.mix {
            mix.validate()?;
        }
        self.decontaminate
            .as_ref()
            .map_or(Ok(()), Decontaminate::validate)
    }
}

/// Problems that no example may share an n-gram of words with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decontaminate {
    /// Names of benchmarks, or tables `{ name, source, problem, answer }`.
    pub against: Vec<BenchmarkChoice>,
    /// Words in a row that count as the same problem. 13 as in GPT-3 (Brown et al. 2020,
    /// appendix C); open-r1 uses 8, which finds more and over-deletes more.
    #[serde(default = "default_ngram")]
    pub ngram: usize,
}

fn default_ngram() -> usize {
    13
}

impl Decontaminate {
    fn validate(&self) -> Result<()> {
        if self.against.is_empty() {
            return Err(Error::config(
                "dataset.decontaminate.against",
                "is empty",
                "at least one benchmark; leave `decontaminate` out to compare with none",
            ));
        }
        if self.ngram == 0 {
            return Err(Error::config(
                "dataset.decontaminate.ngram",
                "is 0",
                "a number of words, such as 13 or 8",
            ));
        }
        self.benchmarks().map(drop)
    }

    /// The benchmarks with their sources; a name that is not known is an error.
    pub fn benchmarks(&self) -> Result<Vec<Benchmark>> {
        self.against
            .iter()
            .map(|choice| {
                choice.benchmark().map_err(|error| {
                    Error::config(
                        "dataset.decontaminate.against",
                        error.to_string(),
                        "names of benchmarks, or tables { name, source, problem, answer }",
                    )
                })
            })
            .collect()
    }
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// Of texts that are nearly the same the first is kept, in the order of (prompt_id,
/// sample_index). Only what passed the filter is compared, so that what is kept stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deduplicate {
    /// Jaccard similarity of the problems' word n-grams from which two prompts are one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problems: Option<f64>,
    /// The same for whole completions, of one prompt or of two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<f64>,
    /// Words of an n-gram; 5 as in datatrove.
    #[serde(default = "default_shingle")]
    pub ngram: usize,
}

fn default_shingle() -> usize {
    5
}

impl Deduplicate {
    fn validate(&self) -> Result<()> {
        let thresholds = [
            ("dataset.deduplicate.problems", self.problems),
            ("dataset.deduplicate.traces", self.traces),
        ];
        if thresholds.iter().all(|(_, threshold)| threshold.is_none()) {
            return Err(Error::config(
                "dataset.deduplicate",
                "compares nothing",
                "`problems = 0.8`, `traces = 0.8`, or both",
            ));
        }
        for (key, threshold) in thresholds {
            // Below, most pairs have no band in common and would not be found.
            if let Some(threshold) = threshold.filter(|t| !(0.5..=1.0).contains(t)) {
                let message = format!("is {threshold}");
                return Err(Error::config(key, message, "a similarity from 0.5 to 1"));
            }
        }
        if self.ngram == 0 {
            return Err(Error::config(
                "dataset.deduplicate.ngram",
                "is 0",
                "a number of words, such as 5",
            ));
        }
        Ok(())
    }
}

/// What share each source has in the dataset.
///
/// Nothing is repeated: without `rows` the dataset is as large as the shares allow. Of a source
/// whole prompts are taken in an order that is random but the same at every run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// By source; a source that is not named has weight 1, so that `mix = {}` balances all.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
    /// Examples in all; a source that has too few gives what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<NonZeroU64>,
}

impl Mix {
    fn validate(&self) -> Result<()> {
        let wrong = |weight: &f64| !weight.is_finite() || *weight < 0.0;
        match self.weights.iter().find(|(_, weight)| wrong(weight)) {
            None => Ok(()),
            Some((source, weight)) => Err(Error::config(
                "dataset.mix.weights",
                format!("gives `{source}` the weight {weight}"),
                "numbers of at least 0",
            )),
        }
    }
}

/// An amount of memory, written as `"4GiB"`, `"512 MB"` or a plain number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize {
    text: String,
    pub bytes: usize,
}

impl ByteSize {
    fn of(text: &str, bytes: usize) -> Self {
        let text = text.to_owned();
        Self { text, bytes }
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let refused =
            || format!("`{text}` is not an amount of memory; write \"4GiB\" or \"512MB\"");
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let number: f64 = text[..end].parse().map_err(|_| refused())?;
        let unit: u64 = match text[end..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            _ => return Err(refused()),
        };
        let bytes = (number * unit as f64) as usize;
        Ok(Self { text, bytes })
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn parse(value: serde_json::Value) -> std::result::Result<DatasetConfig, String> {
        let config: DatasetConfig = serde_json::from_value(value).map_err(|e| e.to_string())?;
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn an_empty_section_has_the_documented_defaults() {
        let config = parse(json!({})).unwrap();
        assert_eq!(config, DatasetConfig::default());
        assert_eq!(config.per_prompt, None);
        assert_eq!(config.order_by, "n_tokens ASC");
        let d = parse(json!({"decontaminate": {"against": ["arithmetic"]}})).unwrap();
        assert_eq!(d.decontaminate.unwrap().ngram, 13);
    }

    #[test]
    fn what_was_read_is_written_back() {
        let value = json!({
            "filter": "verdict = 'correct'",
            "per_prompt": 2,
            "order_by": "n_tokens DESC",
            "decontaminate": {"against": ["arithmetic",
                {"name": "mine", "source": "x.jsonl", "problem": "q", "answer": "a"}], "ngram": 8},
            "validation_fraction": 0.02,
            "memory_limit": "4GiB",
            "shard_size": "1GB",
            "license": "cc-by-4.0",
            "deduplicate": {"problems": 0.9, "traces": 0.8, "ngram": 5},
            "mix": {"weights": {"a": 2.0}, "rows": 1000},
        });
        let config = parse(value.clone()).unwrap();
        assert_eq!(
            config.memory_limit.as_ref().map(|limit| limit.bytes),
            Some(4 << 30)
        );
        assert_eq!(serde_json::to_value(&config).unwrap(), value);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_allowed() {
        let check = |value: serde_json::Value, expected: &str| {
            let error = parse(value).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(json!({"per_promt": 2}), "unknown field `per_promt`");
        check(json!({"per_prompt": 0}), "nonzero");
        check(json!({"validation_fraction": 1.0}), "below 1");
        check(json!({"memory_limit": "lots"}), "4GiB");
        check(json!({"memory_limit": "1KiB"}), "at least 64MiB");
        check(json!({"shard_size": "1KiB"}), "at least 1MiB");
        check(json!({"license": "do what you want"}), "apache-2.0");
        check(json!({"deduplicate": {}}), "compares nothing");
        check(json!({"deduplicate": {"traces": 0.3}}), "from 0.5 to 1");
        check(json!({"mix": {"weights": {"a": -1.0}}}), "at least 0");
        check(json!({"mix": {"rows": 0}}), "nonzero");
        check(
            json!({"decontaminate": {"against": []}}),
            "at least one benchmark",
        );
        check(
            json!({"decontaminate": {"against": ["aime24"], "ngram": 0}}),
            "ngram",
        );
        check(json!({"decontaminate": {"against": ["aime99"]}}), "aime24");
        check(
            json!({"decontaminate": {"against": [{"name": "x", "sauce": "y"}]}}),
            "unknown field `sauce`",
        );
    }
}
