//! The parts of the page, each made of one stage's files.

pub mod dataset;
pub mod scores;
pub mod training;

use serde::Serialize;

#[derive(Serialize)]
pub struct Picture {
    pub title: &'static str,
    /// Names and classes, where there are several.
    pub legend: Vec<(&'static str, &'static str)>,
    pub svg: String,
}
