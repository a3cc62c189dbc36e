//! What a run is asked to do, and what it reads before it starts.

use std::fs;
use std::path::PathBuf;

use model::checkpoint;
use model::config::ModelConfig;
use model::tokenizer::Tokenizer;
use ops::device::Place;
use records::hash::{self, FileStamp};
use records::manifest;
use records::stamps;

use crate::Error;
use crate::batch::Sampler;
use crate::config::{Method, StudentConfig, TrainConfig};
use crate::data::{self, Counts, LoadOptions, Loaded, TOO_LONG};
use crate::error::io;

/// One row in so many may be left out for its length without `train.long` being set.
const LONG_ROWS_ASKED: u64 = 10;

/// Input of [`run`](crate::run) and [`estimate`](crate::estimate::estimate).
#[derive(Clone, Debug)]
pub struct Plan {
    pub student: StudentConfig,
    pub train: TrainConfig,
    pub seed: u64,
    /// Local folder of `student.model` or `student.config`.
    pub student_dir: PathBuf,
    /// Folder with the tokenizer of the model that sampled the rows; only read where its ids are not the student's.
    pub teacher_dir: Option<PathBuf>,
    /// Local folder of `train.teacher.model`.
    pub online_teacher_dir: Option<PathBuf>,
    /// The run's dataset folder: `data/train-*.parquet`, `data/validation-*.parquet`.
    pub dataset_dir: PathBuf,
    /// The `student/` folder.
    pub output: PathBuf,
    /// The recipe sections that decide this stage's output, for the manifest.
    pub recipe: serde_json::Value,
    pub quiet: bool,
    /// Where the student is trained.
    pub device: Place,
}

/// What a student and the recipe together allow.
#[derive(Debug)]
pub struct Limits {
    /// Of the student, with the recipe's overrides.
    pub config: ModelConfig,
    /// Tokens of the longest example that is trained on whole.
    pub max_length: usize,
}

/// A plan whose settings are checked and whose inputs are found, before any row is read.
pub(crate) struct Inputs {
    pub config: ModelConfig,
    pub tokenizer: Tokenizer,
    teacher_tokenizer: Option<Tokenizer>,
    pub max_length: usize,
    train_files: Vec<PathBuf>,
    validation_files: Vec<PathBuf>,
}

/// A plan with its rows read and checked; see [`Plan::prepare`].
pub struct Prepared {
    pub(crate) config: ModelConfig,
    /// What ends a completion, the token training teaches first.
    pub(crate) eos_ids: Vec<u32>,
    pub(crate) data: Loaded,
    pub(crate) validation: Option<Loaded>,
    pub(crate) sampler: Sampler,
    pub(crate) total_steps: u64,
    /// Files that were read, in reading order.
    pub(crate) files: Vec<PathBuf>,
    /// When this was begun, in microseconds since 1970.
    pub(crate) started_at: i64,
}

impl Plan {
    /// Checks all that can be said without rows: the settings, against the student's configuration and the adapter to
    /// go on from. Reads no weights.
    ///
    /// # Errors
    /// [`Error::Config`] and [`model::Error::Setting`] name the key; those of reading the configuration.
    pub fn check(&self) -> Result<Limits, Error> {
        self.student.validate()?;
        self.train.validate()?;
        let config = ModelConfig::from_dir(&self.student_dir)?.with_overrides(
            self.student.rope_theta,
            self.student.max_position_embeddings,
        )?;
        let max_length = self
            .train
            .max_length
            .unwrap_or(config.max_position_embeddings);
        if max_length > config.max_position_embeddings {
            return Err(Error::Config {
                key: "train.max_length",
                problem: format!(
                    "{max_length} is beyond the student's context of {} tokens; raise \
                     `student.max_position_embeddings` if that is meant",
                    config.max_position_embeddings
                ),
            });
        }
        if self.train.method == Method::Lora {
            self.check_lora(&config)?;
        }
        if let Some(dir) = &self.online_teacher_dir {
            let teacher = ModelConfig::from_dir(dir)?;
            if max_length > teacher.max_position_embeddings {
                return Err(Error::Config {
                    key: "train.max_length",
                    problem: format!(
                        "{max_length} is beyond the context of train.teacher, {} tokens",
                        teacher.max_position_embeddings
                    ),
                });
            }
            if self.device != Place::Cpu {
                return Err(Error::Config {
                    key: "train.teacher",
                    problem: "reads on the CPU only as yet: train with `--device cpu`, or on the dataset's top-k".into(),
                });
            }
        }
        Ok(Limits { config, max_length })
    }

