//! One turn of the assistant as text: as the chat template renders it, or as it was written.

use records::Message;
use serde_json::Value;

use super::MissingThought;
use crate::error::{Error, Result};
use crate::tokenizer::{THINK, Thoughts, Tokenizer};

const END_THINK: &str = "</think>";
const EMPTY_THOUGHT: &str = "<think>\n\n</think>\n\n";

/// A turn that is learnt, and its prompt.
pub(super) struct Learnt {
    pub prompt: String,
    pub completion: String,
    /// Whether the token that ends a turn follows.
    pub ends: bool,
}

/// Where a turn stands.
pub(super) struct Place<'a> {
    pub tokenizer: &'a Tokenizer,
    pub history: &'a [Message],
    pub tools: Option<&'a Value>,
    /// The history as the template renders it, with the assistant's turn opened.
    pub prompt: String,
    /// The text of the token that ends a turn; empty where it has none.
    pub end: &'a str,
}

/// What the template puts around an assistant's words.
pub(super) struct Around {
    /// Before them, what it does not put behind a prompt: all of the turn's header where it ignores
    /// `add_generation_prompt`.
    pub lead: String,
    /// After them, the turn's calls.
    calls: String,
    /// Whether words and calls stand together at all.
    keeps_words: bool,
}

impl Place<'_> {
    /// The turn as text; one that was `cut` off has no end.
    pub fn learnt(self, turn: &Message, missing: MissingThought, cut: bool) -> Result<Learnt> {
        let written = Written::of(turn);
        if missing == MissingThought::Refuse && written.thought.is_none() {
            return Err(Error::NoThought);
        }
        let rendered = match cut {
            true => None,
            false => self.rendered(turn, &written, missing)?,
        };
        if !cut && written.answer.is_none() {
            return Err(Error::UnclosedThought);
        }
        let completion = match rendered {
            Some(completion) => completion,
            None => self.as_written(turn, &written, missing)?,
        };
        Ok(Learnt {
            prompt: self.prompt,
            completion,
            ends: !cut,
        })
    }

    /// The turn as the template renders it, where all of it is there and its thought fits the prompt's tail.
    fn rendered(
        &self,
        turn: &Message,
        written: &Written<'_>,
        missing: MissingThought,
    ) -> Result<Option<String>> {
        let mut turn = turn.clone();
        // An end that was written out would stand twice.
        turn.content = self.without_end(&turn.content).to_owned();
        let whole = self.whole(&turn)?;
        if let Some(name) = called(&turn)
            && turn.content.trim().is_empty()
            && !whole.contains(name)
        {
            return Err(Error::CallNotRendered(name.to_owned()));
        }
        let Some(rest) = self.behind(&whole, written)? else {
            return Ok(None);
        };
        let body = self.until_end(rest);
        let answer = self.without_end(written.answer.unwrap_or_default()).trim();
        let Some(answer_at) = body.rfind(answer) else {
            return Ok(None);
        };
        let before = &body[..answer_at];
        if let Some(thought) = written.thought {
            let kept = before.contains(thought.trim()) && before.matches(THINK).count() <= 1;
            let opened = !self.opens_think() || !before.contains(THINK);
            let words = before.contains(written.before.trim());
            return Ok((kept && opened && words).then(|| body.to_owned()));
        }
        // Nobody has thought, and the template would teach to say so at once.
        if self.opens_think() && missing != MissingThought::Empty {
            return Err(Error::NoThought);
        }
        let closed = before.contains(END_THINK) || self.closes_think();
        match (closed, missing) {
            (true, _) => Ok(Some(body.to_owned())),
            (false, _) if self.opens_think() => Ok(None),
            (false, MissingThought::Empty) => Ok(Some(format!(
                "{before}{EMPTY_THOUGHT}{}",
                &body[answer_at..]
            ))),
            (false, _) => Ok(Some(body.to_owned())),
        }
    }

    /// What stands in the whole conversation's text behind the prompt. Where earlier turns render otherwise once an answer
    /// follows, that is what stands behind the last generation prompt before the thought.
    fn behind<'w>(&self, whole: &'w str, written: &Written<'_>) -> Result<Option<&'w str>> {
        if let Some(rest) = whole.strip_prefix(&self.prompt) {
            return Ok(Some(rest));
        }
        let (Some(thought), Thoughts::Tagged | Thoughts::Otherwise) = (
            written.thought.map(str::trim),
            self.tokenizer.writes_thoughts(),
        ) else {
            return Ok(None);
        };
        let before = self.tokenizer.render(self.history, false, self.tools)?;
        let opening = self.prompt.strip_prefix(&before).unwrap_or_default();
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
        turn: &Message,
        written: &Written<'_>,
        missing: MissingThought,
    ) -> Result<String> {
        if self.closes_think() {
            return match written.thought.filter(|thought| !thought.trim().is_empty()) {
                Some(_) => Err(Error::ClosedThought),
                None => Ok(written.answer.unwrap_or_default().to_owned()),
            };
        }
        let Around {
            lead: header,
            calls,
            keeps_words,
        } = self.around(turn)?;
        let mut turn = turn.clone();
        if !keeps_words {
            turn.content.clear();
        }
        if !self.opens_think() {
            let text = match (turn.reasoning.is_some(), written.thought, missing) {
                (true, ..) => turn.with_thought_inside().content,
                (false, None, MissingThought::Empty) => format!("{EMPTY_THOUGHT}{}", turn.content),
                _ => turn.content,
            };
            return Ok(header + &text + &calls);
        }
        // `<think>` and the white space after it.
        let space = self
            .prompt
            .rsplit_once(THINK)
            .map_or("", |(_, space)| space);
        let lead = if space.is_empty() { "\n" } else { "" };
        if let Some(thought) = &turn.reasoning {
            let thought = thought.trim();
            return Ok(match turn.content.trim() {
                "" if !turn.calls() => format!("{lead}{thought}"),
                answer => format!("{lead}{thought}\n{END_THINK}\n\n{answer}{calls}"),
            });
        }
        if written.thought.is_none() {
            return match missing {
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

    /// See [`Around`].
    pub fn around(&self, turn: &Message) -> Result<Around> {
        const MARK: &str = "stillroom-mark";
        let marked = Message {
            content: MARK.to_owned(),
            reasoning: None,
            ..turn.clone()
        };
        let whole = self.whole(&marked)?;
        let Some((upto, after)) = whole.rsplit_once(MARK) else {
            // Llama 3's template drops the words beside a call.
            let calls = whole.strip_prefix(&self.prompt).unwrap_or_default();
            return Ok(Around {
                lead: String::new(),
                calls: self.until_end(calls).to_owned(),
                keeps_words: !turn.calls(),
            });
        };
        let lead = upto.strip_prefix(&self.prompt).unwrap_or_default();
        let lead = lead.split(THINK).next().unwrap_or_default().to_owned();
        let calls = match turn.calls() {
            true => self.until_end(after),
            false => "",
        };
        Ok(Around {
            lead,
            calls: calls.to_owned(),
            keeps_words: true,
        })
    }

    /// The conversation's text with the turn as its last.
    fn whole(&self, turn: &Message) -> Result<String> {
        let messages = [self.history, std::slice::from_ref(turn)].concat();
        self.tokenizer.render(&messages, false, self.tools)
    }

    /// A turn's text up to its end.
    fn until_end<'t>(&self, text: &'t str) -> &'t str {
        match text.rfind(self.end) {
            Some(end) if !self.end.is_empty() => &text[..end],
            _ => text.trim_end(),
        }
    }

    fn without_end<'t>(&self, text: &'t str) -> &'t str {
        match text.trim_end().strip_suffix(self.end) {
            Some(text) if !self.end.is_empty() => text,
            _ => text,
        }
    }

    fn opens_think(&self) -> bool {
        self.tokenizer.opens_think(&self.prompt)
    }

    /// Whether the prompt ends with a thought that is over, as templates with `enable_thinking = false` have it.
    fn closes_think(&self) -> bool {
        self.prompt.trim_end().ends_with(END_THINK)
    }
}

/// The first function that a turn calls.
fn called(turn: &Message) -> Option<&str> {
    let call = turn.fields.get("tool_calls")?.get(0)?;
    let function = call.get("function").unwrap_or(call);
    function.get("name")?.as_str()
}

/// What a turn holds, by its tags or its fields.
pub(super) struct Written<'t> {
    /// Words before the tag.
    pub before: &'t str,
    pub thought: Option<&'t str>,
    /// `None` where the thought never ends.
    pub answer: Option<&'t str>,
}

impl<'t> Written<'t> {
    pub fn of(turn: &'t Message) -> Self {
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
