#![allow(clippy::unwrap_used)]

use super::{AnswerFrom, final_answer, found, last_math_span};
#[test]
fn boxes_that_are_one_answer() {
    let check = |text: &str, expected: &str| {
        assert_eq!(final_answer(text).as_deref(), Some(expected), "{text}");
    };
    check(r"\boxed{2} and \boxed{3}", "2, 3");
    check(r"$x=\boxed{2}$, $\boxed{3}$", "2, 3");
    check(
        r"$\boxed{2}$, $\boxed{3}$ or $\boxed{\frac{1}{2}}$.",
        r"2, 3, \frac{1}{2}",
    );
    check(r"\boxed{2}\text{ and }\boxed{3}", "2, 3");
    check(r"\boxed{3}. Wait, no. \boxed{12}", "12");
    check(r"\boxed{3} \boxed{12}", "12");
    check(r"\boxed{3}, so I think that it is \boxed{12}", "12");
}

fn check(text: &str, expected: Option<&str>) {
    assert_eq!(final_answer(text).as_deref(), expected, "{text:?}");
}

#[test]
fn boxes() {
    check(r"so \boxed{33}.", Some("33"));
    check(r"\boxed{1} then \boxed{2}", Some("2"));
    check(r"\fbox{7}", Some("7"));
    check(r"\boxed{\frac{1}{2}}", Some(r"\frac{1}{2}"));
    check(r"\boxed{\{1,2\}}", Some(r"\{1,2\}"));
    check(r"\boxed{ \boxed{5} }", Some("5"));
    check(r"\boxed {12}", Some("12"));
    check(r"$\boxed 12$", Some("12"));
    check(r"\\boxed{12}", Some("12"));
    check("x\\\\\n\\boxed{12}", Some("12"));
    check(r"\boxed{3}, in \boxed{}", Some("3"));
    check(r"\boxed{3}, no: \boxed{1", Some("3"));
    check(r"} { \boxed{3}", Some("3"));
    check(r"\boxedx{3}", None);
    check(r"\boxed{}", None);
    check(r"\boxed", None);
    check("\\", None);
}

#[test]
fn phrases() {
    check("The answer is 33.", Some("33"));
    check("the answer is: **33**", Some("33"));
    check("**Final Answer:**\n\n$\\frac12$", Some("\\frac12"));
    check("#### 1,234", Some("1,234"));
    check("work\n#### -5\n", Some("-5"));
    check("The answer is 3. No, the answer is 4. Done.", Some("4"));
    check("The answer is 2.5. Done.", Some("2.5"));
    check("The answer is $x$, which", Some("x"));
    check("The answer is $18 and not $20", Some("18"));
    check("Final answer: \\(9\\)", Some("9"));
    check("I know what the answer is.", None);
    check("The answer is 7. \\boxed{8}", Some("8"));
}

#[test]
fn spans() {
    check("thus $x = 5$ holds", Some("x = 5"));
    check("$1$ and \\(2\\)", Some("2"));
    check("$$3$$", Some("3"));
    check("\\[ 4 \\]", Some("4"));
    check("first $1$ then $2", Some("1"));
    check("it costs \\$5 here", None);
    check("nothing here", None);
    check("", None);
    check("  -42 ", Some("-42"));
    assert_eq!(last_math_span("for $5 and $7 more"), None);
}

fn from(text: &str, answer: Option<&str>, from: Option<AnswerFrom>) {
    let found = found(text, true);
    assert_eq!(
        found.as_ref().map(|found| found.answer.as_ref()),
        answer,
        "{text:?}"
    );
    assert_eq!(found.map(|found| found.from), from, "{text:?}");
}

#[test]
fn the_last_of_box_and_announcement_counts() {
    use AnswerFrom::{Announced, Box};
    from(
        r"\boxed{x^2} so the answer is B.",
        Some("B"),
        Some(Announced),
    );
    from(r"The answer is 4. No: \boxed{5}", Some("5"), Some(Box));
    from(
        r"\boxed{5}. I hope that the answer is correct.",
        Some("5"),
        Some(Box),
    );
    from(
        r"\boxed{\text{Answer: }5}",
        Some(r"\text{Answer: }5"),
        Some(Box),
    );
    from("<answer> 12 </answer>", Some("12"), Some(Announced));
    from(
        r"<answer>It is \(\boxed{12}\).</answer>",
        Some("12"),
        Some(Box),
    );
    from(
        r"\boxed{7} <answer>The sum is 12.</answer>",
        Some("12"),
        Some(Announced),
    );
}

#[test]
fn sentences_behind_an_announcement() {
    use AnswerFrom::Announced;
    from(
        "Final Answer: The largest $n$ is 34.",
        Some("34"),
        Some(Announced),
    );
    from("The answer is $n$ = 34.", Some("$n$ = 34"), Some(Announced));
    from(
        "The answer is n = 3k where k is an integer.",
        Some("n = 3k"),
        Some(Announced),
    );
    from(
        "The answer is 5 because 2 + 4 is 6.",
        Some("5"),
        Some(Announced),
    );
    from(
        "Answer: the correct option is (B).",
        Some("the correct option is (B)"),
        Some(Announced),
    );
    from(
        "The answer is not 5 but 6",
        Some("6"),
        Some(AnswerFrom::LastNumber),
    );
}

#[test]
fn formulas_without_delimiters() {
    use AnswerFrom::Formula;
    from(
        r"By this the length is \sqrt{29}.",
        Some(r"\sqrt{29}"),
        Some(Formula),
    );
    from(
        r"Hence we get (2, \frac{\pi}{6}).",
        Some(r"(2, \frac{\pi}{6})"),
        Some(Formula),
    );
    from(
        r"The roots are \frac{1}{2} and \frac{3}{4}.",
        Some(r"\frac{1}{2} and \frac{3}{4}"),
        Some(Formula),
    );
    from(
        r"With $a=2$ this gives a \frac{1}{2} of it.",
        Some(r"\frac{1}{2}"),
        Some(Formula),
    );
    from(
        r"so x \in [\sqrt{2}, \infty).",
        Some(r"x \in [\sqrt{2}, \infty)"),
        Some(Formula),
    );
    assert_eq!(
        final_answer("There were 18 of them, which says nothing."),
        None
    );
}

#[test]
fn amounts_and_last_numbers() {
    use AnswerFrom::{Formula, LastNumber};
    from(
        "Two at $3 each, so it costs $6.50.",
        Some("6.50"),
        Some(LastNumber),
    );
    from("Two at $3 each, and $x = 7$.", Some("x = 7"), Some(Formula));
    from(
        "In all 1,250 clips, altogether.",
        Some("1,250"),
        Some(LastNumber),
    );
    from("It fell by -12 degrees", Some("-12"), Some(LastNumber));
    from(
        "Room B12 is at 3/4 of the way",
        Some("3/4"),
        Some(LastNumber),
    );
    from("none here", None, None);
    assert_eq!(final_answer("Two at $3 each, so it costs $6.50."), None);
}

#[test]
fn nothing_counts_behind_the_end_of_the_turn() {
    for token in [
        "<|im_end|>",
        "<|eot_id|>",
        "</s>",
        "<｜end▁of▁sentence｜>",
        "<end_of_turn>",
    ] {
        let text = format!("The answer is 2/3{token}\nuser: \\boxed{{9}}");
        assert_eq!(final_answer(&text).as_deref(), Some("2/3"), "{text}");
    }
    assert_eq!(
        final_answer("<|im_start|>assistant\nThe answer is 4.").as_deref(),
        Some("4")
    );
}
