//! Which limits apply to a series: those of the settings, then those of each override whose patterns match. The last
//! matching override wins, key by key.

/// Limits that replace others for the series whose device and metric match.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyOverride {
    /// Pattern of devices; `None` matches all.
    pub device: Option<String>,
    /// Pattern of metrics; `None` matches all.
    pub metric: Option<String>,
    /// Number of preceding values that a value is compared with.
    pub window: Option<usize>,
    /// Number of deviations beyond which a value is abnormal.
    pub threshold: Option<f64>,
    /// Number of preceding values that a series needs before its values are judged.
    pub min_samples: Option<usize>,
    /// Lower limit of the deviation, in the value's unit.
    pub min_std_dev: Option<f64>,
    /// Lower limit of the deviation, as a share of |mean|.
    pub min_relative_std_dev: Option<f64>,
    /// Whether values are judged at all.
    pub enabled: Option<bool>,
}

impl PolicyOverride {
    /// Whether it applies to the series.
    fn matches(&self, device: &str, metric: &str) -> bool {
        let fits = |pattern: &Option<String>, name| pattern.as_ref().is_none_or(|pattern| glob(pattern, name));
        fits(&self.device, device) && fits(&self.metric, metric)
    }
}

/// A limit and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResolvedLimit<T> {
    /// The limit.
    pub value: T,
    /// Index of the override that sets it; `None`: the settings of all series.
    pub set_by: Option<usize>,
}

/// The limits of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesPolicy {
    /// See [`PolicyOverride::window`].
    pub window: ResolvedLimit<usize>,
    /// See [`PolicyOverride::threshold`].
    pub threshold: ResolvedLimit<f64>,
    /// See [`PolicyOverride::min_samples`].
    pub min_samples: ResolvedLimit<usize>,
    /// See [`PolicyOverride::min_std_dev`].
    pub min_std_dev: ResolvedLimit<f64>,
    /// See [`PolicyOverride::min_relative_std_dev`].
    pub min_relative_std_dev: ResolvedLimit<f64>,
    /// See [`PolicyOverride::enabled`].
    pub enabled: ResolvedLimit<bool>,
}

/// The limits of all series.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Number of preceding values that a value is compared with.
    pub window: usize,
    /// Number of deviations beyond which a value is abnormal.
    pub threshold: f64,
    /// Number of preceding values that a series needs before its values are judged.
    pub min_samples: usize,
    /// Lower limit of the deviation, in the value's unit.
    pub min_std_dev: f64,
    /// Lower limit of the deviation, as a share of |mean|.
    pub min_relative_std_dev: f64,
    /// In the order of their precedence, the strongest last.
    pub overrides: Vec<PolicyOverride>,
}

impl Policy {
    /// The limits that apply to a series, and where each comes from.
    pub fn resolve(&self, device: &str, metric: &str) -> SeriesPolicy {
        let overrides = self.overrides.iter().enumerate().rev();
        let matching = overrides.filter(|(_, one)| one.matches(device, metric)).collect::<Vec<_>>();
        SeriesPolicy {
            window: strongest(&matching, |one| one.window, self.window),
            threshold: strongest(&matching, |one| one.threshold, self.threshold),
            min_samples: strongest(&matching, |one| one.min_samples, self.min_samples),
            min_std_dev: strongest(&matching, |one| one.min_std_dev, self.min_std_dev),
            min_relative_std_dev: strongest(&matching, |one| one.min_relative_std_dev, self.min_relative_std_dev),
            enabled: strongest(&matching, |one| one.enabled, true),
        }
    }
}

/// The limit of the first override that sets it, or the one of all series.
fn strongest<T>(
    matching: &[(usize, &PolicyOverride)],
    limit: impl Fn(&PolicyOverride) -> Option<T>,
    of_all: T,
) -> ResolvedLimit<T> {
    let set = matching.iter().find_map(|(at, one)| Some(ResolvedLimit { value: limit(one)?, set_by: Some(*at) }));
    set.unwrap_or(ResolvedLimit { value: of_all, set_by: None })
}

/// Whether a name matches a pattern: `*` stands for any characters, also none, and `?` for one. Both match whole names.
///
/// On a mismatch the last `*` takes one character more, so that the time is at most the product of both lengths.
pub fn glob(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // What follows the last star, and where the text begins that it must match.
    let mut star = None;
    loop {
        let here = name.clone();
        match (pattern.next(), name.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((pattern.clone(), here.clone()));
                name = here;
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {}
            _ => {
                let Some((behind, from)) = &mut star else { return false };
                if from.next().is_none() {
                    return false;
                }
                (pattern, name) = (behind.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(overrides: Vec<PolicyOverride>) -> Policy {
        Policy { window: 100, threshold: 3.0, min_samples: 30, min_std_dev: 0.0, min_relative_std_dev: 0.0, overrides }
    }

    #[test]
    fn stars_match_any_characters_and_question_marks_one() {
        for (pattern, name, matches) in [
            ("pump-*", "pump-1", true),
            ("pump-*", "pump-", true),
            ("pump-*", "a-pump-1", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("pump-?", "pump-ä", true),
            ("pump-?", "pump-", false),
            ("*-?-*", "a-b-c-d", true),
            ("a*b*c", "abxbc", true),
            ("a*b*c", "abxb", false),
            ("*ab", "aab", true),
            ("**a", "bba", true),
            ("[a]", "a", false),
        ] {
            assert_eq!(glob(pattern, name), matches, "{pattern} {name}");
        }
    }

    /// The definition, without care for time.
    fn defined(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', rest @ ..] => (0..=name.len()).any(|taken| defined(rest, &name[taken..])),
            [one, rest @ ..] => name.first().is_some_and(|c| *one == '?' || one == c) && defined(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_they_are_defined(pattern in "[ab*?]{0,8}", name in "[ab*]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(glob(&pattern, &name), defined(&chars(&pattern), &chars(&name)));
        }
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_exponential_time() {
        assert!(!glob(&"*a".repeat(60), &"a".repeat(59)));
        assert!(!glob(&format!("{}b", "*a".repeat(60)), &"a".repeat(250)));
    }

    #[test]
    fn the_last_matching_override_wins_key_by_key() {
        let on = |device: &str| PolicyOverride { device: Some(device.into()), ..PolicyOverride::default() };
        let policy = policy(vec![
            PolicyOverride { threshold: Some(4.0), window: Some(50), ..on("pump-*") },
            PolicyOverride { threshold: Some(5.0), ..on("fan-*") },
            PolicyOverride { threshold: Some(6.0), metric: Some("temp*".into()), ..on("pump-?") },
            PolicyOverride { enabled: Some(false), metric: Some("noise".into()), ..PolicyOverride::default() },
        ]);
        let series = policy.resolve("pump-1", "temperature");
        assert_eq!(series.threshold, ResolvedLimit { value: 6.0, set_by: Some(2) });
        assert_eq!(series.window, ResolvedLimit { value: 50, set_by: Some(0) });
        assert_eq!(series.min_samples, ResolvedLimit { value: 30, set_by: None });
        assert_eq!(series.enabled, ResolvedLimit { value: true, set_by: None });
        assert_eq!(policy.resolve("pump-12", "temperature").threshold.value, 4.0);
        assert_eq!(policy.resolve("other", "noise").enabled, ResolvedLimit { value: false, set_by: Some(3) });
    }
}
