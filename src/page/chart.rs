//! Charts as SVG text, drawn by the server. Positions are in percent across and in pixels down, so that text is never
//! stretched. Text from outside is escaped here. Colours come from classes of the style sheet, never from inline
//! styles.

pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod minutes;
pub(crate) mod scale;
pub(crate) mod spark;

use std::fmt;

use crate::event::Timestamp;

/// Escapes text so that it cannot leave its element or attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            // A page must contain no control characters.
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// A position across, as a percentage of the width.
#[derive(Clone, Copy)]
pub(crate) struct Percent(pub f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}%", self.0.clamp(-1.0, 2.0) * 100.0)
    }
}

/// Formats the tooltip of a shape.
fn title(text: &str) -> String {
    format!("<title>{}</title>", escape(text))
}

/// Formats a tooltip as [`title`] does, beginning with a time that the script may write in another zone.
fn timed_title(time: Timestamp, written: &str, text: &str) -> String {
    format!("<title data-t=\"{time}\">{} UTC: {}</title>", escape(written), escape(text))
}

/// Draws the symbol of one anomaly at a position: a filled diamond or a hollow ring, `size` pixels wide, with its
/// tooltip.
fn symbol(is_critical: bool, x: Percent, y: f64, size: f64, title: &str) -> String {
    let r = size / 2.0;
    if is_critical {
        format!(
            "<svg x=\"{x}\" y=\"{y:.1}\" class=\"o\"><path class=\"c\" d=\"M0 -{r}L{r} 0L0 {r}L-{r} 0z\">{title}</path></svg>"
        )
    } else {
        let r = r - 0.8;
        format!("<circle class=\"r\" cx=\"{x}\" cy=\"{y:.1}\" r=\"{r:.1}\">{title}</circle>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(
            escape("<b a='x' b=\"y\">&\u{0}\u{202e}"),
            "&lt;b a=&#39;x&#39; b=&quot;y&quot;&gt;&amp;\u{fffd}\u{202e}"
        );
        assert!(!title("</title><script>").contains("<script"));
    }
}