    fn check_lora(&self, config: &ModelConfig) -> Result<(), Error> {
        let lora = self.train.lora();
        // Complaints about the settings first: what is left is about the adapter's files.
        lora.modules(config)?;
        lora.saved_modules(config)?;
        match (lora.trained(config), &lora.init_from) {
            (Err(error), Some(_)) if !matches!(error, model::Error::Setting { .. }) => {
                Err(Error::Config {
                    key: "train.lora.init_from",
                    problem: format!(
                        "{error}; name a folder with an adapter of this student as PEFT writes it, and set the rank, \
                         alpha and targets that it was trained with"
                    ),
                })
            }
            (trained, _) => Ok(trained.map(drop)?),
        }
    }

    /// [`Plan::check`], and reads the tokenizers and finds the files of rows.
    pub(crate) fn inputs(&self) -> Result<Inputs, Error> {
        let Limits { config, max_length } = self.check()?;
        let (train_files, validation_files) = self.data_files()?;
        let tokenizer = Tokenizer::from_dir(&self.student_dir)?
            .with_chat_template_kwargs(self.student.chat_template_kwargs.clone())?;
        if let Some(dir) = &self.online_teacher_dir {
            let teacher = Tokenizer::from_dir(dir)?;
            let ids = 0..tokenizer.vocab_size().max(teacher.vocab_size()) as u32;
            tokenizer
                .same(&teacher, ids)
                .map_err(|error| Error::Config {
                    key: "train.teacher.model",
                    problem: format!("it needs the student's tokenizer: {error}"),
                })?;
        }
        // A teacher without a tokenizer beside it may still have sampled rows of the student's ids.
        let teacher_tokenizer = match &self.teacher_dir {
            Some(dir) if dir.join("tokenizer.json").is_file() => Some(Tokenizer::from_dir(dir)?),
            _ => None,
        };
        Ok(Inputs {
            config,
            tokenizer,
            teacher_tokenizer,
            max_length,
            train_files,
            validation_files,
        })
    }

    /// Reads and checks every row; the examples lie in files without names in the output folder.
    ///
    /// # Errors
    /// Settings, a tokenizer or rows that cannot be trained with; those of reading and writing.
    pub fn prepare(&self) -> Result<Prepared, Error> {
        let started_at = manifest::now_micros();
        let inputs = self.inputs()?;
        let new_folder = !self.output.exists();
        fs::create_dir_all(&self.output).map_err(io(&self.output))?;
        let loaded = self.load(&inputs);
        if loaded.is_err() && new_folder {
            // Rows that cannot be trained on leave no trace of the attempt.
            let _ = fs::remove_dir(&self.output);
        }
        let (data, validation) = loaded?;
        let sampler = self.sampler(data.counts.examples);
        let total_steps = self.total_steps(&sampler);
        let files = inputs.files();
        Ok(Prepared {
            config: inputs.config,
            eos_ids: eos_ids(&inputs.tokenizer),
            data,
            validation,
            sampler,
            total_steps,
            files,
            started_at,
        })
    }

