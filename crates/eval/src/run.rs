//! Samples what is missing, grades all of it, and writes the `scores/` folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use generation::candle::CandleTeacher;
use generation::load::Source;
use generation::sample::{Sampling, sample};
use generation::teacher::{Description, Teacher};
use records::hash::FileStamp;
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::parquet_file::Writer;
use records::prompt::Prompt;
use records::score::{BenchmarkScores, SCHEMA, Scores};
use records::{LeftOut, atomic, stamps};
use serde_json::json;

use crate::error::{Error, Result, io};
use crate::kept::{self, RowKey};
use crate::plan::{EvalModel, Plan, Via, checkpoint_files};
use crate::questions::{self, Questions};
use crate::sample::{self as graded_sample, Sample};
use crate::score::{Graded, paired};
use crate::table;

/// Rows written at once; the same for every run, so that the file's bytes are too.
const WRITE_ROWS: usize = 64;

/// What a complete evaluation has to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub scores: Scores,
    /// Requests that their model refused; they count as missing.
    pub n_failed: u64,
}

/// Makes the sampler of a model of these files. Called only when rows are missing, one model at a time.
pub type LoadTeacher<'a> =
    &'a dyn Fn(&EvalModel, &[FileStamp], &Plan) -> generation::Result<Box<dyn Teacher>>;

/// Evaluates each model as it says that it is sampled.
pub fn run(plan: &Plan, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    run_with(plan, &load_model, stop)
}

fn load_model(
    model: &EvalModel,
    files: &[FileStamp],
    plan: &Plan,
) -> generation::Result<Box<dyn Teacher>> {
    let options = plan.sampling();
    match &model.via {
        Via::Folder {
            folder,
            chat_template_kwargs,
        } => {
            let teacher = CandleTeacher::load(folder.path(), options)?;
            let kwargs = chat_template_kwargs.clone();
            Ok(Box::new(teacher.with_chat_template_kwargs(kwargs)?))
        }
        Via::Section(section) => {
            Source::new(&section.teacher, section.secret.clone(), files)?.load(options, 0.0)
        }
    }
}

/// Evaluates with the samplers that `load` makes.
pub fn run_with(plan: &Plan, load: LoadTeacher<'_>, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    let (started_at, clock) = (now_micros(), Instant::now());
    plan.config.validate()?;
    let benchmarks = plan.config.benchmarks()?;
    let benchmarks: Vec<Questions> = benchmarks
        .iter()
        .map(questions::load)
        .collect::<Result<_>>()?;
    let mut contestants = Vec::new();
    for model in &plan.models {
        let (files, description) = checkpoint_files(model)?;
        let key = plan.sampling_key(model, &files);
        contestants.push(Contestant {
            model,
            files,
            description,
            key,
            parts: Vec::new(),
        });
    }

    fs::create_dir_all(&plan.output).map_err(io(&plan.output))?;
    Manifest::remove(&plan.output)?;
    atomic::remove_stale_temporaries(&plan.output)?;
    for contestant in &mut contestants {
        match sample_missing(plan, contestant, &benchmarks, load, stop)? {
            Outcome::Complete(parts) => contestant.parts = parts,
            Outcome::Interrupted => return Ok(Outcome::Interrupted),
        }
    }

    let mut manifest = Manifest::new("scores", plan.recipe.clone(), started_at);
    let scores = merge(plan, &contestants, &benchmarks, &mut manifest)?;
    let scores_json = plan.output.join("scores.json");
    let mut bytes = serde_json::to_vec_pretty(&scores).map_err(|source| Error::Json {
        path: scores_json.clone(),
        source,
    })?;
    bytes.push(b'\n');
    let scores_json = atomic::write_stamped(&scores_json, &bytes)?;
    let scores_md = plan.output.join("scores.md");
    let scores_md = atomic::write_stamped(&scores_md, table::markdown(&scores).as_bytes())?;
    kept::remove(&plan.output)?;

    for contestant in &contestants {
        manifest.inputs.extend(contestant.files.iter().cloned());
    }
    for benchmark in &benchmarks {
        manifest.inputs.push(benchmark.file.stamp()?);
    }
    let samples = stamps::stamp(&plan.output.join(kept::SAMPLES))?;
    manifest.outputs = vec![samples, scores_json, scores_md];
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.output)?;
    let n_failed = manifest.counts.get("failed").copied().unwrap_or(0);
    Ok(Outcome::Complete(Summary { scores, n_failed }))
}

