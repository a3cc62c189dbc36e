//! `[student]` and `[train]` of a recipe: keys, defaults and what cannot go together.

use model::lora::LoraConfig;
use model::training_text::{MissingThought, Turns};
use records::Reference;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;

/// `[student]`: the checkpoint to train, or the configuration to start from at random.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentConfig {
    /// The checkpoint to start from: a folder, or `ORG/NAME@REVISION` on the Hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Reference>,
    /// Folder with `config.json` and the tokenizer, for a start from random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Reference>,
    /// How to fill the weights when there is no checkpoint; goes with `config`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// Replaces the checkpoint's RoPE base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Replaces the checkpoint's context length, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_position_embeddings: Option<usize>,
    /// Whose chat template renders the prompts the student is trained on.
    #[serde(default)]
    pub prompt_template: PromptTemplate,
    /// What the student's chat template is given beside the messages, such as `enable_thinking`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub chat_template_kwargs: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    Random,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptTemplate {
    /// The student's own: prompts of rows with token ids are rendered again with it; completions keep their ids.
    #[default]
    Student,
    /// The prompt ids the teacher was given, as they stand in the rows.
    Teacher,
}

/// `[train]`. Where a default is not the quickstart's value, its comment says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Files of rows: a path, a glob, or a URL as `prompts.source` has them; none = the run's dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Reference>,
    /// As `data`; none = the run's validation split, or nothing where `data` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_data: Option<Reference>,
    /// Which of an assistant's turns are learnt, of rows that are conversations.
    pub turns: Turns,
    /// What becomes of an answer without a thought.
    pub missing_thought: MissingThought,
    /// Rows that cannot be trained on and are left out: below 1 a share of all, else a number. More of them end the run.
    pub max_bad_rows: f64,
    pub method: Method,
    /// Passes over the data; 1 where neither this nor `max_steps` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Optimizer steps; the data is gone through as often as that takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Peak learning rate; 2e-4.
    pub learning_rate: f64,
    /// Examples per optimizer step; 32.
    pub batch_size: usize,
    /// Tokens per forward and backward pass; 4096. A longer example gets a pass of its own.
    pub micro_batch_tokens: usize,
    /// Several examples per pass; false = every example is a pass of its own (the update is the same).
    pub packing: bool,
    /// In tokens, prompt and completion; none = the student's `max_position_embeddings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// None = `drop`, which is refused where it would leave out more than a tenth of the rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long: Option<Long>,
    pub shuffle: bool,
    pub schedule: Schedule,
    pub warmup_ratio: f64,
    pub min_lr_ratio: f64,
    /// Global gradient norm above which gradients are scaled down; `inf` = never.
    pub max_grad_norm: f64,
    pub weight_decay: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub precision: Precision,
    /// dtype of the merged checkpoint; none = the base checkpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_dtype: Option<ExportDtype>,
    pub activation_checkpointing: bool,
    /// Optimizer steps between validations; none = only at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,
    /// Optimizer steps between checkpoints; 50.
    pub save_every: u64,
    /// Newest checkpoints that stay, beside the best by validation loss; 2.
    pub keep: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    pub loss: LossConfig,
    /// Reads every pass beside the student; soft losses then compare whole distributions, and rows need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<OnlineTeacher>,
}

/// `[train.teacher]`: a frozen model of the student's tokenizer, read by the own decoder on the student's device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlineTeacher {
    /// A folder, or `ORG/NAME@REVISION` on the Hub.
    pub model: Reference,
    #[serde(default)]
    pub precision: Precision,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    #[default]
    Lora,
    Full,
}

/// What becomes of an example longer than `max_length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Long {
    #[default]
    Drop,
    /// Its first `max_length` tokens are trained on, so never its EOS.
    Truncate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    #[default]
    Cosine,
    Linear,
    Constant,
    Wsd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    #[default]
    F32,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportDtype {
    F32,
    F16,
    Bf16,
}

/// `[train.loss]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// `hard` where the recipe does not say: every dataset can be trained on so.
    pub kind: LossKind,
    /// Share of the hard loss in `mixed`, 0 to 1.
    pub hard_weight: f64,
    pub divergence: Divergence,
    /// Weight of the teacher in `jsd`'s mixture, 0 to 1; 0 is forward KL and 1 reverse KL, as in GKD.
    pub beta: f64,
    pub temperature: f64,
    pub missing_mass: MissingMass,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<FeaturesConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relations: Option<RelationsConfig>,
}

