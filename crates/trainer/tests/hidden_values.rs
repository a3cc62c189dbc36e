//! Feature and relation losses against PyTorch in float64; `scripts/fixtures/make_hidden_fixtures.py` made the numbers.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use ops::features::{Metric, distance};
use ops::relations::{Relation, relation};
use ops::segments::Segments;
use serde::Deserialize;
use stillroom_trainer::hidden::rkd::{Rkd, Vectors, rkd};

/// Relative to the value, or to the gradient's largest entry.
const RELATIVE: f64 = 1e-5;

#[derive(Deserialize)]
struct Row {
    kind: String,
    rows: usize,
    #[serde(default)]
    lengths: Vec<usize>,
    #[serde(default)]
    heads: usize,
    student: Vec<f32>,
    teacher: Vec<f32>,
    value: f64,
    gradient: Vec<f64>,
}

#[test]
fn losses_and_gradients_equal_float64_torch() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("fixtures/hidden.json")).unwrap();
    assert!(rows.len() > 40);
    for (number, row) in rows.iter().enumerate() {
        let matrix = |values: &[f32]| {
            let shape = (row.rows, values.len() / row.rows);
            Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap()
        };
        let vectors = |values: &[f32]| Vectors {
            values: values.iter().map(|&x| f64::from(x)).collect(),
            width: values.len() / row.rows,
        };
        let (student, teacher) = (matrix(&row.student), matrix(&row.teacher));
        let tensors = |(value, gradient): (f64, Tensor)| {
            let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
            (value, gradient.into_iter().map(f64::from).collect())
        };
        let related = |kind| {
            let segments = Segments::new(row.lengths.clone());
            tensors(relation(kind, &student, &teacher, &segments, 1.0).unwrap())
        };
        let apart = |kind| tensors(distance(kind, &student, &teacher, 1.0).unwrap());
        let between = |kind| rkd(kind, &vectors(&row.student), &vectors(&row.teacher));
        let (value, gradient): (f64, Vec<f64>) = match row.kind.as_str() {
            "mse" => apart(Metric::Mse),
            "cosine" => apart(Metric::Cosine),
            "minilm" => related(Relation::Attention { heads: row.heads }),
            "token_similarity" => related(Relation::TokenSimilarity),
            "rkd_distance" => between(Rkd::Distance),
            "rkd_angle" => between(Rkd::Angle),
            other => panic!("{other}"),
        };
        let name = format!("row {number}, {}", row.kind);
        let allowed = RELATIVE * row.value.abs().max(1e-9);
        assert!(
            (value - row.value).abs() <= allowed,
            "{name}: {value} {}",
            row.value
        );
        let largest = row
            .gradient
            .iter()
            .fold(1e-9, |most: f64, x| most.max(x.abs()));
        assert_eq!(gradient.len(), row.gradient.len(), "{name}");
        for (found, expected) in gradient.iter().zip(&row.gradient) {
            let allowed = RELATIVE * expected.abs().max(0.1 * largest);
            assert!(
                (found - expected).abs() <= allowed,
                "{name}: {found} {expected} of {largest}"
            );
        }
    }
}
