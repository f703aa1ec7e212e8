//! Finds settings by their paths.

pub use super::declare::{Section, SettingKey, ShippedFile, TableList, ValueType};
pub use super::resolved::{SECTIONS, TABLES};

/// The table that accepts any librdkafka property.
pub const PROPERTIES: &str = "kafka.properties";

/// Iterates over all settings, in the order in which the files show them.
pub fn keys() -> impl Iterator<Item = &'static SettingKey> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// Splits the path of a key in a list of tables: `detector.override[0].window` gives `detector.override`, 0 and
/// `window`.
pub fn in_table(path: &str) -> Option<(&str, usize, &str)> {
    let (table, rest) = path.split_once('[')?;
    let (at, name) = rest.split_once("].")?;
    Some((table, at.parse().ok()?, name))
}

/// Finds the setting with a path.
pub fn find(path: &str) -> Option<&'static SettingKey> {
    keys().find(|key| key.path == path).or_else(|| {
        let (table, _, name) = in_table(path)?;
        TABLES.iter().find(|list| list.path == table)?.keys.iter().find(|key| key.name == name)
    })
}

/// Returns the known path that is most similar to this one, if one is similar.
pub fn nearest(path: &str) -> Option<&'static str> {
    if let Some((table, _, name)) = in_table(path) {
        let keys = TABLES.iter().filter(|list| list.path == table).flat_map(|list| list.keys);
        return keys
            .map(|key| (strsim::damerau_levenshtein(name, key.name), key.name))
            .filter(|(distance, near)| *distance <= near.len() / 3)
            .min()
            .map(|(_, near)| near);
    }
    let tables = TABLES.iter().map(|list| list.path);
    keys()
        .map(|key| key.path)
        .chain(tables)
        .map(|near| (strsim::damerau_levenshtein(path, near), near))
        .chain(keys().filter_map(|key| {
            // The name is right, but in the wrong section.
            (key.name == path.rsplit('.').next()?).then_some((2, key.path))
        }))
        .filter(|(distance, near)| *distance <= near.len() / 3)
        .min()
        .map(|(_, near)| near)
}
