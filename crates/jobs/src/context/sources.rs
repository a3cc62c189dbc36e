//! `prompts.source`, and the `traces.source` of an import: local files, or files that are fetched first.

use std::path::PathBuf;
use std::sync::Arc;

use generation::config::{PromptsConfig, TracesConfig};
use generation::import;
use generation::prompts::{self, PromptFile, PromptSet};
use hub::{Say, Source};
use records::run_dir;

use super::Context;
use crate::environment;
use crate::error::{Error, Result};

pub(super) const PROMPTS: &str = "prompts.source";
pub(super) const TRACES: &str = "traces.source";

impl Context {
    /// The problems of `[prompts]`, which are read once.
    pub(crate) fn prompt_set(&self, config: &PromptsConfig) -> Result<Arc<PromptSet>> {
        if let Some(set) = self.prompts.get() {
            return Ok(Arc::clone(set));
        }
        let files = self.source_files(PROMPTS, &config.source)?;
        let set = prompts::load(config, files).map_err(|error| self.prompts_error(error))?;
        Ok(Arc::clone(self.prompts.get_or_init(|| Arc::new(set))))
    }

    /// The files of the traces to import.
    pub(crate) fn import_files(&self, config: &TracesConfig) -> Result<Vec<PromptFile>> {
        self.source_files(TRACES, &config.source)
    }

    /// The paths of a source, as far as they are known: nothing is fetched for them.
    pub(crate) fn known_paths(&self, key: &'static str, source: &str) -> Result<Vec<PathBuf>> {
        match self.remote(key, source)? {
            None => self.local(key, source),
            Some(_) => {
                let fetched = self.fetched.get().map_or(&[][..], Vec::as_slice);
                Ok(fetched.iter().map(|file| file.path.clone()).collect())
            }
        }
    }

    fn local(&self, key: &'static str, source: &str) -> Result<Vec<PathBuf>> {
        match key {
            TRACES => import::files(source).map_err(|error| self.import_error(error)),
            _ => prompts::files(source).map_err(|error| self.prompts_error(error)),
        }
    }

    /// The files of a source; what lies elsewhere is fetched, once per run. A run has one of the two.
    fn source_files(&self, key: &'static str, source: &str) -> Result<Vec<PromptFile>> {
        let Some(remote) = self.remote(key, source)? else {
            let paths = self.local(key, source)?;
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
            .map_err(|error| self.fetch_error(key, error))?;
        let files = fetched.into_iter().map(|file| PromptFile {
            path: file.path,
            origin: Some(file.url),
        });
        Ok(self.fetched.get_or_init(|| files.collect()).clone())
    }

    fn remote(&self, key: &str, source: &str) -> Result<Option<Source>> {
        Source::parse(source).map_err(|error| self.fetch_error(key, error))
    }

    /// A wrong name or a missing token is the recipe's matter, a network that is down is not.
    fn fetch_error(&self, key: &str, error: hub::Error) -> Error {
        let hint = error.hint().unwrap_or_default().to_owned();
        if error.is_mistake() {
            return self.input(key, &error.to_string(), &hint);
        }
        let message = match hint.as_str() {
            "" => error.to_string(),
            hint => format!("{error}; {hint}"),
        };
        Error::stage(run_dir::TRACES, message)
    }
}
