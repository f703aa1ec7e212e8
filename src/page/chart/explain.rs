//! The chart of one anomaly: the window's line in its expected band, the mean, and the abnormal value. The horizontal
//! axis is the order of arrival, not time, because the window stores no times.

use std::fmt::Write;

use super::scale::Scale;
use super::{Percent, escape, symbol, title};
use crate::anomaly::{Anomaly, Direction, Severity};
use crate::page::view::format::{DisplayedNumbers, signed};

/// Three drawings of equal height, for three columns.
pub(crate) struct WindowChart {
    /// Labels of the vertical axis.
    pub left: String,
    /// The plot with line, band and value.
    pub plot: String,
    /// Names of the lines, at their heights.
    pub right: String,
}

/// Size and level of detail of a chart.
#[derive(Clone, Copy)]
pub(crate) struct ChartSize {
    height: f64,
    ticks: usize,
    is_full: bool,
}

impl ChartSize {
    /// The chart on the page of one anomaly.
    pub(crate) const LARGE: ChartSize = ChartSize { height: 300.0, ticks: 5, is_full: true };
    /// One of several charts in a row.
    pub(crate) const SMALL: ChartSize = ChartSize { height: 104.0, ticks: 3, is_full: false };
}

/// Multiple of the threshold beyond which the axis is broken. Otherwise band and window would look like one line.
const BREAK_FROM: f64 = 25.0 / 3.0;
/// Share of the height that band and window keep when the axis is broken.
const UNBROKEN_SHARE: f64 = 0.6;

/// Vertical positions of the chart, in pixels.
struct Layout {
    scale: Scale,
    /// Position of the abnormal value.
    value: f64,
    is_broken: bool,
    /// Position of the plot's lower edge.
    bottom: f64,
}

fn layout(anomaly: &Anomaly, after: &[f64], size: ChartSize) -> Layout {
    let (top, bottom) = if size.is_full { (18.0, size.height - 30.0) } else { (10.0, size.height - 8.0) };
    let inner = anomaly.window.iter().chain(after).copied().chain([anomaly.lower, anomaly.upper]);
    let inner = inner.chain(anomaly.expected);
    // Without a deviation the band is a line, and any other value is beyond it.
    let is_broken = anomaly.times_threshold() > BREAK_FROM;
    if !is_broken {
        let scale = Scale::over(inner.chain([anomaly.metric_value]), 0.07, bottom, top);
        return Layout { value: scale.y(anomaly.metric_value), scale, is_broken, bottom };
    }
    let kept = (bottom - top) * UNBROKEN_SHARE;
    if anomaly.direction == Direction::Low {
        Layout { scale: Scale::over(inner, 0.07, top + kept, top), value: bottom - 12.0, is_broken, bottom }
    } else {
        Layout { scale: Scale::over(inner, 0.07, bottom, bottom - kept), value: top, is_broken, bottom }
    }
}

/// Horizontal positions: the window, the abnormal value at some distance, and the values after it.
#[derive(Clone, Copy)]
struct Across {
    count: usize,
    after: usize,
    /// Position of the window's end, in percent.
    end: f64,
}

impl Across {
    fn of(count: usize, after: usize) -> Across {
        let end = if after == 0 { 0.935 } else { 0.935 * count as f64 / (count + after + 2) as f64 };
        Across { count, after, end }
    }

    /// Returns the position of value `i` of the window. The abnormal value is `i = count`, and later values follow.
    fn at(self, i: usize) -> Percent {
        let own = self.end + 0.035;
        Percent(match i.checked_sub(self.count) {
            None => i as f64 / self.count.saturating_sub(1).max(1) as f64 * self.end,
            Some(0) => own,
            Some(k) => own + k as f64 / self.after.max(1) as f64 * (0.985 - own),
        })
    }
}

