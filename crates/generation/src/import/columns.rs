//! Sets with a column for the problem and columns for what was written: named by the recipe, or by a preset.

use records::prompt::problem_of;
use records::{Message, Role};

use super::adapter::{Adapter, Found, Kind, Question, Sample, Shape, UNKNOWN, name};
use super::completion::Completion;
use super::row::{Mismatch, Row};
use crate::config::TracesConfig;

/// The columns of a set, as dotted paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Text, or turns: the prompt then.
    problem: String,
    /// Alpaca's second half of a problem.
    input: Option<&'static str>,
    /// The system's turn, where it is a column.
    system: Option<&'static str>,
    written: Vec<Written>,
    gold: Option<String>,
    finish_reason: Option<String>,
    source: Option<&'static str>,
    /// The column that names the teacher.
    teacher: Option<String>,
    /// The teacher of rows that name none.
    unnamed: &'static str,
}

/// Where a completion stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    /// The whole, or a list of several.
    Text(String),
    /// A thought, a text or a list of its pieces, and what follows it.
    Apart { thought: String, answer: String },
}

impl Columns {
    fn new(problem: &str, written: Vec<Written>, gold: Option<&str>) -> Self {
        Self {
            problem: problem.to_owned(),
            input: None,
            system: None,
            written,
            gold: gold.map(str::to_owned),
            finish_reason: None,
            source: None,
            teacher: None,
            unnamed: UNKNOWN,
        }
    }

    fn by(self, unnamed: &'static str) -> Self {
        Self { unnamed, ..self }
    }

    fn from(self, source: &'static str) -> Self {
        let source = Some(source);
        Self { source, ..self }
    }

    /// `format = "columns"`; [`TracesConfig::validate`] has seen that what is needed is named.
    pub fn named(config: &TracesConfig) -> Self {
        let written = match (&config.completion, &config.thought, &config.answer_text) {
            (Some(completion), ..) => Written::Text(completion.clone()),
            (None, thought, answer) => Written::Apart {
                thought: thought.clone().unwrap_or_default(),
                answer: answer.clone().unwrap_or_default(),
            },
        };
        let problem = config.problem.as_deref().unwrap_or_default();
        Self {
            teacher: config.teacher.clone(),
            finish_reason: config.finish_reason.clone(),
            ..Self::new(problem, vec![written], config.gold.as_deref())
        }
    }

    /// nvidia/OpenMathReasoning.
    pub fn open_math_reasoning() -> Self {
        let written = vec![text("generated_solution")];
        let set = Self::new("problem", written, Some("expected_answer")).from("problem_source");
        Self {
            teacher: Some("generation_model".to_owned()),
            ..set
        }
    }

    /// GAIR/LIMO.
    pub fn limo() -> Self {
        Self::new("question", vec![text("solution")], Some("answer"))
    }

    /// zwhe99/DeepMath-103K: three solutions of one teacher.
    pub fn deepmath() -> Self {
        let written = ["r1_solution_1", "r1_solution_2", "r1_solution_3"].map(text);
        Self::new("question", written.into(), Some("final_answer"))
            .by("DeepSeek-R1")
            .from("topic")
    }

    /// nvidia/AceReason-1.1-SFT.
    pub fn acereason() -> Self {
        Self::new("input", vec![text("output")], None)
            .by("DeepSeek-R1")
            .from("source")
    }

    /// nvidia/Llama-Nemotron-Post-Training-Dataset: turns in `input`.
    pub fn nemotron() -> Self {
        let set = Self::new("input", vec![text("output")], None).from("category");
        Self {
            system: Some("system_prompt"),
            teacher: Some("generator".to_owned()),
            ..set
        }
    }

    /// Alpaca and its kin.
    pub fn alpaca() -> Self {
        let set = Self::new("instruction", vec![text("output")], None);
        Self {
            input: Some("input"),
            system: Some("system"),
            ..set
        }
    }

    /// glaiveai/reasoning-v1-20m.
    pub fn glaive() -> Self {
        Self::new("prompt", vec![text("response")], None)
    }
}

fn text(column: &str) -> Written {
    Written::Text(column.to_owned())
}

pub struct ByColumns {
    pub config: TracesConfig,
    pub columns: Columns,
}

impl ByColumns {
    fn problem(&self) -> &str {
        name(&self.config.problem, &self.columns.problem)
    }

    fn gold(&self) -> Option<&str> {
        let own = self.columns.gold.as_deref();
        self.config.answer.as_deref().or(own)
    }

    fn teacher(&self) -> Option<&str> {
        let own = self.columns.teacher.as_deref();
        self.config.teacher.as_deref().or(own)
    }

    fn finish_reason(&self) -> Option<&str> {
        let own = self.columns.finish_reason.as_deref();
        self.config.finish_reason.as_deref().or(own)
    }

