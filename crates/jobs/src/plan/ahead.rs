//! What later stages would refuse of traces that do not exist yet: found before the first token is paid for. Only what
//! is sure is refused; what depends on the completions cannot be known.

use std::path::Path;

use generation::config::{Backend, PromptsConfig, TeacherConfig};
use generation::prompts::PromptSet;
use model::config::ModelConfig;
use model::tokenizer::Tokenizer;
use trainer::config::PromptTemplate;

use super::Plan;
use crate::error::Result;
use crate::stage::Stage;
use crate::stages::dataset::conditions;
use crate::stages::student::{limits, student_key};

/// Prompts whose words are looked at where two tokenizers differ.
const SAMPLED_PROMPTS: usize = 1000;

/// How the traces of a run come.
enum Origin<'a> {
    /// From this teacher.
    Sampled(&'a TeacherConfig),
    Imported,
}

impl Plan {
    /// Checks what follows from the prompts, where this plan samples them.
    pub(super) fn check_ahead(&self) -> Result<()> {
        let recipe = self.recipe();
        let (Some(prompts), Some(teacher)) = (&recipe.prompts, &recipe.teacher) else {
            return Ok(());
        };
        if !self.includes(Stage::Traces) || recipe.imports().is_some() {
            return Ok(());
        }
        let set = self.prompt_set(prompts)?;
        self.check_gold(prompts, &set)?;
        self.check_split(&set)?;
        let tokenizer = self.local_tokenizer(teacher)?;
        if let Some(tokenizer) = &tokenizer {
            self.check_teacher_context(teacher, tokenizer, &set)?;
        }
        if !self.includes(Stage::Student) || !self.trains_on_traces() {
            return Ok(());
        }
        let student = self.student_tokenizer()?;
        if let Some(student) = &student {
            self.check_student_context(student, &set)?;
        }
        match (tokenizer, student) {
            (Some(teacher_tokenizer), Some(student)) if gives_ids(teacher) => {
                self.check_same_ids(&teacher_tokenizer, &student, &set)
            }
            _ => Ok(()),
        }
    }

    /// That the traces will bring what the student's loss and text need. Scores of a run's own folder bring it too.
    pub(crate) fn check_traces_for_training(&self) -> Result<()> {
        let recipe = self.recipe();
        let (Some(train), Some(origin)) = (&recipe.train, self.origin()) else {
            return Ok(());
        };
        let own = self.includes(Stage::Traces) && self.trains_on_traces();
        if !own || self.run_dir.scored().is_dir() {
            return Ok(());
        }
        let (top_k, ids, what) = match origin {
            Origin::Sampled(teacher) => (
                gives_ids(teacher),
                gives_ids(teacher),
                format!("traces of the dialect {}", dialect(teacher)),
            ),
            Origin::Imported => (false, false, "imported traces".to_owned()),
        };
        if train.loss.needs_top_k() && !top_k {
            let kind = train.loss.kind.as_str();
            return Err(self.loaded.source.complain(
                "train.loss.kind",
                &format!("`{kind}` needs the teacher's top-k, and {what} have none"),
                Some(
                    "train with kind = \"hard\"; or make the traces first (gen-traces, build-dataset for imported ones), and have a teacher that can add its top-k with score-traces"
                        .into(),
                ),
            ));
        }
        match self.student_tokenizer()? {
            Some(student) if !ids && student.end_of_turn_id().is_none() => Err(self.input(
                student_key(self),
                &format!(
                    "{what} are text, and {} names no token that ends a turn",
                    student.dir().display()
                ),
                "tokenizer_config.json names it as `eos_token`, or the chat template writes it after the assistant's turn",
            )),
            _ => Ok(()),
        }
    }

