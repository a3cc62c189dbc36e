//! Scores as a table, for the terminal and for `scores.md`.

use std::fmt::Write;

use records::score::{BenchmarkScores, Estimate, GroupScores, ModelScores, SamplingScores, Scores};

use crate::reference::{Published, published};

/// The table for a terminal: aligned columns, a blank line between benchmarks.
pub fn terminal(scores: &Scores) -> String {
    let benchmarks = scores.benchmarks.iter();
    let sections = benchmarks.map(|benchmark| {
        let mut section = section(benchmark, &aligned);
        if !published(&benchmark.name).is_empty() {
            section.push_str("\nPublished results stand beside ours in scores.md.\n");
        }
        section
    });
    sections.collect::<Vec<_>>().join("\n")
}

/// The same as Markdown, with lengths, groups of questions and published results.
pub fn markdown(scores: &Scores) -> String {
    let benchmarks = scores.benchmarks.iter();
    let sections = benchmarks.map(|benchmark| section(benchmark, &piped) + &details(benchmark));
    format!("# Scores\n\n{}", sections.collect::<Vec<_>>().join("\n"))
}

pub(crate) type Rows = Vec<Vec<String>>;

/// Fewer questions than this that are not all right or all wrong leave an interval over questions too narrow: of one
/// hundred such intervals, fewer than 93 hold the truth.
const FEW_QUESTIONS: f64 = 5.0;

fn section(benchmark: &BenchmarkScores, layout: &dyn Fn(&Rows) -> String) -> String {
    let samples = benchmark
        .models
        .iter()
        .map(|model| model.samples_per_question);
    let k = samples.max().unwrap_or(0);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}: {} questions × {k} samples; in per cent, [95 % interval over questions]\n",
        benchmark.name, benchmark.n_questions
    );
    out.push_str(&layout(&score_rows(benchmark, k)));
    if !benchmark.paired.is_empty() {
        let mut rows = vec![strings(&[
            "avg@k, question by question",
            "difference",
            "95 % interval",
        ])];
        for pair in &benchmark.paired {
            let interval = pair.ci95.map_or("–".to_owned(), |[low, high]| {
                format!("[{:+.1}, {:+.1}]", 100.0 * low, 100.0 * high)
            });
            rows.push(vec![
                format!("{} − {}", pair.b, pair.a),
                format!("{:+.1}", 100.0 * pair.difference),
                interval,
            ]);
        }
        let _ = write!(out, "\n{}", layout(&rows));
    }
    if let Some(share) = benchmark.closed_share() {
        let _ = writeln!(
            out,
            "\nThe student closes {:.1} % of the distance between base and teacher.",
            100.0 * share
        );
    }
    for note in notes(benchmark) {
        let _ = writeln!(out, "\n{note}");
    }
    out
}

/// What has to be known to read the scores.
fn notes(benchmark: &BenchmarkScores) -> Vec<String> {
    let mut notes = Vec::new();
    let sampling = benchmark.sampling.as_ref();
    notes.extend(sampling.map(SamplingScores::described));
    if let Some(sampling) = sampling
        && let Some(protocol) = &sampling.protocol
    {
        notes.push(match sampling.departures.as_slice() {
            [] => format!("The protocol is `{protocol}`."),
            departures => format!(
                "The protocol is `{protocol}`, departed from by: {}.",
                departures.join("; ")
            ),
        });
    }
    let wanted = benchmark
        .sampling
        .as_ref()
        .map_or(0, |sampling| sampling.samples);
    for model in &benchmark.models {
        if let Some(key) = &model.stopped_by {
            notes.push(format!(
                "The {} has {} of {wanted} samples per question, every question as many: eval.{key} ended its sampling.",
                model.role, model.samples_per_question
            ));
        }
        let q = benchmark.n_questions as f64;
        let (right, wrong) = (model.avg_at_k.value * q, (1.0 - model.avg_at_k.value) * q);
        if benchmark.n_questions > 1 && right.min(wrong) < FEW_QUESTIONS {
            notes.push(format!(
                "The interval of the {} is too narrow: a score this close to {} rests on few questions.",
                model.role,
                if right < wrong { "0" } else { "100" }
            ));
        }
    }
    notes
}

