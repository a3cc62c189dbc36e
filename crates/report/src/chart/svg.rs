//! A picture that grows element by element.

use std::fmt::Write;

use minijinja::HtmlEscape;

pub struct Svg {
    body: String,
    width: f64,
    height: f64,
}

#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// An empty one; it scales to the width it is given.
    pub fn new(width: f64, height: f64) -> Self {
        Self {
            body: String::new(),
            width,
            height,
        }
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(element);
    }

    pub fn rect(&mut self, [x, y, width, height]: [f64; 4], class: &str, says: &str) {
        let (class, says) = (HtmlEscape(class), HtmlEscape(says));
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"><title>{says}</title></rect>"
        ));
    }

    pub fn text(&mut self, [x, y]: [f64; 2], anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (class, text) = (HtmlEscape(class), HtmlEscape(text));
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        ));
    }

    pub fn line(&mut self, [x0, y0, x1, y1]: [f64; 4], class: &str) {
        let class = HtmlEscape(class);
        self.push(format_args!(
            "<line x1=\"{x0:.1}\" y1=\"{y0:.1}\" x2=\"{x1:.1}\" y2=\"{y1:.1}\" class=\"{class}\"/>"
        ));
    }

    /// `d` is made of numbers alone.
    pub fn path(&mut self, d: &str, class: &str, says: &str) {
        let (class, says) = (HtmlEscape(class), HtmlEscape(says));
        self.push(format_args!(
            "<path d=\"{d}\" class=\"{class}\"><title>{says}</title></path>"
        ));
    }

    pub fn dot(&mut self, [x, y]: [f64; 2], radius: f64, class: &str, says: &str) {
        let (class, says) = (HtmlEscape(class), HtmlEscape(says));
        self.push(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{class}\"><title>{says}</title></circle>"
        ));
    }

    /// The picture, with what it shows in words for those who do not see it.
    pub fn finish(self, label: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {:.0} {:.0}\" style=\"min-width: {:.0}px; max-width: {:.0}px\" role=\"img\" aria-label=\"{}\">{}</svg>",
            self.width,
            self.height,
            // Letters stay readable on a telephone, and no picture of little grows large.
            self.width * 0.7,
            self.width * 1.15,
            HtmlEscape(label),
            self.body
        )
    }
}
