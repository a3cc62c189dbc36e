#![allow(clippy::unwrap_used)]

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Verdict::{Correct, GoldUnreadable, Incorrect, NoAnswer};
use super::{Verdict, Verifier, equivalent, extracted, groups, verify, verify_answer};

fn check(gold: &str, response: &str, expected: Verdict) {
    assert_eq!(
        verify(gold, response),
        expected,
        "gold {gold:?}, response {response:?}"
    );
}

#[test]
fn integers() {
    check("33", r"<think>a</think>\boxed{33}", Correct);
    check("33", r"<think>a</think>\boxed{033}", Correct);
    check("033", r"\boxed{33}", Correct);
    check("33", r"\boxed{-33}", Incorrect);
    check("-33", r"\boxed{−33}", Correct);
    check("1234", r"\boxed{1,234}", Correct);
    check("1,234", r"\boxed{1234}", Correct);
    check("1234", r"\boxed{12,34}", Incorrect);
    check("33", r"\boxed{33.0}", Correct);
    check("33", r"\boxed{33 \text{ apples}}", Correct);
    check("33", "The answer is 33 apples.", Correct);
    check("18", "#### 18", Correct);
    check("33", "33", Correct);
    check("33", "34", Incorrect);
    check("33", r"\boxed{3} \boxed{33}", Correct);
    check("33", r"\boxed{33} \boxed{3}", Incorrect);
    check("3", r"\boxed{3}. Wait, no. \boxed{12}", Incorrect);
}

#[test]
fn fractions_and_decimals() {
    check("1/2", r"\boxed{0.5}", Correct);
    check("\\frac{9}{7}", r"\boxed{9/7}", Correct);
    check("\\dfrac{9}{7}", r"\boxed{\frac{9}{7}}", Correct);
    check("$\\frac43$", r"so $\frac{4}{3}$", Correct);
    check("1/3", r"\boxed{0.333}", Incorrect);
    check("-1/2", r"\boxed{\frac{-1}{2}}", Correct);
    check("1/2", r"\boxed{-\frac{1}{-2}}", Correct);
}

#[test]
fn golds() {
    check("\\boxed{7}", "7", Correct);
    check("$7$", r"\boxed{7}", Correct);
    check(
        "We add 3 and 4 and find that the total must be \\boxed{7}.",
        r"\boxed{7}",
        Correct,
    );
    check("3 + 4 = <<3+4=7>>7\n#### 7", r"\boxed{7}", Correct);
    check(
        "Since the one is three and the other is four, together they make $7$.",
        "\\boxed{7}",
        Correct,
    );
    check("", r"\boxed{7}", GoldUnreadable);
    check("  ", r"\boxed{7}", GoldUnreadable);
    check("$$", r"\boxed{7}", GoldUnreadable);
    check(
        "a long story of many words that never says anything about what the number is",
        "7",
        GoldUnreadable,
    );
    check("", "", GoldUnreadable);
}

#[test]
fn no_answer() {
    check("7", "", NoAnswer);
    check("7", r"<think>so \boxed{7}", NoAnswer);
    check("7", r"<think>so \boxed{7}</think>", NoAnswer);
    check("7", r"<think>so \boxed{7}</think>I am done.", NoAnswer);
    check("7", r"a</think>\boxed{7}", Correct);
    check("7", r"\boxed{}", NoAnswer);
    assert_eq!(verify_answer("7", None), NoAnswer);
    assert_eq!(verify_answer("7", Some("7")), Correct);
}

#[test]
fn only_a_box_is_an_answer_where_boxes_are_asked_for() {
    let boxes = Verifier {
        boxed_only: true,
        ..Verifier::default()
    };
    for (response, expected) in [
        (r"so \boxed{7}", Correct),
        (r"so \boxed{8}. The answer is 7.", Incorrect),
        ("The answer is 7.", NoAnswer),
        ("7", NoAnswer),
        ("$7$", NoAnswer),
    ] {
        assert_eq!(boxes.verify("7", response).verdict, expected, "{response}");
    }
    assert_eq!(
        boxes
            .verify("no solution at all", "no solution at all")
            .verdict,
        NoAnswer
    );
}

