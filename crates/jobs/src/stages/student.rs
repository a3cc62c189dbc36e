//! `train-student`: fine-tune the student.

use std::path::{Path, PathBuf};

use generation::config::{Backend, TeacherConfig};
use generation::prompts::PromptSet;
use model::tokenizer::Tokenizer;
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::parquet_file;
use records::run_dir::{DATASET, STUDENT, TRACES};
use records::table;
use records::{Reference, aside};
use serde_json::Value;
use trainer::config::{PromptTemplate, TrainConfig};
use trainer::{Limits, Place};

use crate::context::{Context, Files, adapter_config, check_parquet, is_elsewhere};
use crate::error::{Error, Result, io};
use crate::memory;
use crate::recipe::{Identity, Recipe};
use crate::stage::{Prepared, Stage, Task};
use crate::state::State;

/// Prompts whose words are looked at where two tokenizers differ.
const SAMPLED_PROMPTS: usize = 1000;

pub struct Student;

impl Stage for Student {
    fn name(&self) -> &'static str {
        STUDENT
    }

    fn is_asked_for(&self, recipe: &Recipe) -> bool {
        recipe.train.is_some()
    }

    fn sections(&self, recipe: &Recipe) -> Vec<(&'static str, bool)> {
        vec![
            ("student", recipe.student.is_some()),
            ("train", recipe.train.is_some()),
        ]
    }

    fn identity(&self, recipe: &Recipe) -> Result<Value> {
        // Said or by default, it is the same.
        let train = recipe.train.clone().map(|train| TrainConfig {
            long: Some(train.long()),
            ..train
        });
        Ok(Identity::default()
            .with("seed", recipe.seed)
            .section("student", &recipe.student, &[])?
            .section("train", &train, &["save_every", "keep"])?
            .value())
    }

    fn inputs(&self, context: &Context) -> Result<Vec<PathBuf>> {
        let train = context.recipe().train.as_ref();
        match train.and_then(|train| train.data.as_ref()) {
            Some(data) => context.files("train.data", data),
            None => Ok(parquet_file::files(
                &context.run_dir.dataset().join("data"),
                "",
            )?),
        }
    }

    /// It may be the work of days.
    fn is_kept_aside(&self) -> bool {
        true
    }

    fn prepare(&self, context: &Context) -> Result<Box<dyn Prepared>> {
        let recipe = context.recipe();
        if let Some(student) = &recipe.student {
            if let Some(model) = &student.model {
                context.check_model("student.model", model, Files::Weights)?;
            }
            if let Some(config) = &student.config {
                context.check_model("student.config", config, Files::Tokenizer)?;
            }
        }
        if let Some(train) = &recipe.train {
            self.fetch(context, train)?;
            if let Some(teacher) = &train.teacher {
                context.check_model("train.teacher.model", &teacher.model, Files::Weights)?;
            }
        }
        let limits = limits(context)?;
        check_traces_for_training(context)?;
        check_prompts(context, &limits)?;
        let train = recipe.train.as_ref();
        if train.is_some_and(|train| train.data.is_some()) {
            check_parquet(&self.inputs(context)?)?;
            if let Some(pattern) = train.and_then(|train| train.validation_data.as_ref()) {
                check_parquet(&context.files("train.validation_data", pattern)?)?;
            }
        } else if !context.includes(DATASET) {
            context.check_upstream(DATASET, "build-dataset")?;
            check_parquet(&self.inputs(context)?)?;
        }
        Ok(Box::new(Checked))
    }
}

