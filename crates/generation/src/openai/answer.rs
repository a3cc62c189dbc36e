//! An answer as it comes in, in one body or in pieces, and the completion that it makes.

use half::f16;
use records::top_k::TopK;
use records::{FinishReason, LogprobSpace};

use super::ending::{End, ServerError};
use super::logprobs::floor;
use super::{logprobs, thought};
use crate::teacher::{CHOICES, Completion, Scored};

pub use super::logprobs::{Position, Problem, or_no_mass};

/// What a server has said so far.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    /// Where the server tells thought and answer apart.
    pub reasoning: Option<String>,
    pub token_ids: Vec<u32>,
    pub positions: Vec<Position>,
    /// None until it has come to its end.
    pub end: Option<End>,
    pub n_prompt_tokens: Option<u32>,
    pub n_completion_tokens: Option<u32>,
}

/// What a server has said so far of everything that one request asks for.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Answers {
    choices: Vec<Answer>,
    pub n_prompt_tokens: Option<u32>,
    /// Of all choices.
    pub n_completion_tokens: Option<u32>,
    /// What the server reports beside the choices or in their place.
    pub error: Option<ServerError>,
    /// Pieces that were nothing of an answer.
    pub skipped: u64,
}

impl Answers {
    /// There is one choice, and it has come to its end: all that a server says which does not know `n`.
    pub fn is_one(&self) -> bool {
        matches!(&*self.choices, [only] if only.end.is_some())
    }

    /// Notes an error; the first says most.
    pub fn note_error(&mut self, error: Option<ServerError>) {
        if self.error.is_none() {
            self.error = error;
        }
    }

    /// A piece without a choice has come; `known` where it is of use all the same.
    pub fn skip(&mut self, known: bool) {
        self.skipped += u64::from(!known);
    }

    /// Nothing of an answer has come.
    pub fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }

    /// In whose words the server broke off, where it did.
    pub fn broken(&self) -> Option<&str> {
        self.choices.iter().find_map(|choice| match &choice.end {
            Some(End::Broken(words)) => Some(words.as_str()),
            _ => None,
        })
    }

    /// The texts that have come, thoughts among them.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.choices.iter().flat_map(|choice| {
            std::iter::once(choice.text.as_str()).chain(choice.reasoning.as_deref())
        })
    }

    /// One of them, by the server's number, where an event brings something for it. What has ended may be said to have
    /// ended again.
    ///
    /// # Errors
    /// A choice that goes on after its end.
    pub fn going_on(&mut self, index: usize, brings: bool) -> Result<Option<&mut Answer>, String> {
        let choice = self.choice(index)?;
        match (&choice.end, brings) {
            (None, _) => Ok(Some(choice)),
            (Some(_), false) => Ok(None),
            (Some(_), true) => Err(format!("choice {index} goes on after its end")),
        }
    }

    /// One of them, by the server's number.
    ///
    /// # Errors
    /// A number that nobody asks for.
    pub fn choice(&mut self, index: usize) -> Result<&mut Answer, String> {
        if index >= CHOICES {
            return Err(format!("a choice has the number {index}"));
        }
        if self.choices.len() <= index {
            self.choices.resize(index + 1, Answer::default());
        }
        Ok(&mut self.choices[index])
    }

    /// The `n` that were asked for.
    ///
    /// # Errors
    /// Another number of them.
    pub fn exactly(self, n: usize) -> Result<Vec<Answer>, String> {
        let mut choices = self.choices;
        if choices.len() != n {
            return Err(match choices.len() {
                0 => "the answer ends before it is finished".to_owned(),
                found => format!("{found} choices where {n} were asked for"),
            });
        }
        for choice in &mut choices {
            choice.n_prompt_tokens = choice.n_prompt_tokens.or(self.n_prompt_tokens);
        }
        if let [only] = &mut *choices {
            only.n_completion_tokens = only.n_completion_tokens.or(self.n_completion_tokens);
        }
        Ok(choices)
    }
}

/// What was asked for, and what may be made of it.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// Entries to keep per position; 0 keeps none.
    pub top_k: u16,
    pub logprob_space: LogprobSpace,
    /// Ids are part of the answer.
    pub ids: bool,
    /// Of the model, where its tokenizer is here.
    pub eos_ids: &'a [u32],
    /// Some tokens may have no entry: the others are found by their ids.
    pub gaps: bool,
}

