//! Curves over steps.

use super::frame::Frame;
use super::scale::around;
use crate::curves::Point;
use crate::words::short;

pub struct Curve<'a> {
    pub name: &'static str,
    pub class: &'static str,
    pub points: &'a [Point],
}

/// Points that are few enough to be marked one by one.
const MARKED: usize = 60;

/// Means as lines; where a point stands for several steps, their range is shaded.
pub fn lines(curves: &[Curve<'_>], y: &str) -> String {
    let points = || curves.iter().flat_map(|curve| curve.points);
    let least = |get: fn(&Point) -> f64| points().map(get).fold(f64::INFINITY, f64::min);
    let most = |get: fn(&Point) -> f64| points().map(get).fold(f64::NEG_INFINITY, f64::max);
    let steps = [least(|p| p.first as f64), most(|p| p.last as f64)];
    let values = around(least(|p| p.least), most(|p| p.most));
    let mut frame = Frame::new(steps, values, "optimizer step");
    let (across, up) = (frame.across, frame.up);
    let place = |x: f64, y: f64| format!("{:.1} {:.1}", across.at(x), up.at(y));
    for Curve {
        name,
        class,
        points,
    } in curves
    {
        if points.iter().any(|point| point.most > point.least) {
            let there = points.iter().map(|p| place(p.step(), p.most));
            let back = points.iter().rev().map(|p| place(p.step(), p.least));
            let outline: Vec<_> = there.chain(back).collect();
            let d = format!("M{}Z", outline.join("L"));
            frame.svg.path(&d, &format!("range {class}"), name);
        }
        let middle: Vec<_> = points.iter().map(|p| place(p.step(), p.mean)).collect();
        let d = format!("M{}", middle.join("L"));
        frame.svg.path(&d, &format!("curve {class}"), name);
        for point in points.iter().filter(|_| points.len() <= MARKED) {
            let says = format!("{name}, step {}: {}", point.last, short(point.mean));
            let place = [across.at(point.step()), up.at(point.mean)];
            frame.svg.dot(place, 2.2, class, &says);
        }
    }
    frame.finish(&format!("{y} by optimizer step"))
}