    fn load(&self, inputs: &Inputs) -> Result<(Loaded, Option<Loaded>), Error> {
        let options = inputs.options(self);
        let data = data::load(&inputs.train_files, &options, &self.output)?;
        self.check_long(&data.counts, inputs.max_length)?;
        let validation = inputs.validation(|files| data::load(files, &options, &self.output))?;
        if !self.quiet {
            let long = self.long_rows(&data.counts, inputs.max_length);
            let notices = inputs
                .config
                .notices
                .iter()
                .chain(inputs.tokenizer.notices());
            let notices = notices.cloned();
            for line in notices.chain(data.counts.notes.lines()).chain(long) {
                eprintln!("training: {line}");
            }
        }
        Ok((data, validation))
    }

    /// What [`Plan::prepare`] would read, training and validation; nothing is kept or written.
    pub(crate) fn count(&self, inputs: &Inputs) -> Result<(Counts, Option<Counts>), Error> {
        let options = inputs.options(self);
        let data = data::count(&inputs.train_files, &options)?;
        self.check_long(&data, inputs.max_length)?;
        let validation = inputs.validation(|files| data::count(files, &options))?;
        Ok((data, validation))
    }

    /// Refuses to leave out many rows for their length without being told to.
    fn check_long(&self, counts: &Counts, max_length: usize) -> Result<(), Error> {
        let n = counts.dropped.count(TOO_LONG);
        match self.long_rows(counts, max_length) {
            Some(said) if self.train.long.is_none() && n * LONG_ROWS_ASKED > counts.rows => {
                Err(Error::Config {
                    key: "train.long",
                    problem: format!(
                        "{said}; set train.long = \"drop\" if that is meant, or \"truncate\", or raise train.max_length"
                    ),
                })
            }
            _ => Ok(()),
        }
    }

    /// What becomes of rows that are longer than the student takes; none where there are none.
    pub(crate) fn long_rows(&self, counts: &Counts, max_length: usize) -> Option<String> {
        let dropped = counts.dropped.count(TOO_LONG);
        let n = dropped + counts.truncated;
        if n == 0 {
            return None;
        }
        let limit = match self.train.max_length {
            Some(_) => "train.max_length",
            None => "the student's context",
        };
        let becomes = match (dropped, counts.truncated) {
            (_, 0) => "left out".to_owned(),
            (0, _) => "cut".to_owned(),
            (dropped, cut) => {
                format!("cut ({cut}) or left out ({dropped}, whose prompts alone are too long)")
            }
        };
        let first = counts.dropped.first();
        let first = first
            .get(TOO_LONG)
            .map_or_else(String::new, |place| format!(", and the first is {place}"));
        Some(format!(
            "{n} of {} rows ({:.1} %) are longer than the {max_length} tokens of {limit} and are {becomes}; the longest \
             has {}{first}",
            counts.rows,
            100.0 * n as f64 / counts.rows.max(1) as f64,
            counts.longest_row,
        ))
    }

    pub(crate) fn sampler(&self, n_examples: u64) -> Sampler {
        Sampler {
            n_examples: n_examples as usize,
            batch_size: self.train.batch_size,
            shuffle: self.train.shuffle,
            seed: self.seed,
        }
    }

    /// Optimizer steps of the whole run.
    pub(crate) fn total_steps(&self, sampler: &Sampler) -> u64 {
        self.train
            .max_steps
            .unwrap_or_else(|| sampler.steps_per_epoch() * self.train.epochs.unwrap_or(1))
    }