/// `[train.loss.features]`: hidden states against those of `train.teacher`, at every supervised position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeaturesConfig {
    /// Beside the loss over logits; 1.
    pub weight: f64,
    /// Which of the student's layers are compared with which of the teacher's.
    pub layers: Layers,
    pub metric: FeatureMetric,
    /// None = a linear map where the widths differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection: Option<Projection>,
    /// What each mapped layer's heads give, too.
    pub include_attention: bool,
    /// The embedded tokens, too; with adapters nothing before them is trained.
    pub include_embeddings: bool,
    pub balance: Balance,
}

/// Layers count from 1, the first's output, to their number, the last's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Layers {
    Named(NamedLayers),
    /// Pairs of the student's and the teacher's.
    Pairs(Vec<[usize; 2]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedLayers {
    /// The last of both.
    Last,
    /// Every layer of the shallower one, with the layer of the deeper one at the same share of its depth.
    Uniform,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureMetric {
    #[default]
    Mse,
    Cosine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    Linear,
    None,
}

/// How a term is weighed against the loss over logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// By its weight.
    #[default]
    Fixed,
    /// By its weight, once both have the same size: the term is multiplied by the ratio of their running means.
    Magnitude,
}

/// `[train.loss.relations]`: relations between examples or positions against those of `train.teacher`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelationsConfig {
    pub kind: RelationKind,
    /// Beside the loss over logits; 1.
    #[serde(default = "one")]
    pub weight: f64,
    /// The student's and the teacher's, for `minilm` and `token_similarity`; none = the last of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<[usize; 2]>,
    /// Relation heads of `minilm`; none = the most, up to the student's heads, that divide all widths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    #[serde(default)]
    pub balance: Balance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    RkdDistance,
    RkdAngle,
    Minilm,
    TokenSimilarity,
}

impl Default for FeaturesConfig {
    fn default() -> Self {
        Self {
            weight: 1.0,
            layers: Layers::Named(NamedLayers::Last),
            metric: FeatureMetric::default(),
            projection: None,
            include_attention: false,
            include_embeddings: false,
            balance: Balance::default(),
        }
    }
}

fn one() -> f64 {
    1.0
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    #[default]
    Hard,
    Soft,
    Mixed,
}

impl LossKind {
    /// As the recipe writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
            Self::Mixed => "mixed",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    #[default]
    ForwardKl,
    ReverseKl,
    Jsd,
    Tvd,
}

/// What stands for the teacher's probability outside its stored entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingMass {
    /// One more bucket on both sides.
    #[default]
    Tail,
    /// Nothing: the stored entries are scaled to sum to one.
    Renormalize,
    /// Nothing: the stored entries stay as they are.
    Zero,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            data: None,
            validation_data: None,
            turns: Turns::default(),
            missing_thought: MissingThought::default(),
            max_bad_rows: 0.0,
            method: Method::default(),
            epochs: None,
            max_steps: None,
            learning_rate: 2e-4,
            batch_size: 32,
            micro_batch_tokens: 4096,
            packing: true,
            max_length: None,
            long: None,
            shuffle: true,
            schedule: Schedule::default(),
            warmup_ratio: 0.03,
            min_lr_ratio: 0.1,
            max_grad_norm: 1.0,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            precision: Precision::default(),
            export_dtype: None,
            activation_checkpointing: false,
            eval_every: None,
            save_every: 50,
            keep: 2,
            lora: None,
            loss: LossConfig::default(),
            teacher: None,
        }
    }
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            kind: LossKind::default(),
            hard_weight: 0.5,
            divergence: Divergence::default(),
            beta: 0.5,
            temperature: 1.0,
            missing_mass: MissingMass::default(),
            features: None,
            relations: None,
        }
    }
}

impl StudentConfig {
    /// # Errors
    /// [`Error::Config`] naming the key, for values and combinations that cannot be.
    pub fn validate(&self) -> Result<(), Error> {
        match (&self.model, &self.config, self.init) {
            (None, None, _) => Err(bad(
                "student.model",
                "name a checkpoint, or `config` with `init = \"random\"`",
            )),
            (Some(_), Some(_), _) => Err(bad(
                "student.config",
                "`model` is given too: name one of them",
            )),
            (Some(_), None, Some(_)) => {
                Err(bad("student.init", "goes with `config`, not with `model`"))
            }
            (None, Some(_), None) => Err(bad("student.init", "`config` needs `init = \"random\"`")),
            _ => Ok(()),
        }?;
        if let Some(theta) = self.rope_theta {
            positive("student.rope_theta", theta)?;
        }
        if self.max_position_embeddings == Some(0) {
            return Err(bad("student.max_position_embeddings", "must be at least 1"));
        }
        Ok(())
    }

    /// The folder named by `model` or `config`.
    #[must_use]
    pub fn folder(&self) -> Option<&Reference> {
        self.model.as_ref().or(self.config.as_ref())
    }
}