/// Draws the chart; `after` are the values that followed the anomaly, as far as they are known.
pub(crate) fn draw(anomaly: &Anomaly, figures: &DisplayedNumbers, size: ChartSize, after: &[f64]) -> WindowChart {
    let layout = layout(anomaly, after, size);
    let across = Across::of(anomaly.window.len(), after.len());
    let height = size.height;
    let open = |more: &str| format!("<svg class=\"chart\" width=\"100%\" height=\"{height}\"{more}>");
    let label = escape(&words(anomaly, figures, after.len()));
    let mut plot = open(&format!(" role=\"img\" aria-label=\"{label}\""));
    let mut left = open(" aria-hidden=\"true\"");
    let (ticks, decimals) = layout.scale.ticks(size.ticks);
    for tick in ticks {
        let y = layout.scale.y(tick);
        let _ = write!(plot, "<line class=\"grid\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let text = crate::page::view::format::number(tick, decimals);
        let _ = write!(
            left,
            "<text class=\"t\" x=\"100%\" dx=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            y + 4.0
        );
    }
    left += "</svg>";
    band(&mut plot, anomaly, &layout);
    line(&mut plot, &anomaly.window, 0, across, &layout, size);
    line(&mut plot, after, anomaly.window.len() + 1, across, &layout, size);
    value(&mut plot, anomaly, figures, across, &layout, size);
    if size.is_full {
        order(&mut plot, across, layout.bottom);
    }
    plot += "</svg>";
    WindowChart { left, plot, right: open(" aria-hidden=\"true\"") + &names(anomaly, figures, &layout) + "</svg>" }
}

fn words(anomaly: &Anomaly, figures: &DisplayedNumbers, after: usize) -> String {
    let DisplayedNumbers { value, lower, upper, expected, z, .. } = figures;
    let mean = if anomaly.mean.is_some() { format!(", mean {expected}") } else { String::new() };
    let count = anomaly.window.len();
    let after = if after == 0 { String::new() } else { format!("; {after} values after it") };
    format!("{count} values before, expected {lower} to {upper}{mean}; then {value}, {z}{after}")
}

/// Where the expected value is; without one, the middle of the band.
fn middle(anomaly: &Anomaly, layout: &Layout) -> f64 {
    layout.scale.y(anomaly.expected.unwrap_or(anomaly.upper / 2.0 + anomaly.lower / 2.0))
}

fn band(plot: &mut String, anomaly: &Anomaly, layout: &Layout) {
    let (top, bottom, mean) = (layout.scale.y(anomaly.upper), layout.scale.y(anomaly.lower), middle(anomaly, layout));
    let _ = write!(plot, "<rect class=\"b\" width=\"100%\" y=\"{top:.1}\" height=\"{:.1}\"/>", bottom - top);
    for y in [top, bottom] {
        let _ = write!(plot, "<line class=\"be\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
    }
    let _ = write!(plot, "<line class=\"mean\" x2=\"100%\" y1=\"{mean:.1}\" y2=\"{mean:.1}\"/>");
}

/// Draws the line of values from position `first` on.
fn line(plot: &mut String, values: &[f64], first: usize, across: Across, layout: &Layout, size: ChartSize) {
    if values.is_empty() {
        return;
    }
    let height = size.height;
    let (start, end) = (across.at(first), across.at(first + values.len() - 1));
    // The line is stretched to the width, but its stroke width is not.
    let width = Percent((end.0 - start.0).max(0.001));
    let _ = write!(
        plot,
        "<svg x=\"{start}\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 99 {height}\" preserveAspectRatio=\"none\" class=\"o\">\
         <polyline class=\"l\" points=\""
    );
    let step = 99.0 / values.len().saturating_sub(1).max(1) as f64;
    for (i, value) in values.iter().enumerate() {
        let _ = write!(plot, "{:.2},{:.1} ", i as f64 * step, layout.scale.y(*value));
    }
    *plot += "\"/></svg>";
    if size.is_full && across.count <= 200 {
        for (i, value) in values.iter().enumerate() {
            let (x, y) = (across.at(first + i), layout.scale.y(*value));
            let place = match (first + i).checked_sub(across.count) {
                None => format!("\u{2212}{}", across.count - i),
                Some(after) => format!("+{after}"),
            };
            let title = format!("{place}: {}", signed(*value));
            let _ =
                write!(plot, "<circle class=\"d\" cx=\"{x}\" cy=\"{y:.1}\" r=\"1.8\"><title>{title}</title></circle>");
        }
    }
}

fn value(
    plot: &mut String,
    anomaly: &Anomaly,
    figures: &DisplayedNumbers,
    across: Across,
    layout: &Layout,
    size: ChartSize,
) {
    let is_critical = anomaly.severity == Severity::Critical;
    let class = if is_critical { "c" } else { "r" };
    let (x, mean, end) = (across.at(across.count), middle(anomaly, layout), layout.value);
    let _ = write!(plot, "<line class=\"s {class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{mean:.1}\" y2=\"{end:.1}\"/>");
    if layout.is_broken {
        let middle = if end < mean {
            (end + layout.scale.y(anomaly.upper)) / 2.0
        } else {
            (end + layout.scale.y(anomaly.lower)) / 2.0
        };
        let _ = write!(
            plot,
            "<svg x=\"{x}\" y=\"{middle:.1}\" class=\"o\"><path class=\"gap\" d=\"M-7 3L7 -3\"/>\
             <path class=\"slash\" d=\"M-8 0.5L8 -6.5M-8 6.5L8 -0.5\"/><title>the axis is broken here</title></svg>"
        );
    }
    *plot += &symbol(is_critical, x, end, if size.is_full { 14.0 } else { 11.0 }, &title(&figures.value));
    if size.is_full {
        let text = format!("{} \u{b7} {}", figures.value, figures.z);
        let _ = write!(
            plot,
            "<text class=\"v {class}\" x=\"{x}\" dx=\"-14\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            end + 4.5,
            escape(&text)
        );
    }
}

/// Draws the order of arrival below the plot.
fn order(plot: &mut String, across: Across, bottom: f64) {
    let count = across.count;
    let y = bottom + 22.0;
    let step = count.div_ceil(5).max(1);
    let mut tick = |i: usize, text: String, anchor: &str, class: &str| {
        let x = across.at(i);
        let _ = write!(
            plot,
            "<line class=\"tick\" x1=\"{x}\" x2=\"{x}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"t{class}\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>",
            bottom + 6.0,
            bottom + 10.0
        );
    };
    for i in (0..count).step_by(step) {
        // The last label would touch `this`.
        if count - i > step / 2 || i == 0 {
            let class = if (i / step) % 2 == 1 { " odd" } else { "" };
            tick(i, format!("\u{2212}{}", count - i), if i == 0 { "start" } else { "middle" }, class);
        }
    }
    tick(count, "this".to_owned(), "middle", " strong");
    if across.after > 3 {
        tick(count + across.after, format!("+{}", across.after), "end", "");
    }
}

/// Draws the names of the three lines, moved apart where they would overlap.
fn names(anomaly: &Anomaly, figures: &DisplayedNumbers, layout: &Layout) -> String {
    let y = |value: f64| layout.scale.y(value) + 4.0;
    let mean = middle(anomaly, layout) + 4.0;
    let middle = if anomaly.mean.is_some() { "mean" } else { "expected" };
    let lines = [
        ("upper", &figures.upper, y(anomaly.upper).min(mean - 14.0)),
        (middle, &figures.expected, mean),
        ("lower", &figures.lower, y(anomaly.lower).max(mean + 14.0)),
    ];
    lines.iter().fold(String::new(), |mut text, (name, value, y)| {
        let _ = write!(text, "<text class=\"t2\" x=\"12\" y=\"{y:.1}\">{name} {}</text>", escape(value));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::chart::spark::tests::sample;

    fn drawn(anomaly: &Anomaly) -> WindowChart {
        draw(anomaly, &DisplayedNumbers::of(anomaly), ChartSize::LARGE, &[])
    }

    #[test]
    fn band_line_and_value_lie_where_the_figures_say() {
        // 7 to 18, plus 7 % on both sides, on 252 pixels.
        let chart = drawn(&sample(18.0));
        let y = |v: f64| 270.0 - (v - (7.0 - 0.77)) / (11.0 * 1.14) * 252.0;
        let band =
            format!("<rect class=\"b\" width=\"100%\" y=\"{:.1}\" height=\"{:.1}\"/>", y(13.0), y(7.0) - y(13.0));
        assert!(chart.plot.contains(&band), "{}", chart.plot);
        assert!(chart.plot.contains(&format!("points=\"0.00,{:.1} 33.00,{:.1} ", y(9.0), y(11.0))));
        assert!(chart.plot.contains(&format!("y1=\"{:.1}\" y2=\"{:.1}\"", y(10.0), y(18.0))));
        assert!(!chart.plot.contains("slash"));
    }

    #[test]
    fn values_after_the_anomaly_are_drawn_to_its_right() {
        let anomaly = sample(18.0);
        let chart = draw(&anomaly, &DisplayedNumbers::of(&anomaly), ChartSize::LARGE, &[10.0, 9.0, 11.0, 10.0]);
        for title in ["<title>\u{2212}4: 9</title>", "<title>+1: 10</title>", "<title>+4: 10</title>"] {
            assert!(chart.plot.contains(title), "no {title} in {}", chart.plot);
        }
        assert!(chart.plot.contains("; 4 values after it") && chart.plot.contains(">+4</text>"), "{}", chart.plot);
        let across = Across::of(4, 4);
        assert!(across.at(3).0 < across.at(4).0 && across.at(4).0 < across.at(5).0 && across.at(8).0 < 1.0);
    }

    #[test]
    fn a_far_value_breaks_the_axis_and_the_window_keeps_its_share() {
        for value in [1e9, -1e9] {
            let chart = drawn(&sample(value));
            assert!(chart.plot.contains("slash"));
            let layout = layout(&sample(value), &[], ChartSize::LARGE);
            assert!((layout.scale.y(7.0) - layout.scale.y(13.0)).abs() > 252.0 * 0.5);
        }
    }

    #[test]
    fn no_figure_of_any_size_makes_a_number_that_is_none() {
        for value in [f64::MAX, f64::MIN, 0.0, 5e-324] {
            let odd = Anomaly {
                window: vec![value; 3],
                lower: value,
                upper: value,
                expected: Some(value),
                z_score: None,
                score: f64::MAX,
                ..sample(value)
            };
            for size in [ChartSize::LARGE, ChartSize::SMALL] {
                let chart = draw(&odd, &DisplayedNumbers::of(&odd), size, &[value; 3]);
                assert!(!(chart.plot.contains("NaN") || chart.plot.contains("inf")), "{}", chart.plot);
            }
        }
        let none = Anomaly { window: Vec::new(), ..sample(14.0) };
        assert!(!drawn(&none).plot.contains("NaN"));
    }
}
