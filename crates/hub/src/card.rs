//! `README.md` of what is pushed: model cards, and the licence parts of dataset cards.

use std::fmt::Write;

use records::benchmark::named;
use records::score::{BenchmarkScores, ModelScores, Scores};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::yaml;

/// A licence by the Hub's id for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    pub id: String,
    /// Of a licence that the Hub has no id for (`other`).
    pub name: Option<String>,
    pub link: Option<String>,
}

impl Licence {
    /// Puts it into front matter.
    pub fn declare(&self, front: &mut Map<String, Value>) {
        front.insert("license".into(), self.id.clone().into());
        if let Some(name) = &self.name {
            front.insert("license_name".into(), name.clone().into());
        }
        if let Some(link) = &self.link {
            front.insert("license_link".into(), link.clone().into());
        }
    }

    fn text(&self) -> String {
        let name = self.name.as_ref().unwrap_or(&self.id);
        match &self.link {
            Some(link) => format!("[{}]({link})", plain(name)),
            None => format!("`{}`", plain(name)),
        }
    }
}

/// Something that the pushed files come from, and its licence as the recipe states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `Base model`, `Teacher`, `Data`.
    pub role: &'static str,
    pub names: Vec<String>,
    /// None where the recipe states none.
    pub licence: Option<String>,
}

/// A model of the Hub at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    pub id: String,
    pub revision: Option<String>,
}

/// What a model repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// A PEFT adapter.
    Adapter,
    /// A whole checkpoint.
    Merged,
}

/// The last and the best losses of a training.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Losses {
    pub steps: u64,
    pub train: Option<f64>,
    pub validation: Option<f64>,
    pub best_validation: Option<(u64, f64)>,
}

/// Everything that a model card says.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCard {
    pub kind: ModelKind,
    /// `ORG/NAME`.
    pub repo: String,
    pub licence: Licence,
    /// None where training began with random weights.
    pub base: Option<HubModel>,
    /// Datasets of the Hub that it was trained on, or whose problems it was trained on.
    pub datasets: Vec<String>,
    pub origins: Vec<Origin>,
    /// The recipe's name, and the tag of the push.
    pub recipe: String,
    pub tag: String,
    /// The version of the program.
    pub version: String,
    /// Settings by name, as the recipe has them.
    pub settings: Vec<(String, String)>,
    /// Rows, tokens and the like of the data.
    pub counts: Vec<(String, String)>,
    pub losses: Losses,
    pub scores: Option<Scores>,
    /// The role in the scores that is this model.
    pub role: String,
    /// What was left out of the data and of the training, with its number.
    pub left_out: Vec<(String, u64)>,
    /// What is not in the repository, and why.
    pub missing: Vec<String>,
}

impl ModelCard {
    /// The card's text.
    pub fn text(&self) -> String {
        let mut text = yaml::front_matter(&Value::Object(self.front()));
        self.body(&mut text);
        text
    }

    fn front(&self) -> Map<String, Value> {
        let mut front = Map::new();
        self.licence.declare(&mut front);
        if let Some(base) = &self.base {
            front.insert("base_model".into(), base.id.clone().into());
            let relation = match self.kind {
                ModelKind::Adapter => "adapter",
                ModelKind::Merged => "finetune",
            };
            front.insert("base_model_relation".into(), relation.into());
        }
        let library = match self.kind {
            ModelKind::Adapter => "peft",
            ModelKind::Merged => "transformers",
        };
        front.insert("library_name".into(), library.into());
        front.insert("pipeline_tag".into(), "text-generation".into());
        if !self.datasets.is_empty() {
            front.insert("datasets".into(), self.datasets.clone().into());
        }
        let mut tags = vec!["reasoning", "distillation", "stillroom"];
        if self.kind == ModelKind::Adapter {
            tags.push("lora");
        }
        front.insert("tags".into(), tags.into());
        let results = self.results();
        if !results.is_empty() {
            front.insert(
                "model-index".into(),
                json!([{"name": name(&self.repo), "results": results}]),
            );
        }
        front
    }

