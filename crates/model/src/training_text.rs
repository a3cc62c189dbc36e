//! What a conversation teaches: prompts and completions as token ids.
//!
//! A completion is the assistant's turn as the chat template renders it, thinking included, up to the token that ends
//! the turn: TRL's rendering of prompt and completion as one text. Where the template would cut or rewrite the thought,
//! the turn stands as it was written. A thought that the prompt's tail has opened (`<think>`) is not opened twice.
//!
//! Prompt and completion are encoded as one text and split where its ids leave those of the prompt alone, as TRL does
//! (1.16, the common prefix): a tokenizer that puts a space before every text puts none between them.

use std::ops::Range;

use records::Message;
use records::conversation::Conversation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::tokenizer::{THINK, Thoughts, Tokenizer};

const END_THINK: &str = "</think>";
const EMPTY_THOUGHT: &str = "<think>\n\n</think>\n\n";
const ASSISTANT: &str = "assistant";

/// Which of an assistant's turns are learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    #[default]
    Last,
    All,
}

/// What becomes of an answer that has no thought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingThought {
    /// It stands as the template renders it. A template that opens `<think>` and would leave it open refuses it.
    #[default]
    Template,
    /// It gets an empty thought, `<think>\n\n</think>\n\n`, unless the prompt has one already.
    Empty,
    Refuse,
}

/// How conversations are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainingOptions {
    pub turns: Turns,
    pub missing_thought: MissingThought,
    /// The last turn was cut off: it is learnt without an end.
    pub cut: bool,
}

/// One sequence to train on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainingIds {
    pub prompt_ids: Vec<u32>,
    /// Ends with the token that ends the turn, unless the turn was cut off.
    pub completion_ids: Vec<u32>,
    /// Positions of the completion that are not learnt: turns of others between two of the assistant's.
    pub context: Vec<Range<usize>>,
}

/// What a conversation gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Training {
    /// One sequence; several where a later turn's prompt does not begin with what went before, as templates that drop
    /// the thoughts of earlier turns have it.
    Sequences(Vec<TrainingIds>),
    /// Nothing to learn, and why.
    Nothing(&'static str),
}

/// The reason of conversations whose assistant says nothing.
pub const EMPTY_COMPLETION: &str = "empty_completion";

/// The reason of conversations whose turns are all marked as not to be learnt.
pub const MASKED: &str = "masked";

impl Tokenizer {
    /// Prompt and completion of a conversation that ends with the assistant's message.
    ///
    /// # Errors
    /// Those of [`Tokenizer::training`], and [`Error::NoCompletion`] where there is nothing to learn.
    pub fn training_ids(&self, messages: &[Message]) -> Result<(Vec<u32>, Vec<u32>)> {
        let conversation = Conversation::from(messages.to_vec());
        match self.training(&conversation, TrainingOptions::default())? {
            Training::Sequences(mut sequences) => {
                let ids = sequences.pop().unwrap_or_default();
                Ok((ids.prompt_ids, ids.completion_ids))
            }
            Training::Nothing(reason) => Err(Error::NoCompletion(reason.into())),
        }
    }

    /// The sequences that a conversation teaches. Turns after the assistant's last are left out.
    ///
    /// # Errors
    /// [`Error::NoCompletion`] without an assistant's turn; [`Error::NoThought`] and [`Error::ClosedThought`] where
    /// thought and template do not fit; the template's own refusals.
    pub fn training(
        &self,
        conversation: &Conversation,
        options: TrainingOptions,
    ) -> Result<Training> {
        let messages = &conversation.messages;
        let Some(last) = messages.iter().rposition(|turn| turn.role == ASSISTANT) else {
            let found = messages
                .last()
                .map_or("nothing".into(), |turn| format!("`{}`", turn.role));
            return Err(Error::NoCompletion(format!("end with {found}")));
        };
        let first = match options.turns {
            Turns::Last => last,
            Turns::All => 0,
        };
        let mut reason = None;
        let mut sequences: Vec<Sequence> = Vec::new();
        for at in first..=last {
            let Some(turn) = messages.get(at).filter(|turn| turn.role == ASSISTANT) else {
                continue;
            };
            if turn.train == Some(false) {
                reason = reason.or(Some(MASKED));
                continue;
            }
            let cut = options.cut && at == last;
            let turn = &self.with_thought_apart(turn);
            if says_nothing(turn, cut) {
                reason = Some(EMPTY_COMPLETION);
                continue;
            }
            let history = messages.get(..at).unwrap_or_default();
            let learnt = self.turn(history, turn, conversation.tools.as_ref(), options, cut)?;
            match sequences.last_mut() {
                Some(sequence) if sequence.continues(&learnt.prompt, &self.end_of_turn_text()) => {
                    sequence.extend(learnt, self.end_of_turn_text().as_deref());
                }
                _ => sequences.push(Sequence::of(learnt)),
            }
        }
        if sequences.is_empty() {
            return Ok(Training::Nothing(reason.unwrap_or(EMPTY_COMPLETION)));
        }
        let sequences = sequences.into_iter().map(|sequence| self.ids(&sequence));
        sequences.collect::<Result<_>>().map(Training::Sequences)
    }