struct Contestant<'a> {
    model: &'a EvalModel,
    files: Vec<FileStamp>,
    description: Description,
    key: String,
    /// That were sampled since the evaluation before.
    parts: Vec<PathBuf>,
}

/// Samples every row of one model that is not there yet, and gives the parts they are in.
fn sample_missing(
    plan: &Plan,
    contestant: &Contestant<'_>,
    benchmarks: &[Questions],
    load: LoadTeacher<'_>,
    stop: &AtomicBool,
) -> Result<Outcome<Vec<PathBuf>>> {
    let Contestant {
        model, files, key, ..
    } = contestant;
    let role = &model.role;
    let mut present = BTreeSet::new();
    kept::finished(&plan.output, role, key, |trace| {
        present.insert((trace.prompt_id, trace.sample_index));
    })?;
    let prompts = prompts(plan, benchmarks);
    let samples = plan.config.samples;
    let all = (0..prompts.len()).flat_map(|at| (0..samples).map(move |index| (at, index)));
    let mut missing = all
        .filter(|&(at, index)| !present.contains(&(prompts[at].prompt_id.clone(), index)))
        .peekable();
    if missing.peek().is_none() {
        return Ok(Outcome::Complete(Vec::new()));
    }
    let sampling = Sampling {
        dir: &kept::folder(&plan.output, role, key),
        prompts: &prompts,
        key: [("evaluation".to_owned(), json!(key))]
            .into_iter()
            .collect(),
        teacher: &contestant.description,
        teacher_files: files,
        config: &plan.sampling(),
        seed: plan.role_seed(role),
        prices: match &model.via {
            Via::Folder { .. } => None,
            Via::Section(section) => section.teacher.price_per_million,
        },
        retry_failed: false,
        noun: &format!("samples of the {role}"),
        quiet: plan.quiet,
    };
    let sampled = sample(&sampling, missing, |_| load(model, files, plan), stop);
    let sampled = sampled.map_err(|source| Error::Sampling {
        role: role.to_string(),
        source: Box::new(source),
    })?;
    match sampled {
        Outcome::Complete(summary) if summary.exhausted() > 0 => Err(Error::Exhausted {
            role: role.to_string(),
            n_exhausted: summary.exhausted(),
            fault: summary.last_fault.unwrap_or_default(),
        }),
        sampled => Ok(sampled.map(|summary| summary.parts)),
    }
}

/// The questions of all benchmarks, by their ids: a problem that stands in two benchmarks is sampled once.
fn prompts(plan: &Plan, benchmarks: &[Questions]) -> Vec<Prompt> {
    let mut prompts = BTreeMap::new();
    for benchmark in benchmarks {
        for problem in &benchmark.problems {
            prompts.entry(&problem.id).or_insert_with(|| Prompt {
                prompt_id: problem.id.clone(),
                source: benchmark.source.clone(),
                problem: problem.problem.clone(),
                gold_answer: Some(problem.gold.clone()),
                messages: plan.messages(&problem.problem),
            });
        }
    }
    prompts.into_values().collect()
}

