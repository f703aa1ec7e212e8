//! Collected settings: each value with the place that set it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::report::SettingOrigin;

/// One value and the place that it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingValue {
    /// The value, checked against the schema.
    pub value: Value,
    /// The place that set the value.
    pub origin: SettingOrigin,
}

/// Maps the path of a key to its value; every key of the schema is present.
pub(crate) type SettingValues = BTreeMap<String, SettingValue>;
