//! Prose of made-up words, and edits of it.

use std::collections::HashSet;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

const SYLLABLES: [&str; 24] = [
    "ba", "cor", "dil", "en", "fa", "gri", "hol", "in", "ka", "lum", "mo", "nes", "or", "pal",
    "qui", "ra", "sel", "tor", "un", "va", "wen", "xi", "yo", "zem",
];

pub fn word(rng: &mut ChaCha8Rng) -> String {
    let n = rng.random_range(1..4);
    (0..n)
        .map(|_| SYLLABLES[rng.random_range(0..SYLLABLES.len())])
        .collect()
}

/// So many words, in sentences and paragraphs.
pub fn prose(rng: &mut ChaCha8Rng, n_words: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::with_capacity(n_words);
    for at in 0..n_words {
        let mut word = match rng.random_range(0..8) {
            0 => rng.random_range(2..5000).to_string(),
            _ => word(rng),
        };
        if at % 14 == 13 {
            word.push_str(if at % 70 == 69 { ".\n\n" } else { "." });
        }
        words.push(word);
    }
    words
}

pub fn joined(words: &[String]) -> String {
    words.join(" ")
}

fn n_grams(words: &[String]) -> HashSet<Vec<String>> {
    let bare: Vec<String> = words
        .iter()
        .map(|word| {
            word.trim_matches(|c: char| !c.is_alphanumeric())
                .to_lowercase()
        })
        .filter(|word| !word.is_empty())
        .collect();
    bare.windows(5).map(<[String]>::to_vec).collect()
}

/// The exact Jaccard similarity of the sets of word 5-grams.
pub fn jaccard(a: &[String], b: &[String]) -> f64 {
    let (a, b) = (n_grams(a), n_grams(b));
    let common = a.intersection(&b).count();
    common as f64 / (a.len() + b.len() - common) as f64
}

/// Other words in places, until the similarity lies in the range.
pub fn edited(rng: &mut ChaCha8Rng, words: &[String], low: f64, high: f64) -> (Vec<String>, f64) {
    let aim = rng.random_range(low..high);
    // Each edit takes 5 of n 5-grams away and adds 5 others.
    let n_edits = (words.len() as f64 * (1.0 - aim) / (1.0 + aim) / 5.0)
        .round()
        .max(1.0) as usize;
    loop {
        let mut edited = words.to_vec();
        for _ in 0..n_edits {
            let at = rng.random_range(0..edited.len());
            edited[at] = word(rng);
        }
        let found = jaccard(words, &edited);
        if (low..=high).contains(&found) {
            return (edited, found);
        }
    }
}
