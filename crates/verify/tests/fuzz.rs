//! Answers that nobody would write, and many that somebody might.
//!
//! ```text
//! PROPTEST_CASES=3400000 cargo test --release -p stillroom-verify --test fuzz -- --nocapture
//! ```
//!
//! reads more than ten million inputs and prints how long the slowest pair took.

use std::cell::Cell;
use std::time::{Duration, Instant};

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use proptest::{collection, sample};
use stillroom_verify::{Answer, verify};

const TOKENS: [&str; 100] = [
    "0",
    "1",
    "2",
    "7",
    "12",
    "033",
    "1,000",
    "3.14",
    ".5",
    "1e3",
    "x",
    "y",
    "n",
    "i",
    "e",
    "\\pi",
    "\\alpha",
    "pi",
    "sqrt",
    "sin",
    "\\sin",
    "\\log_2",
    "\\ln",
    "\\frac",
    "\\frac12",
    "\\dfrac",
    "\\sqrt",
    "\\sqrt[3]",
    "\\binom",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "\\{",
    "\\}",
    "|",
    "+",
    "-",
    "*",
    "/",
    "^",
    "^2",
    "^{-1}",
    "_",
    "_8",
    "!",
    "%",
    "\\%",
    "°",
    "^\\circ",
    ",",
    ";",
    "=",
    "<",
    "\\le",
    ">",
    "\\ne",
    "\\in",
    "\\cup",
    "\\infty",
    "\\emptyset",
    "\\pm",
    "\\mp",
    "\\text{cm}",
    "\\text{ or }",
    "\\left",
    "\\right",
    "\\cdot",
    "\\times",
    "\\\\",
    "&",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "\\boxed{",
    "$",
    " ",
    "\\,",
    "\\mathbb{R}",
    "½",
    "²",
    "√",
    "−",
    "é",
    "\\overline{3}",
    "{}",
    ":",
    " to ",
    "\\text{6 cm}",
    "\\text{where }",
    "\\text{Area} =",
    "\\approx",
    "\\notin",
    "\\!",
    "{,}",
    "C",
    "AB",
    "no solution",
    "<|im_end|>",
];

/// Whole expressions, of every kind that the parser knows.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (-99i32..100).prop_map(|n| n.to_string()),
        (0u32..1000, 0u32..100).prop_map(|(a, b)| format!("{a}.{b}")),
        sample::select(vec![
            "x", "y", "n", "\\pi", "e", "i", "\\infty", "\\theta", "a_1"
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(6, 40, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            (
                sample::select(vec![
                    "+",
                    "-",
                    "\\cdot ",
                    "/",
                    "^",
                    "\\pm ",
                    "=",
                    "<",
                    "\\le ",
                    ", ",
                    "\\cup ",
                    ":",
                    ">",
                    "\\approx ",
                    "\\in "
                ]),
                two.clone()
            )
                .prop_map(|(sign, (a, b))| format!("{a}{sign}{b}")),
            two.clone()
                .prop_map(|(a, b)| format!("\\frac{{{a}}}{{{b}}}")),
            two.clone().prop_map(|(a, b)| format!("{{{a}}}^{{{b}}}")),
            two.clone()
                .prop_map(|(a, b)| format!("\\binom{{{a}}}{{{b}}}")),
            two.clone().prop_map(|(a, b)| format!("\\sqrt[{a}]{{{b}}}")),
            (
                sample::select(vec![
                    ["(", ")"],
                    ["[", "]"],
                    ["(", "]"],
                    ["\\{", "\\}"],
                    ["|", "|"]
                ]),
                collection::vec(inner.clone(), 1..4)
            )
                .prop_map(|([open, close], items)| format!("{open}{}{close}", items.join(","))),
            (
                sample::select(vec![
                    "\\sqrt", "\\sin", "\\cos", "\\tan", "\\ln", "\\log", "\\arctan", "\\exp",
                    "\\text"
                ]),
                inner.clone()
            )
                .prop_map(|(name, a)| format!("{name}{{{a}}}")),
            collection::vec(inner.clone(), 1..4).prop_map(|rows| format!(
                "\\begin{{pmatrix}}{}\\end{{pmatrix}}",
                rows.join("\\\\")
            )),
            inner.prop_map(|a| format!("({a})!")),
        ]
    })
}

fn soup() -> impl Strategy<Value = String> {
    collection::vec(sample::select(TOKENS.to_vec()), 0..24).prop_map(|tokens| tokens.concat())
}

/// An expression with one of its characters taken out, doubled or exchanged.
fn damaged() -> impl Strategy<Value = String> {
    (
        expression(),
        any::<sample::Index>(),
        sample::select(TOKENS.to_vec()),
        0..3usize,
    )
        .prop_map(|(text, at, token, kind)| {
            let mut parts: Vec<String> = text.chars().map(String::from).collect();
            let at = at.index(parts.len());
            match kind {
                0 => parts[at] = String::new(),
                1 => parts[at] = token.to_owned(),
                _ => parts.insert(at, token.to_owned()),
            }
            parts.concat()
        })
}

fn run(strategy: impl Strategy<Value = (String, String)>) {
    let config = ProptestConfig {
        // The default of the crate where the environment says nothing.
        cases: ProptestConfig::default().cases.max(1000),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    };
    let slowest = Cell::new((Duration::ZERO, String::new()));
    let mut runner = TestRunner::new(config);
    let result = runner.run(&strategy, |(a, b)| {
        let start = Instant::now();
        verify(&a, &format!("\\boxed{{{b}}}"));
        let time = start.elapsed();
        let (most, what) = slowest.take();
        slowest.set(if time > most {
            (time, format!("{a}  against  {b}"))
        } else {
            (most, what)
        });
        if let (Some(x), Some(y)) = (Answer::read(&a), Answer::read(&b)) {
            assert!(x.accepts(&x), "{a} is not itself");
            // A gold decimal may be rounded; everything else is exchangeable.
            if !a.contains('.') && !b.contains('.') {
                assert_eq!(x.accepts(&y), y.accepts(&x), "{a}  against  {b}");
            }
        }
        Ok(())
    });
    let (time, what) = slowest.take();
    println!(
        "slowest of its kind: {:.3} ms, {what:.300}",
        time.as_secs_f64() * 1e3
    );
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn expressions() {
    run((expression(), expression()));
}

#[test]
fn damaged_expressions() {
    run(damaged().prop_flat_map(|a| (Just(a.clone()), prop_oneof![Just(a), damaged()])));
}

#[test]
fn soups() {
    run((soup(), prop_oneof![soup(), any::<String>()]));
}