#[test]
fn text() {
    check("\\text{east}", r"\boxed{East}", Correct);
    check("C", r"\boxed{\textbf{(C)}}", Correct);
    check("C", r"\boxed{D}", Incorrect);
    check("(3, 4)", r"\boxed{\left(3,4\right)}", Correct);
    check("4", r"\boxed{4\sqrt{2}}", Incorrect);
    check("52", r"\boxed{52_8}", Incorrect);
    check("\\frac{1}{2004!}", r"\boxed{\frac{1}{2006!}}", Incorrect);
    check("2 \\pi", r"\boxed{2\pi}", Correct);
}

#[test]
fn groups_of_answers() {
    let answers = [
        "\\frac{8}{6}",
        "1,000",
        "",
        "4/3",
        "\\sqrt{8}",
        "1000",
        "2\\sqrt2",
        "4/3",
    ];
    let expected = [
        Some(0),
        Some(1),
        None,
        Some(0),
        Some(4),
        Some(1),
        Some(4),
        Some(0),
    ];
    assert_eq!(groups(&answers), expected);
    assert!(equivalent("0.5", "\\frac12"));
    assert!(!equivalent("", ""));
    assert_eq!(
        extracted("<think>x</think>\\boxed{ 5 }").as_deref(),
        Some("5")
    );
    assert_eq!(extracted("<think>\\boxed{5}"), None);
}

#[test]
fn names_of_verdicts() {
    for verdict in [Correct, Incorrect, NoAnswer, GoldUnreadable] {
        assert_eq!(Verdict::from_name(verdict.as_str()), Some(verdict));
    }
    assert_eq!(Verdict::from_name("right"), None);
}

/// Strings that would cost quadratic time, deep recursion or long arithmetic elsewhere. The limit
/// is generous for slow machines: linear work takes milliseconds.
#[test]
fn hostile_input_is_cheap() {
    let n = 200_000;
    let pieces = [
        "\\boxed{",
        "\\boxed",
        "{",
        "}",
        "$",
        "$$ ",
        "\\(",
        "\\[",
        "\\",
        "answer is ",
        "answer is. ",
        "#",
        "#### ",
        "final answer: $",
        "9",
        "9,999,",
        "1,000",
        "-",
        "1/",
        "\\frac",
        "\\frac1",
        "\\frac{1}{",
        "<think>",
        "</think>",
        "<think></think>",
        "\\text{",
        "\\text{a}",
        "5 cm ",
        "\\left",
        "\u{2212}",
        "\u{202f}",
        "é",
        "\n\n",
        " ",
        "*",
        "**.",
        "(",
        "x=",
    ];
    for piece in pieces {
        for text in [
            piece.repeat(n),
            format!("\\boxed{{{}}}", piece.repeat(n)),
            format!("7{}", piece.repeat(n)),
        ] {
            let start = Instant::now();
            verify("7", &text);
            verify(&text, "\\boxed{7}");
            let seconds = start.elapsed().as_secs_f64();
            assert!(seconds < 2.0, "{piece:?} took {seconds} s");
        }
    }
}

/// Many small random cases, the same at every run.
fn cases(n: usize, mut case: impl FnMut(&mut ChaCha8Rng)) {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    (0..n).for_each(|_| case(&mut rng));
}

#[test]
fn any_string_is_safe() {
    let text = |rng: &mut ChaCha8Rng| -> String {
        let n = rng.random_range(0..60);
        (0..n).map(|_| rng.random::<char>()).collect()
    };
    cases(5_000, |rng| {
        let (gold, response) = (text(rng), text(rng));
        verify(&gold, &response);
        equivalent(&gold, &response);
    });
}