/// Lengths and lower limits, groups of questions, published results.
fn details(benchmark: &BenchmarkScores) -> String {
    let mut out = String::new();
    let mut table = |title: &str, rows: &Rows| {
        if rows.len() > 1 {
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{title}\n\n{}", piped(rows));
        }
    };
    table(
        "Tokens of right and of other samples, and avg@k if longer samples had been cut",
        &length_rows(benchmark),
    );
    for by in ["subject", "level"] {
        table(&format!("avg@k by {by}"), &group_rows(benchmark, by));
    }
    table(
        "Published results, with the widest 95 % interval that their samples leave, and ours less theirs",
        &published_rows(benchmark),
    );
    out
}

fn length_rows(benchmark: &BenchmarkScores) -> Rows {
    let models = benchmark.models.iter();
    let models: Vec<_> = models
        .filter(|model| !model.by_token_limit.is_empty())
        .collect();
    let Some(first) = models.first() else {
        return Vec::new();
    };
    let mut header = strings(&["model", "right", "other"]);
    let limits = first.by_token_limit.iter();
    header.extend(limits.map(|limit| format!("≤ {}", limit.max_new_tokens)));
    let length =
        |tokens: Option<f64>| tokens.map_or("–".to_owned(), |tokens| format!("{tokens:.0}"));
    let mut rows = vec![header];
    for model in models {
        let mut row = vec![
            model.role.clone(),
            length(model.mean_tokens_correct),
            length(model.mean_tokens_incorrect),
        ];
        row.extend(
            model
                .by_token_limit
                .iter()
                .map(|limit| percent(limit.avg_at_k)),
        );
        rows.push(row);
    }
    rows
}

fn group_rows(benchmark: &BenchmarkScores, by: &str) -> Rows {
    let of = |model: &ModelScores| -> Vec<GroupScores> {
        let groups = model.groups.iter().filter(|group| group.by == by);
        groups.cloned().collect()
    };
    let groups: Vec<_> = benchmark.models.iter().map(of).collect();
    let Some(first) = groups.first() else {
        return Vec::new();
    };
    let mut header = strings(&[by, "questions"]);
    header.extend(benchmark.models.iter().map(|model| model.role.clone()));
    let mut rows = vec![header];
    for group in first {
        let mut row = vec![group.name.clone(), group.n_questions.to_string()];
        row.extend(groups.iter().map(|groups| {
            let same = groups.iter().find(|other| other.name == group.name);
            same.map_or("–".to_owned(), |same| {
                with_interval(same.avg_at_k.value, same.avg_at_k.ci95)
            })
        }));
        rows.push(row);
    }
    rows
}

fn score_rows(benchmark: &BenchmarkScores, k: u64) -> Rows {
    let last_pass = benchmark
        .models
        .iter()
        .flat_map(|model| model.pass_at_k.keys())
        .filter_map(|k| k.parse::<u64>().ok())
        .max();
    let mut header = vec![
        "model".to_owned(),
        format!("avg@{k}"),
        "sampling error".to_owned(),
    ];
    // pass@1 over k samples is avg@k.
    let last_pass = last_pass.filter(|&k| k > 1);
    header.extend(last_pass.map(|k| format!("pass@{k}")));
    header.push(format!("maj@{k}"));
    header.extend(strings(&[
        "truncated",
        "no </think>",
        "no answer",
        "tokens",
    ]));
    let any_missing = benchmark.models.iter().any(|model| model.missing > 0);
    if any_missing {
        header.push("missing".to_owned());
    }
    let mut rows = vec![header];
    for model in &benchmark.models {
        rows.push(score_row(model, last_pass, any_missing));
    }
    rows
}

