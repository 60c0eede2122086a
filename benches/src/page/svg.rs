//! Just enough SVG for the plots of a page.
//!
//! Written here rather than by a plotting library: the page's style sheet gives the plots its colours, light or dark, which
//! libraries that write colours and fonts into every element take away; and an axis of percentiles is not among theirs.

use std::fmt::{self, Display, Write};

/// Text as it may stand within elements and attributes of HTML and XML.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                // No other control character may stand in XML.
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A picture that is being drawn, in its own pixels, from the top left.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    label: String,
    body: String,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// `label` is what is read out instead of it.
    pub(super) fn new(width: f64, height: f64, label: impl Into<String>) -> Self {
        Self { width, height, label: label.into(), body: String::new() }
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        );
    }

    pub(super) fn path(&mut self, points: impl IntoIterator<Item = (f64, f64)>, class: &str) {
        let mut path = String::new();
        for (index, (x, y)) in points.into_iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        if !path.is_empty() {
            let _ = writeln!(self.body, r#"<path d="{path}" class="{class}"/>"#);
        }
    }

    pub(super) fn bar(&mut self, (x, y): (f64, f64), width: f64, height: f64, class: &str) {
        let width = width.max(0.0);
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" class="{class}"/>"#
        );
    }

    pub(super) fn dot(&mut self, (x, y): (f64, f64), radius: f64, class: &str) {
        let _ = writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.1}" class="{class}"/>"#);
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = Escaped(text);
        let _ = writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
    }

    /// The element.
    pub(super) fn finish(self) -> String {
        let Self { width, height, label, body } = self;
        let label = Escaped(&label);
        format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">\n{body}</svg>")
    }
}

/// From numbers to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    log: bool,
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    pub(super) fn linear(from: (f64, f64), to: (f64, f64)) -> Self {
        let high = if from.1 > from.0 { from.1 } else { from.0 + 1.0 };
        Self { log: false, from: (from.0, high), to }
    }

    /// The numbers are above 0; a little room is left around them.
    pub(super) fn log(from: (f64, f64), to: (f64, f64)) -> Self {
        let low = from.0.max(1e-9);
        Self { log: true, from: (low / 1.1, from.1.max(low) * 1.1), to }
    }

    /// Where a number is; at the edge if it is beyond.
    pub(super) fn at(&self, value: f64) -> f64 {
        let place = |value: f64| if self.log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let (low, high) = (place(self.from.0), place(self.from.1));
        let share = ((place(value) - low) / (high - low)).clamp(0.0, 1.0);
        self.to.0 + share * (self.to.1 - self.to.0)
    }

    /// Round numbers to label, no more than `most`.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        let within = |value: &f64| *value >= self.from.0 && *value <= self.from.1 * (1.0 + 1e-9);
        if !self.log {
            let rough = (self.from.1 - self.from.0) / most.max(1) as f64;
            let power = 10_f64.powf(rough.log10().floor());
            let step =
                [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough);
            let step = step.unwrap_or(rough);
            let (first, last) = ((self.from.0 / step).ceil() as i64, (self.from.1 / step).ceil() as i64);
            return (first..=last).map(|times| times as f64 * step).filter(within).collect();
        }
        let decades = self.from.0.log10().floor() as i32..=self.from.1.log10().ceil() as i32;
        let with = |times: &[f64]| -> Vec<f64> {
            let ticks =
                decades.clone().flat_map(|decade| times.iter().map(move |times| times * 10_f64.powi(decade)));
            ticks.filter(within).collect()
        };
        let choices: [&[f64]; 4] = [
            &[1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
            &[1.0, 2.0, 3.0, 5.0, 7.0],
            &[1.0, 2.0, 5.0],
            &[1.0],
        ];
        let fitting = choices.into_iter().map(with).find(|ticks| ticks.len() <= most);
        fitting.unwrap_or_else(|| with(&[1.0]).into_iter().step_by(2).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let scale = Scale::linear((0.0, 13.7), (0.0, 100.0));
        assert_eq!(scale.ticks(5), [0.0, 5.0, 10.0]);
        let scale = Scale::log((40.0, 900.0), (0.0, 100.0));
        assert_eq!(scale.ticks(6), [50.0, 100.0, 200.0, 500.0]);
        let scale = Scale::log((40.0, 900_000.0), (0.0, 100.0));
        assert_eq!(scale.ticks(6), [100.0, 1e3, 1e4, 1e5]);
        let scale = Scale::log((41.0, 44.0), (0.0, 100.0));
        assert_eq!(scale.ticks(6), [40.0]);
    }

    #[test]
    fn numbers_beyond_an_axis_stay_at_its_edge() {
        let scale = Scale::linear((0.0, 10.0), (0.0, 100.0));
        assert_eq!([-5.0, 5.0, 50.0].map(|value| scale.at(value).round() as i64), [0, 50, 100]);
        assert!(Scale::log((0.0, 0.0), (0.0, 100.0)).at(0.0).is_finite());
        assert!(Scale::linear((0.0, 0.0), (0.0, 100.0)).at(0.0).is_finite());
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(Escaped("<a b=\"c\">&'\u{1}").to_string(), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;\u{fffd}");
    }
}
