//! Scores as a table, for the terminal and for `scores.md`.

use std::fmt::Write;

use records::score::{BenchmarkScores, Estimate, ModelScores, Scores};

use crate::reference::{DEEPSEEK_PROTOCOL, OPEN_R1_PROTOCOL, Published, published};

/// The table for a terminal: aligned columns, a blank line between benchmarks.
pub fn terminal(scores: &Scores) -> String {
    render(scores, &aligned)
}

/// The same as Markdown.
pub fn markdown(scores: &Scores) -> String {
    format!("# Scores\n\n{}", render(scores, &piped))
}

type Rows = Vec<Vec<String>>;

fn render(scores: &Scores, layout: &dyn Fn(&Rows) -> String) -> String {
    let sections: Vec<String> = scores
        .benchmarks
        .iter()
        .map(|benchmark| section(benchmark, layout))
        .collect();
    sections.join("\n")
}

fn section(benchmark: &BenchmarkScores, layout: &dyn Fn(&Rows) -> String) -> String {
    let k = benchmark
        .models
        .first()
        .map_or(0, |model| model.samples_per_question);
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
    let published = published(&benchmark.name);
    if !published.is_empty() {
        let _ = write!(
            out,
            "\nPublished results\n\n{}",
            layout(&published_rows(published))
        );
        let _ = writeln!(out, "\n{DEEPSEEK_PROTOCOL}.\n{OPEN_R1_PROTOCOL}.");
        let _ = writeln!(out, "Ours: avg@{k} with the settings of the recipe.");
    }
    out
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

fn published_rows(published: &[Published]) -> Rows {
    let mut rows = vec![strings(&["model", "DeepSeek", "open-r1", "cons@64"])];
    let optional =
        |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1}"));
    for row in published {
        rows.push(vec![
            row.model.to_owned(),
            format!("{:.1}", row.deepseek),
            optional(row.open_r1),
            optional(row.cons_at_64),
        ]);
    }
    rows
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn with_interval(value: f64, ci95: Option<[f64; 2]>) -> String {
    let interval = ci95.map_or(String::new(), |[low, high]| {
        format!(" [{}, {}]", percent(low), percent(high))
    });
    format!("{}{interval}", percent(value))
}

fn aligned(rows: &Rows) -> String {
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use records::score::{
        AvgAtK, BenchmarkScores, Estimate, ModelScores, PairedDifference, Scores,
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
        }
    }

    fn scores(name: &str) -> Scores {
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
        assert!(
            page.contains("| R1-Distill-Qwen-7B | 55.5 | 50.8 | 83.3 |"),
            "{page}"
        );
        assert!(page.contains("32768 tokens"));
        assert!(!markdown(&scores("arithmetic")).contains("Published"));
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