    fn results(&self) -> Vec<Value> {
        let benchmarks = self.scores.iter().flat_map(|scores| &scores.benchmarks);
        benchmarks
            .filter_map(|benchmark| Some(result(benchmark, model(benchmark, &self.role)?)))
            .collect()
    }

    fn body(&self, text: &mut String) {
        let what = match self.kind {
            ModelKind::Adapter => "A LoRA adapter in PEFT's format",
            ModelKind::Merged => "A whole checkpoint",
        };
        let _ = write!(text, "\n# {}\n\n{what}", plain(name(&self.repo)));
        if let Some(base) = &self.base {
            let at = base.revision.as_ref();
            let at = at.map(|at| format!(" at `{at}`")).unwrap_or_default();
            let id = &base.id;
            let _ = write!(text, " of `{id}`{at}");
        }
        let teacher = self.origins.iter().find(|origin| origin.role == "Teacher");
        if let Some(teacher) = teacher.filter(|teacher| !teacher.names.is_empty()) {
            let _ = write!(
                text,
                ", trained on the reasoning of {}",
                list(&teacher.names)
            );
        }
        let _ = writeln!(
            text,
            ". Made by Stillroom {} with the recipe `{}` ([recipe.toml](recipe.toml), tag `{}`).\n",
            self.version,
            plain(&self.recipe),
            self.tag
        );
        self.usage(text);
        self.tables(text);
        self.licences(text);
    }

    fn usage(&self, text: &mut String) {
        let _ = writeln!(text, "```python");
        match self.kind {
            ModelKind::Merged => {
                let _ = writeln!(
                    text,
                    "from transformers import AutoModelForCausalLM, AutoTokenizer\n\nmodel = AutoModelForCausalLM.from_pretrained(\"{0}\")\ntokenizer = AutoTokenizer.from_pretrained(\"{0}\")",
                    self.repo
                );
            }
            ModelKind::Adapter => {
                let _ = writeln!(
                    text,
                    "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\nmodel = AutoPeftModelForCausalLM.from_pretrained(\"{0}\")\ntokenizer = AutoTokenizer.from_pretrained(\"{0}\")",
                    self.repo
                );
            }
        }
        let _ = writeln!(text, "```");
    }

    fn tables(&self, text: &mut String) {
        match &self.scores {
            Some(scores) => write_scores(text, scores),
            None => text.push_str("\n## Scores\n\nThis model has not been scored.\n"),
        }
        let _ = writeln!(text, "\n## Training\n");
        let losses = &self.losses;
        let mut rows = vec![("optimizer steps".to_owned(), losses.steps.to_string())];
        let loss = |value: f64| format!("{value:.4}");
        if let Some(value) = losses.train {
            rows.push(("training loss, last step".into(), loss(value)));
        }
        if let Some(value) = losses.validation {
            rows.push(("validation loss, last".into(), loss(value)));
        }
        if let Some((step, value)) = losses.best_validation {
            rows.push((
                "validation loss, best".into(),
                format!("{} (step {step})", loss(value)),
            ));
        }
        rows.extend(self.counts.iter().cloned());
        rows.extend(self.settings.iter().cloned());
        table(text, ["", ""], &rows);
        if !self.left_out.is_empty() {
            let _ = writeln!(text, "\n## Left out\n");
            write_left_out(text, &self.left_out);
        }
        if !self.missing.is_empty() {
            let _ = writeln!(text, "\n## Not in this repository\n");
            for line in &self.missing {
                let _ = writeln!(text, "- {}", plain(line));
            }
        }
    }

    fn licences(&self, text: &mut String) {
        write_licences(text, &self.licence, &self.origins);
    }
}

