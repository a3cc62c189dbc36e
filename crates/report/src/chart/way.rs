//! The stages of a run, one behind the other.

use super::svg::{Anchor, Svg};

/// A stage with what it left.
pub struct Station {
    pub title: String,
    /// The number that says most, and what it counts.
    pub value: String,
    pub unit: String,
    pub lines: Vec<String>,
    /// It came to its end.
    pub complete: bool,
}

const WIDTH: f64 = 176.0;
const GAP: f64 = 34.0;
const LINE: f64 = 17.0;

pub fn way(stations: &[Station]) -> String {
    let n = stations.len() as f64;
    let lines = stations.iter().map(|s| s.lines.len()).max().unwrap_or(0);
    let height = 84.0 + lines as f64 * LINE;
    let mut svg = Svg::new(n * WIDTH + (n - 1.0).max(0.0) * GAP + 2.0, height + 2.0);
    for (at, station) in stations.iter().enumerate() {
        let x = 1.0 + at as f64 * (WIDTH + GAP);
        if at > 0 {
            let (from, to, y) = (x - GAP + 4.0, x - 5.0, 42.0);
            svg.line([from, y, to, y], "flow");
            let head = format!(
                "M{:.1} {:.1}L{to:.1} {y:.1}L{:.1} {:.1}",
                to - 7.0,
                y - 5.0,
                to - 7.0,
                y + 5.0
            );
            svg.path(&head, "flow", "");
        }
        let class = if station.complete {
            "station"
        } else {
            "station open"
        };
        svg.rect([x, 1.0, WIDTH, height], class, &station.title);
        svg.text([x + 14.0, 25.0], Anchor::Start, "strong", &station.title);
        svg.text([x + 14.0, 54.0], Anchor::Start, "value", &station.value);
        svg.text([x + 14.0, 73.0], Anchor::Start, "dim", &station.unit);
        for (line, text) in station.lines.iter().enumerate() {
            let y = 73.0 + (line + 1) as f64 * LINE;
            svg.text([x + 14.0, y], Anchor::Start, "dim", text);
        }
    }
    let label: Vec<_> = stations
        .iter()
        .map(|s| format!("{}: {} {}", s.title, s.value, s.unit))
        .collect();
    svg.finish(&label.join("; "))
}
