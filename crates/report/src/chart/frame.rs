//! The field that bars and curves are drawn in: a grid, round numbers beside it, and what they are of below.

use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::words::short;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

pub struct Frame {
    pub svg: Svg,
    pub across: Scale,
    pub up: Scale,
}

impl Frame {
    /// From left to right `across`, from bottom to top `up`; `x` is what is measured across.
    pub fn new([left, right]: [f64; 2], [bottom, top]: [f64; 2], x: &str) -> Self {
        let across = Scale {
            from: left,
            to: if right > left { right } else { left + 1.0 },
            start: LEFT,
            end: WIDTH - RIGHT,
        };
        let up = Scale {
            from: bottom,
            to: top,
            start: HEIGHT - BOTTOM,
            end: TOP,
        };
        let mut svg = Svg::new(WIDTH, HEIGHT);
        for tick in up.ticks(4) {
            let y = up.at(tick);
            svg.line([across.start, y, across.end, y], "grid");
            svg.text([LEFT - 8.0, y + 4.0], Anchor::End, "dim", &short(tick));
        }
        for tick in across.ticks(6) {
            let place = [across.at(tick), up.start + 17.0];
            svg.text(place, Anchor::Middle, "dim", &short(tick));
        }
        let middle = (LEFT + WIDTH) / 2.0;
        svg.text([middle, HEIGHT - 6.0], Anchor::Middle, "dim", x);
        Self { svg, across, up }
    }

    pub fn finish(mut self, label: &str) -> String {
        let (bottom, across) = (self.up.start, self.across);
        self.svg
            .line([across.start, bottom, across.end, bottom], "axis");
        self.svg.finish(label)
    }
}