/// The section about licences of a card.
pub fn write_licences(text: &mut String, licence: &Licence, origins: &[Origin]) {
    let _ = writeln!(
        text,
        "\n## Licence\n\nThese files: {}. They come from:\n\n| | | licence |\n|---|---|---|",
        licence.text()
    );
    for origin in origins {
        let licence = match &origin.licence {
            Some(licence) => format!("`{}`", plain(licence)),
            None => "not stated".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {licence} |",
            origin.role,
            list(&origin.names)
        );
    }
}

/// Reasons with their numbers.
pub fn write_left_out(text: &mut String, left_out: &[(String, u64)]) {
    let rows: Vec<(String, String)> = left_out
        .iter()
        .map(|(reason, n)| (format!("`{}`", reason.replace('`', "'")), n.to_string()))
        .collect();
    table(text, ["reason", "rows"], &rows);
}

fn table(text: &mut String, head: [&str; 2], rows: &[(String, String)]) {
    let _ = writeln!(text, "| {} | {} |\n|---|--:|", head[0], head[1]);
    for (name, value) in rows {
        let _ = writeln!(text, "| {} | {} |", plain(name), plain(value));
    }
}

/// `NAME` of `ORG/NAME`.
pub fn name(repo: &str) -> &str {
    repo.rsplit('/').next().unwrap_or(repo)
}

fn list(names: &[String]) -> String {
    let names: Vec<String> = names
        .iter()
        .map(|name| format!("`{}`", plain(name)))
        .collect();
    names.join(", ")
}

/// Text that ends no cell, line or code of a table.
fn plain(text: &str) -> String {
    let text = text.replace('|', "\\|");
    text.split(['\n', '\r']).collect::<Vec<_>>().join(" ")
}

fn model<'a>(benchmark: &'a BenchmarkScores, role: &str) -> Option<&'a ModelScores> {
    benchmark.models.iter().find(|model| model.role == role)
}

/// In per cent, with two digits.
fn percent(value: f64) -> f64 {
    (value * 1e4).round() / 1e2
}

/// `92.50 [90.00, 95.10]`.
fn interval(value: f64, ci95: Option<[f64; 2]>) -> String {
    let value = percent(value);
    match ci95 {
        Some([low, high]) => format!("{value:.2} [{:.2}, {:.2}]", percent(low), percent(high)),
        None => format!("{value:.2}"),
    }
}

/// How the Hub's leaderboard calls a benchmark; none where it keeps none.
fn task(benchmark: &str) -> Option<&'static str> {
    match benchmark {
        "aime26" => Some("MathArena/aime_2026"),
        "gpqa_diamond" => Some("gpqa_diamond"),
        "gsm8k" => Some("gsm8k"),
        _ => None,
    }
}

/// A benchmark of `model-index`.
fn result(benchmark: &BenchmarkScores, model: &ModelScores) -> Value {
    let k = model.samples_per_question;
    let args = |ci95: Option<[f64; 2]>| {
        let mut args = json!({"questions": benchmark.n_questions, "samples": k});
        if let Some([low, high]) = ci95 {
            args["ci95"] = json!([percent(low), percent(high)]);
        }
        let sampling = benchmark.sampling.as_ref();
        if let Some(protocol) = sampling.and_then(|sampling| sampling.protocol.as_ref()) {
            args["protocol"] = protocol.as_str().into();
        }
        let departures = sampling.map_or(&[][..], |sampling| &sampling.departures);
        if !departures.is_empty() {
            args["departures"] = departures.into();
        }
        args
    };
    let metric = |name: String, value: f64, ci95| json!({"type": name.clone(), "value": percent(value), "name": name, "args": args(ci95)});
    let mut metrics = vec![
        metric(
            format!("avg@{k}"),
            model.avg_at_k.value,
            model.avg_at_k.ci95,
        ),
        metric(
            format!("maj@{k}"),
            model.maj_at_k.value,
            model.maj_at_k.ci95,
        ),
    ];
    let mut passes: Vec<(u64, _)> = model
        .pass_at_k
        .iter()
        .filter_map(|(k, estimate)| Some((k.parse().ok()?, estimate)))
        .collect();
    passes.sort_by_key(|(k, _)| *k);
    metrics.extend(
        passes
            .into_iter()
            .map(|(k, pass)| metric(format!("pass@{k}"), pass.value, pass.ci95)),
    );
    let known = named::find(&benchmark.name).and_then(|known| known.dataset());
    let mut dataset = json!({"name": benchmark.name, "type": benchmark.name});
    if let Some((id, revision)) = known {
        dataset["type"] = id.into();
        dataset["revision"] = revision.into();
    }
    json!({
        "task": {"type": "text-generation"},
        "dataset": dataset,
        "metrics": metrics,
    })
}

