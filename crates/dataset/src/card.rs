//! `README.md`: the dataset card, with the YAML by which `datasets.load_dataset` finds splits
//! and columns.

use std::fmt::Write;

use arrow::datatypes::{DataType, Field, SchemaRef};
use records::stats::{Split, Stats};

use crate::config::DatasetConfig;
use crate::example::schema;

/// What the card of a dataset says that is published.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The lines of YAML in the place of `license`, each with its end.
    pub front: String,
    pub title: String,
    /// By which `load_dataset` finds it.
    pub place: String,
    /// What follows the heading: who made it, and of what.
    pub origin: String,
    /// The section on licences, with its heading.
    pub licence: String,
}

/// The card. A split without rows is left out: a pattern that matches no file is an error
/// in `datasets`.
pub fn card(stats: &Stats, config: &DatasetConfig) -> String {
    // A teacher's and a problem set's terms decide, which no tool can look up.
    let license = config.license.as_deref().unwrap_or("other");
    let here = Publication {
        front: format!("license: {license}\n"),
        title: "Chain-of-thought traces".into(),
        place: "path/to/this/folder".into(),
        origin: String::new(),
        licence: "\n## Licence\n\nThe terms of the teacher and of the problems apply; state them here before publishing.\n".into(),
    };
    published_card(stats, config, &here)
}

/// The card of a dataset that is published.
pub fn published_card(stats: &Stats, config: &DatasetConfig, publication: &Publication) -> String {
    let mut card = String::from("---\n");
    card.push_str(&publication.front);
    yaml(&mut card, stats);
    card.push_str("---\n\n");
    body(&mut card, stats, config, publication);
    card
}

fn yaml(card: &mut String, stats: &Stats) {
    let _ = writeln!(
        card,
        "size_categories:\n- {}",
        size(stats.train + stats.validation)
    );
    card.push_str("task_categories:\n- text-generation\n");
    card.push_str("tags:\n- reasoning\n- chain-of-thought\n- distillation\n- stillroom\n");
    let splits = [("train", stats.train), ("validation", stats.validation)];
    card.push_str("configs:\n- config_name: default\n  default: true\n  data_files:\n");
    for (split, _) in splits.iter().filter(|(_, rows)| *rows > 0) {
        let _ = writeln!(card, "  - split: {split}\n    path: data/{split}-*.parquet");
    }
    if stats.rejected > 0 {
        card.push_str("- config_name: rejected\n  data_files:\n");
        card.push_str("  - split: rejected\n    path: rejected/rejected-*.parquet\n");
    }
    card.push_str("dataset_info:\n- config_name: default\n");
    features(card, &schema(Split::Train));
    if stats.rejected > 0 {
        card.push_str("- config_name: rejected\n");
        features(card, &schema(Split::Rejected));
    }
}

/// The Hub's bracket for a number of rows.
fn size(rows: u64) -> &'static str {
    match rows {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        _ => "10M<n<100M",
    }
}

fn features(card: &mut String, schema: &SchemaRef) {
    card.push_str("  features:\n");
    for field in schema.fields() {
        feature(card, field, 2);
    }
}

fn feature(card: &mut String, field: &Field, indent: usize) {
    let pad = " ".repeat(indent);
    let _ = writeln!(card, "{pad}- name: {}", field.name());
    match field.data_type() {
        DataType::Struct(fields) => {
            let _ = writeln!(card, "{pad}  struct:");
            fields
                .iter()
                .for_each(|field| feature(card, field, indent + 2));
        }
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => {
                let _ = writeln!(card, "{pad}  list:");
                fields
                    .iter()
                    .for_each(|field| feature(card, field, indent + 2));
            }
            kind => {
                let _ = writeln!(card, "{pad}  list: {}", dtype(kind));
            }
        },
        kind => {
            let _ = writeln!(card, "{pad}  dtype: {}", dtype(kind));
        }
    }
}