/// Grades every row, writes `samples.parquet` sorted by (benchmark, role, prompt_id,
/// sample_index), and counts.
fn merge(
    plan: &Plan,
    contestants: &[Contestant<'_>],
    benchmarks: &[Questions],
    manifest: &mut Manifest,
) -> Result<Scores> {
    let mut metadata: Vec<_> = contestants
        .iter()
        .map(|contestant| {
            (
                kept::metadata_key(&contestant.model.role),
                contestant.key.clone(),
            )
        })
        .collect();
    metadata.sort();
    let path = plan.output.join(kept::SAMPLES);
    let mut writer = Writer::create(&path, graded_sample::schema(), &metadata)?;
    let mut by_name: Vec<&Questions> = benchmarks.iter().collect();
    by_name.sort_by_key(|benchmark| &benchmark.name);
    let mut by_role: Vec<&Contestant<'_>> = contestants.iter().collect();
    by_role.sort_by_key(|contestant| contestant.model.role.as_str());

    let (mut graded, mut left_out) = (BTreeMap::new(), LeftOut::default());
    for benchmark in by_name {
        let ids: Vec<String> = benchmark
            .problems
            .iter()
            .map(|problem| problem.id.clone())
            .collect();
        for contestant in &by_role {
            let role = contestant.model.role.as_str();
            let samples = graded_samples(plan, contestant, benchmark)?;
            for chunk in samples.chunks(WRITE_ROWS) {
                writer.write(&graded_sample::to_batch(chunk)?)?;
            }
            let failures: Vec<&str> = samples
                .iter()
                .filter_map(|sample| sample.trace.error.as_deref())
                .collect();
            let counted = Graded::new(&ids, &samples);
            if counted.n_samples == 0 {
                return Err(Error::NoSamples {
                    role: role.to_owned(),
                    benchmark: benchmark.name.clone(),
                    reason: failures
                        .first()
                        .map_or("the model gave none".to_owned(), |reason| {
                            (*reason).to_owned()
                        }),
                });
            }
            *manifest.counts.entry("samples".to_owned()).or_default() += counted.n_samples;
            *manifest.counts.entry("failed".to_owned()).or_default() += failures.len() as u64;
            *manifest
                .tokens
                .entry(format!("{role}_completion"))
                .or_default() += counted.n_tokens;
            graded.insert((benchmark.name.as_str(), role), counted);
        }
        *manifest.counts.entry("questions".to_owned()).or_default() += ids.len() as u64;
        left_out.add_under("", &benchmark.left_out);
    }
    writer.finish()?;
    manifest.set_left_out(&left_out);

    let samples = u64::from(plan.config.samples);
    let mut scores = Scores {
        schema: SCHEMA,
        benchmarks: Vec::new(),
    };
    for benchmark in benchmarks {
        let mut models = Vec::new();
        let mut of_roles = Vec::new();
        for contestant in contestants {
            let role = contestant.model.role.as_str();
            if let Some(graded) = graded.remove(&(benchmark.name.as_str(), role)) {
                models.extend(graded.scores(role, &contestant.model.name, samples));
                of_roles.push((role.to_owned(), graded));
            }
        }
        scores.benchmarks.push(BenchmarkScores {
            name: benchmark.name.clone(),
            n_questions: benchmark.problems.len() as u64,
            models,
            paired: paired(&of_roles),
        });
    }
    Ok(scores)
}

/// The rows of one model on one benchmark, sorted by (prompt_id, sample_index).
fn graded_samples(
    plan: &Plan,
    contestant: &Contestant<'_>,
    benchmark: &Questions,
) -> Result<Vec<Sample>> {
    let problems: BTreeMap<&str, _> = benchmark
        .problems
        .iter()
        .map(|problem| (problem.id.as_str(), problem))
        .collect();
    let place = (&*plan.output, &contestant.model.role, &*contestant.key);
    let wanted =
        |(id, index): &RowKey| *index < plan.config.samples && problems.contains_key(id.as_str());
    let rows = kept::read(place, &contestant.parts, wanted)?;
    Ok(rows
        .into_iter()
        .map(|((id, _), mut trace)| {
            // The gold answer may have been corrected since the row was sampled, and the model's
            // folder may have another name by now.
            if let Some(problem) = problems.get(id.as_str()) {
                trace.gold_answer = Some(problem.gold.clone());
            }
            trace.source.clone_from(&benchmark.source);
            trace.teacher.clone_from(&contestant.model.name);
            Sample::graded(
                trace,
                &benchmark.name,
                contestant.model.role.as_str(),
                benchmark.verifier,
            )
        })
        .collect())
}

/// Reads the scores of a finished evaluation.
pub fn read_scores(output: &Path) -> Result<Scores> {
    let path = output.join("scores.json");
    let bytes = fs::read(&path).map_err(io(&path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })
}

#[cfg(test)]
mod tests;
