//! Pictures from numbers, as SVG that stands in the page and takes its colours from the page's styles. What is drawn
//! says its numbers when it is pointed at.

mod bands;
mod bars;
mod frame;
mod intervals;
mod lines;
mod scale;
mod svg;
mod way;

pub use bands::{Band, bands};
pub use bars::{Bar, bars};
pub use intervals::{Interval, intervals};
pub use lines::{Curve, lines};
pub use way::{Station, way};
