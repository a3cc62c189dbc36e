//! The files and keys of a model that is asked: `[teacher]`, or the one of `[judge]`.

use generation::config::{Backend, TeacherConfig};
use generation::openai::secret::Secret;
use model::tokenizer::Tokenizer;
use records::Reference;

use super::{Context, Files};
use crate::error::Result;

impl Context {
    /// That the files of the teacher of a section are there; its keys.
    pub(crate) fn check_teacher(
        &self,
        section: &str,
        teacher: &TeacherConfig,
    ) -> Result<Option<Secret>> {
        let model = format!("{section}.model");
        match (teacher.backend, &teacher.tokenizer) {
            (Backend::Candle, _) => self.check_model(&model, &teacher.model, Files::Weights)?,
            #[cfg(feature = "mistralrs")]
            (Backend::Mistralrs, tokenizer) => {
                let folder = tokenizer.as_ref().unwrap_or(&teacher.model);
                self.model(&model, &teacher.model, Files::Weights)?;
                self.check_tokenizer(section, folder)?;
            }
            (Backend::Openai, Some(folder)) => self.check_tokenizer(section, folder)?,
            (Backend::Openai, None) => {}
        }
        self.secret(section, teacher)
    }

    fn check_tokenizer(&self, section: &str, tokenizer: &Reference) -> Result<()> {
        let key = format!("{section}.tokenizer");
        let dir = self.model(&key, tokenizer, Files::Tokenizer)?;
        let look = || Tokenizer::from_dir(dir)?.require_chat_template();
        look().map_err(|error| {
            self.input(
                &key,
                &error.to_string(),
                "a folder with the served model's tokenizer.json and chat template",
            )
        })
    }

    /// The key of a teacher's servers, from where its section says that it is, and the variables of the environment that
    /// its headers name.
    fn secret(&self, section: &str, teacher: &TeacherConfig) -> Result<Option<Secret>> {
        let key = self.key(section, teacher)?;
        let names = teacher
            .request
            .iter()
            .flat_map(|request| request.variables());
        let mut variables = Vec::new();
        for name in names {
            let Ok(value) = std::env::var(name) else {
                return Err(self.input(
                    &format!("{section}.request.headers"),
                    &format!("there is no environment variable `{name}`"),
                    "set it, or write the value itself where it is no secret",
                ));
            };
            variables.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(match (key, variables.is_empty()) {
            (key, true) => key,
            (key, false) => Some(key.unwrap_or_default().with_variables(variables)),
        })
    }

    fn key(&self, section: &str, teacher: &TeacherConfig) -> Result<Option<Secret>> {
        let (key, text) = match (&teacher.api_key_env, &teacher.api_key_file) {
            (Some(name), _) => (
                "api_key_env",
                std::env::var(name)
                    .map_err(|_| format!("there is no environment variable `{name}`")),
            ),
            (None, Some(path)) => (
                "api_key_file",
                std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}")),
            ),
            (None, None) => return Ok(None),
        };
        let key = &format!("{section}.{key}");
        let hint = "the key itself never stands in a recipe";
        let text = text.map_err(|problem| self.input(key, &problem, hint))?;
        match Secret::new(&text) {
            Some(secret) => Ok(Some(secret)),
            None => Err(self.input(key, "the key is empty", hint)),
        }
    }
}