impl TrainConfig {
    /// # Errors
    /// [`Error::Config`] naming the key, for values and combinations that cannot be, or are not supported yet.
    pub fn validate(&self) -> Result<(), Error> {
        if self.epochs.is_some() && self.max_steps.is_some() {
            return Err(bad(
                "train.max_steps",
                "`epochs` is given too: name one of them",
            ));
        }
        if self.epochs == Some(0) {
            return Err(bad("train.epochs", "must be at least 1"));
        }
        if self.max_steps == Some(0) {
            return Err(bad("train.max_steps", "must be at least 1"));
        }
        if self.validation_data.is_some() && self.data.is_none() {
            return Err(bad(
                "train.validation_data",
                "goes with `data`; without it the run's dataset brings its own validation split",
            ));
        }
        if !self.max_bad_rows.is_finite() || self.max_bad_rows < 0.0 {
            return Err(bad(
                "train.max_bad_rows",
                "must be a share below 1, or a number of rows",
            ));
        }
        positive("train.learning_rate", self.learning_rate)?;
        at_least_one("train.batch_size", self.batch_size)?;
        at_least_one("train.micro_batch_tokens", self.micro_batch_tokens)?;
        if self.max_length.is_some_and(|length| length < 2) {
            return Err(bad("train.max_length", "must be at least 2"));
        }
        if !(0.0..1.0).contains(&self.warmup_ratio) {
            return Err(bad("train.warmup_ratio", "must be at least 0 and below 1"));
        }
        fraction("train.min_lr_ratio", self.min_lr_ratio)?;
        if self.max_grad_norm.is_nan() || self.max_grad_norm <= 0.0 {
            return Err(bad(
                "train.max_grad_norm",
                "must be above 0 (`inf` for no clipping)",
            ));
        }
        if !self.weight_decay.is_finite() || self.weight_decay < 0.0 {
            return Err(bad("train.weight_decay", "must be 0 or more"));
        }
        if !self.betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
            return Err(bad("train.betas", "both must be at least 0 and below 1"));
        }
        positive("train.eps", self.eps)?;
        if self.eval_every == Some(0) {
            return Err(bad("train.eval_every", "must be at least 1"));
        }
        if self.save_every == 0 {
            return Err(bad("train.save_every", "must be at least 1"));
        }
        at_least_one("train.keep", self.keep)?;
        self.lora().validate()?;
        self.loss.validate()?;
        match &self.teacher {
            Some(_) => self.loss.validate_online(),
            None => self.loss.validate_stored(),
        }
    }

    /// Whether the rows must carry the teacher's top-k.
    #[must_use]
    pub fn needs_top_k(&self) -> bool {
        self.loss.is_soft() && self.teacher.is_none()
    }

    /// What becomes of long examples: the recipe's word, or the default.
    #[must_use]
    pub fn long(&self) -> Long {
        self.long.unwrap_or_default()
    }

    /// The LoRA settings in force: the recipe's, or the defaults.
    #[must_use]
    pub fn lora(&self) -> LoraConfig {
        self.lora.clone().unwrap_or_default()
    }

    /// The same configuration with every default written out, for the resolved recipe.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        if self.epochs.is_none() && self.max_steps.is_none() {
            self.epochs = Some(1);
        }
        if self.method == Method::Lora {
            self.lora = Some(self.lora());
        }
        self
    }
}

impl LossConfig {
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<(), Error> {
        fraction("train.loss.hard_weight", self.hard_weight)?;
        fraction("train.loss.beta", self.beta)?;
        positive("train.loss.temperature", self.temperature)?;
        if self.features.is_some() {
            return Err(unsupported("train.loss.features", "leave the section out"));
        }
        if self.relations.is_some() {
            return Err(unsupported("train.loss.relations", "leave the section out"));
        }
        Ok(())
    }

    /// What cannot go with a teacher that reads beside the student.
    fn validate_online(&self) -> Result<(), Error> {
        if self.missing_mass != MissingMass::default() {
            return Err(bad(
                "train.loss.missing_mass",
                "is about stored top-k, and `train.teacher` gives every probability: leave one of them out",
            ));
        }
        if !self.is_soft() {
            return Err(bad(
                "train.teacher",
                "no term of the loss compares the student with it: set `train.loss.kind` to \"soft\" or \"mixed\", or \
                 leave the section out",
            ));
        }
        Ok(())
    }

