//! Histograms, of one kind or of several on top of each other.

use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::words::{count, short};

/// A bin from `from` to `to`, with a number for each kind.
pub struct Bar {
    pub from: f64,
    pub to: f64,
    pub counts: Vec<u64>,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 22.0;
const BOTTOM: f64 = 40.0;

/// `kinds` are the names and classes of the numbers, from the bottom; `x` is what the bins are of, `y` what is counted.
pub fn bars(bars: &[Bar], kinds: &[(&str, &str)], x: &str, y: &str) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    let low = bars
        .iter()
        .map(|bar| bar.from)
        .fold(f64::INFINITY, f64::min);
    let high = bars
        .iter()
        .map(|bar| bar.to)
        .fold(f64::NEG_INFINITY, f64::max);
    let most = bars
        .iter()
        .map(|bar| bar.counts.iter().sum::<u64>())
        .max()
        .unwrap_or(0);
    let across = Scale {
        from: low,
        to: if high > low { high } else { low + 1.0 },
        start: LEFT,
        end: WIDTH - RIGHT,
    };
    let up = Scale {
        from: 0.0,
        to: most.max(1) as f64 * 1.05,
        start: HEIGHT - BOTTOM,
        end: 12.0,
    };
    for tick in up.ticks(4) {
        svg.line([LEFT, up.at(tick), WIDTH - RIGHT, up.at(tick)], "grid");
        svg.text(
            [LEFT - 8.0, up.at(tick) + 4.0],
            Anchor::End,
            "dim",
            &short(tick),
        );
    }
    for tick in across.ticks(6) {
        svg.text(
            [across.at(tick), HEIGHT - BOTTOM + 17.0],
            Anchor::Middle,
            "dim",
            &short(tick),
        );
    }
    svg.text(
        [(LEFT + WIDTH) / 2.0, HEIGHT - 6.0],
        Anchor::Middle,
        "dim",
        x,
    );
    for bar in bars {
        let (start, end) = (across.at(bar.from), across.at(bar.to));
        // A pixel of air between neighbours, where there is room for it.
        let width = (end - start - 1.0).max(0.8);
        let mut below = 0;
        for (n, (name, class)) in bar.counts.iter().zip(kinds) {
            if *n == 0 {
                continue;
            }
            let (bottom, top) = (up.at(below as f64), up.at((below + n) as f64));
            let says = format!(
                "{} to {}: {} {name}",
                short(bar.from),
                short(bar.to),
                count(*n)
            );
            svg.rect([start, top, width, bottom - top], class, &says);
            below += n;
        }
    }
    svg.line([LEFT, up.at(0.0), WIDTH - RIGHT, up.at(0.0)], "axis");
    svg.finish(&format!("{y} by {x}"))
}