#[test]
fn any_soup_of_tokens_is_safe() {
    const TOKENS: [&str; 34] = [
        "\\boxed{",
        "\\fbox",
        "{",
        "}",
        "$",
        "$$",
        "\\(",
        "\\)",
        "\\[",
        "\\]",
        "\\",
        "\\frac",
        "\\text{",
        "<think>",
        "</think>",
        "answer is",
        "####",
        "Final Answer:",
        "1",
        "23",
        ",",
        ".",
        "-",
        "/",
        "é",
        "−",
        " ",
        "\n",
        "cm",
        "^2",
        "%",
        "x",
        "=",
        "*",
    ];
    cases(20_000, |rng| {
        let n = rng.random_range(0..40);
        let text: String = (0..n)
            .map(|_| TOKENS[rng.random_range(0..TOKENS.len())])
            .collect();
        verify("23", &text);
        verify(&text, &text);
        assert_eq!(
            equivalent(&text, &text),
            groups(&[&text]) == [Some(0)],
            "{text:?}"
        );
    });
}

#[test]
fn integers_equal_themselves_however_written() {
    cases(2_000, |rng| {
        let value = rng.random_range(-1_000_000_000i64..1_000_000_000);
        let sign = if value < 0 { "-" } else { "" };
        let padded = format!(
            "{sign}{}{}",
            "0".repeat(rng.random_range(0..5)),
            value.abs()
        );
        assert!(equivalent(&value.to_string(), &padded));
        assert!(equivalent(
            &format!("$ {padded} $"),
            &format!("{value}.00 \\text{{ cm}}")
        ));
        assert!(!equivalent(&value.to_string(), &(value + 1).to_string()));
    });
}

#[test]
fn fractions_equal_their_multiples() {
    cases(2_000, |rng| {
        let (a, b, m) = (
            rng.random_range(-500i64..500),
            rng.random_range(1i64..500),
            rng.random_range(1i64..50),
        );
        assert!(equivalent(
            &format!("{a}/{b}"),
            &format!("\\frac{{{}}}{{{}}}", a * m, b * m)
        ));
    });
}

/// A number as answers write it.
fn written(rng: &mut ChaCha8Rng) -> String {
    let mut digits = |n: u32| rng.random_range(0..10u64.pow(n)).to_string();
    let (a, b, c, d) = (digits(6), digits(3), digits(3), digits(2));
    let forms = [
        a.clone(),
        format!("0{a}"),
        format!("-{a}"),
        format!("+{b}"),
        format!("−{b}"),
        format!(
            "{d},{:03},{:03}",
            b.parse::<u32>().unwrap_or(0),
            c.parse::<u32>().unwrap_or(0)
        ),
        format!("{a}.{c}"),
        format!(".{c}"),
        format!("-{b}.{c}0"),
        format!("{b}/1{c}"),
        format!(r"\frac{{{b}}}{{1{c}}}"),
        format!(r"-\dfrac{{{b}}}{{1{c}}}"),
        format!(r"{b}\frac{{1}}{{1{c}}}"),
        format!("${b}$"),
    ];
    forms[rng.random_range(0..forms.len())].clone()
}

#[test]
fn numbers_mean_the_same_however_they_are_read() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut n_read = 0;
    for _ in 0..4000 {
        let text = written(&mut rng);
        let Some(number) = super::number::read(&text) else {
            continue;
        };
        n_read += 1;
        let inner = text.trim_matches('$');
        // A sum is read as mathematics, and a number is not.
        let sum = format!("{inner} + 0");
        assert!(super::number::read(&sum).is_none(), "{sum}");
        assert!(equivalent(&text, &sum), "{text} is {number}");
        assert!(
            !equivalent(&text, &format!("{inner} + 1")),
            "{text} is {number}"
        );
    }
    assert!(n_read > 3000, "{n_read}");
}