    fn data_files(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
        if let Some(pattern) = &self.train.data {
            let validation = self.train.validation_data.as_ref();
            let validation = validation
                .map(|pattern| data::files("train.validation_data", pattern))
                .transpose()?;
            return Ok((
                data::files("train.data", pattern)?,
                validation.unwrap_or_default(),
            ));
        }
        let split = |name: &str| -> Result<Vec<PathBuf>, Error> {
            let folder = self.dataset_dir.join("data");
            let mut paths = Vec::new();
            for entry in fs::read_dir(&folder).map_err(io(&folder))? {
                let path = entry.map_err(io(&folder))?.path();
                let file = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                if file.starts_with(&format!("{name}-")) && file.ends_with(".parquet") {
                    paths.push(path);
                }
            }
            paths.sort();
            Ok(paths)
        };
        let train = split("train")?;
        if train.is_empty() {
            return Err(Error::DataPattern {
                key: "train.data",
                pattern: self
                    .dataset_dir
                    .join("data/train-*.parquet")
                    .display()
                    .to_string(),
                problem:
                    "the run's dataset has no training split; build it first, or name other data"
                        .into(),
            });
        }
        Ok((train, split("validation")?))
    }

    /// Stamps of everything the result depends on: data, the student's folder, the adapter to go on from.
    pub(crate) fn stamps(&self, data: &[PathBuf]) -> Result<Vec<FileStamp>, Error> {
        let lora = (self.train.method == Method::Lora).then(|| self.train.lora());
        let adapter = lora.as_ref().and_then(|lora| lora.init_from.as_ref());
        let mut paths = data.to_vec();
        paths.extend(checkpoint::files(&self.student_dir)?);
        if let Some(adapter) = adapter {
            paths.extend(checkpoint::files(adapter.path())?);
        }
        if let Some(teacher) = &self.online_teacher_dir {
            paths.extend(checkpoint::files(teacher)?);
        }
        let stamps = paths.iter().map(|path| Ok(stamps::stamp(path)?));
        let mut stamps: Vec<FileStamp> = stamps.collect::<Result<_, Error>>()?;
        let references = [
            self.student.folder(),
            self.train.data.as_ref(),
            self.train.validation_data.as_ref(),
            adapter,
            self.train.teacher.as_ref().map(|teacher| &teacher.model),
        ];
        for reference in references.into_iter().flatten() {
            reference.mark(&mut stamps);
        }
        Ok(stamps)
    }

    /// Names the run: equal for runs that must give the same bytes.
    pub(crate) fn identity(&self, inputs: &[FileStamp]) -> Result<String, Error> {
        // What is saved, and how often, is no part of what is learnt.
        let train = TrainConfig {
            save_every: 1,
            keep: 1,
            // Said or by default.
            long: Some(self.train.long()),
            ..self.train.clone()
        };
        let contents: Vec<&str> = inputs.iter().map(|stamp| stamp.blake3.as_str()).collect();
        let identity = serde_json::to_vec(&(&self.student, &train, self.seed, contents)).map_err(
            |source| Error::Json {
                path: self.output.clone(),
                source,
            },
        )?;
        Ok(hash::bytes(&identity))
    }
}

impl Inputs {
    fn options(&self, plan: &Plan) -> LoadOptions<'_> {
        LoadOptions {
            tokenizer: &self.tokenizer,
            head_rows: self.config.vocab_size,
            teacher_tokenizer: self.teacher_tokenizer.as_ref(),
            prompt_template: plan.student.prompt_template,
            max_length: self.max_length,
            long: plan.train.long(),
            needs_top_k: plan.train.needs_top_k(),
            turns: plan.train.turns,
            missing_thought: plan.train.missing_thought,
            max_bad_rows: plan.train.max_bad_rows,
        }
    }

    fn validation<T>(
        &self,
        read: impl FnOnce(&[PathBuf]) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match self.validation_files.as_slice() {
            [] => Ok(None),
            files => match read(files) {
                // A split of a few prompts may be empty, which leaves nothing to validate on.
                Err(Error::NoExamples { read: 0, .. }) => Ok(None),
                result => Ok(Some(result?)),
            },
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = self.train_files.iter().chain(&self.validation_files);
        files.cloned().collect()
    }
}

/// What ends a completion, the token training teaches first.
fn eos_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    let mut ids: Vec<u32> = tokenizer.end_of_turn_id().into_iter().collect();
    for &id in tokenizer.eos_ids() {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}
