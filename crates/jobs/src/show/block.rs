//! A row in words.

use records::Role;
use std::fmt::Write;

use dataset::browse::{MESSAGES, Record, SPLIT};
use verify::think;

use super::visible::visible;

/// Characters of a text that are shown without `--full`.
const SHOWN: usize = 600;

/// What is shown of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Traces,
    Dataset,
    /// The columns of the command line.
    Columns,
}

impl Layout {
    /// The columns that it needs; none where the command line names them.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Layout::Traces => &[
                "trace_id",
                "n_completion_tokens",
                "source",
                "teacher",
                "finish_reason",
                "error",
                "problem",
                "gold_answer",
                "reasoning",
                "answer",
            ],
            Layout::Dataset => &[
                "id",
                SPLIT,
                "verdict",
                "n_tokens",
                "source",
                "finish_reason",
                "reject_reason",
                "gold_answer",
                MESSAGES,
            ],
            Layout::Columns => &[],
        }
    }
}

/// The lines of one row, and an empty one.
pub fn block(record: &Record, layout: Layout, full: bool) -> String {
    let mut text = String::new();
    match layout {
        Layout::Columns => {
            for (name, value) in &record.values {
                let value = value.as_deref().unwrap_or("null");
                paragraph(&mut text, name, Some(value), Part::Start, full);
            }
            for turn in &record.messages {
                paragraph(
                    &mut text,
                    &turn.role,
                    Some(&turn.content),
                    Part::Start,
                    full,
                );
            }
        }
        Layout::Traces => {
            head(&mut text, record, "trace_id", "n_completion_tokens");
            let get = |name| record.get(name);
            paragraph(&mut text, "problem", get("problem"), Part::Start, full);
            paragraph(
                &mut text,
                "gold answer",
                get("gold_answer"),
                Part::End,
                full,
            );
            paragraph(&mut text, "reasoning", get("reasoning"), Part::End, full);
            paragraph(&mut text, "answer", get("answer"), Part::End, full);
        }
        Layout::Dataset => {
            head(&mut text, record, "id", "n_tokens");
            let (last, before) = match record.messages.split_last() {
                Some((last, before)) if last.role == Role::Assistant => (Some(last), before),
                _ => (None, record.messages.as_slice()),
            };
            for turn in before {
                let name = match &turn.role {
                    Role::User => "problem",
                    role => role,
                };
                paragraph(&mut text, name, Some(&turn.content), Part::Start, full);
            }
            let gold = record.get("gold_answer");
            paragraph(&mut text, "gold answer", gold, Part::End, full);
            if let Some(turn) = last {
                let split = think::split(&turn.content, false);
                paragraph(&mut text, "reasoning", split.reasoning, Part::End, full);
                paragraph(&mut text, "answer", split.answer, Part::End, full);
            }
        }
    }
    text.push('\n');
    text
}

/// The row's name and what is known of it, in one line.
fn head(text: &mut String, record: &Record, id: &str, n_tokens: &str) {
    let mut facts = vec![record.get(id).unwrap_or("no id").to_owned()];
    let mut fact = |value: Option<String>| facts.extend(value);
    let get = |name| record.get(name).map(str::to_owned);
    fact(get(SPLIT));
    fact(get("verdict"));
    fact(get(n_tokens).map(|n| format!("{n} tokens")));
    fact(get("source"));
    fact(get("teacher"));
    fact(get("finish_reason"));
    fact(get("reject_reason").map(|reason| format!("rejected: {reason}")));
    fact(get("error").map(|error| format!("failed: {error}")));
    let line = facts.join(" · ").replace('\n', " ");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "── {}", visible(&line));
}

/// The part of a text that is shown of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Start,
    End,
}

fn paragraph(text: &mut String, name: &str, value: Option<&str>, part: Part, full: bool) {
    let Some(value) = value.map(str::trim) else {
        return;
    };
    let shown = match full {
        true => value.to_owned(),
        false => clip(value, part),
    };
    let separator = if shown.contains('\n') { '\n' } else { ' ' };
    let _ = writeln!(text, "{}:{separator}{}", visible(name), visible(&shown));
}

fn clip(text: &str, part: Part) -> String {
    let cut = match part {
        Part::Start => text.char_indices().nth(SHOWN),
        Part::End => text.char_indices().rev().nth(SHOWN - 1),
    };
    match (cut, part) {
        (Some((at, _)), Part::Start) => format!("{} …", &text[..at]),
        (Some((at, _)), Part::End) if at > 0 => format!("… {}", &text[at..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(SHOWN + 1);
        assert_eq!(clip(&text, Part::Start).chars().count(), SHOWN + 2);
        assert_eq!(clip(&text, Part::End).chars().count(), SHOWN + 2);
        let fits = "é".repeat(SHOWN);
        assert_eq!(clip(&fits, Part::Start), fits);
        assert_eq!(clip(&fits, Part::End), fits);
        assert_eq!(clip("", Part::End), "");
    }
}
