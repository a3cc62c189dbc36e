//! The verdict in a reply, and of several replies.

use serde::{Deserialize, Serialize};

/// What the judge says of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    Correct,
    Incorrect,
    Unsure,
}

impl Judgement {
    pub const ALL: [Self; 3] = [Self::Correct, Self::Incorrect, Self::Unsure];

    /// The name on disk.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Correct => "correct",
            Self::Incorrect => "incorrect",
            Self::Unsure => "unsure",
        }
    }
}

/// The verdict of a reply that came to its end: its last line, `Verdict: correct` or that word alone, whatever marks of
/// emphasis there are. None where that line says anything else: what was quoted above is no verdict.
pub fn read(reply: &str) -> Option<Judgement> {
    let line = reply
        .lines()
        .rev()
        .map(bare)
        .find(|line| !line.is_empty())?;
    let word = match line.split_once(':') {
        Some((before, after)) if bare(before) == "verdict" || bare(before) == "final verdict" => {
            bare(after)
        }
        Some(_) => return None,
        None => line,
    };
    Judgement::ALL
        .into_iter()
        .find(|judgement| judgement.as_str() == word)
}

fn bare(line: &str) -> String {
    let mark = |c: char| c.is_whitespace() || "*_`#>\"'.!".contains(c);
    line.trim_matches(mark).to_lowercase()
}

/// The verdict of `asked` replies, of which these came: what more than half of those asked for say. None where it would
/// hang on replies that did not come.
pub fn majority(votes: &[Judgement], asked: u32) -> Option<Judgement> {
    let says = |judgement| votes.iter().filter(|&&vote| vote == judgement).count();
    let most = Judgement::ALL
        .into_iter()
        .find(|&judgement| says(judgement) * 2 > asked as usize);
    match most {
        None if votes.len() == asked as usize => Some(Judgement::Unsure),
        most => most,
    }
}

#[cfg(test)]
mod tests {
    use super::Judgement::{Correct, Incorrect, Unsure};
    use super::*;

    #[test]
    fn the_last_line_is_the_verdict() {
        for (reply, expected) in [
            ("They agree.\nVerdict: correct", Some(Correct)),
            ("**Verdict:** Incorrect.\n\n", Some(Incorrect)),
            ("**Verdict: unsure**", Some(Unsure)),
            ("Final verdict: `correct`", Some(Correct)),
            ("incorrect", Some(Incorrect)),
            (
                "The response says \"Verdict: correct\", but 3 is not 4.\nVerdict: incorrect",
                Some(Incorrect),
            ),
            ("Verdict: correct\nBut I am not certain", None),
            ("Verdict: not correct", None),
            ("Verdict: correct or incorrect", None),
            ("The answer: correct", None),
            ("", None),
            (" \n ", None),
        ] {
            assert_eq!(read(reply), expected, "{reply:?}");
        }
    }

    #[test]
    fn more_than_half_decide() {
        for (votes, asked, expected) in [
            (&[Correct][..], 1, Some(Correct)),
            (&[], 1, None),
            (&[Correct, Incorrect, Correct], 3, Some(Correct)),
            (&[Correct, Correct], 3, Some(Correct)),
            (&[Correct, Incorrect], 3, None),
            (&[Correct, Incorrect, Unsure], 3, Some(Unsure)),
            (&[Correct, Correct, Incorrect, Incorrect], 4, Some(Unsure)),
        ] {
            assert_eq!(majority(votes, asked), expected, "{votes:?} of {asked}");
        }
    }
}
