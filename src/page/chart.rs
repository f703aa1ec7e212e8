//! Charts as SVG text, drawn by the server: positions in percent across and pixels down, so that text is never stretched.
//! Whatever comes from outside is escaped here. Nothing is styled inline: the style sheet gives classes their colours.

pub mod explain;
pub mod history;
pub mod minutes;
pub mod scale;
pub mod spark;

use std::fmt;

use crate::event::Timestamp;

/// Text that cannot leave its element or attribute.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            // No control character belongs into a page.
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// A share of the width, from 0 to 1.
#[derive(Clone, Copy)]
pub struct Percent(pub f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}%", self.0.clamp(-1.0, 2.0) * 100.0)
    }
}

/// What a shape says when it is pointed at.
fn title(text: &str) -> String {
    format!("<title>{}</title>", escape(text))
}

/// As [`title`], beginning with a time that the script may write in another zone.
fn timed_title(time: Timestamp, written: &str, text: &str) -> String {
    format!("<title data-t=\"{time}\">{} UTC: {}</title>", escape(written), escape(text))
}

/// The mark of one anomaly at a place: a filled diamond or a hollow ring, `size` pixels from edge to edge; with its title.
fn mark(is_critical: bool, x: Percent, y: f64, size: f64, title: &str) -> String {
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