impl Student {
    /// Looks up the rows and the adapter that training begins with.
    fn fetch(&self, context: &Context, train: &TrainConfig) -> Result<()> {
        let data = [
            ("train.data", &train.data),
            ("train.validation_data", &train.validation_data),
        ];
        for (key, data) in data {
            if let Some(data) = data {
                context.data(key, data, &table::ENDINGS)?;
            }
        }
        let lora = train.lora.as_ref();
        let adapter = lora.and_then(|lora| lora.init_from.as_ref());
        if let Some(adapter) = adapter.filter(|adapter| is_elsewhere(adapter)) {
            context.model("train.lora.init_from", adapter, Files::Adapter)?;
        }
        if let Some(adapter) = adapter {
            say_other_base(context, adapter)?;
        }
        Ok(())
    }
}

/// Says that the adapter to go on from was trained on another model than the student, by its name: on a student that it
/// is merged into already, it would count twice.
fn say_other_base(context: &Context, adapter: &Reference) -> Result<()> {
    let student = context.recipe().student.as_ref();
    let Some(model) = student.and_then(|student| student.model.as_ref()) else {
        return Ok(());
    };
    let config = adapter_config(adapter.path())?;
    let base = config["base_model_name_or_path"].as_str();
    let last = |name: &str| {
        let name = name.split('@').next().unwrap_or_default();
        name.trim_end_matches('/')
            .rsplit('/')
            .next()
            .map(str::to_owned)
    };
    if let Some(base) = base.filter(|base| !base.is_empty() && last(base) != last(model.as_str())) {
        eprintln!(
            "warning: train.lora.init_from is an adapter of {base}, and student.model is {model}: a model that the adapter is merged into gets it twice; leave student.model out to go on from the adapter's own base"
        );
    }
    Ok(())
}

struct Checked;

impl Prepared for Checked {
    fn describe(&self, context: &Context, upstream_runs: bool) -> Result<Vec<String>> {
        let own_data = context
            .recipe()
            .train
            .as_ref()
            .is_none_or(|train| train.data.is_none());
        let built = Manifest::read(&context.run_dir.dataset())?.is_some();
        if own_data && (upstream_runs || !built) {
            return Ok(vec![
                "its counts are known when the dataset is built".into(),
            ]);
        }
        let given = trainer_plan(context, Value::Null);
        let estimate =
            trainer::estimate::estimate(&given).map_err(|error| refused(context, error))?;
        let mut details = vec![
            format!(
                "{} of {} parameters trainable; about {:.0} MiB of memory at the peak on {}",
                estimate.trainable_parameters,
                estimate.parameters,
                estimate.peak_memory_bytes as f64 / f64::from(1 << 20),
                given.device,
            ),
            format!(
                "{} examples, {} tokens ({} supervised) per epoch, {} optimizer steps",
                estimate.examples,
                estimate.tokens_per_epoch,
                estimate.supervised_tokens_per_epoch,
                estimate.optimizer_steps
            ),
            format!("{} validation examples", estimate.validation_examples),
        ];
        details.extend(estimate.notes);
        details.extend(estimate.long_rows);
        let left_out = estimate.dropped.lines().into_iter();
        details.extend(left_out.map(|line| format!("left out: {line}")));
        Ok(details)
    }

    fn run(&self, task: &Task) -> Result<Outcome<()>> {
        let context = task.context;
        let given = trainer_plan(context, task.identity.clone());
        let failed = |error| failed(context, error);
        let prepared = given.prepare().map_err(failed)?;
        // Only now: rows that are refused leave the student before where it is.
        if let State::Stale(reason) = task.state {
            set_aside(&given.output, reason)?;
        }
        let models = trainer::load(&given, &prepared).map_err(failed)?;
        memory::keep_freed();
        let outcome = trainer::train(&given, &prepared, models, task.stop).map_err(failed)?;
        Ok(outcome.map(drop))
    }
}

/// What student and recipe allow, and that they go together.
fn limits(context: &Context) -> Result<Limits> {
    let given = trainer_plan(context, Value::Null);
    given.check().map_err(|error| match failed(context, error) {
        Error::Stage { source, .. } => context.input(
            context.student_key(),
            &source.to_string(),
            "the folder needs the config.json of a Qwen or Llama model",
        ),
        error => error,
    })
}

