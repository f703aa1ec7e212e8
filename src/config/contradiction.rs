//! Finds settings that are given twice: under two names, or as a value and as a file. Otherwise one of the two would be
//! ignored without notice.

use super::report::{SettingOrigin, SettingsReport};
use super::schema;
use super::values::SettingValues;

/// Pairs of names for one property, which `CONFIGURATION.md` of librdkafka lists. Pairs that users cannot set are left
/// out.
const ALIASES: [(&str, &str); 7] = [
    ("compression.codec", "compression.type"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("message.send.max.retries", "retries"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id"),
    ("sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret"),
];

/// Pairs of properties that give the same certificate or key. librdkafka reads both and uses the second one.
const SOURCES: [(&str, &str); 8] = [
    ("https.ca.location", "https.ca.pem"),
    ("ssl.ca.location", "ssl.ca.pem"),
    ("ssl.certificate.location", "ssl.certificate.pem"),
    ("ssl.key.location", "ssl.key.pem"),
    ("ssl.certificate.location", "ssl.keystore.location"),
    ("ssl.certificate.pem", "ssl.keystore.location"),
    ("ssl.key.location", "ssl.keystore.location"),
    ("ssl.key.pem", "ssl.keystore.location"),
];

/// Reports each property that has two different values under two names.
pub(crate) fn aliases(entries: &SettingValues, report: &mut SettingsReport) {
    for (name, alias) in ALIASES {
        let get = |name: &str| entries.get(&format!("kafka.properties.{name}"));
        if let Some((first, second)) = get(name).zip(get(alias))
            && first.value != second.value
        {
            let title = format!("`kafka.properties.{alias}` and `kafka.properties.{name}` are the same property");
            let other = format!("`kafka.properties.{name}` is from {}", first.origin);
            report.add(&second.origin, title, "set only one of the two", Some(other));
            report.hide_value();
        }
    }
}

/// Reports each pair of properties that both give a certificate or a key.
pub(crate) fn sources(entries: &SettingValues, report: &mut SettingsReport) {
    for (first, second) in SOURCES.map(|(a, b)| (format!("kafka.properties.{a}"), format!("kafka.properties.{b}"))) {
        if let Some((one, two)) = entries.get(&first).zip(entries.get(&second)) {
            both((&first, &one.origin), (&second, &two.origin), report);
        }
    }
}

/// Reports each secret that is set both as a value and as the name of a file, if neither place has precedence. All
/// files of settings count as one place here, because it is unknown which of the two is meant.
pub(crate) fn secrets(entries: &SettingValues, report: &mut SettingsReport) {
    let is_file = |origin: &SettingOrigin| matches!(origin, SettingOrigin::File { .. });
    for file in schema::keys().map(|key| key.path) {
        let Some(target) = file.strip_suffix("_file").filter(|target| schema::find(target).is_some()) else { continue };
        let get = |path: &str| entries.get(path).filter(|entry| entry.value != "").map(|entry| &entry.origin);
        if let Some((value, named)) = get(target).zip(get(file))
            && (value.is_rival(named) || (is_file(value) && is_file(named)))
        {
            both((target, value), (file, named), report);
        }
    }
}

/// Reports two settings of which only one can take effect.
fn both(first: (&str, &SettingOrigin), second: (&str, &SettingOrigin), report: &mut SettingsReport) {
    let title = format!("`{}` and `{}` are both set", first.0, second.0);
    let other = format!("`{}` is from {}", first.0, first.1);
    report.add(second.1, title, "set only one of the two", Some(other));
    report.hide_value();
}

/// Reports a setting that two places of the same precedence set.
pub(crate) fn twice(path: &str, origin: &SettingOrigin, earlier: &SettingOrigin, report: &mut SettingsReport) {
    let other = Some(format!("the other one is from {earlier}"));
    report.add(origin, format!("`{path}` is set twice"), "set it only once", other);
    report.hide_value();
}
