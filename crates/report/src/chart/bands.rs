//! A whole that divides into parts, each a band as wide as its share.

use super::svg::{Anchor, Svg};
use crate::words::{count, percent};

pub struct Band {
    pub name: String,
    pub n: u64,
    pub class: &'static str,
}

const WIDTH: f64 = 760.0;
const TOP: f64 = 10.0;
/// Where the whole stands, where its parts do, and how wide both are.
const WHOLE: f64 = 120.0;
const PARTS: f64 = 400.0;
const BAR: f64 = 14.0;
/// Of a label: bands are no closer, however narrow.
const PITCH: f64 = 22.0;

pub fn bands(whole: &str, parts: &[Band]) -> String {
    let total: u64 = parts.iter().map(|part| part.n).sum();
    let body = (parts.len() as f64 * PITCH * 0.75).clamp(160.0, 420.0);
    let heights: Vec<f64> = parts
        .iter()
        .map(|part| (part.n as f64 / total.max(1) as f64 * body).max(1.0))
        .collect();
    let slots: Vec<f64> = heights
        .iter()
        .map(|height| height.max(PITCH - 6.0) + 6.0)
        .collect();
    let below: f64 = slots.iter().sum();
    let height = below.max(body) + 2.0 * TOP;
    let mut svg = Svg::new(WIDTH, height);
    let sum: f64 = heights.iter().sum();
    let mut left = (height - sum) / 2.0;
    svg.rect(
        [WHOLE - BAR, left, BAR, sum],
        "whole",
        &format!("{whole}: {}", count(total)),
    );
    svg.text(
        [WHOLE - BAR - 8.0, height / 2.0 - 4.0],
        Anchor::End,
        "strong",
        &count(total),
    );
    svg.text(
        [WHOLE - BAR - 8.0, height / 2.0 + 14.0],
        Anchor::End,
        "dim",
        whole,
    );
    let mut slot = (height - below) / 2.0;
    for ((part, thick), pitch) in parts.iter().zip(&heights).zip(&slots) {
        let right = slot + (pitch - thick) / 2.0;
        let share = percent(part.n as f64 / total.max(1) as f64);
        let says = format!("{}: {} ({share} %)", part.name, count(part.n));
        let middle = (WHOLE + PARTS) / 2.0;
        let (left_end, right_end) = (left + thick, right + thick);
        let d = format!(
            "M{WHOLE:.1} {left:.1}C{middle:.1} {left:.1} {middle:.1} {right:.1} {PARTS:.1} {right:.1}\
             L{PARTS:.1} {right_end:.1}C{middle:.1} {right_end:.1} {middle:.1} {left_end:.1} {WHOLE:.1} {left_end:.1}Z"
        );
        svg.path(&d, &format!("band {}", part.class), &says);
        svg.rect([PARTS, right, BAR, *thick], part.class, &says);
        let y = right + thick / 2.0 + 4.5;
        svg.text([PARTS + BAR + 10.0, y], Anchor::Start, "", &says);
        left += thick;
        slot += pitch;
    }
    let label: Vec<_> = parts
        .iter()
        .map(|part| format!("{} {}", count(part.n), part.name))
        .collect();
    svg.finish(&format!("{} {whole}: {}", count(total), label.join(", ")))
}
