//! How far back a page looks, and how it looks itself.

/// How far back, from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// 15 minutes
    Quarter,
    /// 1 hour
    Hour,
    /// 6 hours
    Six,
    /// 24 hours
    Day,
    /// 7 days
    Week,
    /// 30 days
    Month,
}

impl Span {
    /// From the shortest.
    pub const ALL: [Span; 6] = [Span::Quarter, Span::Hour, Span::Six, Span::Day, Span::Week, Span::Month];

    /// As in the URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Span::Quarter => "15m",
            Span::Hour => "1h",
            Span::Six => "6h",
            Span::Day => "24h",
            Span::Week => "7d",
            Span::Month => "30d",
        }
    }

    /// As in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Span::Quarter => "the last 15 minutes",
            Span::Hour => "the last hour",
            Span::Six => "the last 6 hours",
            Span::Day => "the last 24 hours",
            Span::Week => "the last 7 days",
            Span::Month => "the last 30 days",
        }
    }

    /// In milliseconds.
    pub fn millis(self) -> i64 {
        60_000
            * match self {
                Span::Quarter => 15,
                Span::Hour => 60,
                Span::Six => 360,
                Span::Day => 1_440,
                Span::Week => 7 * 1_440,
                Span::Month => 30 * 1_440,
            }
    }

    /// Width of a bar, in milliseconds: about sixty of them, each of whole minutes or hours.
    pub fn bar(self) -> i64 {
        match self {
            Span::Week => 3 * 3_600_000,
            _ => self.millis() / BARS,
        }
    }
}

/// Bars of a chart, whatever the span.
pub const BARS: i64 = 60;

/// Colours that the reader wants, whatever the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Theme {
    /// As in the URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }
}

/// How a page looks and behaves, whatever it shows; links take it along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manner {
    /// `live=off`: the page does not refresh itself.
    pub is_paused: bool,
    /// `tz=UTC`: times stay as the server writes them.
    pub is_utc: bool,
    /// `theme`
    pub theme: Option<Theme>,
}
