#![allow(clippy::unwrap_used)]

use super::{AnswerFrom, final_answer, found, last_math_span};
#[test]
fn boxes_that_are_one_answer() {
    let check = |text: &str, expected: &str| {
        assert_eq!(
            final_answer(text).as_deref(),
            Some(expected),
            "{text}"
        );
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
    check("The answer is $18 and not $20", Some("$18 and not $20"));
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
