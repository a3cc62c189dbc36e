//! What was scored.

use records::score::{BenchmarkScores, Estimate, ModelScores};
use serde::Serialize;

use crate::chart::{self, Interval};
use crate::words::{count, percent, word};

#[derive(Serialize)]
pub struct Benchmark {
    pub name: String,
    pub says: String,
    pub avg: String,
    pub rows: Vec<Vec<String>>,
    pub header: Vec<String>,
    pub paired: Option<String>,
    pub closed: Option<String>,
}

fn class(role: &str) -> &'static str {
    match role {
        "base" => "base",
        "student" => "student",
        _ => "teacher",
    }
}

pub fn describe(of: &BenchmarkScores) -> Benchmark {
    let k = of
        .models
        .first()
        .map_or(0, |model| model.samples_per_question);
    let rows: Vec<_> = of
        .models
        .iter()
        .map(|model| Interval {
            name: model.role.clone(),
            value: 100.0 * model.avg_at_k.value,
            ci95: model.avg_at_k.ci95.map(|ci| ci.map(|end| 100.0 * end)),
            says: estimate(model.avg_at_k.value, model.avg_at_k.ci95),
            class: class(&model.role),
        })
        .collect();
    let paired: Vec<_> = of
        .paired
        .iter()
        .map(|pair| Interval {
            name: format!("{} − {}", pair.b, pair.a),
            value: 100.0 * pair.difference,
            ci95: pair.ci95.map(|ci| ci.map(|end| 100.0 * end)),
            says: difference(pair.difference, pair.ci95),
            class: class(&pair.b),
        })
        .collect();
    let ends = paired
        .iter()
        .flat_map(|pair| pair.ci95.unwrap_or([pair.value; 2]));
    let reach = ends.fold(1.0, |reach: f64, end| reach.max(end.abs())) * 1.05;
    let header = [
        "model",
        "avg@k",
        "sampling error",
        "pass@k",
        "maj@k",
        "truncated",
        "no </think>",
        "no answer",
        "tokens",
        "missing",
    ];
    Benchmark {
        name: word(&of.name),
        says: format!(
            "{} questions × {k} samples, in per cent",
            count(of.n_questions)
        ),
        avg: chart::intervals(
            &rows,
            0.0,
            100.0,
            false,
            &format!("avg@{k} on {}", word(&of.name)),
        ),
        header: header
            .map(|name| name.replace("@k", &format!("@{k}")))
            .to_vec(),
        rows: of.models.iter().map(|model| score_row(model, k)).collect(),
        paired: (!paired.is_empty()).then(|| {
            chart::intervals(
                &paired,
                -reach,
                reach,
                true,
                "differences, question by question",
            )
        }),
        closed: of.closed_share().map(percent),
    }
}

fn score_row(model: &ModelScores, k: u64) -> Vec<String> {
    let of = |estimate_of: &Estimate| estimate(estimate_of.value, estimate_of.ci95);
    let error = model.avg_at_k.sampling_error;
    vec![
        model.role.clone(),
        estimate(model.avg_at_k.value, model.avg_at_k.ci95),
        error.map_or_else(String::new, |error| format!("±{}", percent(error))),
        model
            .pass_at_k
            .get(&k.to_string())
            .map_or_else(String::new, of),
        of(&model.maj_at_k),
        percent(model.truncated),
        percent(model.no_think_end),
        percent(model.no_answer),
        format!("{:.0}", model.mean_completion_tokens),
        count(model.missing),
    ]
}

fn estimate(value: f64, ci95: Option<[f64; 2]>) -> String {
    let interval = ci95.map(|[low, high]| format!(" [{}, {}]", percent(low), percent(high)));
    percent(value) + &interval.unwrap_or_default()
}

fn difference(value: f64, ci95: Option<[f64; 2]>) -> String {
    let signed = |share: f64| format!("{:+.1}", 100.0 * share);
    let interval = ci95.map(|[low, high]| format!(" [{}, {}]", signed(low), signed(high)));
    signed(value) + &interval.unwrap_or_default()
}