    /// One turn as text, with what it follows.
    fn turn(
        &self,
        history: &[Message],
        turn: &Message,
        tools: Option<&Value>,
        options: TrainingOptions,
        cut: bool,
    ) -> Result<Learnt> {
        let prompt = self.render(history, true, tools)?;
        let written = Written::of(turn);
        if options.missing_thought == MissingThought::Refuse && written.thought.is_none() {
            return Err(Error::NoThought);
        }
        let rendered = match cut {
            true => None,
            false => self.rendered(&prompt, history, turn, tools, &written, options)?,
        };
        if !cut && written.answer.is_none() {
            return Err(Error::UnclosedThought);
        }
        let completion = match rendered {
            Some(completion) => completion,
            None => self.as_written(&prompt, history, turn, tools, &written, options)?,
        };
        Ok(Learnt {
            prompt,
            completion,
            ends: !cut,
        })
    }

    /// The turn as the template renders it, where all of it is there and its thought fits the prompt's tail.
    fn rendered(
        &self,
        prompt: &str,
        history: &[Message],
        turn: &Message,
        tools: Option<&Value>,
        written: &Written<'_>,
        options: TrainingOptions,
    ) -> Result<Option<String>> {
        let mut turn = turn.clone();
        // An end that was written out would stand twice.
        if let Some(end) = self.end_of_turn_text()
            && let Some(content) = turn.content.trim_end().strip_suffix(&end)
        {
            turn.content = content.to_owned();
        }
        let whole = self.render(&[history, &[turn.clone()]].concat(), false, tools)?;
        if let Some(name) = called(&turn)
            && turn.content.trim().is_empty()
            && !whole.contains(name)
        {
            return Err(Error::CallNotRendered(name.to_owned()));
        }
        let Some(rest) = self.behind(prompt, history, &whole, written, tools)? else {
            return Ok(None);
        };
        let body = match self.end_of_turn_text().and_then(|end| rest.rfind(&end)) {
            Some(end) => &rest[..end],
            None => rest.trim_end(),
        };
        let answer = self.without_end(written.answer.unwrap_or_default()).trim();
        let Some(answer_at) = body.rfind(answer) else {
            return Ok(None);
        };
        let before = &body[..answer_at];
        if let Some(thought) = written.thought {
            let kept = before.contains(thought.trim()) && before.matches(THINK).count() <= 1;
            let opened = !self.opens_think(prompt) || !before.contains(THINK);
            let words = before.contains(written.before.trim());
            return Ok((kept && opened && words).then(|| body.to_owned()));
        }
        // Nobody has thought, and the template would teach to say so at once.
        if self.opens_think(prompt) && options.missing_thought != MissingThought::Empty {
            return Err(Error::NoThought);
        }
        let closed = before.contains(END_THINK) || closes_think(prompt);
        match (closed, options.missing_thought) {
            (true, _) => Ok(Some(body.to_owned())),
            (false, _) if self.opens_think(prompt) => Ok(None),
            (false, MissingThought::Empty) => Ok(Some(format!(
                "{before}{EMPTY_THOUGHT}{}",
                &body[answer_at..]
            ))),
            (false, _) => Ok(Some(body.to_owned())),
        }
    }

