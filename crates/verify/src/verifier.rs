//! Grading with options, and with all that was found.

use std::borrow::Cow;

use crate::extract::{self, AnswerFrom, Found};
use crate::{Answer, Verdict, think};

/// How responses are graded. The default is [`crate::verify`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verifier {
    /// Whether the last number of the answer part is the answer where nothing else is found, as
    /// users of GSM8K expect.
    pub last_number: bool,
    /// Whether an answer has to stand in a box, as some harnesses demand; `last_number` then has no say.
    pub boxed_only: bool,
}

/// A verdict, and the answer that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification<'a> {
    pub verdict: Verdict,
    /// The final answer as it is written in the response.
    pub extracted: Option<Cow<'a, str>>,
    /// Where it was found; `None` where there is none.
    pub answer_from: Option<AnswerFrom>,
}

impl Verifier {
    /// Grades a whole response, its thought included.
    pub fn verify<'a>(&self, gold: &str, response: &'a str) -> Verification<'a> {
        self.verify_any(&[gold], response)
    }

    /// Grades a whole response against several golds, any of which is right. Golds that cannot be
    /// read do not count while one of them can.
    pub fn verify_any<'a>(&self, golds: &[&str], response: &'a str) -> Verification<'a> {
        self.verify_answer(golds, think::split_turn(response).answer)
    }

    /// Grades what follows the thought; `None` is a thought that never ended.
    pub fn verify_answer<'a>(
        &self,
        golds: &[&str],
        answer_part: Option<&'a str>,
    ) -> Verification<'a> {
        let found = answer_part.and_then(|answer| match self.boxed_only {
            true => extract::boxed(answer),
            false => extract::found(answer, self.last_number),
        });
        let answer = found.as_ref().and_then(|found| Answer::read(&found.answer));
        let mut verdict = Verdict::GoldUnreadable;
        let in_box = found.as_ref().map(|found| found.from) == Some(AnswerFrom::Box);
        let mut verbatim = None;
        let golds: Vec<Cow<'_, str>> = golds.iter().flat_map(|gold| each_gold(gold)).collect();
        for gold in &golds {
            let read = Answer::read_gold(gold);
            // A number is its own text, and what was found has been compared with a gold that was
            // read as a whole.
            let compared = match &read {
                Some(read) => read.is_number() || (in_box && read.is_whole(gold)),
                None => false,
            };
            // Text outside of a box is no answer where boxes are asked for.
            let part = answer_part.filter(|_| !self.boxed_only || in_box);
            if !compared && verbatim.is_none() {
                verbatim = part.and_then(|part| same_text(gold, part, found.as_ref()));
            }
            match (read, &answer) {
                (Some(gold), Some(answer)) if gold.accepts(answer) => {
                    return graded(Verdict::Correct, found);
                }
                (Some(_), Some(_)) => verdict = Verdict::Incorrect,
                (Some(_), None) => verdict = Verdict::NoAnswer,
                (None, _) => {}
            }
        }
        match verbatim {
            // What equals its gold as text is correct, whatever it is.
            Some(found) => graded(Verdict::Correct, Some(found)),
            // Nothing is left of the answer without its wrapping.
            None if answer.is_none() => graded(verdict, None),
            None => graded(verdict, found),
        }
    }
}

/// The golds of a field: a list of texts in JSON is several, of which any is right.
fn each_gold(gold: &str) -> Vec<Cow<'_, str>> {
    let text = gold.trim();
    if text.starts_with('[')
        && text.ends_with("\"]")
        && let Ok(golds) = serde_json::from_str::<Vec<String>>(text)
        && !golds.is_empty()
    {
        return golds.into_iter().map(Cow::Owned).collect();
    }
    vec![Cow::Borrowed(gold)]
}

fn graded(verdict: Verdict, found: Option<Found<'_>>) -> Verification<'_> {
    let (extracted, answer_from) = match found {
        Some(Found { answer, from }) => (Some(answer), Some(from)),
        None => (None, None),
    };
    Verification {
        verdict,
        extracted,
        answer_from,
    }
}

/// The part of the answer that is the gold's own text: what was found, the announced sentence, or
/// the whole.
fn same_text<'a>(gold: &str, answer_part: &'a str, found: Option<&Found<'a>>) -> Option<Found<'a>> {
    let gold = Answer::read(gold)?;
    let is_gold = |text: &str| Answer::read(text).is_some_and(|answer| gold.is_same_text(&answer));
    if let Some(found) = found {
        if is_gold(&found.answer) {
            return Some(found.clone());
        }
        if found.from == AnswerFrom::Box {
            return None;
        }
    }
    let whole = think::turn(answer_part).trim();
    let announced = extract::announced_sentence(answer_part);
    [
        (Some(whole), AnswerFrom::Formula),
        (announced, AnswerFrom::Announced),
    ]
    .into_iter()
    .find_map(|(text, from)| {
        let text = text.filter(|text| is_gold(text))?;
        let answer = Cow::Borrowed(text);
        Some(Found { answer, from })
    })
}
