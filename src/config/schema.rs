//! What a setting is: its path, type, range, default and one sentence. Checking, `anomaly check`, the shipped files and the
//! manual page all read the only list of them.

mod keys;
mod sections;

pub use keys::KEYS;
pub use sections::SECTIONS;

/// Which of the shipped files shows a key. Any file may set any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShippedFile {
    /// `common.toml`
    Common,
    /// `producer.toml`
    Producer,
    /// `detector.toml`
    Detector,
    /// `dashboard.toml`
    Dashboard,
}

impl ShippedFile {
    /// All, in the order of the pipeline.
    pub const ALL: [ShippedFile; 4] =
        [ShippedFile::Common, ShippedFile::Producer, ShippedFile::Detector, ShippedFile::Dashboard];

    /// File name without the directory.
    pub fn name(self) -> &'static str {
        match self {
            ShippedFile::Common => "common.toml",
            ShippedFile::Producer => "producer.toml",
            ShippedFile::Detector => "detector.toml",
            ShippedFile::Dashboard => "dashboard.toml",
        }
    }
}

/// Type and range of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueType {
    /// Any string.
    Text,
    /// Path of a file, or "".
    Path,
    /// A string that is never printed.
    Secret,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A whole number, both ends included.
    Integer(i64, i64),
    /// A finite number, both ends included.
    Float(f64, f64),
    /// `true` or `false`.
    Bool,
    /// A string such as "250ms", "10s", "1h 30m", between these many milliseconds.
    Duration(u64, u64),
    /// A string "host:port" with an IP address, or "off".
    Listen,
    /// An RFC 3339 time, or "".
    Time,
    /// A duration of more than nothing, or "".
    Step,
    /// Strings; one string is those between its commas.
    List,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct SettingKey {
    /// Section and name, joined by dots.
    pub path: &'static str,
    /// Type and range.
    pub kind: ValueType,
    /// As TOML.
    pub default: &'static str,
    /// Where the shipped files show it.
    pub file: ShippedFile,
    /// One sentence.
    pub doc: &'static str,
}

/// The table below which any librdkafka property may stand.
pub const PROPERTIES: &str = "kafka.properties";

/// The setting of that path.
pub fn find(path: &str) -> Option<&'static SettingKey> {
    KEYS.iter().find(|key| key.path == path)
}

/// The known path that is most like this one, if any is.
pub fn nearest(path: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| (strsim::damerau_levenshtein(path, key.path), key.path))
        .chain(KEYS.iter().filter_map(|key| {
            // The right name in the wrong section.
            let (name, given) = (key.path.rsplit('.').next()?, path.rsplit('.').next()?);
            (name == given).then_some((2, key.path))
        }))
        .filter(|(distance, near)| *distance <= near.len() / 3)
        .min()
        .map(|(_, near)| near)
}