fn write_scores(text: &mut String, scores: &Scores) {
    let _ = writeln!(
        text,
        "\n## Scores\n\nPer cent, with 95 % intervals over questions. avg@k is pass@1 over k samples, pass@k the unbiased estimate, maj@k the vote of k samples."
    );
    for benchmark in &scores.benchmarks {
        let k = benchmark
            .models
            .iter()
            .map(|model| model.samples_per_question)
            .max()
            .unwrap_or(0);
        let _ = writeln!(
            text,
            "\n**{}**, {} questions\n\n| model | avg@{k} | pass@{k} | maj@{k} | truncated | mean tokens |\n|---|--:|--:|--:|--:|--:|",
            plain(&benchmark.name),
            benchmark.n_questions
        );
        for model in &benchmark.models {
            let pass = model.pass_at_k.get(&k.to_string());
            let pass = pass.map_or("–".to_owned(), |pass| interval(pass.value, pass.ci95));
            let _ = writeln!(
                text,
                "| {} | {} | {pass} | {} | {:.1} % | {:.0} |",
                plain(&model.role),
                interval(model.avg_at_k.value, model.avg_at_k.ci95),
                interval(model.maj_at_k.value, model.maj_at_k.ci95),
                model.truncated * 100.0,
                model.mean_completion_tokens
            );
        }
        if let Some(sampling) = &benchmark.sampling {
            let _ = writeln!(text, "\n{}", plain(&sampling.described()));
        }
        for pair in &benchmark.paired {
            let _ = writeln!(
                text,
                "\n{} − {}: {} points, question by question.",
                plain(&pair.b),
                plain(&pair.a),
                interval(pair.difference, pair.ci95)
            );
        }
    }
}

