//! What training measured.

use super::Picture;
use crate::chart::{self, Curve};
use crate::curves::{Curves, Series};

/// Of the curves of a picture, in their order.
const CLASSES: [&str; 2] = ["student", "teacher"];

pub fn describe(of: &Curves) -> Vec<Picture> {
    [
        picture(
            "Loss, nats per token",
            &[("train", &of.loss), ("validation", &of.validation)],
        ),
        picture(
            "Parts of the loss",
            &[("hard", &of.hard), ("soft", &of.soft)],
        ),
        picture(
            "Features and relations",
            &[("features", &of.features), ("relations", &of.relations)],
        ),
        picture(
            "Agreement with the teacher's first choice",
            &[("agreement", &of.agreement)],
        ),
        picture("Gradient norm", &[("gradient norm", &of.grad_norm)]),
        picture("Learning rate", &[("learning rate", &of.learning_rate)]),
        picture(
            "Tokens per second",
            &[("tokens per second", &of.tokens_per_second)],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// None where nothing was measured.
fn picture(title: &'static str, series: &[(&'static str, &Series)]) -> Option<Picture> {
    let curves: Vec<_> = series
        .iter()
        .zip(CLASSES)
        .filter(|((_, series), _)| !series.points().is_empty())
        .map(|(&(name, series), class)| Curve {
            name,
            class,
            points: series.points(),
        })
        .collect();
    let legend: Vec<_> = curves
        .iter()
        .map(|curve| (curve.name, curve.class))
        .collect();
    (!curves.is_empty()).then(|| Picture {
        title,
        svg: chart::lines(&curves, title),
        legend: if legend.len() > 1 { legend } else { Vec::new() },
    })
}