/// The name that `datasets` has for the type.
fn dtype(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 => "string".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

fn body(card: &mut String, stats: &Stats, config: &DatasetConfig, publication: &Publication) {
    let teachers: Vec<_> = stats.teachers.keys().collect();
    let teachers = match teachers.as_slice() {
        [] => "a teacher model".to_owned(),
        teachers => teachers
            .iter()
            .map(|t| format!("`{t}`"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let _ = write!(
        card,
        "# {}\n\n\
         Sampled from {teachers} and selected by Stillroom.{}\n\n\
         | | traces | prompts | completion tokens |\n|---|--:|--:|--:|\n",
        publication.title, publication.origin
    );
    let rows = [
        ("train", stats.train),
        ("validation", stats.validation),
        ("rejected", stats.rejected),
        ("all", stats.traces),
    ];
    for (name, traces) in rows {
        let count = |counts: &std::collections::BTreeMap<String, u64>| {
            counts.get(name).copied().unwrap_or(0)
        };
        let _ = writeln!(
            card,
            "| {name} | {traces} | {} | {} |",
            count(&stats.prompts),
            count(&stats.tokens)
        );
    }
    let _ = write!(card, "\n## Selection\n\n- Filter: `{}`\n", config.filter);
    if let Some(n) = config.per_prompt {
        let _ = writeln!(card, "- At most {n} per prompt, by `{}`", config.order_by);
    }
    if let Some(decontaminate) = &config.decontaminate {
        let names: Vec<_> = decontaminate
            .against
            .iter()
            .filter_map(|choice| choice.benchmark().ok())
            .map(|benchmark| benchmark.name)
            .collect();
        let _ = writeln!(
            card,
            "- No problem shares {} words in a row with one of {}",
            decontaminate.ngram,
            names.join(", ")
        );
    }
    if let Some(deduplicate) = &config.deduplicate {
        let compared = [
            ("problems", deduplicate.problems),
            ("completions", deduplicate.traces),
        ];
        for (what, threshold) in compared {
            if let Some(threshold) = threshold {
                let n = deduplicate.ngram;
                let _ = writeln!(
                    card,
                    "- No two {what} share {threshold} of their {n}-grams of words or more (Jaccard, by MinHash)"
                );
            }
        }
    }
    if let Some(mix) = &config.mix {
        let weights: Vec<_> = mix
            .weights
            .iter()
            .map(|(s, w)| format!("{w} × `{s}`"))
            .collect();
        let weights = if weights.is_empty() {
            "every source has the same share".to_owned()
        } else {
            format!("shares are {}, others 1", weights.join(", "))
        };
        let _ = writeln!(card, "- Mixed by source: {weights}");
    }
    card.push_str("- Exact duplicates among the samples of a prompt are left out\n");
    card.push_str("- A prompt is wholly in `train` or wholly in `validation`\n");
    if stats.rejected > 0 {
        card.push_str("\nWhat was not chosen is in the config `rejected`:\n\n| reason | traces |\n|---|--:|\n");
        for (reason, n) in stats.top_reasons() {
            let _ = writeln!(card, "| `{}` | {n} |", reason.replace('|', "\\|"));
        }
    }
    card.push_str(
        "\n## Columns\n\n\
         `messages` is the conversation, the assistant's turn as `<think>\\n…\\n</think>\\n\\n…`. \
         `token_ids` are the tokens as they were sampled after `prompt_token_ids`, and \
         `token_logprobs` their log-probabilities. `top_ids` and `top_logprobs` are the teacher's \
         `top_k` most probable tokens at every position, flat and position-major (`top_counts` \
         entries each where that varies), and `tail_logprobs` the log of the mass outside them; \
         `logprob_space` is `raw` for the log-softmax of the unmodified logits. `verdict` compares \
         the final answer with `gold_answer`; `pass_rate` is the share of the prompt's samples \
         that are correct. `stats.json` accounts for every trace.\n\n\
         ",
    );
    let _ = write!(
        card,
        "```python\nfrom datasets import load_dataset\n\nload_dataset(\"{}\")\n```\n\n\
         `quality` says how a trace reads: repetition, loops, think format, language, code, paragraphs, \
         duplicates and contamination.\n{}",
        publication.place, publication.licence
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stats(train: u64, validation: u64, rejected: u64) -> Stats {
        let mut stats = Stats::new();
        stats.train = train;
        stats.validation = validation;
        stats.rejected = rejected;
        stats
    }

    #[test]
    fn only_splits_with_rows_are_named() {
        let check = |stats: Stats, present: &[&str], absent: &[&str]| {
            let card = card(&stats, &DatasetConfig::default());
            let (yaml, _) = card
                .strip_prefix("---\n")
                .unwrap()
                .split_once("\n---\n")
                .unwrap();
            present
                .iter()
                .for_each(|part| assert!(yaml.contains(part), "{part} not in {yaml}"));
            absent
                .iter()
                .for_each(|part| assert!(!yaml.contains(part), "{part} in {yaml}"));
        };
        let (train, validation, rejected) = (
            "data/train-*.parquet",
            "data/validation-*.parquet",
            "rejected/rejected-*.parquet",
        );
        check(
            stats(3, 1, 2),
            &[train, validation, rejected, "license: other"],
            &[],
        );
        check(
            stats(3, 0, 0),
            &[train],
            &[validation, rejected, "reject_reason"],
        );
    }

    #[test]
    fn features_are_named_as_datasets_names_them() {
        let mut card = String::new();
        features(&mut card, &schema(Split::Rejected));
        for part in [
            "- name: sample_index\n    dtype: uint32\n",
            "- name: messages\n    list:\n    - name: role\n      dtype: string\n",
            "- name: top_logprobs\n    list: float16\n",
            "- name: quality\n    struct:\n    - name: repetition\n      dtype: float32\n",
            "- name: truncated\n      dtype: bool\n",
            "- name: reject_reason\n    dtype: string\n",
        ] {
            assert!(card.contains(part), "{part} not in {card}");
        }
    }
}
