//! The five kinds of shapes that the picture is made of.

use svg::node::element::{Circle, Line, Polygon, Polyline, Rectangle, Text, Title};
use svg::{Document, Node};

/// A picture under construction. Later shapes lie over earlier ones.
pub struct Svg(Document);

/// Where a text stands relative to its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub struct Font {
    pub size: f64,
    pub bold: bool,
    pub color: &'static str,
    pub anchor: Anchor,
}

impl Svg {
    /// A white picture; `title` is for those who cannot see it.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let paper = Rectangle::new()
            .set("width", width)
            .set("height", height)
            .set("fill", "#ffffff");
        let document = Document::new()
            .set("viewBox", (0, 0, width, height))
            .set("width", width)
            .set("height", height)
            .set("role", "img")
            .set(
                "font-family",
                "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif",
            );
        Self(document.add(Title::new(title)).add(paper))
    }

    /// A straight line; `dash` as in `stroke-dasharray`, empty for none.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64, dash: &str) {
        let line = Line::new()
            .set("x1", short(from.0))
            .set("y1", short(from.1))
            .set("x2", short(to.0))
            .set("y2", short(to.1))
            .set("stroke", color)
            .set("stroke-width", width)
            .set("stroke-dasharray", dash)
            .set("stroke-linecap", "round");
        self.0.append(line);
    }

    /// A filled outline.
    pub fn area(&mut self, points: &[(f64, f64)], color: &str, opacity: f64) {
        let area = Polygon::new()
            .set("points", joined(points))
            .set("fill", color)
            .set("fill-opacity", opacity);
        self.0.append(area);
    }

    /// A line through many points.
    pub fn curve(&mut self, points: &[(f64, f64)], color: &str, width: f64) {
        let curve = Polyline::new()
            .set("points", joined(points))
            .set("fill", "none")
            .set("stroke", color)
            .set("stroke-width", width)
            .set("stroke-linejoin", "round");
        self.0.append(curve);
    }

    /// A dot.
    pub fn dot(&mut self, (x, y): (f64, f64), radius: f64, color: &str, opacity: f64) {
        let dot = Circle::new()
            .set("cx", short(x))
            .set("cy", short(y))
            .set("r", radius)
            .set("fill", color)
            .set("fill-opacity", opacity);
        self.0.append(dot);
    }

    /// A line of text on its baseline.
    pub fn text(&mut self, (x, y): (f64, f64), font: Font, text: &str) {
        let anchor = match font.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = Text::new(text)
            .set("x", short(x))
            .set("y", short(y))
            .set("font-size", font.size)
            .set("font-weight", if font.bold { 600 } else { 400 })
            .set("fill", font.color)
            .set("text-anchor", anchor);
        self.0.append(text);
    }

    /// The whole document.
    pub fn finish(self) -> String {
        format!("{}\n", self.0)
    }
}

/// A tenth of a pixel is more than anybody sees.
fn short(number: f64) -> String {
    format!("{number:.1}")
}

fn joined(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    points.join(" ")
}
