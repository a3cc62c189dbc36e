//! Histograms, of one kind or of several on top of each other.

use super::frame::Frame;
use crate::words::{count, short};

/// A bin from `from` to `to`, with a number for each kind.
pub struct Bar {
    pub from: f64,
    pub to: f64,
    pub counts: Vec<u64>,
}

/// `kinds` are the names and classes of the numbers, from the bottom; `x` is what the bins are of, `y` what is counted.
pub fn bars(bars: &[Bar], kinds: &[(&str, &str)], x: &str, y: &str) -> String {
    let low = bars.iter().map(|bar| bar.from);
    let high = bars.iter().map(|bar| bar.to);
    let ends = [
        low.fold(f64::INFINITY, f64::min),
        high.fold(f64::NEG_INFINITY, f64::max),
    ];
    let sums = bars.iter().map(|bar| bar.counts.iter().sum::<u64>());
    let most = sums.max().unwrap_or(0).max(1) as f64;
    let mut frame = Frame::new(ends, [0.0, most * 1.05], x);
    for bar in bars {
        let (start, end) = (frame.across.at(bar.from), frame.across.at(bar.to));
        // A pixel of air between neighbours, where there is room for it.
        let width = (end - start - 1.0).max(0.8);
        let mut below = 0;
        for (n, (name, class)) in bar.counts.iter().zip(kinds).filter(|(n, _)| **n > 0) {
            let (bottom, top) = (frame.up.at(below as f64), frame.up.at((below + n) as f64));
            let says = format!(
                "{} to {}: {} {name}",
                short(bar.from),
                short(bar.to),
                count(*n)
            );
            frame
                .svg
                .rect([start, top, width, bottom - top], class, &says);
            below += n;
        }
    }
    frame.finish(&format!("{y} by {x}"))
}
