//! The recipe: one TOML file that is the experiment. It composes the sections that the crates
//! below define; this module reads it, says where it is wrong, and writes it out resolved.

mod data;
mod hub;
mod identity;
mod overrides;
mod source;

use std::path::Path;

use dataset::config::DatasetConfig;
use eval::config::{EvalConfig, Role};
use generation::config::{
    GenerateConfig, JudgeConfig, PromptsConfig, TeacherConfig, TraceFormat, TracesConfig,
};
use generation::import;
use generation::prompts::ENDINGS;
use records::Reference;
use serde::{Deserialize, Serialize};
use trainer::config::{StudentConfig, TrainConfig};

pub use self::hub::HubConfig;
pub use identity::{Identity, REACHING};
pub use overrides::Override;
pub use source::Source;

use crate::error::{Error, Result};

/// Everything a recipe can say. A job reads the sections it needs and leaves the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Names the run folder: `runs/NAME`.
    pub name: String,
    /// Everything random is drawn from it; 0.
    #[serde(default)]
    pub seed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PromptsConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerateConfig>,
    /// Traces from elsewhere: to import, where they have a format, or for `score-traces` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<TracesConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<StudentConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalConfig>,
    /// Where `push-hub` puts the results. It decides none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubConfig>,
}

impl Recipe {
    /// The traces that this run has instead of sampling them.
    pub fn imports(&self) -> Option<(&TracesConfig, TraceFormat)> {
        let traces = self.traces.as_ref()?;
        Some((traces, traces.format?))
    }

    /// The adapter that training begins with, where the recipe names no student: it says itself which model it is of.
    pub fn adapter_alone(&self) -> Option<&Reference> {
        let student = self.student.as_ref()?;
        let lora = self.train.as_ref()?.lora.as_ref()?;
        match student.folder() {
            None => lora.init_from.as_ref(),
            Some(_) => None,
        }
    }

    /// Whether evaluation scores that model.
    pub fn compares(&self, role: &Role) -> bool {
        self.eval.as_ref().is_some_and(|eval| eval.compares(role))
    }
}

/// A recipe and the text it came from, so that later complaints can still name a line.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub recipe: Recipe,
    pub source: Source,
}

impl Loaded {
    /// Reads and checks a recipe, without looking at any file that it names.
    pub fn read(path: &Path, set: &[String]) -> Result<Self> {
        let source = Source::read(path, set)?;
        let mut recipe: Recipe = source.parse()?;
        recipe.train = recipe.train.map(TrainConfig::resolved);
        recipe.eval = recipe.eval.map(EvalConfig::resolved);
        let loaded = Self { recipe, source };
        loaded.check_values()?;
        loaded.check_unread()?;
        loaded.check_combinations()?;
        Ok(loaded)
    }

    /// The recipe with its defaults written out, as it is put into the run folder.
    pub fn resolved(&self) -> Result<String> {
        toml::to_string(&self.recipe).map_err(|error| Error::Recipe {
            place: self.source.place("name"),
            message: format!("cannot be written as TOML: {error}"),
            hint: None,
        })
    }

    /// Each section by itself.
    fn check_values(&self) -> Result<()> {
        let recipe = &self.recipe;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if recipe.name.is_empty() || recipe.name.starts_with('.') || !recipe.name.chars().all(plain)
        {
            return Err(self.source.complain(
                "name",
                "it names a folder",
                Some("letters, digits, `-`, `_` and `.` are allowed, and no `.` in front".into()),
            ));
        }
        if i64::try_from(recipe.seed).is_err() {
            return Err(self.source.complain("seed", "is too large", None));
        }
        if let Some(eval) = &recipe.eval {
            eval.validate().map_err(|error| match error {
                eval::Error::Config {
                    key,
                    problem,
                    allowed,
                } => self
                    .source
                    .complain(key, &problem, Some(format!("allowed: {allowed}"))),
                eval::Error::Section(error) => self.generation_error("eval", error),
                other => self.source.complain("eval", &other.to_string(), None),
            })?;
        }
        for (role, section) in recipe.eval.iter().flat_map(EvalConfig::sections) {
            let place = role.section_name();
            if !recipe.compares(&role) {
                return Err(self.source.complain(
                    &place,
                    &format!("nothing reads it: eval.compare does not name `{role}`"),
                    Some("name it there, or leave the section out".into()),
                ));
            }
            section
                .validate()
                .map_err(|error| self.generation_error(&place, error))?;
        }
        let generation = |result: generation::error::Result<()>| {
            result.map_err(|error| self.generation_error("generate", error))
        };
        recipe
            .prompts
            .as_ref()
            .map_or(Ok(()), |c| generation(c.validate()))?;
        if let Some(config) = &recipe.prompts {
            self.check_data("prompts.source", &config.source, ENDINGS)?;
        }
        recipe
            .traces
            .as_ref()
            .map_or(Ok(()), |c| generation(c.validate()))?;
        if let Some((config, _)) = recipe.imports() {
            self.check_data("traces.source", &config.source, import::ENDINGS)?;
        }
        if let Some(teacher) = &recipe.teacher {
            teacher
                .validate()
                .map_err(|error| self.generation_error("teacher", error))?;
        }
        recipe
            .generate
            .as_ref()
            .map_or(Ok(()), |c| generation(c.validate()))?;
        if let Some(judge) = &recipe.judge {
            generation(judge.validate())?;
            judge
                .teacher
                .validate()
                .map_err(|error| self.generation_error("judge.teacher", error))?;
        }
        if let Some(train) = &recipe.train {
            let data = [
                ("train.data", &train.data),
                ("train.validation_data", &train.validation_data),
            ];
            for (key, data) in data {
                if let Some(data) = data {
                    self.check_data(key, data, ENDINGS)?;
                }
            }
        }
        let trainer = |result: std::result::Result<(), trainer::Error>| {
            result.map_err(|error| self.trainer_error(error))
        };
        recipe
            .student
            .as_ref()
            .filter(|_| recipe.adapter_alone().is_none())
            .map_or(Ok(()), |c| trainer(c.validate()))?;
        recipe
            .train
            .as_ref()
            .map_or(Ok(()), |c| trainer(c.validate()))?;
        if let Some(hub) = &recipe.hub {
            hub.validate()
                .map_err(|(key, problem, hint)| self.source.complain(key, &problem, Some(hint)))?;
        }
        Ok(())
    }

