//! Finds settings by their paths.

pub use super::declare::{Section, SettingKey, ShippedFile, ValueType};
pub use super::resolved::SECTIONS;

/// The table below which any librdkafka property may stand.
pub const PROPERTIES: &str = "kafka.properties";

/// All settings, in the order in which the files show them.
pub fn keys() -> impl Iterator<Item = &'static SettingKey> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The setting of that path.
pub fn find(path: &str) -> Option<&'static SettingKey> {
    keys().find(|key| key.path == path)
}

/// The known path that is most like this one, if any is.
pub fn nearest(path: &str) -> Option<&'static str> {
    keys()
        .map(|key| (strsim::damerau_levenshtein(path, key.path), key.path))
        .chain(keys().filter_map(|key| {
            // The right name in the wrong section.
            let (name, given) = (key.path.rsplit('.').next()?, path.rsplit('.').next()?);
            (name == given).then_some((2, key.path))
        }))
        .filter(|(distance, near)| *distance <= near.len() / 3)
        .min()
        .map(|(_, near)| near)
}
