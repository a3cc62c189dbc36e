//! Which prompts are held back for validation.

use crate::hash::first_u64;

/// Keeps the split apart from other uses of the prompt-id's hash, such as `--shard`.
const SALT: &str = "stillroom validation split";

/// Whether a prompt, with all its examples, belongs to validation.
///
/// It depends on the prompt alone: more prompts or samples never move one between the splits,
/// and a larger fraction only adds to validation.
pub fn is_validation(prompt_id: &str, fraction: f64) -> bool {
    // 53 bits: every value is exact as f64 and 1.0 is never reached.
    let place = first_u64(format!("{prompt_id}{SALT}").as_bytes()) >> 11;
    (place as f64) / ((1u64 << 53) as f64) < fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_about_the_fraction_and_grows_with_it() {
        let prompts: Vec<_> = (0..10_000).map(|i| i.to_string()).collect();
        let chosen = |fraction: f64| {
            prompts
                .iter()
                .filter(move |prompt| is_validation(prompt, fraction))
        };
        assert_eq!(chosen(0.0).count(), 0);
        let few = chosen(0.02).count();
        assert!((150..250).contains(&few), "{few}");
        assert!(chosen(0.02).all(|prompt| is_validation(prompt, 0.1)));
    }
}
