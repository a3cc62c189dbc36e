//! Two or more finished evaluations side by side: paired question by question, with the questions that flipped.
//!
//! - [`Contender`]: one model of one evaluation, read back from its files.
//! - `page`: the comparison as text.

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow::datatypes::UInt32Type;
use records::column::Columns;
use records::parquet_file::Reader;
use records::score::{Estimate, SamplingScores, Scores};
use verify::Verdict;

use crate::error::{Error, Result};
use crate::kept::SAMPLES;
use crate::run::read_scores;
use crate::statistics::{SignTest, Tally, avg_at_k, paired_difference, sign_test};

/// Columns that a comparison reads; the tokens stay where they are.
const COLUMNS: [&str; 11] = [
    "benchmark",
    "role",
    "prompt_id",
    "problem",
    "gold_answer",
    "answer",
    "n_completion_tokens",
    "verdict",
    "extracted",
    "subject",
    "level",
];

/// Which model of an evaluation is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// A `scores/` folder.
    pub scores: PathBuf,
    /// What the comparison calls it.
    pub label: String,
    /// The model's name in the scores; the only one, or else the student.
    pub role: Option<String>,
}

/// One answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub correct: bool,
    /// None where no answer was found.
    pub extracted: Option<String>,
    /// What follows the thought.
    pub text: Option<String>,
}

/// One question with the graded answers to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Question {
    pub problem: String,
    pub gold: String,
    pub subject: Option<String>,
    pub level: Option<String>,
    /// In the order of the samples.
    pub answers: Vec<Answer>,
    pub n_tokens: u64,
}

impl Question {
    fn tally(&self) -> Tally {
        Tally::of(self.answers.iter().map(|answer| answer.correct))
    }

    /// The most frequent answer as it was first written, how often it came, and whose text it is.
    fn usual(&self) -> Option<(usize, &Answer)> {
        let texts: Vec<&str> = self
            .answers
            .iter()
            .map(|answer| answer.extracted.as_deref().unwrap_or_default())
            .collect();
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for first in verify::groups(&texts).into_iter().flatten() {
            *counts.entry(first).or_default() += 1;
        }
        let best = counts
            .into_iter()
            .max_by_key(|&(first, n)| (n, usize::MAX - first));
        let (first, n) = best?;
        Some((n, self.answers.get(first)?))
    }
}

/// The questions of a benchmark by their ids.
type Questions = BTreeMap<String, Question>;

/// A model of a finished evaluation.
#[derive(Debug, Clone)]
pub struct Contender {
    pub label: String,
    pub role: String,
    benchmarks: BTreeMap<String, Questions>,
    scores: Scores,
}

impl Contender {
    /// Reads the graded samples of a finished evaluation.
    ///
    /// # Errors
    /// A folder without scores, and a model that they do not have.
    pub fn read(wanted: &Wanted) -> Result<Self> {
        let scores = read_scores(&wanted.scores)?;
        let roles: BTreeSet<&str> = scores
            .benchmarks
            .iter()
            .flat_map(|benchmark| benchmark.models.iter().map(|model| model.role.as_str()))
            .collect();
        let usual = match roles.len() {
            1 => roles.first().copied(),
            _ => Some("student"),
        };
        let role = wanted.role.as_deref().or(usual).unwrap_or_default();
        if !roles.contains(role) {
            return Err(Error::NoSuchModel {
                scores: wanted.scores.clone(),
                role: role.to_owned(),
                present: roles.into_iter().collect::<Vec<_>>().join(", "),
            });
        }
        let role = role.to_owned();
        Ok(Self {
            benchmarks: questions(&wanted.scores.join(SAMPLES), &role)?,
            label: wanted.label.clone(),
            role,
            scores,
        })
    }

    fn sampling(&self, benchmark: &str) -> Option<&SamplingScores> {
        let mut benchmarks = self.scores.benchmarks.iter();
        benchmarks
            .find(|one| one.name == benchmark)?
            .sampling
            .as_ref()
    }
}

