//! The cards of what is pushed, from what the stages left.

use std::io::{BufRead, BufReader};

use dataset::Publication;
use hub::RepoUrl;
use hub::card::{self, HubModel, Licence, Losses, ModelCard, ModelKind, Origin};
use hub::yaml;
use records::Reference;
use records::manifest::Manifest;
use records::metric::{Split, StepMetrics};
use records::score::Scores;
use records::stats::Stats;
use serde_json::{Map, Value, json};

use super::files::{Kind, Target};
use super::{identity, licences, tag};
use crate::context::Context;
use crate::error::{Result, io};
use crate::recipe::HubConfig;

/// The role of the pushed model in the scores.
pub(super) const ROLE: &str = "student";

/// What a model card is made of.
pub(super) struct Made<'a> {
    pub manifest: &'a Manifest,
    pub base: Option<HubModel>,
    pub scores: Option<Scores>,
    pub notes: &'a [String],
}

pub(super) fn model(
    context: &Context,
    hub: &HubConfig,
    target: &Target,
    made: Made<'_>,
) -> Result<String> {
    let stats: Option<Stats> = stats(context)?;
    let manifest = made.manifest;
    let mut missing: Vec<String> = made.notes.to_vec();
    missing.push(match target.kind {
        Kind::Adapter => "the base model's weights".into(),
        Kind::Merged | Kind::Dataset => match hub.adapter() {
            Some(adapter) => format!("the adapter by itself ({})", adapter.id()),
            None => "the adapter by itself".into(),
        },
    });
    missing.push("checkpoints and optimizer states of the training, and the traces".into());
    let mut datasets: Vec<String> = hub.dataset_repo.iter().cloned().collect();
    datasets.extend(sources(context));
    datasets.dedup();
    let card = ModelCard {
        kind: match target.kind {
            Kind::Adapter => ModelKind::Adapter,
            Kind::Merged | Kind::Dataset => ModelKind::Merged,
        },
        repo: target.repo.id(),
        licence: hub.model_licence().unwrap_or_default(),
        base: made.base,
        datasets,
        origins: origins(context, hub, stats.as_ref(), true),
        recipe: context.recipe().name.clone(),
        tag: tag(&identity(context.recipe())?),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings: settings(&manifest.recipe),
        counts: counts(manifest, stats.as_ref()),
        losses: losses(context)?,
        scores: made.scores,
        role: ROLE.to_owned(),
        left_out: left_out(manifest, stats.as_ref()),
        missing,
    };
    Ok(card.text())
}

pub(super) fn dataset(
    context: &Context,
    hub: &HubConfig,
    target: &Target,
    manifest: &Manifest,
) -> Result<String> {
    let stats = stats(context)?.unwrap_or_default();
    let recipe = context.recipe();
    let config = recipe.dataset.clone().unwrap_or_default();
    let licence = hub.dataset_licence().unwrap_or_else(|| Licence {
        id: config.license.clone().unwrap_or_default(),
        ..Licence::default()
    });
    let mut front = Map::new();
    licence.declare(&mut front);
    front.insert("pretty_name".into(), card::name(&target.repo.id()).into());
    let sources = sources(context);
    if !sources.is_empty() {
        front.insert("source_datasets".into(), json!(sources));
    }
    let mut text = String::new();
    card::write_licences(
        &mut text,
        &licence,
        &origins(context, hub, Some(&stats), false),
    );
    let publication = Publication {
        front: yaml::block(&Value::Object(front)),
        title: card::name(&target.repo.id()).to_owned(),
        place: target.repo.id(),
        origin: format!(
            " Made by version {} with the recipe `{}` ([recipe.toml](recipe.toml), tag `{}`).",
            manifest.tool_version,
            recipe.name,
            tag(&identity(recipe)?)
        ),
        licence: text,
    };
    Ok(dataset::published_card(&stats, &config, &publication))
}

/// What became of the traces, where the run has a dataset of its own.
fn stats(context: &Context) -> Result<Option<Stats>> {
    let own = context.recipe().train.as_ref();
    match own.is_some_and(|train| train.data.is_some()) {
        true => Ok(None),
        false => Ok(records::json::read(
            &context.run_dir.dataset().join("stats.json"),
        )?),
    }
}