    /// What cannot go with the rows' top-k.
    fn validate_stored(&self) -> Result<(), Error> {
        if self.kind == LossKind::Hard {
            return Ok(());
        }
        if matches!(self.divergence, Divergence::ReverseKl | Divergence::Jsd)
            && self.missing_mass != MissingMass::Tail
        {
            return Err(bad(
                "train.loss.missing_mass",
                "`reverse_kl` and `jsd` need \"tail\": they weigh the student's own mass outside the stored entries",
            ));
        }
        if self.missing_mass == MissingMass::Zero && self.temperature != 1.0 {
            return Err(bad(
                "train.loss.missing_mass",
                "\"zero\" needs `temperature = 1.0`; use \"tail\" or \"renormalize\"",
            ));
        }
        Ok(())
    }

    /// Whether the student is compared with a teacher's distribution.
    #[must_use]
    pub fn is_soft(&self) -> bool {
        match self.kind {
            LossKind::Hard => false,
            LossKind::Soft => true,
            LossKind::Mixed => self.hard_weight < 1.0,
        }
    }
}

fn bad(key: &'static str, problem: &str) -> Error {
    Error::Config {
        key,
        problem: problem.to_owned(),
    }
}

fn unsupported(key: &'static str, remedy: &str) -> Error {
    Error::Config {
        key,
        problem: format!("not supported yet: {remedy}"),
    }
}

fn positive(key: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(bad(key, "must be above 0"))
    }
}

fn fraction(key: &'static str, value: f64) -> Result<(), Error> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(bad(key, "must be between 0 and 1"))
    }
}

fn at_least_one(key: &'static str, value: usize) -> Result<(), Error> {
    if value > 0 {
        Ok(())
    } else {
        Err(bad(key, "must be at least 1"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn train(json: &str) -> TrainConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn defaults_are_the_designs() {
        let config = train("{}");
        assert_eq!(config, TrainConfig::default());
        assert_eq!(config.method, Method::Lora);
        assert_eq!(config.betas, [0.9, 0.999]);
        assert!(config.packing && config.shuffle);
        config.validate().unwrap();
        assert_eq!(config.resolved().epochs, Some(1));
    }

    #[test]
    fn unknown_keys_are_refused() {
        for json in [
            r#"{"learning_rat": 1e-3}"#,
            r#"{"loss": {"kindd": "hard"}}"#,
            r#"{"lora": {"rnak": 3}}"#,
        ] {
            assert!(serde_json::from_str::<TrainConfig>(json).is_err(), "{json}");
        }
        assert!(serde_json::from_str::<StudentConfig>(r#"{"modle": "x"}"#).is_err());
    }

    #[test]
    fn impossible_combinations_name_their_key() {
        let check = |json: &str, expected: &str| match train(json).validate() {
            Err(Error::Config { key, .. }) => assert_eq!(key, expected, "{json}"),
            other => panic!("{json}: {other:?}"),
        };
        check(r#"{"epochs": 1, "max_steps": 2}"#, "train.max_steps");
        check(r#"{"batch_size": 0}"#, "train.batch_size");
        check(r#"{"learning_rate": 0.0}"#, "train.learning_rate");
        check(r#"{"teacher": {"model": "x"}}"#, "train.teacher");
        check(
            r#"{"teacher": {"model": "x"}, "loss": {"kind": "soft", "missing_mass": "zero"}}"#,
            "train.loss.missing_mass",
        );
        check(
            r#"{"loss": {"features": {"weight": 1.0}}}"#,
            "train.loss.features",
        );
        check(
            r#"{"loss": {"relations": {"kind": "minilm"}}}"#,
            "train.loss.relations",
        );
        check(
            r#"{"loss": {"kind": "soft", "divergence": "reverse_kl", "missing_mass": "zero"}}"#,
            "train.loss.missing_mass",
        );
        check(
            r#"{"loss": {"kind": "mixed", "divergence": "jsd", "missing_mass": "renormalize"}}"#,
            "train.loss.missing_mass",
        );
        check(
            r#"{"loss": {"kind": "soft", "temperature": 2.0, "missing_mass": "zero"}}"#,
            "train.loss.missing_mass",
        );
        check(
            r#"{"loss": {"hard_weight": 1.5}}"#,
            "train.loss.hard_weight",
        );
        check(
            r#"{"validation_data": "x.parquet"}"#,
            "train.validation_data",
        );
    }

    #[test]
    fn a_student_is_a_model_or_a_random_config() {
        let check = |json: &str, good: bool| {
            let config: StudentConfig = serde_json::from_str(json).unwrap();
            assert_eq!(config.validate().is_ok(), good, "{json}");
        };
        check(r#"{"model": "a"}"#, true);
        check(r#"{"config": "a", "init": "random"}"#, true);
        check(r#"{"config": "a"}"#, false);
        check(r#"{"model": "a", "init": "random"}"#, false);
        check(r#"{"model": "a", "config": "b"}"#, false);
        check("{}", false);
    }
}
