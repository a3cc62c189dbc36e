use crate::words::between_spaces;

/// Words in a repeated sequence.
const N: usize = 4;

/// The share of 4-grams of words that stood in the text before, in [0, 1].
///
/// This is seq-rep-4 of Welleck et al., "Neural Text Generation with Unlikelihood Training"
/// (ICLR 2020, section 6): 1 − |distinct 4-grams| / |4-grams|. Words are lower-cased and split
/// at white space as in open-r1's `get_repetition_penalty_reward`; words of more than 16
/// characters are cut into pieces of 16. A text of fewer than four words repeats nothing.
pub fn repetition(text: &str) -> f32 {
    let words = between_spaces(text);
    let mut n_grams: Vec<u64> = words.windows(N).map(crate::hash::of_sequence).collect();
    if n_grams.is_empty() {
        return 0.0;
    }
    let all = n_grams.len();
    n_grams.sort_unstable();
    n_grams.dedup();
    ((all - n_grams.len()) as f64 / all as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_repeat_and_worked_solutions_do_not() {
        let check = |text: &str, low: f32, high: f32| {
            let share = repetition(text);
            assert!((low..=high).contains(&share), "{share} for {text:.60}");
        };
        check("", 0.0, 0.0);
        check("a b c", 0.0, 0.0);
        check("a b c d", 0.0, 0.0);
        // Six 4-grams, of which abcd and bcda stand twice.
        check("a b c d a b c d a", 0.33, 0.34);
        check("A b C d a B c D a", 0.33, 0.34);
        check(
            "<think>\n402-921=570\n570-345=235\n235*2:40,60,01=460\n</think>\n\n\\boxed{64}",
            0.0,
            0.0,
        );
        check(&"402-921=570\n".repeat(40), 0.97, 1.0);
        check(&"wait, let me check. ".repeat(40), 0.9, 1.0);
        check(&"0".repeat(2000), 0.9, 1.0);
        check(&"等等，让我再检查一下。".repeat(200), 0.9, 1.0);
    }
}