/// That the traces will bring what the student's loss and text need. Scores of a run's own folder bring it too.
fn check_traces_for_training(context: &Context) -> Result<()> {
    let recipe = context.recipe();
    let own = context.includes(TRACES) && trains_on_traces(context);
    if !own || context.run_dir.scored().is_dir() {
        return Ok(());
    }
    // Token ids and distributions come together.
    let (ids, what) = match (recipe.imports(), &recipe.teacher) {
        (Some(_), _) => (false, "imported traces".to_owned()),
        (None, Some(teacher)) => (
            gives_ids(teacher),
            format!("traces of the dialect {}", dialect(teacher)),
        ),
        (None, None) => return Ok(()),
    };
    let Some(train) = &recipe.train else {
        return Ok(());
    };
    if train.needs_top_k() && !ids {
        let kind = train.loss.kind.as_str();
        return Err(context.loaded.source.complain(
            "train.loss.kind",
            &format!("`{kind}` needs the teacher's top-k, and {what} have none"),
            Some(
                "train with kind = \"hard\"; or make the traces first (gen-traces, build-dataset for imported ones), and have a teacher that can add its top-k with score-traces"
                    .into(),
            ),
        ));
    }
    match context.student_tokenizer()? {
        Some(student) if !ids && student.end_of_turn_id().is_none() => Err(context.input(
            context.student_key(),
            &format!(
                "{what} are text, and {} names no token that ends a turn",
                student.dir().display()
            ),
            "tokenizer_config.json names it as `eos_token`, or the chat template writes it after the assistant's turn",
        )),
        _ => Ok(()),
    }
}

fn trains_on_traces(context: &Context) -> bool {
    let train = context.recipe().train.as_ref();
    train.is_some_and(|train| train.data.is_none())
}

/// That the prompts which this run samples fit the student: their length, and the ids of two tokenizers.
fn check_prompts(context: &Context, limits: &Limits) -> Result<()> {
    if !trains_on_traces(context) {
        return Ok(());
    }
    let (Some((teacher, set)), Some(student)) =
        (context.sampled_prompts()?, context.student_tokenizer()?)
    else {
        return Ok(());
    };
    check_context_length(context, &student, &set, limits.max_length)?;
    match context.local_tokenizer(teacher)? {
        Some(tokenizer) if gives_ids(teacher) => {
            check_same_ids(context, &tokenizer, &student, &set)
        }
        _ => Ok(()),
    }
}

/// That some prompt leaves room for a completion in what the student is trained on.
fn check_context_length(
    context: &Context,
    tokenizer: &Tokenizer,
    set: &PromptSet,
    max_length: usize,
) -> Result<()> {
    let recipe = context.recipe();
    let template = recipe
        .student
        .as_ref()
        .map(|student| student.prompt_template);
    if template != Some(PromptTemplate::Student) {
        return Ok(());
    }
    match context.shortest(tokenizer, set, max_length, context.student_key())? {
        None => Ok(()),
        Some(shortest) => Err(context.loaded.source.complain(
            "train.max_length",
            &format!(
                "the shortest of {} prompts has {shortest} of the student's tokens, which leaves no room for a completion in {max_length}",
                set.prompts.len()
            ),
            Some("raise train.max_length up to the student's context, or shorten prompts.system and prompts.template".into()),
        )),
    }
}

