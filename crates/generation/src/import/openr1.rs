//! OpenR1-Math-220k: a row is a problem with several generations.
//!
//! Its `correctness_…` columns are another verifier's verdicts; ours grades again, and traces have no column for theirs.

use super::adapter::{Adapter, Found, Kind, Question, Sample, Shape, name};
use super::completion::Completion;
use super::row::{Mismatch, Row};
use crate::config::TracesConfig;

const TEACHER: &str = "DeepSeek-R1";

pub struct OpenR1 {
    pub config: TracesConfig,
}

impl Adapter for OpenR1 {
    fn shape(&self) -> Shape {
        let config = &self.config;
        Shape::default()
            .one_of(&[name(&config.problem, "problem")], Kind::Text)
            .one_of(&["generations"], Kind::Texts)
            .optional(&config.answer, "answer", Kind::Gold)
            .optional(&config.finish_reason, "finish_reasons", Kind::Texts)
            .optional(&config.teacher, "teacher", Kind::Text)
            .optional(&None, "source", Kind::Text)
    }

    fn read(&self, row: &Row) -> Result<Found, Mismatch> {
        let config = &self.config;
        let Some(problem) = row.text(name(&config.problem, "problem"))? else {
            return Ok(Found::no_problem());
        };
        let question = Question {
            gold_answer: row.gold(name(&config.answer, "answer"))?,
            source: row.text("source")?.map(str::to_owned),
            ..Question::alone(problem)
        };
        let teacher = row.text(name(&config.teacher, "teacher"))?;
        let teacher = teacher.unwrap_or(TEACHER);
        let generations = match row.texts("generations") {
            Ok(generations) => generations.unwrap_or_default(),
            Err(mismatch) => {
                let none = Sample::failed(mismatch.to_string(), teacher);
                return Ok(Found::Traces(question, vec![none]));
            }
        };
        if generations.is_empty() {
            let none = Sample::failed("`generations` is null or empty", teacher);
            return Ok(Found::Traces(question, vec![none]));
        }
        let reasons = row.texts(name(&config.finish_reason, "finish_reasons"))?;
        let reasons = reasons.unwrap_or_default();
        let samples = generations.iter().enumerate().map(|(at, text)| match text {
            None => Sample::failed(format!("generation {at} is null or empty"), teacher),
            Some(text) => Sample {
                completion: Ok(Completion::of_text(text)),
                finish_reason: reasons.get(at).copied().flatten().map(Into::into),
                teacher: teacher.to_owned(),
            },
        });
        Ok(Found::Traces(question, samples.collect()))
    }
}
