//! Whole responses: where the answer is found, and what it is worth.
#![allow(clippy::unwrap_used)]

use stillroom_verify::AnswerFrom::{Announced, Box, Formula, LastNumber};
use stillroom_verify::Verdict::{Correct, Incorrect, NoAnswer};
use stillroom_verify::{AnswerFrom, Verdict, Verifier};

fn check(gold: &str, response: &str, verdict: Verdict, from: Option<AnswerFrom>) {
    let found = Verifier::default().verify(gold, response);
    assert_eq!(
        (found.verdict, found.answer_from),
        (verdict, from),
        "gold {gold:?}, response {response:?}, found {:?}",
        found.extracted
    );
}

#[test]
fn boxes_and_announcements() {
    check(
        "B",
        "\\[\\boxed{a \\ll b}\\] which is the second.\n\nAnswer: B",
        Correct,
        Some(Announced),
    );
    check(
        "7",
        "Answer: 6. Wait, the last step was wrong: \\boxed{7}",
        Correct,
        Some(Box),
    );
    check(
        "6",
        "Answer: 6. Wait, the last step was wrong: \\boxed{7}",
        Incorrect,
        Some(Box),
    );
    check(
        "(1,2), (5,6)",
        "\\boxed{(1,2)} for part (a), and \\boxed{(5,6)} for part (b).",
        Correct,
        Some(Box),
    );
    check(
        "12",
        "\\boxed{3}, so I think that it is \\boxed{12}",
        Correct,
        Some(Box),
    );
    check(
        "90",
        "<think>x</think><answer>90</answer>",
        Correct,
        Some(Announced),
    );
    check(
        "90",
        "<answer>\\(\\boxed{90}\\)</answer>",
        Correct,
        Some(Box),
    );
    check(
        "250",
        "**Final Answer:**\n\n$$\n\\text{ANSWER: } \\$250\n$$",
        Correct,
        Some(Announced),
    );
    check(
        "21",
        "Final Answer: the smallest $k$ is 21.",
        Correct,
        Some(Announced),
    );
    check(
        "21",
        "Final Answer: the smallest $k$ is 22.",
        Incorrect,
        Some(Announced),
    );
}

#[test]
fn formulas_and_prose() {
    check(
        "\\sqrt{29}",
        "The length is then \\sqrt{29}.",
        Correct,
        Some(Formula),
    );
    check(
        "\\sqrt{29}",
        "The length is then \\sqrt{28}.",
        Incorrect,
        Some(Formula),
    );
    check(
        "9",
        "There were 9 of them, and the rest I cannot say.",
        NoAnswer,
        None,
    );
    check(
        "9",
        "Each costs $9 and we do not know how many.",
        NoAnswer,
        None,
    );
    check(
        "8",
        "We have $K = \\textbf{8}$ of them.",
        Correct,
        Some(Formula),
    );
    check(
        "14",
        "He sells 7 at $2 each, so 7 * 2 = $14 a day. The answer is 14.",
        Correct,
        Some(Announced),
    );
}

#[test]
fn the_end_of_a_turn() {
    check(
        "3/5",
        "The answer is 3/5<|im_end|>\n<|im_start|>user\nAnd \\boxed{4}?",
        Correct,
        Some(Announced),
    );
    check(
        "4",
        "The answer is 3/5</s>The answer is 4",
        Incorrect,
        Some(Announced),
    );
    check(
        "4",
        "<think>say <|im_end|> here</think>\\boxed{4}<|eot_id|>\\boxed{5}",
        Correct,
        Some(Box),
    );
    check(
        "4",
        "\\boxed{3}<|im_end|>\n<|im_start|>assistant\n<think>a</think>\\boxed{4}",
        Incorrect,
        Some(Box),
    );
}

#[test]
fn the_text_of_the_gold_itself() {
    let gold = "The series converges for every positive value of the first term and of no other, as claimed.";
    check(gold, gold, Correct, Some(Formula));
    check(gold, &format!("\\boxed{{{gold}}}"), Correct, Some(Box));
    check(
        "The set is open.",
        "Final Answer: The set is open.",
        Correct,
        Some(Announced),
    );
    check(
        "The set is open.",
        "\\boxed{\\text{The set is closed.}}",
        Incorrect,
        Some(Box),
    );
    check(
        "x^9 + x^8 + x^7 + x^6 + x^5 + x^4 + x^3 + x + 1",
        "\\boxed{1+x+x^3+x^4+x^5+x^6+x^7+x^8+x^9}",
        Correct,
        Some(Box),
    );
}

#[test]
fn the_last_number_is_asked_for() {
    let grade = |gold: &str, response: &'static str| {
        let verifier = Verifier {
            last_number: true,
            ..Verifier::default()
        };
        let found = verifier.verify(gold, response);
        (found.verdict, found.answer_from)
    };
    assert_eq!(
        grade("31", "With the tip it comes to $31.00."),
        (Correct, Some(LastNumber))
    );
    assert_eq!(
        grade("31", "It comes to 30 or so, all in all."),
        (Incorrect, Some(LastNumber))
    );
    assert_eq!(grade("31", "I cannot tell."), (NoAnswer, None));
    assert_eq!(grade("5", "\\boxed{5} of 6"), (Correct, Some(Box)));
}

#[test]
fn any_of_several_golds() {
    let grade = |golds: &[&str]| {
        Verifier::default()
            .verify_any(golds, "\\boxed{0.5}")
            .verdict
    };
    assert_eq!(grade(&["2", "1/2"]), Correct);
    assert_eq!(grade(&["2", "3"]), Incorrect);
    assert_eq!(grade(&["", "3"]), Incorrect);
    assert_eq!(grade(&[]), Verdict::GoldUnreadable);
}
