//! Worked solutions, and the completions that carry them.

use rand::Rng;

use crate::problem::{LETTERS, Operation, Problem};

/// How often a step writes `=>` where others write `=`.
///
/// Two spellings of every step are what makes samples of one problem differ and gives the
/// teacher's distribution something that a single sample does not show.
const ARROW: f64 = 0.35;

/// The digits of a value, least significant first, padded to three: 42 is `240`.
pub fn value_digits(value: u32) -> String {
    format!("{value:03}").chars().rev().collect()
}

/// The digits of an operand, least significant first, padded to two.
fn operand_digits(operand: u32) -> String {
    format!("{operand:02}").chars().rev().collect()
}

/// One of the two spellings of "equals".
pub fn equals(rng: &mut impl Rng) -> &'static str {
    if rng.random_bool(ARROW) { "=>" } else { "=" }
}

/// An operation with its letter as traces write it: ` B+24`, ` C*20`.
pub fn short_step(index: usize, operation: Operation) -> String {
    let letter = LETTERS[index];
    let (sign, operand) = match operation {
        Operation::Add(n) => ('+', n),
        Operation::Subtract(n) => ('-', n),
        Operation::Double => ('*', 2),
    };
    format!(" {letter}{sign}{}", operand_digits(operand))
}

/// A solution line and the value it ends with: `732 A*20=474 B+24=>615`.
///
/// `steps` are indices into the problem's operations, carried out in this order. The result of a
/// step is the left operand of the next, so that every step reads the digits just written.
/// `None` when a value leaves the range.
pub fn worked(problem: &Problem, steps: &[usize], rng: &mut impl Rng) -> Option<(String, u32)> {
    let mut value = problem.start;
    let mut line = value_digits(value);
    for &index in steps {
        let operation = *problem.operations.get(index)?;
        value = operation.apply(value)?;
        line.push_str(&short_step(index, operation));
        line.push_str(equals(rng));
        line.push_str(&value_digits(value));
    }
    Some((line, value))
}

/// An assistant turn that thinks first.
pub fn with_thinking(line: &str, answer: u32) -> String {
    format!("<think>\n{line}\n</think>\n\n\\boxed{{{answer}}}")
}

/// An assistant turn that answers at once.
pub fn without_thinking(answer: u32) -> String {
    format!("<think>\n\n</think>\n\n\\boxed{{{answer}}}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn problem() -> Problem {
        Problem {
            start: 237,
            operations: vec![
                Operation::Double,
                Operation::Add(42),
                Operation::Subtract(30),
            ],
        }
    }

    #[test]
    fn a_chain_writes_every_result_once() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let (line, answer) = worked(&problem(), &[0, 1, 2], &mut rng).unwrap();
        assert_eq!(line.replace("=>", "="), "732 A*20=474 B+24=615 C-03=684");
        assert_eq!(answer, 486);
    }

    #[test]
    fn one_step_of_a_list_starts_from_the_start_value() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let (line, answer) = worked(&problem(), &[2], &mut rng).unwrap();
        assert_eq!(line.replace("=>", "="), "732 C-03=702");
        assert_eq!(answer, 207);
    }

    #[test]
    fn both_spellings_occur() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let lines: Vec<String> = (0..50)
            .map(|_| worked(&problem(), &[0], &mut rng).unwrap().0)
            .collect();
        assert!(lines.iter().any(|line| line.contains("=>")));
        assert!(lines.iter().any(|line| !line.contains("=>")));
    }

    #[test]
    fn turns_have_the_shape_of_a_reasoning_model() {
        assert_eq!(with_thinking("x", 7), "<think>\nx\n</think>\n\n\\boxed{7}");
        assert_eq!(without_thinking(7), "<think>\n\n</think>\n\n\\boxed{7}");
    }
}
