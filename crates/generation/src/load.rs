//! A teacher from the recipe's `[teacher]`.

use records::LogprobSpace;
use records::hash::FileStamp;

use crate::candle::CandleTeacher;
use crate::checkpoint;
use crate::config::{Backend, TeacherConfig};
use crate::error::Result;
#[cfg(feature = "mistralrs")]
use crate::mistralrs::MistralRsTeacher;
use crate::openai::secret::Secret;
use crate::openai::{self, OpenAiTeacher};
use crate::teacher::{Description, SamplingConfig, Teacher};

/// A teacher as a section of the recipe names it, not loaded yet.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    config: &'a TeacherConfig,
    /// Of its servers.
    secret: Option<Secret>,
    /// That a local teacher is made of; none of a server's.
    pub files: Vec<FileStamp>,
    pub description: Description,
}

impl<'a> Source<'a> {
    /// Reads what files the teacher is made of; see [`checkpoint::stamps`] for `known`.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn new(
        config: &'a TeacherConfig,
        secret: Option<Secret>,
        known: &[FileStamp],
    ) -> Result<Self> {
        let files = files(config, known)?;
        Ok(Self {
            description: describe(config, &files),
            config,
            secret,
            files,
        })
    }

    /// Loads the teacher; `spent` is what earlier starts have paid for it.
    ///
    /// # Errors
    /// Those of its backend.
    pub fn load(&self, options: SamplingConfig, spent: f64) -> Result<Box<dyn Teacher>> {
        teacher(
            self.config,
            options,
            self.secret.clone(),
            &self.files,
            spent,
        )
    }
}

fn teacher(
    config: &TeacherConfig,
    options: SamplingConfig,
    secret: Option<Secret>,
    files: &[FileStamp],
    spent: f64,
) -> Result<Box<dyn Teacher>> {
    match config.backend {
        Backend::Candle => {
            let kwargs = config.chat_template_kwargs.clone().unwrap_or_default();
            let teacher = CandleTeacher::load(config.model.path(), options)?;
            let teacher = teacher.with_chat_template_kwargs(kwargs)?;
            Ok(Box::new(teacher.with_revision(revision(config, files))))
        }
        #[cfg(feature = "mistralrs")]
        Backend::Mistralrs => {
            let revision = revision(config, files);
            Ok(Box::new(MistralRsTeacher::load(config, options, revision)?))
        }
        Backend::Openai => {
            let teacher = OpenAiTeacher::new(config, options, secret)?;
            Ok(Box::new(teacher.with_spent(spent)))
        }
    }
}

fn files(config: &TeacherConfig, known: &[FileStamp]) -> Result<Vec<FileStamp>> {
    let mut stamps = match config.backend {
        Backend::Candle => checkpoint::stamps(config.model.path(), known)?,
        #[cfg(feature = "mistralrs")]
        Backend::Mistralrs => {
            let path = config.model.path();
            let mut stamps = match path.is_file() {
                true => checkpoint::stamps_of(vec![path.to_path_buf()], known)?,
                false => checkpoint::stamps(path, known)?,
            };
            if let Some(folder) = &config.tokenizer {
                stamps.extend(checkpoint::stamps(folder.path(), known)?);
            }
            stamps
        }
        Backend::Openai => Vec::new(),
    };
    for reference in std::iter::once(&config.model).chain(&config.tokenizer) {
        reference.mark(&mut stamps);
    }
    Ok(stamps)
}

/// Names a local teacher's weights as they are computed with.
fn revision(config: &TeacherConfig, files: &[FileStamp]) -> String {
    let revision = checkpoint::revision(files);
    match &config.quantization {
        Some(name) => format!("{revision}-{name}"),
        None => revision,
    }
}

fn describe(config: &TeacherConfig, files: &[FileStamp]) -> Description {
    Description {
        backend: config.backend.as_str().to_owned(),
        model: config.model.to_string(),
        revision: (!files.is_empty()).then(|| revision(config, files)),
        reproducible: match config.backend {
            Backend::Candle => true,
            // How it rounds is for mistral.rs to say, from version to version.
            #[cfg(feature = "mistralrs")]
            Backend::Mistralrs => false,
            Backend::Openai => false,
        },
        logprob_space: match config.backend {
            Backend::Candle => LogprobSpace::Raw,
            #[cfg(feature = "mistralrs")]
            Backend::Mistralrs => LogprobSpace::Raw,
            Backend::Openai => openai::logprob_space(config.dialect()),
        },
    }
}
