//! What an evaluation is asked to do, and the files it reads.

use std::path::PathBuf;

use generation::config::TeacherConfig;
use generation::load::Source;
use generation::openai::secret::Secret;
use generation::teacher::{Description, SamplingConfig};
use records::benchmark::{Benchmark, Problem};
use records::hash::{self, FileStamp};
use records::score::SamplingScores;
use records::{LogprobSpace, Message, Reference, stamps};
use serde_json::{Map, Value, json};

use crate::config::{EvalConfig, Role};
use crate::error::{Error, Result};
use crate::protocol::fill;

/// The place of a question's choices in a template.
const OPTIONS: &str = "{options}";

/// A model to be scored.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalModel {
    pub role: Role,
    /// What the model is called in the scores.
    pub name: String,
    pub via: Via,
}

/// How a model is sampled.
#[derive(Clone, Debug, PartialEq)]
pub enum Via {
    /// By our own decoder, from a checkpoint folder in Hugging Face layout.
    Folder {
        folder: Reference,
        /// What its chat template is given beside the messages.
        chat_template_kwargs: Map<String, Value>,
    },
    /// As a section of the recipe says: by a server, by mistral.rs, or by our own decoder.
    Section(Box<Section>),
}

/// A model's section, as `[teacher]` is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    pub teacher: TeacherConfig,
    /// The key of its servers.
    pub secret: Option<Secret>,
    /// What of the section decides what the model says.
    pub identity: Value,
}

/// Input of [`run`](crate::run).
#[derive(Clone, Debug)]
pub struct Plan {
    pub config: EvalConfig,
    pub seed: u64,
    /// The models, in the order of the table.
    pub models: Vec<EvalModel>,
    /// Of `[prompts]`: the system turn where neither a protocol nor `[eval]` says it.
    pub system: Option<String>,
    /// The same of the user turn; `{problem}` stands for the problem.
    pub template: String,
    /// The `scores/` folder.
    pub output: PathBuf,
    /// The recipe sections that decide this stage's output, for the manifest.
    pub recipe: serde_json::Value,
    pub quiet: bool,
}

impl Plan {
    pub(crate) fn system(&self) -> Option<&str> {
        let config = &self.config;
        let prompts = self.system.as_deref().filter(|_| config.protocol.is_none());
        config.system.as_deref().or(prompts)
    }

    pub(crate) fn template(&self, benchmark: &Benchmark) -> &str {
        let config = &self.config;
        let protocol = config
            .protocol
            .map(|protocol| protocol.template(benchmark.answers()));
        config
            .template
            .as_deref()
            .or(protocol)
            .unwrap_or(&self.template)
    }

    /// What a model is asked.
    pub(crate) fn messages(&self, benchmark: &Benchmark, problem: &Problem) -> Vec<Message> {
        let system = self.system().map(|text| Message::new("system", text));
        let template = self.template(benchmark);
        let choices = problem.choices.iter().zip('A'..);
        let options: Vec<String> = choices
            .map(|(choice, letter)| format!("{letter}) {choice}"))
            .collect();
        let asked = match template.contains(OPTIONS) {
            true => &problem.question,
            false => &problem.problem,
        };
        let places = [
            ("{problem}", asked.as_str()),
            (OPTIONS, &options.join(", ")),
        ];
        let question = fill(template, &places);
        system
            .into_iter()
            .chain([Message::new("user", question)])
            .collect()
    }

    /// The settings of a benchmark, as `scores.json` has them.
    pub(crate) fn sampling_scores(&self, benchmark: &Benchmark) -> SamplingScores {
        let config = &self.config;
        SamplingScores {
            protocol: config.protocol.map(|protocol| protocol.as_str().to_owned()),
            departures: config.departures(benchmark),
            samples: u64::from(config.samples_of(benchmark)),
            temperature: config.temperature(),
            top_p: config.top_p(),
            top_k: config.top_k,
            min_p: config.min_p,
            max_new_tokens: u64::from(config.max_new_tokens()),
            system: self.system().map(str::to_owned),
            template: self.template(benchmark).to_owned(),
            answer_from: config.answer_from(benchmark),
            verifier: verify::VERSION,
        }
    }

    pub(crate) fn sampling(&self) -> SamplingConfig {
        (&self.config.generate()).into()
    }

    /// The seed of one model's samples. It differs between roles, so that two models do not share
    /// their random numbers and their errors stay independent, and from generation's, so that
    /// an evaluation never replays the draws of a training trace.
    pub(crate) fn role_seed(&self, role: &Role) -> u64 {
        let name = format!("evaluation {} {role}", self.seed);
        let digest = hash::bytes(name.as_bytes());
        digest
            .get(..16)
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .unwrap_or(self.seed)
    }

    /// Names everything but the question and the sample's index that decides a sample: rows
    /// with an equal key need not be sampled again. A hash, in hex.
    pub(crate) fn sampling_key(&self, model: &EvalModel, files: &[FileStamp]) -> String {
        let contents: Vec<_> = files
            .iter()
            .map(|stamp| {
                (
                    stamp
                        .path
                        .file_name()
                        .map(|name| name.to_string_lossy().into_owned()),
                    &stamp.blake3,
                )
            })
            .collect();
        let template = match (&self.config.template, self.config.protocol) {
            (Some(template), _) => template.as_str().into(),
            (None, Some(protocol)) => protocol.templates().as_slice().into(),
            (None, None) => Value::from(self.template.as_str()),
        };
        let mut key = json!({
            "version": 1,
            "files": contents,
            "seed": self.role_seed(&model.role),
            "sampling": self.sampling().params,
            "max_new_tokens": self.config.max_new_tokens(),
            "system": self.system(),
            "template": template,
        });
        match &model.via {
            Via::Folder {
                chat_template_kwargs: kwargs,
                ..
            } if !kwargs.is_empty() => key["chat_template_kwargs"] = kwargs.clone().into(),
            Via::Folder { .. } => {}
            Via::Section(section) => key["section"] = section.identity.clone(),
        }
        hash::bytes(key.to_string().as_bytes())
    }
}

/// Stamps of configuration, tokenizer and weights directly in the model's folder, sorted by name; of a section's model the
/// files that its backend reads. And what its samples say of the model.
pub(crate) fn checkpoint_files(model: &EvalModel) -> Result<(Vec<FileStamp>, Description)> {
    let folder = match &model.via {
        Via::Folder { folder, .. } => folder,
        Via::Section(section) => {
            let source = Source::new(&section.teacher, None, &[]);
            let source = source.map_err(|source| Error::Sampling {
                role: model.role.to_string(),
                source: Box::new(source),
            })?;
            return Ok((source.files, source.description));
        }
    };
    let paths = model::checkpoint::files(folder.path())?;
    if paths.is_empty() {
        return Err(Error::NoModelFiles {
            role: model.role.to_string(),
            dir: folder.path().to_path_buf(),
        });
    }
    let stamps = paths.iter().map(|path| Ok(stamps::stamp(path)?));
    let mut stamps: Vec<FileStamp> = stamps.collect::<Result<_>>()?;
    folder.mark(&mut stamps);
    let description = Description {
        backend: "candle".to_owned(),
        model: model.name.clone(),
        // The manifest has the files.
        revision: None,
        reproducible: true,
        logprob_space: LogprobSpace::Raw,
    };
    Ok((stamps, description))
}
