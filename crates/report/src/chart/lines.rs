//! Curves over steps.

use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::curves::Point;
use crate::words::short;

pub struct Curve<'a> {
    pub name: &'static str,
    pub class: &'static str,
    pub points: &'a [Point],
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 22.0;
const BOTTOM: f64 = 40.0;

/// Means as lines; where a point stands for several steps, their range is shaded.
pub fn lines(curves: &[Curve<'_>], y: &str) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    let points = || curves.iter().flat_map(|curve| curve.points);
    let least = |get: fn(&Point) -> f64| points().map(get).fold(f64::INFINITY, f64::min);
    let most = |get: fn(&Point) -> f64| points().map(get).fold(f64::NEG_INFINITY, f64::max);
    let (first, last) = (least(|p| p.first as f64), most(|p| p.last as f64));
    let across = Scale {
        from: first,
        to: if last > first { last } else { first + 1.0 },
        start: LEFT,
        end: WIDTH - RIGHT,
    };
    let up = Scale::around(least(|p| p.least), most(|p| p.most), HEIGHT - BOTTOM, 12.0);
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
        "optimizer step",
    );
    let place = |x: f64, y: f64| format!("{:.1} {:.1}", across.at(x), up.at(y));
    for curve in curves {
        if curve.points.iter().any(|point| point.most > point.least) {
            let there = curve.points.iter().map(|p| place(p.step(), p.most));
            let back = curve.points.iter().rev().map(|p| place(p.step(), p.least));
            let outline: Vec<_> = there.chain(back).collect();
            svg.path(
                &format!("M{}Z", outline.join("L")),
                &format!("range {}", curve.class),
                curve.name,
            );
        }
        let middle: Vec<_> = curve
            .points
            .iter()
            .map(|p| place(p.step(), p.mean))
            .collect();
        svg.path(
            &format!("M{}", middle.join("L")),
            &format!("curve {}", curve.class),
            curve.name,
        );
        // Few points are no line.
        if curve.points.len() <= 60 {
            for point in curve.points {
                let says = format!("{}, step {}: {}", curve.name, point.last, short(point.mean));
                svg.dot(
                    [across.at(point.step()), up.at(point.mean)],
                    2.2,
                    curve.class,
                    &says,
                );
            }
        }
    }
    svg.line(
        [LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM],
        "axis",
    );
    svg.finish(&format!("{y} by optimizer step"))
}