/// The files below `.eval_results` for the benchmarks that the Hub keeps leaderboards of: their names and contents.
pub fn eval_results(scores: &Scores, role: &str) -> Vec<(String, String)> {
    let entry = |benchmark: &BenchmarkScores| {
        let (id, _) = named::find(&benchmark.name)?.dataset()?;
        let (task, model) = (task(&benchmark.name)?, model(benchmark, role)?);
        let k = model.samples_per_question;
        let text = yaml::block(&json!([{
            "dataset": {"id": id, "task_id": task},
            "value": percent(model.avg_at_k.value),
            "notes": format!(
                "avg@{k} over {} questions, 95 % interval {}",
                benchmark.n_questions,
                interval(model.avg_at_k.value, model.avg_at_k.ci95)
            ),
        }]));
        Some((format!(".eval_results/{}.yaml", benchmark.name), text))
    };
    scores.benchmarks.iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use records::score::{AvgAtK, Estimate, SCHEMA};
    use std::collections::BTreeMap;

    fn scores(name: &str) -> Scores {
        let estimate = |value| Estimate {
            value,
            ci95: Some([value - 0.1, value + 0.05]),
        };
        let model = |role: &str, value| ModelScores {
            role: role.into(),
            model: role.into(),
            samples_per_question: 8,
            avg_at_k: AvgAtK {
                value,
                sampling_error: None,
                question_error: None,
                ci95: Some([value - 0.025, value + 0.026]),
            },
            pass_at_k: BTreeMap::from([
                ("8".into(), estimate(value)),
                ("16".into(), estimate(0.5)),
            ]),
            maj_at_k: estimate(value),
            truncated: 0.0,
            no_think_end: 0.0,
            no_answer: 0.0,
            missing: 0,
            mean_completion_tokens: 40.0,
            mean_tokens_correct: None,
            mean_tokens_incorrect: None,
            by_token_limit: Vec::new(),
            groups: Vec::new(),
            stopped_by: None,
        };
        Scores {
            schema: SCHEMA,
            benchmarks: vec![BenchmarkScores {
                name: name.into(),
                n_questions: 256,
                sampling: None,
                models: vec![model("base", 0.1), model("student", 0.92456)],
                paired: Vec::new(),
            }],
        }
    }

    fn card(kind: ModelKind) -> ModelCard {
        ModelCard {
            kind,
            repo: "org/student".into(),
            licence: Licence {
                id: "other".into(),
                name: Some("qwen-research".into()),
                link: Some("https://host/x".into()),
            },
            base: Some(HubModel {
                id: "Qwen/Qwen2.5-1.5B".into(),
                revision: Some("abc".into()),
            }),
            datasets: vec!["org/traces".into()],
            origins: vec![Origin {
                role: "Teacher",
                names: vec!["org/teacher".into()],
                licence: Some("mit".into()),
            }],
            recipe: "quick".into(),
            tag: "stillroom-0123".into(),
            version: "0.1.0".into(),
            settings: vec![("learning rate".into(), "0.004".into())],
            counts: Vec::new(),
            losses: Losses {
                steps: 90,
                train: Some(0.0389),
                ..Losses::default()
            },
            scores: Some(scores("gsm8k")),
            role: "student".into(),
            left_out: vec![("filter: a | b".into(), 3)],
            missing: vec!["checkpoints".into()],
        }
    }

    #[test]
    fn a_model_card_says_where_the_model_comes_from_and_what_it_scores() {
        let text = card(ModelKind::Adapter).text();
        for part in [
            "license: other\nlicense_name: qwen-research\nlicense_link: \"https://host/x\"\nbase_model: Qwen/Qwen2.5-1.5B\nbase_model_relation: adapter\nlibrary_name: peft\npipeline_tag: text-generation\ndatasets:\n- org/traces\n",
            "model-index:\n- name: student\n  results:\n  - task:\n      type: text-generation\n    dataset:\n      name: gsm8k\n      type: openai/gsm8k\n      revision: \"740312add88f781978c0658806c59bc2815b9866\"\n    metrics:\n    - type: avg@8\n",
            "value: 92.46\n",
            "        ci95:\n        - 89.96\n        - 95.06\n",
            "| student | 92.46 [89.96, 95.06] |",
            "`filter: a \\| b` | 3",
            "| Teacher | `org/teacher` | `mit` |",
            "AutoPeftModelForCausalLM",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        let merged = card(ModelKind::Merged).text();
        assert!(merged.contains("base_model_relation: finetune\nlibrary_name: transformers\n"));
    }

    #[test]
    fn what_is_not_known_is_left_out_or_said() {
        let mut card = card(ModelKind::Merged);
        card.scores = None;
        card.base = None;
        card.origins[0].licence = None;
        let text = card.text();
        assert!(!text.contains("model-index") && !text.contains("base_model"));
        assert!(text.contains("has not been scored") && text.contains("not stated"));
    }

    #[test]
    fn leaderboards_get_a_file_each() {
        let files = eval_results(&scores("gsm8k"), "student");
        assert_eq!(files[0].0, ".eval_results/gsm8k.yaml");
        assert!(
            files[0].1.starts_with(
                "- dataset:\n    id: openai/gsm8k\n    task_id: gsm8k\n  value: 92.46\n"
            ),
            "{}",
            files[0].1
        );
        assert!(eval_results(&scores("math500"), "student").is_empty());
        assert!(eval_results(&scores("gsm8k"), "teacher").is_empty());
    }
}