fn score_row(model: &ModelScores, last_pass: Option<u64>, any_missing: bool) -> Vec<String> {
    let avg = &model.avg_at_k;
    let mut row = vec![
        model.role.clone(),
        with_interval(avg.value, avg.ci95),
        avg.sampling_error
            .map_or("–".to_owned(), |error| format!("±{:.1}", 100.0 * error)),
    ];
    if let Some(k) = last_pass {
        let of = |estimate: &Estimate| with_interval(estimate.value, estimate.ci95);
        row.push(
            model
                .pass_at_k
                .get(&k.to_string())
                .map_or("–".to_owned(), of),
        );
    }
    row.push(with_interval(model.maj_at_k.value, model.maj_at_k.ci95));
    row.extend([model.truncated, model.no_think_end, model.no_answer].map(percent));
    row.push(format!("{:.0}", model.mean_completion_tokens));
    if any_missing {
        row.push(model.missing.to_string());
    }
    row
}

fn published_rows(benchmark: &BenchmarkScores) -> Rows {
    let mut header = strings(&[
        "model", "score", "±", "samples", "majority", "protocol", "source",
    ]);
    header.extend(benchmark.models.iter().map(|model| model.role.clone()));
    let mut rows = vec![header];
    let optional =
        |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1}"));
    for row in published(&benchmark.name) {
        let half_width = row.half_width(benchmark.n_questions);
        let mut cells = vec![
            row.model.to_owned(),
            format!("{:.1}", row.score),
            optional(half_width),
            row.samples
                .map_or("–".to_owned(), |samples| samples.to_string()),
            optional(row.majority),
            row.protocol.to_owned(),
            row.source.to_owned(),
        ];
        let models = benchmark.models.iter();
        cells.extend(models.map(|model| beside(model, row, half_width)));
        rows.push(cells);
    }
    rows
}