impl Answer {
    /// # Errors
    /// An answer that contradicts itself, or is not whole: it is asked for again.
    pub fn complete(mut self, expected: &Expected<'_>) -> Result<Completion, Problem> {
        let finish_reason = match self.end.take() {
            Some(End::Finished(word)) => word,
            Some(End::Cut) => FinishReason::Length,
            Some(End::Broken(words)) => return Err(words.into()),
            None => return Err("the answer ends before it is finished".into()),
        };
        let asked = expected.top_k > 0;
        if expected.ids && self.token_ids.is_empty() {
            if self.positions.iter().any(|position| position.id.is_none())
                || self.positions.is_empty()
            {
                return Err("the answer has no token ids".into());
            }
            self.token_ids = self
                .positions
                .iter()
                .filter_map(|position| position.id)
                .collect();
        }
        if let Some(n) = self.n_completion_tokens.filter(|_| expected.ids)
            && (n as usize) > self.token_ids.len()
        {
            return Err(format!("{} token ids of {n} tokens", self.token_ids.len()).into());
        }
        let positions = self.aligned(expected)?;
        if asked && expected.ids && positions.len() != self.token_ids.len() {
            return Err(format!(
                "{} tokens with the log-probabilities of {}",
                self.token_ids.len(),
                positions.len()
            )
            .into());
        }
        let bare = |position: &Position| position.top.is_empty();
        if asked && expected.ids && !expected.gaps && positions.iter().any(bare) {
            return Err("a token has no likeliest tokens beside it".into());
        }
        let mut completion = Completion {
            n_prompt_tokens: self.n_prompt_tokens,
            n_completion_tokens: self.n_completion_tokens,
            finish_reason,
            ..Completion::default()
        };
        if !positions.is_empty() {
            let n_positions = positions.len() as u32;
            completion.n_completion_tokens.get_or_insert(n_positions);
            let logprobs = positions
                .iter()
                .map(|position| floor(position.logprob) as f32);
            completion.token_logprobs = Some(logprobs.collect());
            completion.logprob_space = Some(expected.logprob_space.clone());
            logprobs::check(&positions)?;
            if asked && expected.ids {
                completion.top = Some(top_k(&positions, usize::from(expected.top_k)));
            }
        }
        if expected.ids {
            self.end(expected, &mut completion);
            completion.n_completion_tokens = Some(self.token_ids.len() as u32);
            completion.token_ids = Some(self.token_ids);
        }
        completion.text = match self.reasoning.filter(|thought| !thought.trim().is_empty()) {
            Some(reasoning) => {
                let joined = thought::join(&reasoning, &self.text);
                completion.split = Some((joined.thought, joined.answer));
                joined.text
            }
            None => self.text,
        };
        Ok(completion)
    }

    /// The scores of a completion that follows `n_prompt` tokens; its positions are the last ones. Positions that name
    /// no tokens are of all of them.
    ///
    /// # Errors
    /// Positions that are missing, or of other tokens.
    pub fn scored(self, n_prompt: usize, token_ids: &[u32], k: u16) -> Result<Scored, Problem> {
        let found = self.positions.len();
        let whole = n_prompt + token_ids.len();
        let nameless = self.positions.iter().any(|position| position.id.is_none());
        let first = found
            .checked_sub(token_ids.len())
            .filter(|_| !nameless || found == whole);
        let Some(positions) = first.map(|first| &self.positions[first..]) else {
            return Err(format!(
                "{whole} tokens, {} of them the completion's, with the log-probabilities of {found}",
                token_ids.len()
            )
            .into());
        };
        let token_logprobs = positions
            .iter()
            .zip(token_ids)
            .map(|(position, &id)| match position.id {
                Some(other) if other != id => Err(format!("token {id} is answered as {other}")),
                Some(_) => Ok(position.logprob),
                None => {
                    let entry = position.top.iter().find(|(other, _)| *other == id);
                    entry
                        .map(|(_, logprob)| *logprob)
                        .ok_or_else(|| format!("token {id} has no log-probability"))
                }
            })
            .map(|logprob| Ok(floor(logprob?) as f32))
            .collect::<Result<Vec<f32>, String>>()?;
        if k > 0 && positions.iter().any(|position| position.top.is_empty()) {
            return Err("a token has no likeliest tokens beside it".into());
        }
        if let Some(at) = token_logprobs.iter().position(|logprob| logprob.is_nan()) {
            return Err(format!("token {at} has no log-probability").into());
        }
        logprobs::check(positions)?;
        Ok(Scored {
            token_logprobs,
            top: (k > 0).then(|| top_k(positions, usize::from(k))),
            logprob_space: LogprobSpace::Raw,
        })
    }

