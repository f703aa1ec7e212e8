//! Method and limits of each series: those of the settings, replaced by those of each override whose patterns match.
//! For each key the last matching override wins.

mod conflict;
mod glob;
mod table;

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{Limits, series_limits};
pub use conflict::LimitsConflict;
pub use glob::glob;
pub use table::{PolicyNumber, PolicyTable, ResolvedPolicy, UNRESOLVED};

impl PolicyOverride {
    /// Returns whether the override applies to the series.
    fn matches(&self, device: &str, metric: &str) -> bool {
        let fits = |pattern: &Option<String>, name| pattern.as_ref().is_none_or(|pattern| glob(pattern, name));
        fits(&self.device, device) && fits(&self.metric, metric)
    }
}

/// A limit, and the setting that it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResolvedLimit<T> {
    /// Value of the limit.
    pub value: T,
    /// Index of the override that sets it; `None` if it comes from the settings of all series.
    pub set_by: Option<usize>,
}

impl<T: Display> ResolvedLimit<T> {
    fn text(&self) -> ResolvedLimit<String> {
        ResolvedLimit { value: self.value.to_string(), set_by: self.set_by }
    }
}

/// Defines the structs that have a field for each limit.
macro_rules! policies {
    ({} { $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:tt, $range:expr;)* }) => {
        /// An override: method and limits for the series whose device and metric match.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct PolicyOverride {
            /// Pattern of devices; `None` matches all.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub device: Option<String>,
            /// Pattern of metrics; `None` matches all.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub metric: Option<String>,
            /// Whether values are judged at all.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub enabled: Option<bool>,
            $(
                $(#[doc = $doc])+
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $key: Option<$type>,
            )*
        }

        /// Method and limits of one series, and the setting that each comes from.
        #[derive(Debug, Clone, PartialEq)]
        pub struct SeriesPolicy {
            /// Whether the series is judged.
            pub enabled: ResolvedLimit<bool>,
            $($(#[doc = $doc])+ pub $key: ResolvedLimit<$type>,)*
        }

        impl SeriesPolicy {
            /// Returns method and limits without their settings.
            pub fn limits(&self) -> Limits {
                Limits { $($key: self.$key.value.clone(),)* }
            }

            /// Returns name, value and setting of each limit, for messages.
            pub fn describe(&self) -> Vec<(&'static str, ResolvedLimit<String>)> {
                let limits = vec![$((stringify!($key), self.$key.text()),)*];
                limits.into_iter().chain([("enabled", self.enabled.text())]).collect()
            }
        }

        /// Method and limits of all series: everything that decides a verdict.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Policy {
            $($(#[doc = $doc])+ pub $key: $type,)*
            /// Overrides in the order of their precedence, the strongest last.
            #[serde(rename = "override")]
            pub overrides: Vec<PolicyOverride>,
        }

        impl Default for Policy {
            fn default() -> Self {
                Policy::new(Limits::default(), Vec::new())
            }
        }

        impl Policy {
            /// Creates a policy from the limits of all series and the overrides.
            pub fn new(limits: Limits, overrides: Vec<PolicyOverride>) -> Self {
                Policy { $($key: limits.$key,)* overrides }
            }

            /// Returns method and limits of a series, and the setting that each comes from.
            pub fn resolve(&self, device: &str, metric: &str) -> SeriesPolicy {
                let overrides = self.overrides.iter().enumerate().rev();
                let matching = overrides.filter(|(_, one)| one.matches(device, metric)).collect::<Vec<_>>();
                SeriesPolicy {
                    enabled: strongest(&matching, |one| one.enabled, true),
                    $($key: strongest(&matching, |one| one.$key.clone(), self.$key.clone()),)*
                }
            }
        }
    };
}

series_limits! { policies! {} }

impl Policy {
    /// Returns the names of all methods that may apply to a series, each once.
    pub fn methods(&self) -> Vec<&str> {
        let of_overrides = self.overrides.iter().filter_map(|one| one.method.as_deref());
        let mut names = of_overrides.chain([self.method.as_str()]).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the greatest number of values that a window may have.
    pub fn largest_window(&self) -> usize {
        self.overrides.iter().filter_map(|one| one.window).fold(self.window, usize::max)
    }

    /// Returns all values by their names.
    pub fn values(&self) -> serde_json::Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(values)) => values,
            _ => serde_json::Map::new(),
        }
    }

    /// Returns the values that are not the default. A setting that a later version adds is absent until it is used, so
    /// a default must never change.
    pub fn changed(&self) -> BTreeMap<String, Value> {
        let defaults = Policy::default().values();
        self.values().into_iter().filter(|(name, value)| defaults.get(name) != Some(value)).collect()
    }

    /// Builds a policy from the result of [`changed`](Self::changed).
    ///
    /// # Errors
    /// Fails if this program does not know a value.
    pub fn from_changed(changed: &BTreeMap<String, Value>) -> Result<Self, String> {
        let values = changed.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        serde_json::from_value(Value::Object(values)).map_err(|e| e.to_string())
    }
}