/// Ours less theirs in points, and whether ours lies within their interval.
fn beside(model: &ModelScores, row: &Published, half_width: Option<f64>) -> String {
    let difference = 100.0 * model.avg_at_k.value - row.score;
    match half_width {
        Some(half_width) if difference.abs() <= half_width => format!("{difference:+.1} within"),
        Some(_) => format!("{difference:+.1} outside"),
        None => format!("{difference:+.1}"),
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

pub(crate) fn with_interval(value: f64, ci95: Option<[f64; 2]>) -> String {
    let interval = ci95.map_or(String::new(), |[low, high]| {
        format!(" [{}, {}]", percent(low), percent(high))
    });
    format!("{}{interval}", percent(value))
}

pub(crate) fn aligned(rows: &Rows) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn piped(rows: &Rows) -> String {
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let _ = writeln!(out, "| {} |", row.join(" | "));
        if i == 0 {
            let _ = writeln!(out, "|{}", " --- |".repeat(row.len()));
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use records::score::{
        AvgAtK, BenchmarkScores, Estimate, GroupScores, LimitScore, ModelScores, PairedDifference,
        SamplingScores, Scores,
    };

    use super::{markdown, terminal};

    fn model(role: &str, value: f64) -> ModelScores {
        let estimate = Estimate {
            value,
            ci95: Some([value / 2.0, value]),
        };
        ModelScores {
            role: role.into(),
            model: role.into(),
            samples_per_question: 8,
            avg_at_k: AvgAtK {
                value,
                sampling_error: Some(0.01),
                question_error: Some(0.02),
                ci95: estimate.ci95,
            },
            pass_at_k: ["1", "2", "8"]
                .map(|k| (k.to_owned(), estimate.clone()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            maj_at_k: estimate,
            truncated: 0.0,
            no_think_end: 0.125,
            no_answer: 0.5,
            missing: 0,
            mean_completion_tokens: 41.6,
            mean_tokens_correct: Some(30.4),
            mean_tokens_incorrect: None,
            by_token_limit: vec![LimitScore {
                max_new_tokens: 64,
                avg_at_k: value / 2.0,
            }],
            groups: ["Algebra", "Geometry"]
                .map(|name| GroupScores {
                    by: "subject".into(),
                    name: name.into(),
                    n_questions: 100,
                    avg_at_k: Estimate { value, ci95: None },
                })
                .to_vec(),
            stopped_by: None,
        }
    }

    pub(crate) fn scores(name: &str) -> Scores {
        let paired = vec![PairedDifference {
            a: "base".into(),
            b: "student".into(),
            difference: 0.6,
            ci95: Some([0.5, 0.7]),
        }];
        let models = vec![
            model("base", 0.1),
            model("student", 0.7),
            model("teacher", 0.9),
        ];
        let benchmark = BenchmarkScores {
            name: name.into(),
            n_questions: 200,
            sampling: None,
            models,
            paired,
        };
        Scores {
            schema: 1,
            benchmarks: vec![benchmark],
        }
    }

    #[test]
    fn a_table_of_three_models() {
        let scores = scores("arithmetic");
        assert!((scores.benchmarks[0].closed_share().unwrap() - 0.75).abs() < 1e-12);
        let table = terminal(&scores);
        let student = table
            .lines()
            .find(|line| line.starts_with("student  "))
            .unwrap();
        assert_eq!(
            student
                .split("  ")
                .filter(|cell| !cell.is_empty())
                .map(str::trim)
                .collect::<Vec<_>>(),
            [
                "student",
                "70.0 [35.0, 70.0]",
                "±1.0",
                "70.0 [35.0, 70.0]",
                "70.0 [35.0, 70.0]",
                "0.0",
                "12.5",
                "50.0",
                "42",
            ]
        );
        for expected in [
            "avg@8",
            "pass@8",
            "maj@8",
            "student − base",
            "+60.0",
            "[+50.0, +70.0]",
            "closes 75.0 %",
        ] {
            assert!(table.contains(expected), "{expected} is not in\n{table}");
        }
        assert!(!table.contains("missing"));
    }

    #[test]
    fn published_results_stand_beside_ours() {
        let page = markdown(&scores("aime24"));
        let cells = [
            // ± √(0.555 · 0.445 / (64 · 200)), and base, student, teacher less 55.5.
            "| R1-Distill-Qwen-7B | 55.5 | 0.9 | 64 | 83.3 | r1 | DeepSeek-R1 report | -45.5 outside | +14.5 outside | +34.5 outside |",
            "| Skywork-OR1-7B | 70.2 | 1.1 | 32 | – | avg@32 | model card | -60.2 outside | -0.2 within | +19.8 outside |",
            "| OpenThinker-7B | 31.3 | – | – | – | not stated |",
        ];
        for expected in cells {
            assert!(page.contains(expected), "{expected} is not in\n{page}");
        }
        assert!(!markdown(&scores("arithmetic")).contains("Published"));
    }

    #[test]
    fn lengths_and_groups_have_tables_of_their_own() {
        let page = markdown(&scores("mine"));
        for expected in [
            "| model | right | other | ≤ 64 |",
            "| student | 30 | – | 35.0 |",
            "| subject | questions | base | student | teacher |",
            "| Geometry | 100 | 10.0 | 70.0 | 90.0 |",
        ] {
            assert!(page.contains(expected), "{expected} is not in\n{page}");
        }
        assert!(!terminal(&scores("mine")).contains("Geometry"));
    }

    #[test]
    fn what_a_score_rests_on_is_said() {
        let mut scores = scores("mine");
        scores.benchmarks[0].sampling = Some(SamplingScores {
            protocol: Some("r1".into()),
            departures: vec!["max_new_tokens 8192 instead of 32768".into()],
            samples: 64,
            temperature: 0.6,
            top_p: 0.95,
            top_k: None,
            min_p: None,
            max_new_tokens: 8192,
            system: None,
            template: "{problem}".into(),
            answer_from: Default::default(),
            verifier: 1,
        });
        scores.benchmarks[0].models[1].stopped_by = Some("precision".into());
        scores.benchmarks[0].models[0].avg_at_k.value = 0.02;
        let table = terminal(&scores);
        for expected in [
            "`r1`, departed from by: max_new_tokens 8192 instead of 32768.",
            "The student has 8 of 64 samples per question",
            "The interval of the base is too narrow",
        ] {
            assert!(table.contains(expected), "{expected} is not in\n{table}");
        }
    }

    #[test]
    fn no_share_without_a_distance() {
        let mut scores = scores("x");
        scores.benchmarks[0].models[2].avg_at_k.value = 0.1;
        assert_eq!(scores.benchmarks[0].closed_share(), None);
        scores.benchmarks[0].models.pop();
        assert_eq!(scores.benchmarks[0].closed_share(), None);
    }
}
