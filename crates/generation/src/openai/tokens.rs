//! How many tokens a text has where the server does not say: counted by the tokenizer that is here, or else estimated.

use model::tokenizer::Tokenizer;
use records::Message;

use super::answer::Answers;

/// What chat templates put around a message, in tokens.
const AROUND: u32 = 8;

/// Tokens, and whether they were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub n: u32,
    pub counted: bool,
}

pub fn of_text(tokenizer: Option<&Tokenizer>, text: &str) -> Count {
    let counted = tokenizer.and_then(|tokenizer| tokenizer.encode(text).ok());
    match counted {
        Some(ids) => Count {
            n: ids.len() as u32,
            counted: true,
        },
        None => Count {
            n: estimate(text),
            counted: false,
        },
    }
}

pub fn of_messages(tokenizer: Option<&Tokenizer>, messages: &[Message]) -> Count {
    let render = |tokenizer: &Tokenizer| tokenizer.render_prompt(messages).ok();
    if let Some(text) = tokenizer.and_then(render) {
        return of_text(tokenizer, &text);
    }
    let n = messages.iter().map(|one| estimate(&one.content) + AROUND);
    Count {
        n: n.sum(),
        counted: false,
    }
}

/// Tokens of all texts of an answer.
pub fn of_answers(tokenizer: Option<&Tokenizer>, answers: &Answers) -> u32 {
    answers.texts().map(|text| of_text(tokenizer, text).n).sum()
}

/// Tokens of a text by its bytes, and not fewer than any usual tokenizer makes of it: digits and signs are tokens of
/// their own, words have one for every three letters, and other scripts one for every two bytes.
pub fn estimate(text: &str) -> u32 {
    let (mut n, mut letters, mut others) = (0usize, 0usize, 0usize);
    for c in text.chars() {
        if c.is_ascii_alphabetic() {
            letters += 1;
            continue;
        }
        n += letters.div_ceil(3);
        letters = 0;
        match c {
            ' ' => {}
            c if c.is_ascii() => n += 1,
            c => others += c.len_utf8(),
        }
    }
    (n + letters.div_ceil(3) + others.div_ceil(2)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_not_too_low() {
        // Counts of Qwen2.5's tokenizer.
        for (text, counted) in [
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("123456789", 9),
            ("\\frac{12}{7} = x^2 + 3", 15),
            ("请计算一加一等于多少。", 8),
            ("", 0),
        ] {
            let found = estimate(text);
            assert!(found >= counted, "{text:?}: {found}");
            assert!(found <= text.len() as u32, "{text:?}: {found}");
        }
    }
}