    /// A position for every token, where the server gives any; those without an entry have a NaN.
    fn aligned(&mut self, expected: &Expected<'_>) -> Result<Vec<Position>, String> {
        let positions = std::mem::take(&mut self.positions);
        if !expected.gaps || positions.is_empty() || positions.len() == self.token_ids.len() {
            let pairs = positions.iter().zip(&self.token_ids);
            let differs = pairs
                .into_iter()
                .position(|(position, &id)| position.id.is_some_and(|own| own != id));
            return match differs {
                Some(at) => Err(format!(
                    "token {at} and its log-probability are of different ids"
                )),
                None => Ok(positions),
            };
        }
        // Which tokens have an entry is not said. The bytes of a character may be the same token (E4 BA BA is 人), so that
        // an entry fits two of them; it is kept where the first and the last way to lay entries along the ids agree.
        let ids = self.token_ids.iter().copied().enumerate();
        let first = places(positions.iter(), ids.clone())?;
        let mut last = places(positions.iter().rev(), ids.rev())?;
        last.reverse();
        let without = |&id| Position {
            id: Some(id),
            logprob: f64::NAN,
            top: Vec::new(),
        };
        let mut aligned: Vec<Position> = self.token_ids.iter().map(without).collect();
        for (position, (first, last)) in positions.into_iter().zip(first.into_iter().zip(last)) {
            if first == last {
                aligned[first] = position;
            }
        }
        Ok(aligned)
    }

    /// Lets a stopped completion end with the token that stopped it, which some servers keep to themselves.
    fn end(&mut self, expected: &Expected<'_>, completion: &mut Completion) {
        let ended = self
            .token_ids
            .last()
            .is_some_and(|id| expected.eos_ids.contains(id));
        let Some(&eos) = expected
            .eos_ids
            .first()
            .filter(|_| completion.finish_reason == FinishReason::Stop && !ended)
        else {
            return;
        };
        self.token_ids.push(eos);
        if let Some(logprobs) = &mut completion.token_logprobs {
            logprobs.push(f32::NAN);
        }
        if let Some(top) = &mut completion.top {
            let k = top.k;
            let n = top.tail_logprobs.len();
            top.counts.get_or_insert_with(|| vec![k; n]).push(0);
            top.tail_logprobs.push(0.0);
        }
    }
}

/// Where each of `positions` finds its id in `ids`, every one after the one before it.
fn places<'a>(
    mut positions: impl Iterator<Item = &'a Position>,
    mut ids: impl Iterator<Item = (usize, u32)>,
) -> Result<Vec<usize>, String> {
    positions.try_fold(Vec::new(), |mut places, position| {
        match ids.find(|(_, id)| position.id == Some(*id)) {
            Some((at, _)) => {
                places.push(at);
                Ok(places)
            }
            None => Err(format!(
                "the log-probability of {:?} belongs to no token",
                position.id
            )),
        }
    })
}

