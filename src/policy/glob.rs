//! Patterns of names: `*` matches any number of characters, also none, and `?` matches one.

/// Returns whether a pattern matches a whole name. `*` matches any number of characters, also none, and `?` matches
/// one.
///
/// On a mismatch the last `*` takes one more character, so the time is at most the product of both lengths.
pub fn glob(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // The pattern after the last star, and the start of the text that it must match.
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

/// Returns whether every name that `inner` matches is certainly matched by `outer` too.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    // A star of `inner` may match several characters, so `?` does not cover it.
    meet(outer, inner, false, |outer, inner| outer == inner || (outer == '?' && inner != '*'))
}

/// Returns whether some name matches both patterns.
pub(super) fn overlaps(one: &str, other: &str) -> bool {
    meet(one, other, true, |one, other| one == other || one == '?' || other == '?')
}

/// Walks through two patterns together; returns true if both ends can be reached at once. A star of `left` takes any
/// characters of `right`, also wildcards. A star of `right` takes those of `left` if `both` is set. Other characters
/// are paired if they fit.
fn meet(left: &str, right: &str, both: bool, fits: impl Fn(char, char) -> bool) -> bool {
    let (left, right) = (left.chars().collect::<Vec<_>>(), right.chars().collect::<Vec<_>>());
    let mut reached = vec![vec![false; right.len() + 2]; left.len() + 2];
    reached[0][0] = true;
    for l in 0..=left.len() {
        for r in 0..=right.len() {
            if !reached[l][r] {
                continue;
            }
            let (a, b) = (left.get(l).copied(), right.get(r).copied());
            let has_star = a == Some('*') || (both && b == Some('*'));
            // A star takes one character of the other side, or ends.
            reached[l + 1][r] |= a.is_some() && has_star;
            reached[l][r + 1] |= b.is_some() && has_star;
            reached[l + 1][r + 1] |= a.zip(b).is_some_and(|(a, b)| fits(a, b));
        }
    }
    reached[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    /// Matches by the definition, in exponential time.
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

    proptest! {
        #[test]
        fn patterns_cover_and_overlap_as_their_names_do(
            one in "[ab*?]{0,5}", other in "[ab*?]{0,5}", names in prop::collection::vec("[abc]{0,6}", 20),
        ) {
            for name in &names {
                let (of_one, of_other) = (glob(&one, name), glob(&other, name));
                prop_assert!(!(of_one && of_other) || overlaps(&one, &other), "{} {} {}", one, other, name);
                prop_assert!(!(covers(&one, &other) && of_other) || of_one, "{} {} {}", one, other, name);
            }
        }
    }

    #[test]
    fn a_pattern_covers_narrower_ones_and_overlaps_where_a_name_fits_both() {
        for (outer, inner) in
            [("*", ""), ("*", "a*"), ("pump-*", "pump-1?"), ("a?", "a?"), ("**", "?*"), ("*-*", "a-*")]
        {
            assert!(covers(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in [("?", "*"), ("pump-1", "pump-*"), ("", "*"), ("a*", "*a")] {
            assert!(!covers(outer, inner), "{outer} {inner}");
        }
        assert!(overlaps("a*", "*b") && overlaps("?", "*") && overlaps("**", "") && overlaps("a?c", "*c"));
        assert!(!overlaps("a*", "b*") && !overlaps("?", "ab") && !overlaps("", "?") && !overlaps("*a", "*b"));
    }
}
