//! Checks that Kafka accepts the names of topics and groups, and that no two of them are equal.

use super::resolved::Settings;

/// Longest name in bytes: of a topic (Kafka's rule), and of a group (our rule, since it also names rows and
/// transactions).
const MAX_NAME_BYTES: usize = 249;

/// Finds wrong names. Each problem is a key, a title, and what is expected.
pub(crate) fn problems(settings: &Settings) -> Vec<(&'static str, String, &'static str)> {
    let of = &settings.topics;
    let topics = [
        ("topics.raw_events", of.raw_events.as_str()),
        ("topics.anomalies", &of.anomalies),
        ("topics.dead_letter", &of.dead_letter),
        ("topics.state", &of.state),
    ];
    let groups = [("detector.group", settings.detector.group.as_str()), ("sink.group", &settings.sink.group)];
    let mut problems = Vec::new();
    for (i, &(path, name)) in topics.iter().enumerate() {
        if let Some((wrong, expected)) = wrong_topic(name) {
            problems.push((path, format!("`{path}` {wrong}"), expected));
        } else if let Some((other, _)) = topics[..i].iter().find(|(_, earlier)| *earlier == name) {
            problems.push((path, format!("`{path}` is the same topic as `{other}`"), "each needs a topic of its own"));
        } else if let Some((other, _)) = topics[..i].iter().find(|(_, earlier)| metric(earlier) == metric(name)) {
            let title = format!("`{path}` and `{other}` differ in dots and underscores only");
            problems.push((path, title, "Kafka refuses two topics whose names differ in nothing else"));
        }
    }
    for (path, name) in groups {
        if let Some((wrong, expected)) = wrong_group(name) {
            problems.push((path, format!("`{path}` {wrong}"), expected));
        }
    }
    if groups[0].1 == groups[1].1 {
        let title = "`sink.group` is the same group as `detector.group`".to_owned();
        problems.push(("sink.group", title, "each needs a group of its own"));
    }
    problems
}

/// Returns a topic's name as Kafka's own metrics write it.
fn metric(name: &str) -> String {
    name.replace('.', "_")
}

/// Applies Kafka's rule for the name of a topic. Kafka clients read a name that begins with `^` as a pattern of names.
fn wrong_topic(name: &str) -> Option<(String, &'static str)> {
    const EXPECTED: &str = "expected the name of one topic: 1 to 249 of a-z, A-Z, 0-9, dot, underscore and hyphen";
    let wrong = match name {
        _ if name.trim().is_empty() => "is empty".to_owned(),
        _ if name.starts_with('^') => "is a pattern, which would match other topics too".to_owned(),
        "." | ".." => format!("is \"{name}\", which Kafka refuses"),
        _ if name.len() > MAX_NAME_BYTES => format!("has {} bytes, and Kafka accepts {MAX_NAME_BYTES}", name.len()),
        _ => {
            let is_allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let c = name.chars().find(|c| !is_allowed(c))?;
            format!("has the character {c:?}, which Kafka refuses")
        }
    };
    Some((wrong, EXPECTED))
}

fn wrong_group(name: &str) -> Option<(String, &'static str)> {
    let wrong = match name {
        _ if name.trim().is_empty() => "is empty".to_owned(),
        _ if name.starts_with('^') => "is a pattern".to_owned(),
        _ if name.len() > MAX_NAME_BYTES => format!("has {} bytes, more than {MAX_NAME_BYTES}", name.len()),
        _ => return None,
    };
    Some((wrong, "expected the name of one consumer group: 1 to 249 bytes"))
}