    /// What stands in the whole conversation's text behind the prompt. Where earlier turns render otherwise once an answer
    /// follows, that is what stands behind the last generation prompt before the thought.
    fn behind<'w>(
        &self,
        prompt: &str,
        history: &[Message],
        whole: &'w str,
        written: &Written<'_>,
        tools: Option<&Value>,
    ) -> Result<Option<&'w str>> {
        if let Some(rest) = whole.strip_prefix(prompt) {
            return Ok(Some(rest));
        }
        let (Some(thought), Thoughts::Tagged | Thoughts::Otherwise) =
            (written.thought.map(str::trim), self.writes_thoughts())
        else {
            return Ok(None);
        };
        let before = self.render(history, false, tools)?;
        let opening = prompt.strip_prefix(before.as_str()).unwrap_or_default();
        let place = whole
            .rfind(thought)
            .and_then(|at| whole.get(..at)?.rfind(opening));
        Ok(match (place, opening, thought) {
            (_, "", _) | (_, _, "") | (None, ..) => None,
            (Some(place), ..) => whole.get(place + opening.len()..),
        })
    }

    /// The turn as it was written, its thought joined to what the prompt's tail has opened.
    fn as_written(
        &self,
        prompt: &str,
        history: &[Message],
        turn: &Message,
        tools: Option<&Value>,
        written: &Written<'_>,
        options: TrainingOptions,
    ) -> Result<String> {
        if closes_think(prompt) {
            return match written.thought.filter(|thought| !thought.trim().is_empty()) {
                Some(_) => Err(Error::ClosedThought),
                None => Ok(written.answer.unwrap_or_default().to_owned()),
            };
        }
        let (header, calls, keeps_words) = self.around(prompt, history, turn, tools)?;
        let wordless;
        let turn = match keeps_words {
            true => turn,
            false => {
                wordless = Message {
                    content: String::new(),
                    ..turn.clone()
                };
                &wordless
            }
        };
        if !self.opens_think(prompt) {
            let text = match (
                turn.reasoning.is_some(),
                written.thought,
                options.missing_thought,
            ) {
                (true, ..) => turn.clone().with_thought_inside().content,
                (false, None, MissingThought::Empty) => format!("{EMPTY_THOUGHT}{}", turn.content),
                _ => turn.content.clone(),
            };
            return Ok(header + &text + &calls);
        }
        // `<think>` and the white space after it.
        let space = prompt
            .rfind(THINK)
            .map_or("", |at| &prompt[at + THINK.len()..]);
        let lead = if space.is_empty() { "\n" } else { "" };
        if let Some(thought) = &turn.reasoning {
            let thought = thought.trim();
            return Ok(match turn.content.trim() {
                "" if !turn.calls() => format!("{lead}{thought}"),
                answer => format!("{lead}{thought}\n{END_THINK}\n\n{answer}{calls}"),
            });
        }
        if written.thought.is_none() {
            return match options.missing_thought {
                MissingThought::Empty => {
                    let answer = turn.content.trim_start_matches(['\r', '\n']);
                    Ok(format!("{lead}\n{END_THINK}\n\n{answer}{calls}"))
                }
                _ => Err(Error::NoThought),
            };
        }
        // What stands after the tag, or the whole where the tag is the prompt's; words before the tag begin the thought.
        let (before, inside) = match turn.content.split_once(THINK) {
            Some((before, inside)) if !before.contains(END_THINK) => (before.trim(), inside),
            _ => ("", turn.content.as_str()),
        };
        let inside = match space.is_empty() {
            true => inside,
            false => inside.trim_start_matches(['\n', '\r']),
        };
        Ok(match before {
            "" => format!("{inside}{calls}"),
            before => format!("{lead}{before}\n{}{calls}", inside.trim_start()),
        })
    }

    /// What the template puts around an assistant's words: before them what it does not put behind a prompt, which is all
    /// of the turn's header where it ignores `add_generation_prompt`; after them the turn's calls. Last, whether words and
    /// calls stand together at all.
    fn around(
        &self,
        prompt: &str,
        history: &[Message],
        turn: &Message,
        tools: Option<&Value>,
    ) -> Result<(String, String, bool)> {
        const MARK: &str = "stillroom-mark";
        let marked = Message {
            content: MARK.to_owned(),
            reasoning: None,
            ..turn.clone()
        };
        let whole = self.render(&[history, &[marked]].concat(), false, tools)?;
        let until_end = |text: &str| match self.end_of_turn_text().and_then(|end| text.rfind(&end))
        {
            Some(end) => text[..end].to_owned(),
            None => text.trim_end().to_owned(),
        };
        let Some((upto, after)) = whole.rsplit_once(MARK) else {
            // Llama 3's template drops the words beside a call.
            let calls = whole
                .strip_prefix(prompt)
                .map(until_end)
                .unwrap_or_default();
            return Ok((String::new(), calls, !turn.calls()));
        };
        let lead = upto.strip_prefix(prompt).unwrap_or_default();
        let lead = lead.split(THINK).next().unwrap_or_default().to_owned();
        let calls = match turn.calls() {
            true => until_end(after),
            false => String::new(),
        };
        Ok((lead, calls, true))
    }

    /// The turn with a whole thought out of its content, for a template that has other marks for it.
    pub(crate) fn with_thought_apart(&self, turn: &Message) -> Message {
        let mut turn = turn.clone();
        let otherwise = self.writes_thoughts() == Thoughts::Otherwise;
        if turn.reasoning.is_some() || turn.role != ASSISTANT || !otherwise {
            return turn;
        }
        let written = Written::of(&turn);
        if let (Some(thought), Some(answer)) = (written.thought, written.answer)
            && written.before.trim().is_empty()
        {
            let newlines = ['\r', '\n'];
            let thought = thought.trim_matches(newlines).to_owned();
            let answer = answer.trim_start_matches(newlines).to_owned();
            turn.reasoning = Some(thought).filter(|thought| !thought.trim().is_empty());
            turn.content = answer;
        }
        turn
    }

    /// The header of an assistant's turn that the template does not write for `add_generation_prompt`: prompts then end
    /// after the user's turn. `None` where it writes it, or has none.
    pub(crate) fn header_without_prompt(&self) -> Option<String> {
        let question = [Message::new("user", "x")];
        let rendered = |open| self.render(&question, open, None).ok();
        let (with, without) = (rendered(true)?, rendered(false)?);
        if with != without {
            return None;
        }
        let answer = Message::new(ASSISTANT, "a");
        let (header, ..) = self.around(&with, &question, &answer, None).ok()?;
        Some(header).filter(|header| !header.trim().is_empty())
    }

    fn without_end<'t>(&self, text: &'t str) -> &'t str {
        match self.end_of_turn_text() {
            Some(end) => text.trim_end().strip_suffix(end.as_str()).unwrap_or(text),
            None => text,
        }
    }

    fn end_of_turn_text(&self) -> Option<String> {
        let bytes = self.token_bytes(self.end_of_turn_id()?)?;
        String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.is_empty())
    }

    fn ids(&self, sequence: &Sequence) -> Result<TrainingIds> {
        let mut pieces = sequence.pieces();
        let mut text = sequence.text.clone();
        if sequence.ends {
            match self.end_of_turn_id() {
                None => return Err(self.no_end_of_turn()),
                Some(_) if self.ends_with_eos(&text)? => {}
                Some(_) => {
                    let end = self.end_of_turn_text().unwrap_or_default();
                    text.push_str(&end);
                    if let Some(last) = pieces.last_mut() {
                        last.end = text.len();
                    }
                }
            }
        }
        let ids = self.encode(&text)?;
        let ends = self.boundaries(&text, &pieces, &ids)?;
        let n_prompt = ends.first().copied().unwrap_or_default();
        let (prompt_ids, completion_ids) = ids.split_at(n_prompt.min(ids.len()));
        // Pieces alternate: prompt, learnt, context, learnt, …
        let context = ends
            .windows(2)
            .enumerate()
            .filter(|(at, _)| at % 2 == 1)
            .map(|(_, ends)| ends[0] - n_prompt..ends[1] - n_prompt)
            .filter(|range| !range.is_empty());
        Ok(TrainingIds {
            context: context.collect(),
            prompt_ids: prompt_ids.to_vec(),
            completion_ids: completion_ids.to_vec(),
        })
    }

    /// How many ids each piece ends at.
    fn boundaries(&self, text: &str, pieces: &[Range<usize>], ids: &[u32]) -> Result<Vec<usize>> {
        let piece = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
        if let [prompt, _] = pieces {
            // The prompt's own ids, as it is encoded for sampling; a token across the border is the completion's.
            return Ok(vec![shared(&self.encode(piece(prompt))?, ids), ids.len()]);
        }
        let mut ends = Vec::new();
        let mut joined = Vec::with_capacity(ids.len());
        for range in pieces {
            joined.extend(self.encode(piece(range))?);
            ends.push(joined.len());
        }
        if joined == ids {
            return Ok(ends);
        }
        // Tokens cross the borders, or every text begins with a space of its own.
        let prefix = |range: &Range<usize>| {
            let own = self.encode(text.get(..range.end).unwrap_or_default())?;
            Ok(shared(&own, ids))
        };
        pieces.iter().map(prefix).collect()
    }

    fn ends_with_eos(&self, text: &str) -> Result<bool> {
        // The end alone: an id of it stands for itself wherever it is.
        let longest = self
            .eos_ids()
            .iter()
            .filter_map(|id| self.token_bytes(*id))
            .map(|b| b.len())
            .max();
        let mut from = text.len().saturating_sub(longest.unwrap_or_default());
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        let last = self.encode(&text[from..])?.last().copied();
        Ok(last.is_some_and(|id| self.eos_ids().contains(&id)))
    }

    fn no_end_of_turn(&self) -> Error {
        Error::Tokenizer {
            path: self.dir().join("tokenizer_config.json"),
            problem: "names no eos_token that tokenizer.json has, and the chat template closes the assistant's turn with no special token".into(),
        }
    }
}