/// That the ids which the teacher is sure to use mean the same to the student: those of the problems' words and
/// numbers, of a boxed answer, and of the end of a turn.
fn check_same_ids(
    context: &Context,
    teacher: &Tokenizer,
    student: &Tokenizer,
    set: &PromptSet,
) -> Result<()> {
    if teacher.fingerprint() == student.fingerprint() {
        return Ok(());
    }
    let differ = |problem: String| {
        context.input(
            context.student_key(),
            &format!("traces carry the teacher's token ids, and {problem}"),
            "take a student of the teacher's tokenizer family: equal ids have to mean equal bytes",
        )
    };
    let texts = set.prompts.iter().take(SAMPLED_PROMPTS).map(|prompt| {
        let gold = prompt.gold_answer.as_deref().unwrap_or_default();
        format!("{}\n\\boxed{{{gold}}}", prompt.problem)
    });
    for text in texts {
        let ids = teacher
            .encode(&text)
            .map_err(|error| differ(error.to_string()))?;
        teacher
            .compatible(student, ids)
            .map_err(|error| differ(error.to_string()))?;
    }
    teacher
        .compatible(student, teacher.end_of_turn_id())
        .map_err(|error| differ(error.to_string()))
}

/// Whether a teacher's traces carry token ids, and with them its distributions.
fn gives_ids(teacher: &TeacherConfig) -> bool {
    teacher.backend != Backend::Openai || teacher.dialect().takes_token_ids()
}

/// As the recipe writes it.
fn dialect(teacher: &TeacherConfig) -> String {
    serde_json::to_value(teacher.dialect())
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// A key that cannot be is the recipe's mistake, all else is the stage's.
fn failed(context: &Context, error: trainer::Error) -> Error {
    match error {
        trainer::Error::Config { .. }
        | trainer::Error::DataPattern { .. }
        | trainer::Error::Model(model::Error::Setting { .. }) => {
            context.loaded.trainer_error(error)
        }
        error => Error::stage(STUDENT, error),
    }
}

/// As [`failed`], where nothing has started: rows that cannot be trained on are the recipe's matter too.
fn refused(context: &Context, error: trainer::Error) -> Error {
    let data = context
        .recipe()
        .train
        .as_ref()
        .and_then(|train| train.data.as_ref());
    match error {
        trainer::Error::Row { .. }
        | trainer::Error::Tokenizer { .. }
        | trainer::Error::NoExamples { .. } => context.input(
            if data.is_some() {
                "train.data"
            } else {
                "train"
            },
            &error.to_string(),
            "mend or remove the rows, name other data, or change what the message names",
        ),
        error => failed(context, error),
    }
}

/// What the trainer is given; `identity` is for its manifest.
fn trainer_plan(context: &Context, identity: Value) -> trainer::Plan {
    let recipe = context.recipe();
    let student = recipe.student.clone().unwrap_or_default();
    let folder = student.folder().map(|model| model.path().to_path_buf());
    let teacher = recipe
        .teacher
        .as_ref()
        .map(|teacher| teacher.tokenizer.as_ref().unwrap_or(&teacher.model))
        .map(|model| model.path().to_path_buf());
    let train = recipe.train.as_ref();
    let online = train.and_then(|train| train.teacher.as_ref());
    trainer::Plan {
        student,
        train: recipe.train.clone().unwrap_or_default(),
        seed: recipe.seed,
        student_dir: folder.unwrap_or_default(),
        teacher_dir: teacher.filter(|dir| dir.is_dir()),
        online_teacher_dir: online.map(|teacher| teacher.model.path().to_path_buf()),
        dataset_dir: context.run_dir.dataset(),
        output: context.run_dir.student(),
        recipe: identity,
        quiet: context.quiet,
        device: context.device.unwrap_or_else(Place::found),
    }
}

/// Moves the student's folder aside when another student is to come, and says so to the quiet too: it may be the work
/// of days.
fn set_aside(student: &Path, reason: &str) -> Result<()> {
    let aside = aside::replace(student)?;
    std::fs::create_dir_all(student).map_err(io(student))?;
    eprintln!(
        "student: trained again ({reason}); the one before is kept as {}",
        aside.to.display()
    );
    for old in aside.removed {
        eprintln!(
            "student: {} is removed, the newest {} are kept",
            old.display(),
            aside::KEPT
        );
    }
    Ok(())
}