/// The `k` likeliest entries of every position, and the mass outside them.
fn top_k(positions: &[Position], k: usize) -> TopK {
    let mut top = TopK::default();
    let mut counts = Vec::with_capacity(positions.len());
    top.ids.reserve(positions.len() * k);
    top.logprobs.reserve(positions.len() * k);
    top.tail_logprobs.reserve(positions.len());
    let mut entries: Vec<(u32, f64)> = Vec::new();
    for position in positions {
        entries.clear();
        let floored = position
            .top
            .iter()
            .map(|&(id, logprob)| (id, floor(logprob)));
        entries.extend(floored.filter(|(_, logprob)| *logprob > f64::NEG_INFINITY));
        entries.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        entries.dedup_by_key(|entry| entry.0);
        entries.truncate(k);
        let mass: f64 = entries.iter().map(|(_, logprob)| logprob.exp()).sum();
        counts.push(entries.len() as u16);
        // What servers round can add up to a little more than one.
        top.tail_logprobs.push((-mass.min(1.0)).ln_1p() as f32);
        top.ids.extend(entries.iter().map(|(id, _)| *id));
        top.logprobs
            .extend(entries.iter().map(|(_, logprob)| f16::from_f64(*logprob)));
    }
    let same = counts.first().copied().unwrap_or(0);
    if counts.iter().all(|&count| count == same) {
        top.k = same;
    } else {
        top.k = counts.iter().copied().max().unwrap_or(0);
        top.counts = Some(counts);
    }
    top
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn expected() -> Expected<'static> {
        Expected {
            top_k: 2,
            logprob_space: LogprobSpace::Raw,
            ids: true,
            eos_ids: &[9],
            gaps: false,
        }
    }

    fn position(id: u32, logprob: f64, top: &[(u32, f64)]) -> Position {
        Position {
            id: Some(id),
            logprob,
            top: top.to_vec(),
        }
    }

    fn answer(token_ids: &[u32], positions: Vec<Position>) -> Answer {
        Answer {
            text: "t".into(),
            token_ids: token_ids.to_vec(),
            positions,
            end: Some(End::Finished(FinishReason::Stop)),
            ..Answer::default()
        }
    }

    #[test]
    fn a_sampled_token_outside_the_top_is_no_entry_of_it() {
        let positions = vec![
            position(7, -5.0, &[(7, -5.0), (1, -0.5), (2, -1.5)]),
            position(9, -9999.0, &[(2, -0.25), (9, -9999.0)]),
        ];
        let found = answer(&[7, 9], positions).complete(&expected()).unwrap();
        assert_eq!(found.token_logprobs.unwrap(), [-5.0, f32::NEG_INFINITY]);
        let top = found.top.unwrap();
        top.validate().unwrap();
        assert_eq!((top.k, top.counts.as_deref()), (2, Some(&[2, 1][..])));
        assert_eq!(top.ids, [1, 2, 2]);
        assert_eq!(top.logprobs, [-0.5, -1.5, -0.25].map(f16::from_f64));
        let tail = (1.0 - (-0.5f64).exp() - (-1.5f64).exp()).ln();
        assert!((f64::from(top.tail_logprobs[0]) - tail).abs() < 1e-6);
    }

    #[test]
    fn a_stop_has_its_end_and_tokens_without_an_entry_keep_their_place() {
        let positions = vec![
            position(4, -0.5, &[(4, -0.5)]),
            position(6, -0.1, &[(6, -0.1)]),
        ];
        let gaps = Expected {
            gaps: true,
            ..expected()
        };
        let found = answer(&[4, 5, 6], positions).complete(&gaps).unwrap();
        assert_eq!(found.token_ids.unwrap(), [4, 5, 6, 9]);
        let logprobs = found.token_logprobs.unwrap();
        assert_eq!((logprobs[0], logprobs[2]), (-0.5, -0.1));
        assert!(logprobs[1].is_nan() && logprobs[3].is_nan());
        let top = found.top.unwrap();
        top.validate().unwrap();
        assert_eq!(top.counts.unwrap(), [1, 0, 1, 0]);
        assert_eq!((top.tail_logprobs[1], top.tail_logprobs[3]), (0.0, 0.0));
    }

    #[test]
    fn an_entry_that_fits_two_tokens_is_of_neither() {
        let gaps = Expected {
            gaps: true,
            ..expected()
        };
        // 1, 人 as E4 BA BA with the entry of its last byte, 2, and the end.
        let positions = [1, 0xba, 2, 9].map(|id| position(id, -0.5, &[(id, -0.5)]));
        let ids = [1, 0xe4, 0xba, 0xba, 2, 9];
        let found = answer(&ids, positions.to_vec()).complete(&gaps).unwrap();
        let known = |logprob: &f32| !logprob.is_nan();
        let known: Vec<bool> = found.token_logprobs.unwrap().iter().map(known).collect();
        assert_eq!(known, [true, false, false, false, true, true]);
        assert_eq!(found.top.unwrap().counts.unwrap(), [1, 0, 0, 0, 1, 1]);
        let stray = vec![position(2, -0.5, &[]), position(1, -0.5, &[])];
        let problem = answer(&[1, 2, 9], stray).complete(&gaps).unwrap_err().words;
        assert!(problem.contains("belongs to no token"), "{problem}");
    }

    #[test]
    fn answers_that_contradict_themselves_are_refused() {
        let check = |answer: Answer, part: &str| {
            let problem = answer.complete(&expected()).unwrap_err().words;
            assert!(problem.contains(part), "{problem}");
        };
        check(answer(&[1, 2], vec![position(1, -0.5, &[])]), "2 tokens");
        check(answer(&[1], vec![position(2, -0.5, &[])]), "different ids");
        check(answer(&[], vec![]), "no token ids");
        let unfinished = Answer {
            end: None,
            ..answer(&[9], vec![position(9, -0.5, &[])])
        };
        check(unfinished, "before it is finished");
    }

    #[test]
    fn a_thought_told_apart_is_joined_as_templates_write_it() {
        let answer = Answer {
            reasoning: Some("because".into()),
            text: "so".into(),
            end: Some(End::Finished(FinishReason::Stop)),
            ..Answer::default()
        };
        let chat = Expected {
            ids: false,
            ..expected()
        };
        let found = answer.complete(&chat).unwrap();
        assert_eq!(found.text, "<think>\nbecause\n</think>\n\nso");
        assert_eq!(found.split, Some(("because".into(), Some("so".into()))));
        assert_eq!(
            (found.token_ids, found.token_logprobs, found.top),
            (None, None, None)
        );
    }
}