    fn origin(&self) -> Option<Origin<'_>> {
        match (self.recipe().imports(), &self.recipe().teacher) {
            (Some(_), _) => Some(Origin::Imported),
            (None, teacher) => teacher.as_ref().map(Origin::Sampled),
        }
    }

    fn trains_on_traces(&self) -> bool {
        let train = self.recipe().train.as_ref();
        train.is_some_and(|train| train.data.is_none())
    }

    /// Without a gold answer no trace is correct, and a filter that asks for correct ones rejects all of them.
    fn check_gold(&self, prompts: &PromptsConfig, set: &PromptSet) -> Result<()> {
        let Some(config) = self.recipe().dataset.as_ref() else {
            return Ok(());
        };
        let asks = self.includes(Stage::Dataset)
            && conditions(self, config)?
                .iter()
                .any(|condition| condition == "verdict = 'correct'");
        let graded = |answer: &Option<String>| {
            let answer = answer.as_ref();
            answer.is_some_and(|answer| !answer.trim().is_empty())
        };
        if !asks || set.prompts.iter().any(|prompt| graded(&prompt.gold_answer)) {
            return Ok(());
        }
        let column = prompts.answer.as_deref().unwrap_or("answer");
        Err(self.input(
            "prompts.answer",
            &format!(
                "no problem of {} has a gold answer in a column `{column}`, and dataset.filter keeps correct traces only",
                prompts.source
            ),
            "name the column of the answers, or write a dataset.filter without `verdict = 'correct'`",
        ))
    }

    /// That the split leaves prompts to train on: it depends on their ids alone.
    fn check_split(&self, set: &PromptSet) -> Result<()> {
        let Some(config) = &self.recipe().dataset else {
            return Ok(());
        };
        let fraction = config.validation_fraction;
        let trained =
            |prompt: &records::prompt::Prompt| !dataset::is_validation(&prompt.prompt_id, fraction);
        if !self.includes(Stage::Dataset) || set.prompts.iter().any(trained) {
            return Ok(());
        }
        Err(self.loaded.source.complain(
            "dataset.validation_fraction",
            &format!(
                "{fraction} puts all {} prompts into the validation split and leaves none to train on",
                set.prompts.len()
            ),
            Some("a smaller fraction, or more prompts".into()),
        ))
    }

    /// The tokenizer of a teacher whose folder is here.
    fn local_tokenizer(&self, teacher: &TeacherConfig) -> Result<Option<Tokenizer>> {
        let (key, folder) = match &teacher.tokenizer {
            Some(folder) => ("teacher.tokenizer", folder),
            None => ("teacher.model", &teacher.model),
        };
        let dir = Path::new(folder);
        if !dir.join("tokenizer.json").is_file() {
            return Ok(None);
        }
        self.tokenizer(key, dir).map(Some)
    }

    fn student_tokenizer(&self) -> Result<Option<Tokenizer>> {
        let student = self.recipe().student.as_ref();
        match student.and_then(|student| student.folder()) {
            Some(folder) => self
                .tokenizer(student_key(self), Path::new(folder))
                .map(Some),
            None => Ok(None),
        }
    }

    fn tokenizer(&self, key: &str, dir: &Path) -> Result<Tokenizer> {
        Tokenizer::from_dir(dir).map_err(|error| {
            self.input(
                key,
                &error.to_string(),
                "the folder needs tokenizer.json and a chat template",
            )
        })
    }

    /// That some prompt fits into the teacher's context.
    fn check_teacher_context(
        &self,
        teacher: &TeacherConfig,
        tokenizer: &Tokenizer,
        set: &PromptSet,
    ) -> Result<()> {
        if teacher.backend != Backend::Candle {
            return Ok(());
        }
        let context = self
            .model_config("teacher.model", Path::new(&teacher.model))?
            .max_position_embeddings;
        match self.shortest(tokenizer, set, context, "teacher.model")? {
            None => Ok(()),
            Some(shortest) => Err(self.input(
                "teacher.model",
                &format!(
                    "the shortest of {} prompts has {shortest} tokens, and the context of {} has {context}",
                    set.prompts.len(),
                    teacher.model
                ),
                "take a teacher with a longer context, or shorten prompts.system and prompts.template",
            )),
        }
    }

    /// That some prompt leaves room for a completion in what the student is trained on.
    fn check_student_context(&self, tokenizer: &Tokenizer, set: &PromptSet) -> Result<()> {
        let recipe = self.recipe();
        let template = recipe
            .student
            .as_ref()
            .map(|student| student.prompt_template);
        if template != Some(PromptTemplate::Student) {
            return Ok(());
        }
        let max_length = limits(self)?.max_length;
        match self.shortest(tokenizer, set, max_length, student_key(self))? {
            None => Ok(()),
            Some(shortest) => Err(self.loaded.source.complain(
                "train.max_length",
                &format!(
                    "the shortest of {} prompts has {shortest} of the student's tokens, which leaves no room for a completion in {max_length}",
                    set.prompts.len()
                ),
                Some("raise train.max_length up to the student's context, or shorten prompts.system and prompts.template".into()),
            )),
        }
    }

    /// The tokens of the shortest prompt where none is shorter than `limit`.
    fn shortest(
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

    /// That the ids which the teacher is sure to use mean the same to the student: those of the problems' words and
    /// numbers, of a boxed answer, and of the end of a turn.
    fn check_same_ids(
        &self,
        teacher: &Tokenizer,
        student: &Tokenizer,
        set: &PromptSet,
    ) -> Result<()> {
        if teacher.fingerprint() == student.fingerprint() {
            return Ok(());
        }
        let differ = |problem: String| {
            self.input(
                student_key(self),
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

    pub(crate) fn model_config(&self, key: &str, dir: &Path) -> Result<ModelConfig> {
        ModelConfig::from_dir(dir).map_err(|error| {
            self.input(
                key,
                &error.to_string(),
                "the folder needs the config.json of a Qwen or Llama model",
            )
        })
    }

    /// Refuses a budget of new tokens that leaves no room for a question in a model's context: every sample would be
    /// cut there. The default is taken as far as there is room.
    pub(crate) fn check_eval_context(&self, key: &str, role: &str, dir: &Path) -> Result<()> {
        const BUDGET: &str = "eval.max_new_tokens";
        let Some(eval) = &self.recipe().eval else {
            return Ok(());
        };
        let mut context = self.model_config(key, dir)?.max_position_embeddings;
        let student = self.recipe().student.as_ref();
        if let (true, Some(longer)) = (
            role == "student",
            student.and_then(|student| student.max_position_embeddings),
        ) {
            context = longer;
        }
        let budget = eval.max_new_tokens as usize;
        if budget < context || !self.loaded.source.names(BUDGET) {
            return Ok(());
        }
        Err(self.loaded.source.complain(
            BUDGET,
            &format!(
                "{budget} new tokens leave no room for a question in the context of {context} tokens that the {role} has ({})",
                dir.display()
            ),
            Some(format!("at most {}, and less by what the longest question takes; leave the key out to use what room there is", context.saturating_sub(1))),
        ))
    }
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
