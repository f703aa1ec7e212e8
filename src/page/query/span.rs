//! The time span of a page and its display preferences.

/// A time span that ends at the current time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// The last 15 minutes before now
    Quarter,
    /// The last hour before now
    Hour,
    /// The last 6 hours before now
    Six,
    /// The last 24 hours before now
    Day,
    /// The last 7 days before now
    Week,
    /// The last 30 days before now
    Month,
}

impl Span {
    /// All spans, the shortest first.
    pub(crate) const ALL: [Span; 6] = [Span::Quarter, Span::Hour, Span::Six, Span::Day, Span::Week, Span::Month];

    /// Returns the name in the URL.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Span::Quarter => "15m",
            Span::Hour => "1h",
            Span::Six => "6h",
            Span::Day => "24h",
            Span::Week => "7d",
            Span::Month => "30d",
        }
    }

    /// Describes the span in a sentence.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Span::Quarter => "the last 15 minutes",
            Span::Hour => "the last hour",
            Span::Six => "the last 6 hours",
            Span::Day => "the last 24 hours",
            Span::Week => "the last 7 days",
            Span::Month => "the last 30 days",
        }
    }

    /// Returns the length in milliseconds.
    pub(crate) fn millis(self) -> i64 {
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

    /// Returns the width of a bar in milliseconds. A span has about sixty bars, each of whole minutes or hours.
    pub(crate) fn bar(self) -> i64 {
        match self {
            Span::Week => 3 * 3_600_000,
            _ => self.millis() / BARS,
        }
    }
}

/// Number of bars of a chart, for every span.
pub(crate) const BARS: i64 = 60;

/// A colour theme that the user has chosen instead of the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Dark text on a light background.
    Light,
    /// Light text on a dark background.
    Dark,
}

impl Theme {
    /// Returns the name in the URL.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }
}

/// Display preferences, independent of what the page shows; links to other pages keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Manner {
    /// `live=off`: the page does not refresh itself.
    pub is_paused: bool,
    /// `tz=UTC`: times are shown in UTC.
    pub is_utc: bool,
    /// `theme`: the colour theme; `None` for the system's.
    pub theme: Option<Theme>,
}
