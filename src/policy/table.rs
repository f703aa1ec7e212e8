//! The resolved policies of a process. Each distinct policy exists once, with its method. A series stores its number.

use std::collections::HashSet;

use super::{Policy, SeriesPolicy};
use crate::limits::Limits;
use crate::method::{self, Method, MethodId};

/// Number of a resolved policy in its table.
pub type PolicyNumber = u16;
/// Number of a series whose policy is not resolved yet.
pub const UNRESOLVED: PolicyNumber = PolicyNumber::MAX;
/// Maximum number of distinct policies that have a number of their own.
const MAX_DISTINCT: usize = UNRESOLVED as usize - 1;
/// Maximum number of excluded series whose keys are cached.
const MAX_EXCLUDED: usize = 100_000;

/// Policy that applies to some series.
#[derive(Debug)]
pub struct ResolvedPolicy {
    /// Method and limits of the series.
    pub limits: Limits,
    /// Whether values are judged at all.
    pub is_enabled: bool,
    /// Method with these limits.
    pub method: Box<dyn Method>,
    /// Name and version of the method.
    pub id: MethodId,
    /// Whether the method stores a state for each series.
    pub has_state: bool,
}

impl ResolvedPolicy {
    /// Creates the policy with its method; `None` if no method has that name.
    fn new(policy: &SeriesPolicy) -> Option<Self> {
        let limits = policy.limits();
        let method = method::create(&limits)?;
        Some(ResolvedPolicy {
            is_enabled: policy.enabled.value,
            id: method.id(),
            has_state: method.state_len() > 0,
            method,
            limits,
        })
    }

    fn is_same(&self, other: &ResolvedPolicy) -> bool {
        self.limits == other.limits && self.is_enabled == other.is_enabled
    }
}

/// Table that resolves the policy of each series once.
#[derive(Debug)]
pub struct PolicyTable {
    policy: Policy,
    /// Distinct policies by number; the first is that of series without an override.
    resolved: Vec<ResolvedPolicy>,
    /// Keys of excluded series, which have no series state to store the number in.
    excluded: HashSet<Box<str>>,
    can_exclude: bool,
    /// Maximum number of distinct policies, normally [`MAX_DISTINCT`].
    distinct: usize,
}

impl PolicyTable {
    /// Creates the table; `None` if the program does not have one of the methods.
    pub fn new(policy: &Policy) -> Option<Self> {
        let of_all = Policy { overrides: Vec::new(), ..policy.clone() };
        let first = ResolvedPolicy::new(&of_all.resolve("", ""))?;
        policy.methods().into_iter().map(method::version_of).collect::<Option<Vec<_>>>()?;
        Some(PolicyTable {
            policy: policy.clone(),
            resolved: vec![first],
            excluded: HashSet::new(),
            can_exclude: policy.overrides.iter().any(|one| one.enabled == Some(false)),
            distinct: MAX_DISTINCT,
        })
    }

    /// Returns the policy of a series that has stored the number `known`, and the number to store.
    #[inline]
    pub fn of(&mut self, known: PolicyNumber, key: &str) -> (&ResolvedPolicy, PolicyNumber) {
        if known != UNRESOLVED {
            return (&self.resolved[usize::from(known)], known);
        }
        self.of_unresolved(key)
    }

    #[cold]
    fn of_unresolved(&mut self, key: &str) -> (&ResolvedPolicy, PolicyNumber) {
        let number = self.resolve(key);
        // Above the number of distinct policies, the last slot is reused for each further series.
        let remembered = if usize::from(number) == self.distinct { UNRESOLVED } else { number };
        (&self.resolved[usize::from(number)], remembered)
    }

    /// Returns whether some override may exclude series.
    #[inline]
    pub fn can_exclude(&self) -> bool {
        self.can_exclude
    }

