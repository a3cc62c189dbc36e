//! The parts of the page put together.

use minijinja::{Environment, UndefinedBehavior, context};
use records::json;
use records::run_dir::RunDir;
use records::score::{BenchmarkScores, Scores};
use records::stats::Stats;
use serde::Serialize;

use crate::chart;
use crate::curves::Curves;
use crate::error::{Error, Result};
use crate::parts::dataset::share;
use crate::parts::scores::Benchmark;
use crate::parts::{self, Picture, scores, training};
use crate::samples::{self, Sample};
use crate::stages::{self, Line, Stage};
use crate::words::{count, excerpt, percent, short, word};

const TEMPLATE: &str = include_str!("report.html");

/// Characters of the recipe that are shown.
const RECIPE: usize = 40_000;

/// What the template is given. Pictures are SVG.
#[derive(Serialize)]
struct Page {
    name: String,
    tiles: Vec<Tile>,
    way: String,
    dataset: Option<parts::dataset::Dataset>,
    curves: Vec<Picture>,
    benchmarks: Vec<Benchmark>,
    samples: Vec<Sample>,
    stages: Vec<Line>,
    recipe: String,
}

#[derive(Serialize)]
struct Tile {
    value: String,
    label: &'static str,
    note: String,
}

/// The page of a run, HTML.
///
/// # Errors
/// As [`crate::write`].
pub fn page(run: &RunDir, stages: &[&'static str]) -> Result<String> {
    let stages = stages::read(run, stages)?;
    let samples = samples::choose(run)?;
    let stats: Option<Stats> = json::read(&run.dataset().join("stats.json"))?;
    let scores: Option<Scores> = json::read(&run.scores().join("scores.json"))?;
    let metrics = run.student().join("metrics.jsonl");
    let curves = match metrics.is_file() {
        true => Curves::read(&metrics)?,
        false => Curves::default(),
    };
    let recipe = match std::fs::read_to_string(run.recipe()) {
        // A folder of a single job may have none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|source| Error::Io {
            path: run.recipe(),
            source,
        })?,
    };
    let benchmarks = scores.as_ref().map_or(&[][..], |scores| &scores.benchmarks);
    let stations: Vec<_> = stages.iter().map(Stage::station).collect();
    let page = Page {
        name: name(run, &recipe),
        tiles: tiles(&stages, stats.as_ref(), &curves, benchmarks),
        way: chart::way(&stations),
        dataset: stats.map(|stats| parts::dataset::describe(&stats, &samples)),
        curves: training::describe(&curves),
        benchmarks: benchmarks.iter().map(scores::describe).collect(),
        samples,
        stages: stages.iter().filter_map(Stage::line).collect(),
        recipe: excerpt(&recipe, RECIPE),
    };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Everything is escaped but the pictures, whose texts are.
    environment.add_template("report.html", TEMPLATE)?;
    let template = environment.get_template("report.html")?;
    Ok(template.render(context! { page })?)
}

/// The recipe's, or else the folder's.
fn name(run: &RunDir, recipe: &str) -> String {
    let table: Option<toml::Table> = toml::from_str(recipe).ok();
    let name = table.as_ref().and_then(|table| table.get("name")?.as_str());
    let folder = || {
        run.root
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    name.map(str::to_owned).or_else(folder).unwrap_or_default()
}

fn tiles(
    stages: &[Stage],
    stats: Option<&Stats>,
    curves: &Curves,
    benchmarks: &[BenchmarkScores],
) -> Vec<Tile> {
    let mut tiles = Vec::new();
    if let Some(stats) = stats {
        let correct = stats.verdicts.get("correct").copied().unwrap_or(0);
        tiles.push(Tile {
            value: count(stats.traces),
            label: "traces",
            note: format!("{} % correct", percent(share(correct, stats.traces))),
        });
        tiles.push(Tile {
            value: count(stats.train),
            label: "to train on",
            note: format!(
                "{} % of the traces",
                percent(share(stats.train, stats.traces))
            ),
        });
    }
    let traces = stages.iter().find(|stage| stage.name == "traces");
    if let Some(tokens) = traces.and_then(|stage| stage.tokens("completion")) {
        tiles.push(Tile {
            value: short(tokens as f64),
            label: "tokens sampled",
            note: String::new(),
        });
    }
    tiles.extend(curves.loss.end().map(|loss| {
        Tile {
            value: format!("{loss:.3}"),
            label: "loss at the end",
            note: curves
                .validation
                .end()
                .map_or_else(String::new, |loss| format!("{loss:.3} in validation")),
        }
    }));
    if let Some(benchmark) = benchmarks.first() {
        let student = benchmark
            .models
            .iter()
            .find(|model| model.role == "student");
        tiles.extend(student.map(|student| Tile {
            value: percent(student.avg_at_k.value),
            label: "student",
            note: format!(
                "avg@{}, {}",
                student.samples_per_question,
                word(&benchmark.name)
            ),
        }));
        tiles.extend(benchmark.closed_share().map(|closed| Tile {
            value: format!("{} %", percent(closed)),
            label: "of the distance closed",
            note: "from base to teacher".to_owned(),
        }));
    }
    tiles
}
