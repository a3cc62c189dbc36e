//! Splits a response into its thought and what follows it.

/// The tag that opens a thought.
pub const OPEN: &str = "<think>";
/// The tag that ends a thought.
pub const CLOSE: &str = "</think>";

/// The two parts of a response, without the tags and without surrounding whitespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The thought; `None` when there is none.
    pub reasoning: Option<&'a str>,
    /// What follows the thought; `None` when the thought never ended.
    pub answer: Option<&'a str>,
}

/// Splits `text`.
///
/// `prompt_opens_think` says that the prompt ended inside a thought, so that a text without
/// `</think>` is an unfinished one. A `</think>` that nothing opened ends a thought that the
/// prompt must have opened: texts saved without their prompt read the same. A thought that is
/// opened again in the answer moves the answer behind its end; a second `</think>` without a
/// second `<think>` stays in the answer, as it does in the reasoning parsers of vLLM and SGLang.
pub fn split(text: &str, prompt_opens_think: bool) -> Split<'_> {
    let places = [find(text, OPEN), find(text, CLOSE)];
    split_at(text, prompt_opens_think, places)
}

/// As [`split`], up to the end of the turn; tokens within the first thought do not count.
pub(crate) fn split_turn(text: &str) -> Split<'_> {
    let (open, close) = (find(text, OPEN), find(text, CLOSE));
    if let Some(open) = open.filter(|open| close.is_none_or(|close| *open < close)) {
        let before = turn(&text[..open]);
        if before.len() < open {
            return split_at(before, false, [None; 2]);
        }
    }
    let Some(behind) = close.map(|close| close + CLOSE.len()) else {
        return split_at(text, false, [open, close]);
    };
    let text = &text[..behind + turn(&text[behind..]).len()];
    split_at(text, false, [open.filter(|open| *open < text.len()), close])
}

/// Splits `text` where its first tags are.
fn split_at(
    text: &str,
    prompt_opens_think: bool,
    [first_open, first_close]: [Option<usize>; 2],
) -> Split<'_> {
    let thought_start = match (first_open, first_close) {
        (Some(open), Some(close)) if open > close => 0,
        (Some(open), _) => {
            let opened_twice = prompt_opens_think && !text[..open].trim().is_empty();
            if opened_twice { 0 } else { open + OPEN.len() }
        }
        (None, Some(_)) => 0,
        (None, None) if prompt_opens_think => 0,
        (None, None) => {
            return Split {
                reasoning: None,
                answer: Some(text.trim()),
            };
        }
    };

    let mut at = thought_start;
    loop {
        let close = match first_close {
            // A thought is not read twice.
            Some(first) if first >= at => Some(first - at),
            _ => find(&text[at..], CLOSE),
        };
        let Some(close) = close else {
            // Still inside a thought at the end of the text.
            return Split {
                reasoning: Some(text[thought_start..].trim()),
                answer: None,
            };
        };
        let thought_end = at + close;
        let answer_start = thought_end + CLOSE.len();
        match find(&text[answer_start..], OPEN) {
            Some(open) => at = answer_start + open + OPEN.len(),
            None => {
                return Split {
                    reasoning: Some(text[thought_start..thought_end].trim()),
                    answer: Some(text[answer_start..].trim()),
                };
            }
        }
    }
}

/// Tokens by which models end their turn, or begin another one.
const END_OF_TURN: [&str; 18] = [
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<|eot|>",
    "<|end_of_turn|>",
    "<|return|>",
    "<|start_header_id|>",
    "<|user|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<|END_OF_TURN_TOKEN|>",
    "</s>",
    "<eos>",
];

/// `text` up to the first end-of-turn token. Tokens before the first word do not count: they open
/// the turn.
pub fn turn(text: &str) -> &str {
    let end = memchr::memchr_iter(b'<', text.as_bytes()).find(|&at| {
        END_OF_TURN
            .iter()
            .any(|token| text[at..].starts_with(token))
            && !text[..at].trim().is_empty()
            && !opens_turn(&text[..at])
    });
    end.map_or(text, |end| &text[..end])
}

/// Whether only tokens and the name of a role stand there.
fn opens_turn(before: &str) -> bool {
    let before = before.trim();
    before.len() <= 64
        && END_OF_TURN.iter().any(|token| before.starts_with(token))
        && ["", "assistant", "model"]
            .contains(&before.rsplit('>').next().unwrap_or_default().trim())
}

/// As `str::find`, at the speed of memory: a thought is most of what there is to read.
fn find(text: &str, tag: &str) -> Option<usize> {
    memchr::memmem::find(text.as_bytes(), tag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Split, split};

    fn check(text: &str, opened: bool, reasoning: Option<&str>, answer: Option<&str>) {
        assert_eq!(split(text, opened), Split { reasoning, answer }, "{text:?}");
    }

    #[test]
    fn parts_of_a_response() {
        check("just text", false, None, Some("just text"));
        check("", false, None, Some(""));
        check("", true, Some(""), None);
        check("still thinking", true, Some("still thinking"), None);
        check("<think>still", false, Some("still"), None);
        check("<think>\na\n</think>\n\nb\n", false, Some("a"), Some("b"));
        check("a\n</think>\n\nb", true, Some("a"), Some("b"));
        check("a</think>b", false, Some("a"), Some("b"));
        check("<think>a</think>b", true, Some("a"), Some("b"));
        check("Well.<think>a</think>b", false, Some("a"), Some("b"));
        check("a<think>b</think>c", true, Some("a<think>b"), Some("c"));
        check("<think>a</think>", false, Some("a"), Some(""));
    }

    #[test]
    fn tags_that_come_again() {
        check(
            "<think>a</think>b</think>c",
            false,
            Some("a"),
            Some("b</think>c"),
        );
        check(
            "<think>a</think>b<think>c</think>d",
            false,
            Some("a</think>b<think>c"),
            Some("d"),
        );
        check(
            "<think>a</think>b<think>c",
            false,
            Some("a</think>b<think>c"),
            None,
        );
        check(
            "<think><think>a</think>b",
            false,
            Some("<think>a"),
            Some("b"),
        );
        check(
            "a</think>b<think>c</think>d",
            false,
            Some("a</think>b<think>c"),
            Some("d"),
        );
    }
}
