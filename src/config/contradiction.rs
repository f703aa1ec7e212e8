//! Finds properties of librdkafka that are set under two names. Which of both took effect would depend on their order.

use super::raw::SettingValues;
use super::report::SettingsReport;

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
