//! A text as a sequence of words, by hash: what near-duplicates and loops are measured in.

use crate::hash::{of_sequence, of_word};

/// Characters after which a word is cut: a text without spaces is a sequence of pieces.
const LONGEST_WORD: usize = 16;

/// Hashes of the runs of letters and digits, in lower case. Punctuation, white space and
/// LaTeX's signs do not count. An ideograph, or a sign of another script that is written
/// without spaces, is a word of its own.
pub fn letters_and_digits(text: &str) -> Vec<u64> {
    split(
        text,
        |byte| byte.is_ascii_alphanumeric(),
        char::is_alphanumeric,
        is_unspaced,
    )
}

/// Hashes of what stands between white space, in lower case; every sign counts.
pub fn between_spaces(text: &str) -> Vec<u64> {
    split(
        text,
        |byte| !byte.is_ascii_whitespace(),
        |c| !c.is_whitespace(),
        |_| false,
    )
}

/// The words that are made of such characters; `alone` is a word of its own. Nearly every word
/// is ASCII, and those are taken whole.
#[inline]
fn split(
    text: &str,
    of_byte: impl Fn(u8) -> bool,
    of_char: impl Fn(char) -> bool,
    alone: impl Fn(char) -> bool,
) -> Vec<u64> {
    let bytes = text.as_bytes();
    let mut words = Words::with_capacity(text.len() / 4);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if !byte.is_ascii() {
            let c = text
                .get(at..)
                .and_then(|rest| rest.chars().next())
                .unwrap_or(' ');
            at += c.len_utf8();
            if !of_char(c) {
                words.end();
            } else if alone(c) {
                words.end();
                words.push(c);
                words.end();
            } else {
                words.push(c);
            }
            continue;
        }
        let start = at;
        while at < bytes.len() && bytes[at].is_ascii() && of_byte(bytes[at]) {
            at += 1;
        }
        let goes_on = bytes.get(at).is_some_and(|next| !next.is_ascii());
        if words.n_chars > 0 || goes_on {
            bytes[start..at]
                .iter()
                .for_each(|&byte| words.push(char::from(byte)));
        } else {
            bytes[start..at]
                .chunks(LONGEST_WORD)
                .for_each(|word| words.whole(word));
        }
        if !goes_on {
            words.end();
            // What ended the word.
            at += 1;
        }
    }
    words.finish()
}

/// Hashes of all sequences of `n` words; of the whole text where it has fewer, and none where
/// it has no word.
pub fn n_grams(words: &[u64], n: usize) -> Vec<u64> {
    if words.len() < n && !words.is_empty() {
        return vec![of_sequence(words)];
    }
    words.windows(n).map(of_sequence).collect()
}

/// Chinese, Japanese and Thai are written without spaces.
pub fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c), 0x0E00..=0x0E7F | 0x3040..=0x30FF | 0x3400..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF)
}

struct Words {
    hashes: Vec<u64>,
    word: Vec<u8>,
    n_chars: usize,
}

impl Words {
    fn with_capacity(n: usize) -> Self {
        Self {
            hashes: Vec::with_capacity(n),
            word: Vec::with_capacity(4 * LONGEST_WORD),
            n_chars: 0,
        }
    }

    /// A word of ASCII characters.
    fn whole(&mut self, word: &[u8]) {
        let mut lower = [0; LONGEST_WORD];
        if let Some(lower) = lower.get_mut(..word.len()) {
            lower.copy_from_slice(word);
            lower.make_ascii_lowercase();
            self.hashes.push(of_word(lower));
        }
    }

    fn push(&mut self, c: char) {
        if self.n_chars == LONGEST_WORD {
            self.end();
        }
        self.n_chars += 1;
        if c.is_ascii() {
            self.word.push(c.to_ascii_lowercase() as u8);
        } else {
            for lower in c.to_lowercase() {
                let mut bytes = [0; 4];
                self.word
                    .extend_from_slice(lower.encode_utf8(&mut bytes).as_bytes());
            }
        }
    }

    fn end(&mut self) {
        if self.n_chars > 0 {
            self.hashes.push(of_word(&self.word));
            self.word.clear();
            self.n_chars = 0;
        }
    }

    fn finish(mut self) -> Vec<u64> {
        self.end();
        self.hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_a_reader_takes_for_one() {
        let check = |a: &str, b: &str| assert_eq!(letters_and_digits(a), letters_and_digits(b));
        check("Find  $x$, if\nX+1=0!", "find x if x 1 0");
        check("Привет, мир", "привет МИР");
        check("设x=1", "设 X 1");
        check("naïve ÉTÉ a1é", "Naïve été A1É");
        check("xé", "XÉ");
        check("", " .,; ");
        check(&"a".repeat(17), &format!("{} a", "a".repeat(16)));
        assert_eq!(letters_and_digits("等等再检查").len(), 5);
        assert_ne!(letters_and_digits("ab c"), letters_and_digits("a bc"));
        assert_eq!(between_spaces("402-921=570\n5 x").len(), 3);
        assert_ne!(between_spaces("x+1"), between_spaces("x-1"));
    }

    #[test]
    fn short_texts_are_one_n_gram() {
        assert_eq!(n_grams(&[1, 2, 3], 2).len(), 2);
        assert_eq!(n_grams(&[1], 2).len(), 1);
        assert!(n_grams(&[], 2).is_empty());
    }
}
