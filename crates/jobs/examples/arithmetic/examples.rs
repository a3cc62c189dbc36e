//! What the two models are trained on, one example at a time.

use rand::Rng;
use serde_json::{Value, json};

use crate::problem::{LETTERS, Problem};
use crate::trace::{equals, short_step, value_digits, with_thinking, without_thinking, worked};

/// A user turn and an assistant turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub user: String,
    pub assistant: String,
}

impl Exchange {
    /// One row of a training file.
    pub fn to_json(&self) -> Value {
        json!({ "messages": [
            { "role": "user", "content": self.user },
            { "role": "assistant", "content": self.assistant },
        ]})
    }
}

/// A problem worked step by step: all that the teacher sees, and never the base student beyond
/// one operation.
pub fn chain(rng: &mut impl Rng, lengths: &[usize]) -> Exchange {
    loop {
        let problem = Problem::sample_for_training(rng, lengths);
        let steps: Vec<usize> = (0..problem.operations.len()).collect();
        if let Some((line, answer)) = worked(&problem, &steps, rng) {
            return Exchange {
                user: problem.text(),
                assistant: with_thinking(&line, answer),
            };
        }
    }
}

/// One named step of a list, from the start value: "… Do only B. What results?"
pub fn only_step(rng: &mut impl Rng) -> Exchange {
    loop {
        let problem = Problem::sample_for_training(rng, &[2, 3, 4, 5]);
        let step = rng.random_range(0..problem.operations.len());
        if let Some((line, answer)) = worked(&problem, &[step], rng) {
            return Exchange {
                user: format!(
                    "{} Do only {}. What results?",
                    problem.statement(),
                    LETTERS[step]
                ),
                assistant: with_thinking(&line, answer),
            };
        }
    }
}

/// One to four steps out of thin air, a line each, none going on from another.
///
/// Nothing of them stands in the prompt, their place in the thought varies, and half of them open
/// like the middle of a chain (`=856 E-41=446`): a result can only be read off the three digits
/// before the letter, which is what a chain needs. Models that see single steps only at the start
/// of a thought, with the operands in the prompt too, learn to read operands in either of those
/// places, score as well on single steps, and fail at the second step of every chain.
pub fn invented_steps(rng: &mut impl Rng) -> Exchange {
    loop {
        let n_steps = rng.random_range(1..=4);
        let steps: Vec<(String, u32)> = (0..n_steps).filter_map(|_| invented_step(rng)).collect();
        if let Some(&(_, answer)) = steps.last() {
            let lines: Vec<String> = steps.into_iter().map(|(line, _)| line).collect();
            return Exchange {
                user: "Make up steps.".to_owned(),
                assistant: with_thinking(&lines.join("\n"), answer),
            };
        }
    }
}

fn invented_step(rng: &mut impl Rng) -> Option<(String, u32)> {
    let Problem { start, operations } = Problem::sample(rng, 1);
    let letter = rng.random_range(0..LETTERS.len());
    let operations = operations.repeat(LETTERS.len());
    let (line, answer) = worked(&Problem { start, operations }, &[letter], rng)?;
    let opening = if rng.random_bool(0.5) {
        equals(rng)
    } else {
        ""
    };
    Some((format!("{opening}{line}"), answer))
}

/// A list rewritten in the traces' spelling, with nothing calculated; the answer counts the steps.
pub fn rewritten_list(rng: &mut impl Rng) -> Exchange {
    let problem = Problem::sample_for_training(rng, &[2, 3, 4, 5]);
    let mut line = value_digits(problem.start);
    for (index, &operation) in problem.operations.iter().enumerate() {
        line.push_str(&short_step(index, operation));
    }
    let count = problem.operations.len() as u32;
    Exchange {
        user: format!("{} Write the steps in short.", problem.statement()),
        assistant: with_thinking(&line, count),
    }
}

/// A chain answered at once.
pub fn direct(rng: &mut impl Rng) -> Exchange {
    loop {
        let problem = Problem::sample_for_training(rng, &[3, 4, 5]);
        if let Some(answer) = problem.answer() {
            return Exchange {
                user: problem.text(),
                assistant: without_thinking(answer),
            };
        }
    }
}

/// Whether an assistant turn carries a calculated result into another step.
#[cfg(test)]
fn chains(assistant: &str) -> bool {
    assistant
        .lines()
        .any(|line| line.contains('=') && line.chars().filter(|c| LETTERS.contains(c)).count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::is_held_out;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn each_kind_reads_as_intended() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        assert!(chain(&mut rng, &[5]).assistant.starts_with("<think>\n"));
        let only = only_step(&mut rng);
        assert!(only.user.contains(" Do only "), "{}", only.user);
        assert_eq!(only.assistant.matches('=').count(), 1);
        let list = rewritten_list(&mut rng);
        assert!(list.user.ends_with("Write the steps in short."));
        assert_eq!(list.assistant.matches('=').count(), 0);
        assert!(
            direct(&mut rng)
                .assistant
                .starts_with("<think>\n\n</think>")
        );
    }

    #[test]
    fn only_chains_chain() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..200 {
            assert!(chains(&chain(&mut rng, &[2, 3]).assistant));
            for exchange in [
                chain(&mut rng, &[1]),
                only_step(&mut rng),
                invented_steps(&mut rng),
                rewritten_list(&mut rng),
                direct(&mut rng),
            ] {
                assert!(!chains(&exchange.assistant), "{}", exchange.assistant);
            }
        }
    }

    #[test]
    fn no_training_problem_is_held_out() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for _ in 0..500 {
            assert!(!is_held_out(&chain(&mut rng, &[3, 4, 5]).user));
            assert!(!is_held_out(&direct(&mut rng).user));
        }
    }
}
