//! How many pairs a second one core grades, and how long the worst pair takes.
//!
//! ```text
//! cargo bench -p stillroom-verify
//! ```
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use stillroom_verify::verify;

/// Golds of MATH-500's shapes, with another spelling of each and another answer.
const SHAPES: [[&str; 3]; 16] = [
    ["42", "42", "43"],
    ["\\frac{9}{7}", "9/7", "\\frac{7}{9}"],
    ["\\frac43", "\\dfrac{4}{3}", "1.33"],
    ["6\\sqrt{3}", "\\sqrt{108}", "3\\sqrt{6}"],
    ["\\frac{\\pi}{2}", "\\pi/2", "\\pi"],
    ["x^2+2x+1", "(x+1)^2", "x^2+1"],
    ["90^\\circ", "90", "80^\\circ"],
    [
        "(3,\\frac{\\pi}{2})",
        "\\left(3,\\frac{\\pi}{2}\\right)",
        "(3,\\pi)",
    ],
    ["[2,5)", "2\\le x<5", "(2,5)"],
    ["\\text{east}", "East", "west"],
    [
        "\\begin{pmatrix}1\\\\2\\end{pmatrix}",
        "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
        "\\begin{pmatrix}2\\\\1\\end{pmatrix}",
    ],
    ["3+4i", "4i+3", "3-4i"],
    ["52_8", "52_{8}", "52"],
    ["y=2x+1", "2x-y+1=0", "y=2x"],
    ["1\\pm\\sqrt{2}", "1+\\sqrt{2},1-\\sqrt{2}", "1+\\sqrt2"],
    ["\\$18.90", "18.90", "18"],
];

fn main() {
    let second = Duration::from_secs(1);
    let integers: Vec<(String, String)> = (0..1000)
        .map(|i| {
            (
                i.to_string(),
                format!(
                    "<think>\nx\n</think>\n\nThe answer is \\boxed{{{}}}.",
                    i + i % 2
                ),
            )
        })
        .collect();
    let (rate, _) = rate(&integers, second);
    println!("integers at the end of short responses: {rate:.0} pairs/s");

    let thought =
        "Let me see: the number $a_{12}$ is at most 3, so that we have to try again. ".repeat(400);
    let long: Vec<(String, String)> = SHAPES
        .iter()
        .flat_map(|[gold, same, other]| [(gold, same), (gold, other)])
        .map(|(gold, answer)| {
            let response =
                format!("<think>\n{thought}\n</think>\n\nSo the answer is $\\boxed{{{answer}}}$.");
            ((*gold).to_owned(), response)
        })
        .collect();
    let (rate, bytes) = self::rate(&long, second);
    println!(
        "MATH-shaped answers at the end of 30 kB: {rate:.0} pairs/s, {:.0} MB/s",
        bytes / 1e6
    );

    let mut worst = (Duration::ZERO, String::new());
    for (name, gold, answer) in adversaries() {
        let response = format!("\\boxed{{{answer}}}");
        let start = Instant::now();
        black_box(verify(black_box(&gold), black_box(&response)));
        let time = start.elapsed();
        println!("{:8.3} ms  {name}", time.as_secs_f64() * 1e3);
        if time > worst.0 {
            worst = (time, name);
        }
    }
    println!("worst: {:.3} ms, {}", worst.0.as_secs_f64() * 1e3, worst.1);
}

