use std::collections::HashMap;

use crate::hash::of_sequence;
use crate::words::between_spaces;

/// Words by whose return a period is noticed.
const N: usize = 4;

/// Periods that are looked at, those that return most often.
const PERIODS: usize = 8;

/// How often the passage that repeats most stands back to back; 1 where nothing does.
///
/// Sampling that has fallen into a loop repeats one passage until its token limit. The passage
/// may be of any length: the distances at which 4-grams of words return say which lengths to
/// look at. A passage that varies, such as a counter, is no loop for this measure; `repetition`
/// shows it.
pub fn loop_repeats(text: &str) -> u32 {
    let words = between_spaces(text);
    let most = periods(&words)
        .into_iter()
        .map(|period| 1 + longest_run(&words, period) / period)
        .max();
    most.map_or(1, |most| u32::try_from(most).unwrap_or(u32::MAX))
}

/// The distances at which n-grams return, the most frequent first.
fn periods(words: &[u64]) -> Vec<usize> {
    let mut n_grams: Vec<_> = words.windows(N).map(of_sequence).zip(0usize..).collect();
    n_grams.sort_unstable();
    let mut distances = HashMap::<usize, usize>::new();
    for pair in n_grams.windows(2) {
        if let [(a, before), (b, at)] = pair
            && a == b
        {
            *distances.entry(at - before).or_default() += 1;
        }
    }
    let mut distances: Vec<_> = distances.into_iter().collect();
    distances.sort_unstable_by_key(|&(period, count)| (std::cmp::Reverse(count), period));
    distances.truncate(PERIODS);
    distances.into_iter().map(|(period, _)| period).collect()
}

/// Words in a row that are the one `period` before them.
fn longest_run(words: &[u64], period: usize) -> usize {
    let later = words.get(period..).unwrap_or_default();
    let (mut run, mut longest) = (0, 0);
    for (a, b) in words.iter().zip(later) {
        run = if a == b { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_of_every_length_are_counted() {
        let check = |text: &str, expected: u32| {
            assert_eq!(loop_repeats(text), expected, "{text:.60}");
        };
        check("", 1);
        check("First add 1 to 2, then add 3 to it.", 1);
        check(&"wait ".repeat(50), 50);
        check(
            &format!("So it is. {}", "Let me check this once more. ".repeat(30)),
            30,
        );
        // Inside the passage a part of it returns.
        check(
            &"so we try a b c d and then a b c d again \n".repeat(25),
            25,
        );
        check(&"0".repeat(16 * 40), 40);
        let long: String = (0..300).map(|i| format!("word{i} ")).collect();
        check(&format!("{long}{long}{long} and an end"), 3);
        let counted: String = (0..100).map(|i| format!("step {i} of it ")).collect();
        check(&counted, 1);
    }
}