/// The Hub's datasets that the run began with.
fn sources(context: &Context) -> Vec<String> {
    let recipe = context.recipe();
    let prompts = recipe.prompts.as_ref().map(|prompts| &prompts.source);
    let traces = recipe.traces.as_ref().map(|traces| &traces.source);
    let train = recipe.train.as_ref().and_then(|train| train.data.as_ref());
    let mut found: Vec<String> = [prompts, traces, train]
        .into_iter()
        .flatten()
        .filter_map(|source| RepoUrl::parse(source.as_str()).ok())
        .map(|url| format!("{}/{}", url.org, url.name))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn origins(
    context: &Context,
    hub: &HubConfig,
    stats: Option<&Stats>,
    with_base: bool,
) -> Vec<Origin> {
    let recipe = context.recipe();
    let mut origins = Vec::new();
    let student = recipe.student.as_ref();
    let base = student.and_then(|student| student.model.as_ref());
    if let (true, Some(base)) = (with_base, base) {
        let name = hub
            .base_model
            .clone()
            .unwrap_or_else(|| shown(base.as_str()));
        origins.push(Origin {
            role: "Base model",
            names: vec![name],
            licence: hub.base_license.clone(),
        });
    }
    let named = stats.map(|stats| stats.teachers.keys().map(|name| shown(name)).collect());
    let named = named.filter(|names: &Vec<String>| !names.is_empty());
    let teacher = recipe.teacher.as_ref();
    let teachers = named.or_else(|| teacher.map(|teacher| vec![shown(teacher.model.as_str())]));
    if let Some(names) = teachers {
        origins.push(Origin {
            role: "Teacher",
            names,
            licence: hub.teacher_license.clone(),
        });
    }
    if let Some(data) = licences::data(context) {
        origins.push(Origin {
            role: "Data",
            names: vec![shown(data.as_str())],
            licence: hub.data_license.clone(),
        });
    }
    origins
}

/// A name without the folders of this machine.
fn shown(name: &str) -> String {
    let path = std::path::Path::new(name);
    match (path.is_absolute(), path.file_name()) {
        (true, Some(last)) => last.to_string_lossy().into_owned(),
        _ => Reference::new(name).to_string(),
    }
}

/// The settings of a training that a reader wants to know, as its manifest has them.
fn settings(recipe: &Value) -> Vec<(String, String)> {
    const SETTINGS: [(&str, &str); 12] = [
        ("method", "/train/method"),
        ("loss", "/train/loss/kind"),
        ("hard weight", "/train/loss/hard_weight"),
        ("divergence", "/train/loss/divergence"),
        ("epochs", "/train/epochs"),
        ("steps at most", "/train/max_steps"),
        ("batch size, examples", "/train/batch_size"),
        ("learning rate", "/train/learning_rate"),
        ("schedule", "/train/schedule"),
        ("precision", "/train/precision"),
        ("longest example, tokens", "/train/max_length"),
        ("seed", "/seed"),
    ];
    const LORA: [(&str, &str); 3] = [
        ("LoRA rank", "/train/lora/rank"),
        ("LoRA alpha", "/train/lora/alpha"),
        ("LoRA dropout", "/train/lora/dropout"),
    ];
    let hard = recipe.pointer("/train/loss/kind") == Some(&Value::from("hard"));
    let mut names: Vec<_> = SETTINGS.to_vec();
    if hard {
        names.retain(|(_, at)| !at.ends_with("hard_weight") && !at.ends_with("divergence"));
    }
    if recipe.pointer("/train/method") != Some(&Value::from("full")) {
        names.extend(LORA);
    }
    let said = |(name, at): (&str, &str)| {
        let value = match recipe.pointer(at)? {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        Some((name.to_owned(), value))
    };
    names.into_iter().filter_map(said).collect()
}

fn counts(manifest: &Manifest, stats: Option<&Stats>) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    if let Some(stats) = stats {
        rows.push(("traces sampled".to_owned(), stats.traces.to_string()));
    }
    for (name, key) in [
        ("examples", "examples"),
        ("validation examples", "validation_examples"),
        ("trainable parameters", "trainable_parameters"),
    ] {
        if let Some(n) = manifest.counts.get(key) {
            rows.push((name.to_owned(), n.to_string()));
        }
    }
    if let Some(n) = manifest.tokens.get("supervised_per_epoch") {
        rows.push(("supervised tokens per epoch".to_owned(), n.to_string()));
    }
    rows
}

fn left_out(manifest: &Manifest, stats: Option<&Stats>) -> Vec<(String, u64)> {
    let mut reasons = stats.map(Stats::top_reasons).unwrap_or_default();
    let trained = manifest.dropped.iter().filter(|(_, n)| **n > 0);
    reasons.extend(trained.map(|(reason, n)| (format!("training: {reason}"), *n)));
    reasons
}

fn losses(context: &Context) -> Result<Losses> {
    let path = context.run_dir.student().join("metrics.jsonl");
    let mut losses = Losses::default();
    let file = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(losses),
        file => file.map_err(io(&path))?,
    };
    for line in BufReader::new(file).lines() {
        let line = line.map_err(io(&path))?;
        let Ok(step) = serde_json::from_str::<StepMetrics>(&line) else {
            continue;
        };
        losses.steps = losses.steps.max(step.step);
        match step.split {
            Split::Train => losses.train = Some(step.loss),
            Split::Validation => {
                losses.validation = Some(step.loss);
                let best = losses
                    .best_validation
                    .map_or(f64::INFINITY, |(_, loss)| loss);
                if step.loss < best {
                    losses.best_validation = Some((step.step, step.loss));
                }
            }
        }
    }
    Ok(losses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_that_the_training_read() {
        let recipe = json!({"seed": 7, "train": {"method": "lora", "epochs": 3,
            "loss": {"kind": "hard", "hard_weight": 0.5}, "lora": {"rank": 16}}});
        let found = settings(&recipe);
        let has = |name: &str, value: &str| found.contains(&(name.to_owned(), value.to_owned()));
        assert!(has("LoRA rank", "16") && has("epochs", "3") && has("seed", "7"));
        assert!(!found.iter().any(|(name, _)| name == "hard weight"));
    }

    #[test]
    fn folders_of_this_machine_are_not_told() {
        assert_eq!(shown("/home/me/models/base"), "base");
        assert_eq!(shown("org/base@main"), "org/base@main");
    }
}