/// Pairs, and bytes of responses, per second.
fn rate(pairs: &[(String, String)], at_least: Duration) -> (f64, f64) {
    let (start, mut n, mut bytes) = (Instant::now(), 0u64, 0u64);
    while start.elapsed() < at_least {
        for (gold, response) in pairs {
            black_box(verify(black_box(gold), black_box(response)));
            bytes += response.len() as u64;
        }
        n += pairs.len() as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    (n as f64 / seconds, bytes as f64 / seconds)
}

/// Inputs that would take long elsewhere: `(what it is, gold, answer)`.
fn adversaries() -> Vec<(String, String, String)> {
    let both = |name: &str, text: String| (name.to_owned(), text.clone(), format!("{text}+0"));
    let nested = |open: &str, inner: &str, close: &str, n: usize| {
        format!("{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    let sum = |term: &str, n: usize| vec![term; n].join("+");
    vec![
        both("a power tower", "9^{9^{9^{9^9}}}".to_owned()),
        both("a large power", "7^{100000}".to_owned()),
        both("a power of a large power", "(2^{2000})^{2000}".to_owned()),
        both("a million braces", nested("{", "1", "}", 1_000_000)),
        both("two hundred braces", nested("{", "x", "}", 200)),
        both("a huge factorial", "100000!".to_owned()),
        both("factorials in a row", "3!!!!".to_owned()),
        both("large factorials", "4000!/3999!+4096!".to_owned()),
        both(
            "a hundred nested fractions",
            nested("\\frac{1}{1+", "x", "}", 100),
        ),
        both(
            "two hundred nested fractions of numbers",
            nested("\\frac{1}{1+", "\\sqrt2", "}", 200),
        ),
        both("nested roots", nested("\\sqrt{1+", "x", "}", 200)),
        both("nested sines", nested("\\sin(", "x", ")", 120)),
        both("a large polynomial", "(a+b+c+d+e)^{64}".to_owned()),
        both(
            "a power of long decimals",
            "\\sqrt[21]{{a_1\\pm 974.33}^{41}}".to_owned(),
        ),
        both("a product of many sums", "(a+b)".repeat(60)),
        both(
            "many different factors",
            (b'a'..=b'z')
                .map(|c| format!("(1+{})", char::from(c)))
                .collect(),
        ),
        both(
            "many variables under a root",
            (0..80)
                .map(|i| format!("\\sqrt{{x_{{{i}}}}}+"))
                .collect::<String>()
                + "1",
        ),
        both("four hundred sines", sum("\\sin x", 400)),
        both("four thousand bytes of sums", sum("x", 2000)),
        both(
            "large fractions",
            (1..80)
                .map(|i| format!("\\frac{{1}}{{{}}}+", 1_000_003 + 2 * i))
                .collect::<String>()
                + "0",
        ),
        both(
            "long numbers",
            format!("{}\\cdot {}", "9".repeat(1000), "7".repeat(1000)),
        ),
        both(
            "many long fractions",
            (0..4)
                .map(|i| {
                    format!(
                        "\\frac{{{}}}{{{}}}+",
                        "7".repeat(450),
                        format!("{i}3").repeat(200)
                    )
                })
                .collect::<String>()
                + "0",
        ),
        both("a large angle", "\\sin(10^{1000})".to_owned()),
        both(
            "roots of large numbers",
            sum("\\sqrt{340282366920938463463374607431768211297}", 60),
        ),
        both(
            "many different roots",
            (2..200)
                .map(|i| format!("\\sqrt{{{i}}}+"))
                .collect::<String>()
                + "0",
        ),
        both(
            "a product of many roots",
            (2..60)
                .map(|i| format!("(1+\\sqrt{{{i}}})"))
                .collect::<String>(),
        ),
        both(
            "a long set",
            format!(
                "\\{{{}\\}}",
                (0..600)
                    .map(|i| i.to_string())
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        ),
        (
            "sets of formulas".to_owned(),
            (0..100)
                .map(|i| format!("\\sin {i}"))
                .collect::<Vec<_>>()
                .join(", "),
            (0..100)
                .rev()
                .map(|i| format!("\\sin {i}"))
                .collect::<Vec<_>>()
                .join(", "),
        ),
        both(
            "a union of many intervals",
            (0..200)
                .map(|i| format!("({i},{})", i + 1))
                .collect::<Vec<_>>()
                .join("\\cup "),
        ),
        both(
            "a large matrix",
            format!(
                "\\begin{{pmatrix}}{}\\end{{pmatrix}}",
                vec!["1&2&3"; 200].join("\\\\")
            ),
        ),
        both(
            "nested signs",
            "\\pm\\pm\\pm 1\\pm 2\\pm 3\\pm 4".to_owned(),
        ),
        both("a megabyte of digits", "9".repeat(1_000_000)),
        both("a megabyte of backslashes", "\\".repeat(1_000_000)),
        (
            "a megabyte of boxes".to_owned(),
            "1".to_owned(),
            "\\boxed{".repeat(150_000),
        ),
        (
            "boxes in a row".to_owned(),
            "1".to_owned(),
            format!("1}}{}", ", \\boxed{1}".repeat(60_000)),
        ),
        (
            "announcements in a row".to_owned(),
            "1".to_owned(),
            format!("}} {}", "the answer is ".repeat(70_000)),
        ),
    ]
}
