//! Estimates with their intervals, one a line.

use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::words::short;

pub struct Interval {
    pub name: String,
    pub value: f64,
    pub ci95: Option<[f64; 2]>,
    /// The value with its interval in words.
    pub says: String,
    pub class: &'static str,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 190.0;
const PITCH: f64 = 30.0;

/// On an axis from `from` to `to`; `zero` draws the line of no difference.
pub fn intervals(rows: &[Interval], from: f64, to: f64, zero: bool, label: &str) -> String {
    let height = rows.len() as f64 * PITCH + 30.0;
    let mut svg = Svg::new(WIDTH, height);
    let across = Scale {
        from,
        to,
        start: LEFT,
        end: WIDTH - RIGHT,
    };
    let bottom = height - 24.0;
    for tick in across.ticks(5) {
        let class = if zero && tick == 0.0 { "axis" } else { "grid" };
        svg.line([across.at(tick), 4.0, across.at(tick), bottom], class);
        svg.text(
            [across.at(tick), height - 6.0],
            Anchor::Middle,
            "dim",
            &short(tick),
        );
    }
    for (at, row) in rows.iter().enumerate() {
        let y = at as f64 * PITCH + 20.0;
        svg.text([LEFT - 12.0, y + 4.5], Anchor::End, "strong", &row.name);
        if let Some([low, high]) = row.ci95 {
            let (low, high) = (across.at(low.max(from)), across.at(high.min(to)));
            svg.line([low, y, high, y], &format!("whisker {}", row.class));
        }
        svg.dot([across.at(row.value), y], 5.0, row.class, &row.says);
        svg.text(
            [WIDTH - RIGHT + 14.0, y + 4.5],
            Anchor::Start,
            "",
            &row.says,
        );
    }
    svg.finish(label)
}