/// How many ids two encodings begin with together.
fn shared(own: &[u32], ids: &[u32]) -> usize {
    own.iter()
        .zip(ids)
        .take_while(|(own, id)| own == id)
        .count()
}

/// Whether a rendered prompt ends with a thought that is over, as templates with `enable_thinking = false` have it.
fn closes_think(prompt: &str) -> bool {
    prompt.trim_end().ends_with(END_THINK)
}

/// Whether a turn teaches nothing but to end: blank, or a finished thought without an answer.
fn says_nothing(turn: &Message, cut: bool) -> bool {
    if turn.calls() {
        return false;
    }
    let blank = turn.content.trim().is_empty();
    match &turn.reasoning {
        Some(_) => blank && !cut,
        None => blank,
    }
}

/// The first function that a turn calls.
fn called(turn: &Message) -> Option<&str> {
    let call = turn.fields.get("tool_calls")?.get(0)?;
    let function = call.get("function").unwrap_or(call);
    function.get("name")?.as_str()
}

/// What a turn holds, by its tags or its fields.
struct Written<'t> {
    /// Words before the tag.
    before: &'t str,
    thought: Option<&'t str>,
    /// `None` where the thought never ends.
    answer: Option<&'t str>,
}

impl<'t> Written<'t> {
    fn of(turn: &'t Message) -> Self {
        if let Some(thought) = &turn.reasoning {
            return Self {
                before: "",
                thought: Some(thought),
                answer: Some(&turn.content),
            };
        }
        let text = turn.content.as_str();
        match (text.split_once(THINK), text.split_once(END_THINK)) {
            (Some((before, rest)), Some((upto, answer))) if before.len() <= upto.len() => Self {
                before,
                thought: Some(
                    rest.split_once(END_THINK)
                        .map_or(rest, |(thought, _)| thought),
                ),
                answer: Some(answer),
            },
            // The tag that opens it may have been the prompt's.
            (_, Some((thought, answer))) => Self {
                before: "",
                thought: Some(thought),
                answer: Some(answer),
            },
            (Some((before, thought)), None) => Self {
                before,
                thought: Some(thought),
                answer: None,
            },
            (None, None) => Self {
                before: "",
                thought: None,
                answer: Some(text),
            },
        }
    }
}