    fn question(&self, row: &Row) -> Result<Option<Question>, Mismatch> {
        let column = self.problem();
        let (problem, mut messages) = if row.is_text(column) {
            let Some(problem) = row.text(column)? else {
                return Ok(None);
            };
            let mut problem = problem.to_owned();
            if let Some(input) = self.columns.input
                && let Some(input) = row.text(input)?
            {
                problem = format!("{problem}\n{input}");
            }
            (problem.clone(), vec![Message::new("user", problem)])
        } else {
            let turns = row.turns(column)?.unwrap_or_default();
            let turns: Result<Vec<Message>, String> = turns.into_iter().collect();
            let Ok(turns) = turns else {
                return Err(Mismatch {
                    column: column.to_owned(),
                    found: "a turn that is none",
                    expected: "text, or a list of {role, content} or {from, value}",
                });
            };
            (problem_of(&turns), turns)
        };
        if problem.trim().is_empty() {
            return Ok(None);
        }
        if let Some(system) = self.columns.system
            && let Some(system) = row.text(system)?
            && messages
                .first()
                .is_none_or(|first| first.role != Role::System)
        {
            messages.insert(0, Message::new("system", system));
        }
        let gold_answer = match self.gold() {
            Some(column) => row.gold(column)?,
            None => None,
        };
        let source = match self.columns.source {
            Some(column) => row.text(column)?.map(str::to_owned),
            None => None,
        };
        Ok(Some(Question {
            problem,
            messages,
            gold_answer,
            source,
        }))
    }

    /// What one column, or one pair of columns, holds.
    fn written(
        &self,
        row: &Row,
        written: &Written,
        teacher: &str,
        finish_reason: Option<&str>,
    ) -> Result<Vec<Sample>, Mismatch> {
        let sample = |completion: Completion| Sample {
            completion: Ok(completion),
            finish_reason: finish_reason.map(Into::into),
            teacher: teacher.to_owned(),
        };
        match written {
            Written::Text(column) if row.is_texts(column) => {
                let texts = row.texts(column)?.unwrap_or_default();
                if texts.is_empty() {
                    let none = format!("`{column}` is empty");
                    return Ok(vec![Sample::failed(none, teacher)]);
                }
                let texts = texts.into_iter().enumerate();
                let samples = texts.map(|(at, text)| match text {
                    Some(text) => sample(Completion::of_text(text)),
                    None => Sample::failed(format!("`{column}[{at}]` is null or empty"), teacher),
                });
                Ok(samples.collect())
            }
            Written::Text(column) if row.has(column) && !row.is_text(column) => {
                // The assistant's turn as a message.
                let turns = row.turns(column)?.unwrap_or_default();
                let last = turns.into_iter().next_back();
                Ok(vec![match last {
                    Some(Ok(turn)) => sample(Completion::of_turn(turn)),
                    Some(Err(problem)) => Sample::failed(problem, teacher),
                    None => Sample::failed(format!("`{column}` is empty"), teacher),
                }])
            }
            Written::Text(column) => Ok(vec![match row.text(column)? {
                Some(text) => sample(Completion::of_text(text)),
                None => Sample::failed(format!("`{column}` is null or empty"), teacher),
            }]),
            Written::Apart { thought, answer } => {
                let pieces = match row.is_texts(thought) {
                    true => row.texts(thought)?.map(|pieces| {
                        let pieces: Vec<_> = pieces.into_iter().flatten().collect();
                        pieces.join("\n\n")
                    }),
                    false => row.text(thought)?.map(str::to_owned),
                };
                let pieces = pieces.filter(|thought| !thought.trim().is_empty());
                Ok(vec![match (pieces, row.text(answer)?) {
                    (None, None) => {
                        Sample::failed(format!("`{thought}` and `{answer}` are null"), teacher)
                    }
                    (thought, answer) => sample(Completion::of_parts(thought.as_deref(), answer)),
                }])
            }
        }
    }
}

impl Adapter for ByColumns {
    fn shape(&self) -> Shape {
        let columns = &self.columns;
        let mut shape = Shape::default().one_of(&[self.problem()], Kind::TextOrTurns);
        let mut written = Vec::new();
        for column in &columns.written {
            match column {
                Written::Text(column) => written.push((column.as_str(), Kind::Any)),
                Written::Apart { thought, answer } => {
                    written.push((thought, Kind::Any));
                    written.push((answer, Kind::Text));
                }
            }
        }
        let written = written.into_iter().filter(|(column, _)| !column.is_empty());
        shape = shape.any_of(written);
        let named = [self.gold(), self.teacher(), self.finish_reason()];
        for (at, column) in named.into_iter().enumerate() {
            let Some(column) = column else { continue };
            let kind = if at == 0 { Kind::Gold } else { Kind::Text };
            // A column that the recipe names has to be there; a preset's may be absent.
            let asked = [
                &self.config.gold,
                &self.config.answer,
                &self.config.teacher,
                &self.config.finish_reason,
            ]
            .into_iter()
            .flatten()
            .any(|name| name == column);
            shape = match asked {
                true => shape.one_of(&[column], kind),
                false => shape.optional(&None, column, kind),
            };
        }
        for column in [columns.input, columns.system, columns.source]
            .into_iter()
            .flatten()
        {
            shape = shape.optional(&None, column, Kind::Text);
        }
        shape
    }

    fn read(&self, row: &Row) -> Result<Found, Mismatch> {
        let Some(question) = self.question(row)? else {
            return Ok(Found::no_problem());
        };
        let teacher = match self.teacher() {
            Some(column) => row.text(column)?,
            None => None,
        };
        let teacher = teacher.unwrap_or(self.columns.unnamed);
        let finish_reason = match self.finish_reason() {
            Some(column) => row.text(column)?,
            None => None,
        };
        let mut samples = Vec::new();
        for written in &self.columns.written {
            match self.written(row, written, teacher, finish_reason) {
                Ok(found) => samples.extend(found),
                Err(mismatch) => samples.push(Sample::failed(mismatch.to_string(), teacher)),
            }
        }
        Ok(Found::Traces(question, samples))
    }
}
