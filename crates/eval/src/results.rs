//! The scores of one model as lm-evaluation-harness writes its `results_….json`, for tools that read those.
//!
//! It has the keys that readers of such files take: results, configs, versions, n-shot, higher_is_better, n-samples, config.
//! A metric is named `metric,filter` and is a fraction. There is no date, so that equal scores are equal files; the manifest
//! beside it has the times.

use records::score::{BenchmarkScores, ModelScores, Scores};
use serde_json::{Map, Value, json};

/// The filter's place in the name of a metric: answers are graded as they are found.
const FILTER: &str = "none";

pub(crate) fn of(scores: &Scores, role: &str) -> Value {
    let tasks: Vec<(&BenchmarkScores, &ModelScores)> = scores
        .benchmarks
        .iter()
        .filter_map(|benchmark| {
            let model = benchmark.models.iter().find(|model| model.role == role)?;
            Some((benchmark, model))
        })
        .collect();
    let by_task = |value: &dyn Fn(&BenchmarkScores, &ModelScores) -> Value| -> Map<String, Value> {
        let rows = tasks.iter();
        rows.map(|(benchmark, model)| (benchmark.name.clone(), value(benchmark, model)))
            .collect()
    };
    let model = tasks.first().map(|(_, model)| model.model.as_str());
    json!({
        "results": by_task(&|benchmark, model| metrics(benchmark, model).into()),
        "group_subtasks": by_task(&|_, _| json!([])),
        "configs": by_task(&|benchmark, _| config(benchmark)),
        "versions": by_task(&|benchmark, _| {
            json!(benchmark.sampling.as_ref().map_or(0, |sampling| sampling.verifier))
        }),
        "n-shot": by_task(&|_, _| json!(0)),
        "higher_is_better": by_task(&|_, model| {
            let names = names(model);
            names.into_iter().map(|name| (name, json!(true))).collect::<Map<_, _>>().into()
        }),
        "n-samples": by_task(&|benchmark, _| {
            json!({"original": benchmark.n_questions, "effective": benchmark.n_questions})
        }),
        "config": {
            "model": "stillroom",
            "model_args": format!("pretrained={}", model.unwrap_or_default()),
        },
        "model_source": "stillroom",
        "model_name": model,
    })
}

fn names(model: &ModelScores) -> Vec<String> {
    let k = model.samples_per_question;
    let passes = model.pass_at_k.keys().filter(|k| *k != "1");
    [format!("avg@{k}"), format!("maj@{k}")]
        .into_iter()
        .chain(passes.map(|k| format!("pass@{k}")))
        .collect()
}

fn metrics(benchmark: &BenchmarkScores, model: &ModelScores) -> Map<String, Value> {
    let k = model.samples_per_question;
    let mut metrics = Map::new();
    metrics.insert("alias".into(), benchmark.name.as_str().into());
    metrics.insert("sample_len".into(), benchmark.n_questions.into());
    let mut metric = |name: &str, value: f64, error: Option<f64>| {
        metrics.insert(format!("{name},{FILTER}"), value.into());
        let error = error.map_or(Value::from("N/A"), Value::from);
        metrics.insert(format!("{name}_stderr,{FILTER}"), error);
    };
    metric(
        &format!("avg@{k}"),
        model.avg_at_k.value,
        model.avg_at_k.question_error,
    );
    metric(&format!("maj@{k}"), model.maj_at_k.value, None);
    for (k, estimate) in model.pass_at_k.iter().filter(|(k, _)| *k != "1") {
        metric(&format!("pass@{k}"), estimate.value, None);
    }
    metrics
}

fn config(benchmark: &BenchmarkScores) -> Value {
    let Some(sampling) = &benchmark.sampling else {
        return json!({"task": benchmark.name});
    };
    json!({
        "task": benchmark.name,
        "doc_to_text": sampling.template,
        "description": sampling.system.as_deref().unwrap_or_default(),
        "num_fewshot": 0,
        "repeats": sampling.samples,
        "generation_kwargs": {
            "do_sample": sampling.temperature > 0.0,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "max_gen_toks": sampling.max_new_tokens,
        },
        "metadata": {"protocol": sampling.protocol, "departures": sampling.departures},
    })
}

#[cfg(test)]
mod tests {
    use super::of;
    use crate::table::tests::scores;

    #[test]
    fn metrics_are_named_with_their_filter() {
        let results = of(&scores("aime24"), "student");
        let metrics = &results["results"]["aime24"];
        assert_eq!(metrics["avg@8,none"], 0.7);
        assert_eq!(metrics["avg@8_stderr,none"], 0.02);
        assert_eq!(metrics["pass@8_stderr,none"], "N/A");
        assert_eq!(metrics["sample_len"], 200);
        assert_eq!(results["config"]["model_args"], "pretrained=student");
        assert_eq!(results["higher_is_better"]["aime24"]["maj@8"], true);
        assert_eq!(results["n-samples"]["aime24"]["effective"], 200);
        assert!(of(&scores("aime24"), "nobody")["results"]["aime24"].is_null());
    }
}