    /// That a source of data is written as one, and names files that can be read.
    fn check_data(&self, key: &str, source: &Reference, endings: &[&str]) -> Result<()> {
        data::check(source.as_str(), endings)
            .map_err(|(problem, hint)| self.source.complain(key, &problem, hint))
    }

    /// A complaint of the trainer, about the key that it names or else its section.
    pub fn trainer_error(&self, error: trainer::Error) -> Error {
        match error {
            trainer::Error::Config { key, problem } => self.source.complain(key, &problem, None),
            trainer::Error::Model(model::Error::Setting {
                key,
                value,
                allowed,
            }) => {
                let section = match key {
                    "rope_theta" | "max_position_embeddings" => "student",
                    _ => "train.lora",
                };
                let message = format!("{value}: {allowed}");
                self.source
                    .complain(&format!("{section}.{key}"), &message, None)
            }
            trainer::Error::DataPattern {
                key,
                pattern,
                problem,
            } => self
                .source
                .complain(key, &format!("{pattern}: {problem}"), None),
            other => self.source.complain("train", &other.to_string(), None),
        }
    }

    /// Sections and keys that would change nothing, which their author should hear of.
    fn check_unread(&self) -> Result<()> {
        let recipe = &self.recipe;
        let Some(train) = &recipe.train else {
            return Ok(());
        };
        for key in [
            "hard_weight",
            "divergence",
            "beta",
            "temperature",
            "missing_mass",
        ] {
            let key = format!("train.loss.{key}");
            if self.source.names(&key) && !self.source.names("train.loss.kind") {
                return Err(self.source.complain(
                    &key,
                    "nothing reads it: without train.loss.kind the loss is the hard one",
                    Some(
                        "set train.loss.kind = \"mixed\" or \"soft\", or leave the key out".into(),
                    ),
                ));
            }
        }
        let no_validation = match (&train.data, &train.validation_data, &recipe.dataset) {
            (Some(_), None, _) => Some("name train.validation_data"),
            (None, _, Some(dataset)) if dataset.validation_fraction == 0.0 => {
                Some("set dataset.validation_fraction")
            }
            _ => None,
        };
        match (train.eval_every, no_validation) {
            (Some(_), Some(remedy)) => Err(self.source.complain(
                "train.eval_every",
                "there is nothing to validate on",
                Some(format!("{remedy}, or leave train.eval_every out")),
            )),
            _ => Ok(()),
        }
    }

    /// A complaint of the generation crate, about the key that it names or else a section. Keys of `[teacher]` are those of
    /// `section`, which may be another with the same keys.
    pub fn generation_error(&self, section: &str, error: generation::Error) -> Error {
        match error {
            generation::Error::Config {
                key,
                problem,
                allowed,
            } => {
                let key = match key.strip_prefix("teacher.") {
                    Some(key) => format!("{section}.{key}"),
                    None => key.into_owned(),
                };
                let allowed = Some(format!("allowed: {allowed}"));
                self.source.complain(&key, &problem, allowed)
            }
            other => self.source.complain(section, &other.to_string(), None),
        }
    }

    /// What only shows when sections are seen together.
    fn check_combinations(&self) -> Result<()> {
        let recipe = &self.recipe;
        if let (Some(teacher), Some(generate)) = (&recipe.teacher, &recipe.generate)
            && generate.samples_per_request > 1
            && !teacher.takes_n(generate.top_k_logits)
        {
            return Err(self.source.complain(
                "generate.samples_per_request",
                "the tokens of each sample could not be counted",
                Some("allowed with the dialect vllm, and with openai where generate.top_k_logits is not 0".into()),
            ));
        }
        if let Some(generate) = &recipe.generate
            && generate.samples_per_request > 1
            && generate.temperature == 0.0
        {
            return Err(self.source.complain(
                "generate.samples_per_request",
                "greedy samples are all the same",
                Some("leave it out, or set generate.temperature".into()),
            ));
        }
        if let (Some(train), Some(generate)) = (&recipe.train, &recipe.generate)
            && train.data.is_none()
            && train.needs_top_k()
            && generate.top_k_logits == 0
        {
            let kind = train.loss.kind.as_str();
            return Err(self.source.complain(
                "train.loss.kind",
                &format!("`{kind}` needs the teacher's top-k, and generate.top_k_logits is 0"),
                Some(
                    "set generate.top_k_logits, to 20 for example, or train with kind = \"hard\""
                        .into(),
                ),
            ));
        }
        Ok(())
    }
}
