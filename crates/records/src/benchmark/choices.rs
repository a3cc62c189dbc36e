//! Questions with choices, and the order in which they are put.

use crate::hash;

/// A question with its choices.
pub(super) struct Put {
    /// The question, and below it a line for each choice.
    pub problem: String,
    pub choices: Vec<String>,
    /// The letter of the right one.
    pub gold: String,
}

/// Puts the right choice among the wrong ones. The order is drawn from the question's text alone: it is the same in every
/// evaluation, so that two of them ask the same, and no letter is right more often than others.
pub(super) fn put(question: &str, right: String, wrong: Vec<String>) -> Put {
    let mut choices = wrong;
    choices.insert(0, right);
    let mut order: Vec<usize> = (0..choices.len()).collect();
    // Fisher and Yates.
    for last in (1..order.len()).rev() {
        let draw = hash::bytes(format!("choice {last} of {question}").as_bytes());
        let draw = draw
            .get(..16)
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        order.swap(last, (draw.unwrap_or(0) % (last as u64 + 1)) as usize);
    }
    let right_at = order.iter().position(|&at| at == 0).unwrap_or(0);
    let choices: Vec<String> = order
        .iter()
        .filter_map(|&at| choices.get(at).map(|choice| choice.trim().to_owned()))
        .collect();
    let mut problem = format!("{}\n", question.trim_end());
    for (choice, letter) in choices.iter().zip('A'..) {
        problem.push_str(&format!("\n{letter}) {choice}"));
    }
    let letter = ('A'..).nth(right_at);
    Put {
        problem,
        choices,
        gold: letter.map_or(String::new(), String::from),
    }
}
