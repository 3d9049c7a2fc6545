//! As much SVG as one picture needs.
//!
//! Not a chart library: those that draw SVG place things on whole pixels and know no dashes, and
//! the picture is five kinds of shapes.

use std::fmt::Write;

/// A picture under construction. Later shapes lie over earlier ones.
pub struct Svg {
    body: String,
    width: f64,
    height: f64,
}

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
    /// An empty white picture.
    pub fn new(width: f64, height: f64) -> Self {
        Self {
            body: String::new(),
            width,
            height,
        }
    }

    fn push(&mut self, element: std::fmt::Arguments) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// A straight line; `dash` as in `stroke-dasharray`, empty for none.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64, dash: &str) {
        self.push(format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{color}" stroke-width="{width}" stroke-dasharray="{dash}" stroke-linecap="round"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    /// A filled outline.
    pub fn area(&mut self, points: &[(f64, f64)], color: &str, opacity: f64) {
        let points = joined(points);
        self.push(format_args!(
            r#"<polygon points="{points}" fill="{color}" fill-opacity="{opacity}"/>"#
        ));
    }

    /// A line through many points.
    pub fn curve(&mut self, points: &[(f64, f64)], color: &str, width: f64) {
        let points = joined(points);
        self.push(format_args!(
            r#"<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round"/>"#
        ));
    }

    /// A dot.
    pub fn dot(&mut self, (x, y): (f64, f64), radius: f64, color: &str, opacity: f64) {
        self.push(format_args!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{color}" fill-opacity="{opacity}"/>"#
        ));
    }

    /// A line of text on its baseline.
    pub fn text(&mut self, (x, y): (f64, f64), font: Font, text: &str) {
        let anchor = match font.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if font.bold { "600" } else { "400" };
        let (size, color, text) = (font.size, font.color, escaped(text));
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" font-weight="{weight}" fill="{color}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    /// The whole document; `title` is for those who cannot see it.
    pub fn finish(self, title: &str) -> String {
        let Self {
            body,
            width,
            height,
        } = self;
        let title = escaped(title);
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-family="system-ui, 'Segoe UI', Helvetica, Arial, sans-serif">
<title>{title}</title>
<rect width="{width}" height="{height}" fill="#ffffff"/>
{body}</svg>
"##
        )
    }
}

fn joined(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    points.join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("a<b & c"), "a&lt;b &amp; c");
    }
}