/// Returns the limit of the strongest override that sets it, or that of all series.
fn strongest<T>(
    matching: &[(usize, &PolicyOverride)],
    limit: impl Fn(&PolicyOverride) -> Option<T>,
    of_all: T,
) -> ResolvedLimit<T> {
    let set = matching.iter().find_map(|(at, one)| Some(ResolvedLimit { value: limit(one)?, set_by: Some(*at) }));
    set.unwrap_or(ResolvedLimit { value: of_all, set_by: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_override_wins_key_by_key() {
        let on = |device: &str| PolicyOverride { device: Some(device.into()), ..PolicyOverride::default() };
        let overrides = vec![
            PolicyOverride { threshold: Some(4.0), window: Some(50), ..on("pump-*") },
            PolicyOverride { threshold: Some(5.0), method: Some("ewma".into()), ..on("fan-*") },
            PolicyOverride { threshold: Some(6.0), metric: Some("temp*".into()), ..on("pump-?") },
            PolicyOverride { enabled: Some(false), metric: Some("noise".into()), ..PolicyOverride::default() },
        ];
        let policy = Policy { overrides, ..Policy::default() };
        assert_eq!(policy.methods(), ["ewma", "sigma"]);
        assert_eq!(policy.resolve("fan-1", "").method, ResolvedLimit { value: "ewma".into(), set_by: Some(1) });
        let series = policy.resolve("pump-1", "temperature");
        assert_eq!(series.threshold, ResolvedLimit { value: 6.0, set_by: Some(2) });
        assert_eq!(series.window, ResolvedLimit { value: 50, set_by: Some(0) });
        assert_eq!(series.min_samples, ResolvedLimit { value: 30, set_by: None });
        assert_eq!(series.enabled, ResolvedLimit { value: true, set_by: None });
        assert_eq!(policy.resolve("pump-12", "temperature").threshold.value, 4.0);
        assert_eq!(policy.resolve("other", "noise").enabled, ResolvedLimit { value: false, set_by: Some(3) });
    }

    #[test]
    fn only_values_that_differ_are_written_and_they_read_back() {
        let silent = PolicyOverride { metric: Some("noise".into()), enabled: Some(false), ..PolicyOverride::default() };
        let policy = Policy { threshold: 0.1 + 0.2, overrides: vec![silent], ..Policy::default() };
        let text = serde_json::to_string(&policy.changed()).unwrap();
        assert_eq!(text, r#"{"override":[{"enabled":false,"metric":"noise"}],"threshold":0.30000000000000004}"#);
        assert_eq!(Policy::from_changed(&serde_json::from_str(&text).unwrap()), Ok(policy));
        assert_eq!(Policy::from_changed(&BTreeMap::new()), Ok(Policy::default()));
        for unknown in [r#"{"season":7}"#, r#"{"override":[{"season":7}]}"#] {
            let refused = Policy::from_changed(&serde_json::from_str(unknown).unwrap()).unwrap_err();
            assert!(refused.contains("season"), "{refused}");
        }
    }
}
