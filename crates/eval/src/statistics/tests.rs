#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::{
    Tally, Vote, avg_at_k, maj_at_k, majority_score, mean_interval, paired_difference, pass_at_k,
    pass_at_k_estimates, sampling_error, t_quantile_975,
};

/// Made by scripts/eval_statistics_reference.py with NumPy and SciPy.
fn reference() -> Value {
    serde_json::from_str(include_str!("../../fixtures/statistics.json")).unwrap()
}

fn close(found: f64, expected: f64) {
    let scale = expected.abs().max(1.0);
    assert!(
        (found - expected).abs() < 1e-12 * scale,
        "{found} is not {expected}"
    );
}

fn tallies(n: u64, correct: &Value) -> Vec<Tally> {
    let correct = correct.as_array().unwrap().iter();
    correct
        .map(|c| Tally {
            n,
            correct: c.as_u64().unwrap(),
        })
        .collect()
}

/// Compares with SciPy's interval, cut to [0, 1] for rates.
fn check_interval(value: f64, ci95: Option<[f64; 2]>, expected: &Value, rate: bool) {
    close(value, expected["value"].as_f64().unwrap());
    match ci95 {
        None => assert!(expected["low"].is_null()),
        Some([low, high]) => {
            let cut = |end: &Value| {
                let end = end.as_f64().unwrap();
                if rate { end.clamp(0.0, 1.0) } else { end }
            };
            close(low, cut(&expected["low"]));
            close(high, cut(&expected["high"]));
        }
    }
}

#[test]
fn quantiles_of_t_equal_scipys() {
    for (freedom, expected) in reference()["t_quantiles"].as_object().unwrap() {
        let found = t_quantile_975(freedom.parse().unwrap()).unwrap();
        assert!(
            (found / expected.as_f64().unwrap() - 1.0).abs() < 1e-11,
            "{freedom}: {found}"
        );
    }
}

#[test]
fn pass_at_k_equals_whole_number_arithmetic() {
    for row in reference()["pass_at_k"].as_array().unwrap() {
        let number = |i: usize| row[i].as_u64().unwrap();
        let tally = Tally {
            n: number(0),
            correct: number(1),
        };
        close(
            pass_at_k(tally, number(2)).unwrap(),
            row[3].as_f64().unwrap(),
        );
    }
    assert_eq!(pass_at_k(Tally { n: 4, correct: 1 }, 5), None);
    assert_eq!(pass_at_k(Tally { n: 0, correct: 0 }, 1), None);
    let many = pass_at_k(
        Tally {
            n: 1_000_000,
            correct: 1000,
        },
        524_288,
    )
    .unwrap();
    assert_eq!(many, 1.0);
}

#[test]
fn estimates_equal_numpys_and_scipys() {
    let reference = reference();
    for case in reference["cases"].as_array().unwrap() {
        let n = case["n"].as_u64().unwrap();
        let a = tallies(n, &case["correct"]);
        let b = tallies(n, &case["other"]);

        let avg = avg_at_k(&a).unwrap();
        check_interval(avg.value, avg.ci95, &case["avg"], true);
        assert_eq!(
            avg.sampling_error.is_none(),
            case["sampling_error"].is_null()
        );
        if let Some(error) = avg.sampling_error {
            close(error, case["sampling_error"].as_f64().unwrap());
        }
        assert_eq!(avg.question_error.is_none(), case["avg"]["error"].is_null());
        if let Some(error) = avg.question_error {
            close(error, case["avg"]["error"].as_f64().unwrap());
        }

        let found = pass_at_k_estimates(&a, n);
        let expected = case["pass"].as_object().unwrap();
        assert_eq!(found.len(), expected.len());
        for (k, estimate) in &found {
            check_interval(estimate.value, estimate.ci95, &expected[k], true);
        }

        let paired = paired_difference(&a, &b).unwrap();
        check_interval(paired.mean, paired.ci95, &case["paired"], false);
    }
}

#[test]
fn missing_samples_are_missing_and_never_wrong() {
    let full = [Tally { n: 8, correct: 4 }, Tally { n: 8, correct: 8 }];
    let fewer = [
        Tally { n: 4, correct: 2 },
        Tally { n: 8, correct: 8 },
        Tally { n: 0, correct: 0 },
    ];
    assert_eq!(
        avg_at_k(&fewer).unwrap().value,
        avg_at_k(&full).unwrap().value
    );
    assert_eq!(pass_at_k_estimates(&fewer, 8)["8"].value, 1.0);
    assert_eq!(paired_difference(&full, &fewer).unwrap().mean, 0.0);
    assert_eq!(avg_at_k(&[Tally { n: 0, correct: 0 }]), None);
    assert_eq!(mean_interval(&[]), None);
    assert_eq!(sampling_error(&[Tally { n: 1, correct: 1 }]), None);
    assert_eq!(sampling_error(&[]), None);
}

#[test]
fn majorities() {
    let check = |answers: &[Option<&str>], expected: Option<f64>| {
        let votes: Vec<Vote> = answers
            .iter()
            .map(|answer| Vote {
                answer: answer.map(str::to_owned),
                correct: *answer == Some("7"),
            })
            .collect();
        assert_eq!(majority_score(&votes), expected, "{answers:?}");
    };
    check(&[Some("7"), Some("7"), Some("8")], Some(1.0));
    check(&[Some("7"), Some("8"), Some("8")], Some(0.0));
    check(&[Some("7"), Some("8")], Some(0.5));
    check(
        &[Some("7"), Some("8"), Some("9"), None, None],
        Some(1.0 / 3.0),
    );
    check(&[Some("7"), None, None], Some(1.0));
    check(&[None, None], Some(0.0));
    check(&[], None);
    let right = [Vote {
        answer: Some("7".into()),
        correct: true,
    }];
    let none: [Vote; 0] = [];
    let estimate = maj_at_k([&right[..], &none[..]]).unwrap();
    assert_eq!((estimate.value, estimate.ci95), (1.0, None));
}
