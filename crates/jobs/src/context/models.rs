//! The tokenizers and configurations of the recipe's models, and how prompts fit them.

use std::sync::Arc;

use generation::config::{Backend, TeacherConfig};
use generation::prompts::PromptSet;
use model::config::ModelConfig;
use model::tokenizer::Tokenizer;
use records::Reference;
use records::run_dir::TRACES;

use super::resolve::is_elsewhere;
use super::{Context, Files};
use crate::error::Result;

impl Context {
    /// The teacher and the problems of traces that this run samples; `None` where it samples none.
    pub(crate) fn sampled_prompts(&self) -> Result<Option<(&TeacherConfig, Arc<PromptSet>)>> {
        let recipe = self.recipe();
        match (&recipe.prompts, &recipe.teacher) {
            (Some(prompts), Some(teacher))
                if self.includes(TRACES) && recipe.imports().is_none() =>
            {
                Ok(Some((teacher, self.prompt_set(prompts)?)))
            }
            _ => Ok(None),
        }
    }

    /// `student.model` or `student.config`, whichever the recipe has.
    pub(crate) fn student_key(&self) -> &'static str {
        let student = self.recipe().student.as_ref();
        match student.is_some_and(|student| student.model.is_some()) {
            true => "student.model",
            false => "student.config",
        }
    }

    /// The tokenizer of a teacher whose folder is here.
    pub(crate) fn local_tokenizer(&self, teacher: &TeacherConfig) -> Result<Option<Tokenizer>> {
        let (key, folder) = match &teacher.tokenizer {
            Some(folder) => ("teacher.tokenizer", folder),
            None => ("teacher.model", &teacher.model),
        };
        // The name that a server knows a model by may look like an id, and a folder that was sampled from may be gone.
        let served = teacher.tokenizer.is_none() && teacher.backend == Backend::Openai;
        if !served && is_elsewhere(folder) {
            self.model(key, folder, Files::Tokenizer)?;
        }
        if !folder.path().join("tokenizer.json").is_file() {
            return Ok(None);
        }
        self.tokenizer(key, folder).map(Some)
    }

    pub(crate) fn student_tokenizer(&self) -> Result<Option<Tokenizer>> {
        let student = self.recipe().student.as_ref();
        match student.and_then(|student| student.folder()) {
            Some(folder) => self.tokenizer(self.student_key(), folder).map(Some),
            None => Ok(None),
        }
    }

    fn tokenizer(&self, key: &str, model: &Reference) -> Result<Tokenizer> {
        let dir = self.model(key, model, Files::Tokenizer)?;
        Tokenizer::from_dir(dir).map_err(|error| {
            self.input(
                key,
                &error.to_string(),
                "the folder needs tokenizer.json and a chat template",
            )
        })
    }

    /// The tokens of the shortest prompt where none is shorter than `limit`.
    pub(crate) fn shortest(
        &self,
        tokenizer: &Tokenizer,
        set: &PromptSet,
        limit: usize,
        key: &str,
    ) -> Result<Option<usize>> {
        let mut shortest = usize::MAX;
        for prompt in &set.prompts {
            let ids = tokenizer.prompt_ids(&prompt.messages);
            let ids = ids.map_err(|error| {
                let hint = "its chat template has to take the prompts' messages";
                self.input(key, &error.to_string(), hint)
            })?;
            shortest = shortest.min(ids.len());
            if shortest < limit {
                return Ok(None);
            }
        }
        Ok((!set.prompts.is_empty()).then_some(shortest))
    }

    pub(crate) fn model_config(&self, key: &str, model: &Reference) -> Result<ModelConfig> {
        let dir = self.model(key, model, Files::Tokenizer)?;
        ModelConfig::from_dir(dir).map_err(|error| {
            self.input(
                key,
                &error.to_string(),
                "the folder needs the config.json of a Qwen or Llama model",
            )
        })
    }
}