    /// Returns whether the values of a series are not judged. `known` is the number that it has stored, if it has a
    /// series state.
    pub fn excludes(&mut self, known: Option<PolicyNumber>, key: &str) -> bool {
        if !self.can_exclude {
            return false;
        }
        if known.is_none() && self.excluded.contains(key) {
            return true;
        }
        let is_excluded = !self.of(known.unwrap_or(UNRESOLVED), key).0.is_enabled;
        if is_excluded && known.is_none() {
            if self.excluded.len() >= MAX_EXCLUDED {
                self.excluded.clear();
            }
            self.excluded.insert(key.into());
        }
        is_excluded
    }

    /// Returns name and version of the method of a series that has stored the number `known`.
    pub fn method_of(&self, known: PolicyNumber, key: &str) -> MethodId {
        match self.resolved.get(usize::from(known)) {
            Some(resolved) => resolved.id.clone(),
            None => self.effective(key).map_or_else(|| self.resolved[0].id.clone(), |resolved| resolved.id),
        }
    }

    fn resolve(&mut self, key: &str) -> PolicyNumber {
        if self.policy.overrides.is_empty() {
            return 0;
        }
        let Some(found) = self.effective(key) else { return 0 };
        let known = self.resolved.iter().position(|resolved| resolved.is_same(&found));
        let number = known.unwrap_or_else(|| {
            let number = self.resolved.len().min(self.distinct);
            self.resolved.truncate(number);
            self.resolved.push(found);
            number
        });
        number as PolicyNumber
    }

    fn effective(&self, key: &str) -> Option<ResolvedPolicy> {
        let (device, metric) = key.split_once('\0').unwrap_or((key, ""));
        ResolvedPolicy::new(&self.policy.resolve(device, metric))
    }
}

#[cfg(test)]
mod tests {
    use super::super::PolicyOverride;
    use super::*;

    fn table() -> PolicyTable {
        let on = |device: &str, window, enabled| PolicyOverride {
            device: Some(device.into()),
            window,
            enabled,
            ..PolicyOverride::default()
        };
        let overrides = vec![on("a*", Some(50), None), on("b*", Some(60), None), on("ax", None, Some(false))];
        PolicyTable::new(&Policy { overrides, ..Policy::default() }).unwrap()
    }

    #[test]
    fn series_with_the_same_limits_share_a_number() {
        let mut table = table();
        let numbers = ["a1", "c", "b\0m", "a2"].map(|key| table.of(UNRESOLVED, key).1);
        assert_eq!(numbers, [1, 0, 2, 1]);
        assert_eq!([1, 0, 2].map(|number| table.of(number, "").0.limits.window), [50, 100, 60]);
        assert_eq!(table.method_of(UNRESOLVED, "a"), table.method_of(0, "a"));
    }

    #[test]
    fn beyond_the_most_distinct_policies_each_event_resolves_its_own() {
        let mut table = PolicyTable { distinct: 1, ..table() };
        for (key, window) in [("a1", 50), ("b1", 60), ("c", 100), ("a1", 50), ("b1", 60)] {
            let (resolved, number) = table.of(UNRESOLVED, key);
            assert_eq!((resolved.limits.window, number == UNRESOLVED), (window, key != "c"), "{key}");
        }
    }

    #[test]
    fn an_excluded_series_is_found_with_and_without_a_state() {
        let mut table = table();
        for _ in 0..2 {
            assert!(table.excludes(None, "ax\0m") && table.excludes(Some(UNRESOLVED), "ax\0m"));
            assert!(!table.excludes(None, "a1") && !table.excludes(Some(0), "c"));
        }
        assert_eq!(table.excluded.len(), 1);
    }

    #[test]
    fn an_unknown_method_of_an_override_is_found_at_once() {
        let unknown = PolicyOverride { method: Some("forest".into()), ..PolicyOverride::default() };
        assert!(PolicyTable::new(&Policy { overrides: vec![unknown], ..Policy::default() }).is_none());
    }
}
