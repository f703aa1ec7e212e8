//! Finds settings by their paths.

pub use super::declare::{Section, SettingKey, ShippedFile, TableList, ValueType};
pub use super::resolved::{SECTIONS, TABLES};

/// The table below which any librdkafka property may stand.
pub const PROPERTIES: &str = "kafka.properties";

/// All settings, in the order in which the files show them.
pub fn keys() -> impl Iterator<Item = &'static SettingKey> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// Takes the path of a key in a list of tables apart: `detector.override[0].window` is `detector.override`, 0 and `window`.
pub fn in_table(path: &str) -> Option<(&str, usize, &str)> {
    let (table, rest) = path.split_once('[')?;
    let (at, name) = rest.split_once("].")?;
    Some((table, at.parse().ok()?, name))
}

/// The setting of that path.
pub fn find(path: &str) -> Option<&'static SettingKey> {
    keys().find(|key| key.path == path).or_else(|| {
        let (table, _, name) = in_table(path)?;
        TABLES.iter().find(|list| list.path == table)?.keys.iter().find(|key| key.name == name)
    })
}

/// The known path that is most like this one, if any is.
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
            // The right name in the wrong section.
            (key.name == path.rsplit('.').next()?).then_some((2, key.path))
        }))
        .filter(|(distance, near)| *distance <= near.len() / 3)
        .min()
        .map(|(_, near)| near)
}
