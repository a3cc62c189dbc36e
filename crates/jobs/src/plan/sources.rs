//! `prompts.source`: local files, or files that are fetched first.

use std::path::PathBuf;
use std::sync::Arc;

use generation::config::PromptsConfig;
use generation::prompts::{self, PromptFile, PromptSet};
use hub::{Say, Source};

use super::Plan;
use crate::environment;
use crate::error::{Error, Result};
use crate::stage::Stage;

impl Plan {
    /// The problems of `[prompts]`.
    pub(crate) fn prompt_set(&self, config: &PromptsConfig) -> Result<PromptSet> {
        let files = self.prompt_files(&config.source)?;
        prompts::load(config, files).map_err(|error| self.prompts_error(error))
    }

    /// The paths of `prompts.source`, as far as they are known: nothing is fetched for them.
    pub(super) fn known_prompt_paths(&self, source: &str) -> Result<Vec<PathBuf>> {
        match self.remote(source)? {
            None => prompts::files(source).map_err(|error| self.prompts_error(error)),
            Some(_) => {
                let fetched = self.fetched.get().map_or(&[][..], Vec::as_slice);
                Ok(fetched.iter().map(|file| file.path.clone()).collect())
            }
        }
    }

    /// The files of `prompts.source`; what lies elsewhere is fetched, once per plan.
    fn prompt_files(&self, source: &str) -> Result<Vec<PromptFile>> {
        let Some(remote) = self.remote(source)? else {
            let paths = prompts::files(source).map_err(|error| self.prompts_error(error))?;
            return Ok(paths.into_iter().map(PromptFile::from).collect());
        };
        if let Some(files) = self.fetched.get() {
            return Ok(files.clone());
        }
        let say: Say = match self.quiet {
            true => Arc::new(|_: &str| ()),
            false => Arc::new(|line: &str| eprintln!("{line}")),
        };
        let fetched = remote
            .fetch(&environment::access()?, say)
            .map_err(|error| self.fetch_error(error))?;
        let files = fetched.into_iter().map(|file| PromptFile {
            path: file.path,
            origin: Some(file.url),
        });
        Ok(self.fetched.get_or_init(|| files.collect()).clone())
    }

    fn remote(&self, source: &str) -> Result<Option<Source>> {
        Source::parse(source).map_err(|error| self.fetch_error(error))
    }

    /// A wrong name or a missing token is the recipe's matter, a network that is down is not.
    fn fetch_error(&self, error: hub::Error) -> Error {
        let hint = error.hint().unwrap_or_default().to_owned();
        if error.is_mistake() {
            return self.input("prompts.source", &error.to_string(), &hint);
        }
        let message = match hint.as_str() {
            "" => error.to_string(),
            hint => format!("{error}; {hint}"),
        };
        Error::stage(Stage::Traces.as_str(), message)
    }
}