struct Learnt {
    prompt: String,
    completion: String,
    /// Whether the token that ends a turn follows.
    ends: bool,
}

/// Turns that follow one another in one text.
struct Sequence {
    text: String,
    /// Bytes that are learnt.
    learnt: Vec<Range<usize>>,
    ends: bool,
}

impl Sequence {
    fn of(learnt: Learnt) -> Self {
        let mut sequence = Self {
            text: String::new(),
            learnt: Vec::new(),
            ends: true,
        };
        sequence.extend(learnt, None);
        sequence
    }

    /// Whether a later turn's prompt begins with the text so far and the end that was learnt with it.
    fn continues(&self, prompt: &str, end: &Option<String>) -> bool {
        let rest = prompt.strip_prefix(self.text.as_str());
        rest.is_some_and(|rest| rest.starts_with(end.as_deref().unwrap_or_default()))
    }

    /// Adds a turn; its prompt begins with the text so far. `end` is the text that ends a turn.
    fn extend(&mut self, learnt: Learnt, end: Option<&str>) {
        let start = learnt.prompt.len();
        // The token that ended the turn before stands in this prompt, and is learnt.
        if let (Some(before), Some(end)) = (self.learnt.last_mut(), end)
            && learnt
                .prompt
                .get(before.end..)
                .is_some_and(|rest| rest.starts_with(end))
        {
            before.end += end.len();
        }
        self.text = learnt.prompt;
        self.text.push_str(&learnt.completion);
        self.learnt.push(start..self.text.len());
        self.ends = learnt.ends;
    }

    /// Prompt, learnt, context, learnt, … in bytes, end to end.
    fn pieces(&self) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut from = 0;
        for learnt in &self.learnt {
            pieces.push(from..learnt.start);
            pieces.push(learnt.clone());
            from = learnt.end;
        }
        pieces
    }
}