/// The graded answers of one model, by benchmark and question. Samples that failed are in none.
fn questions(path: &Path, role: &str) -> Result<BTreeMap<String, Questions>> {
    let mut benchmarks: BTreeMap<String, Questions> = BTreeMap::new();
    for batch in Reader::open_columns(path, Some(&COLUMNS))? {
        let batch = batch?;
        let columns = Columns(&batch);
        let in_file = |error: records::Error| Error::Records(error.in_file(path));
        let text = |name: &str| columns.strings(name).map_err(in_file);
        let optional = |name: &str| columns.optional_strings(name).map_err(in_file);
        let (names, roles) = (text("benchmark")?, text("role")?);
        let (ids, problems) = (text("prompt_id")?, text("problem")?);
        let (golds, texts) = (optional("gold_answer")?, optional("answer")?);
        let (verdicts, extracted) = (optional("verdict")?, optional("extracted")?);
        let (subjects, levels) = (optional("subject")?, optional("level")?);
        let tokens = columns.optional_primitives::<UInt32Type>("n_completion_tokens");
        let tokens = tokens.map_err(in_file)?;
        for row in (0..batch.num_rows()).filter(|&row| roles[row] == role) {
            let verdict = match &verdicts[row] {
                None => continue,
                Some(name) => Verdict::from_name(name).ok_or_else(|| Error::UnknownVerdict {
                    path: path.to_path_buf(),
                    verdict: name.clone(),
                })?,
            };
            if verdict == Verdict::GoldUnreadable {
                continue;
            }
            let questions = benchmarks.entry(names[row].clone()).or_default();
            let question = questions
                .entry(ids[row].clone())
                .or_insert_with(|| Question {
                    problem: problems[row].clone(),
                    gold: golds[row].clone().unwrap_or_default(),
                    subject: subjects[row].clone(),
                    level: levels[row].clone(),
                    ..Question::default()
                });
            question.n_tokens += u64::from(tokens[row].unwrap_or(0));
            question.answers.push(Answer {
                correct: verdict == Verdict::Correct,
                extracted: extracted[row].clone(),
                text: texts[row].clone(),
            });
        }
    }
    Ok(benchmarks)
}

/// Two models on the questions of one benchmark that both have samples of.
struct Pair<'a> {
    questions: Vec<(&'a str, &'a Question, &'a Question)>,
}

/// A group of questions on which two models are compared.
struct Group {
    name: String,
    n_questions: usize,
    a: Estimate,
    b: Estimate,
    difference: f64,
    ci95: Option<[f64; 2]>,
}

impl<'a> Pair<'a> {
    fn of(a: &'a Questions, b: &'a Questions) -> Self {
        let both = a
            .iter()
            .filter_map(|(id, of_a)| Some((id.as_str(), of_a, b.get(id)?)));
        Self {
            questions: both.collect(),
        }
    }

    fn tallies(&self) -> (Vec<Tally>, Vec<Tally>) {
        let tallies = self
            .questions
            .iter()
            .map(|(_, a, b)| (a.tally(), b.tally()));
        tallies.unzip()
    }

    fn sign_test(&self) -> SignTest {
        let (a, b) = self.tallies();
        sign_test(&a, &b)
    }

    /// All questions as one group; None without any.
    fn whole(&self, name: &str) -> Option<Group> {
        let (a, b) = self.tallies();
        let difference = paired_difference(&a, &b)?;
        let estimate = |tallies: &[Tally]| {
            let avg = avg_at_k(tallies)?;
            Some(Estimate {
                value: avg.value,
                ci95: avg.ci95,
            })
        };
        Some(Group {
            name: name.to_owned(),
            n_questions: a.len(),
            a: estimate(&a)?,
            b: estimate(&b)?,
            difference: difference.mean,
            ci95: difference.ci95,
        })
    }

    /// By the values of a column, sorted; none where the questions have fewer than two.
    fn groups(&self, value: impl Fn(&Question) -> Option<&str>) -> Vec<Group> {
        let names: BTreeSet<&str> = self
            .questions
            .iter()
            .filter_map(|(_, a, _)| value(a))
            .collect();
        if names.len() < 2 {
            return Vec::new();
        }
        let of_name = |name: &str| {
            let questions = self
                .questions
                .iter()
                .filter(|(_, a, _)| value(a) == Some(name));
            let pair = Pair {
                questions: questions.copied().collect(),
            };
            pair.whole(name)
        };
        names.into_iter().filter_map(of_name).collect()
    }

    /// The questions that one model mostly answers rightly and the other mostly not, the largest differences first.
    fn flipped(&self) -> Vec<(&'a str, &'a Question, &'a Question)> {
        let share = |question: &Question| question.tally().share().unwrap_or(0.0);
        let mut flipped: Vec<_> = self
            .questions
            .iter()
            .filter(|(_, a, b)| (share(a) >= 0.5) != (share(b) >= 0.5))
            .copied()
            .collect();
        let distance = |(_, a, b): &(&str, &Question, &Question)| (share(a) - share(b)).abs();
        flipped.sort_by(|one, other| distance(other).total_cmp(&distance(one)));
        flipped
    }
}

/// Mean completion tokens of a sample.
fn mean_tokens<'a>(questions: impl Iterator<Item = &'a Question>) -> f64 {
    let (mut n, mut tokens) = (0, 0);
    for question in questions {
        n += question.answers.len() as u64;
        tokens += question.n_tokens;
    }
    tokens as f64 / n.max(1) as f64
}

/// The comparison as text: the first model against each of the others, benchmark by benchmark. `n_flipped` is how many of
/// the questions that flipped are shown.
///
/// # Errors
/// Models that have no benchmark in common.
pub fn page(contenders: &[Contender], n_flipped: usize) -> Result<String> {
    page::render(contenders, n_flipped)
}
