//! A thought that a server tells apart, and the text that it makes together with the answer.

use records::conversation::untagged;

/// What a server gave apart, put together as chat templates write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub text: String,
    pub thought: String,
    /// None where the completion ended inside its thought.
    pub answer: Option<String>,
}

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// `reasoning` is not empty. Servers whose parser fails leave tags in either part, or the whole thought in both; no tag is
/// written twice, and none is written that closes a thought which nothing follows: nobody has seen it closed.
pub fn join(reasoning: &str, content: &str) -> Joined {
    let thought = bare(reasoning);
    // The content may have the thought once more, or a piece of its tags.
    let opened = content.trim_start().strip_prefix(OPEN);
    let known = |within: &str| thought.contains(bare(within)) || within.contains(thought);
    let (within, answer) = match (opened, opened.unwrap_or(content).split_once(CLOSE)) {
        (Some(_), Some((within, answer))) => (within, Some(answer.trim_start())),
        (Some(within), None) => (within, None),
        (None, Some((within, answer))) if known(within) => (within, Some(answer.trim_start())),
        // An answer may speak of tags.
        (None, _) => ("", Some(content)),
    };
    let thought = match bare(within) {
        within if within.is_empty() || thought.contains(within) => thought.to_owned(),
        within if within.contains(thought) => within.to_owned(),
        within => format!("{thought}\n{within}"),
    };
    let closed = content.contains(CLOSE) || reasoning.contains(CLOSE);
    match answer.filter(|answer| closed || !answer.trim().is_empty()) {
        Some(answer) => Joined {
            text: format!("{OPEN}\n{thought}\n{CLOSE}\n\n{answer}"),
            thought,
            answer: Some(answer.to_owned()),
        },
        None => Joined {
            text: format!("{OPEN}\n{thought}"),
            thought,
            answer: None,
        },
    }
}

/// A thought without the tags and the white space around it, which templates put there.
fn bare(thought: &str) -> &str {
    untagged(thought).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_joined_with_one_pair_of_tags() {
        let check = |reasoning: &str, content: &str, thought: &str, answer: Option<&str>| {
            let found = join(reasoning, content);
            assert_eq!(found.thought, thought, "{reasoning:?} {content:?}");
            assert_eq!(found.answer.as_deref(), answer, "{reasoning:?} {content:?}");
            let text = match answer {
                Some(answer) => format!("<think>\n{thought}\n</think>\n\n{answer}"),
                None => format!("<think>\n{thought}"),
            };
            assert_eq!(found.text, text);
        };
        check("because", "so", "because", Some("so"));
        check(
            "because",
            "<think>\nbecause\n</think>\n\nso",
            "because",
            Some("so"),
        );
        check("because", "</think>\n\nso", "because", Some("so"));
        check("<think>\nbecause\n</think>", "so", "because", Some("so"));
        check("\nbecause\n", "so", "because", Some("so"));
        check(
            "be",
            "<think>\nbecause\n</think>\n\nso",
            "because",
            Some("so"),
        );
        check("one", "<think>two</think>so", "one\ntwo", Some("so"));
        // Cut inside the thought: nobody wrote its end.
        check("because", "", "because", None);
        check("because", "\n", "because", None);
        check("because", "<think>\nbecause of", "because of", None);
        check(
            "one",
            "the tag </think> ends it",
            "one",
            Some("the tag </think> ends it"),
        );
        // It was closed, and nothing follows.
        check("because\n</think>", "", "because", Some(""));
    }
}
