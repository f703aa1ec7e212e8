//! Checks a value against the type and range that its setting declares.

use serde_json::Value;
use toml::de::DeValue;

use super::schema::ValueType;

/// Converts a scalar of TOML, or an array of scalars, to JSON; `None` for tables and dates.
pub(crate) fn plain(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::String(text.to_string())),
        DeValue::Boolean(b) => Some(Value::Bool(*b)),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(Value::from),
        DeValue::Array(all) => all.iter().map(|one| plain(one.get_ref())).collect(),
        DeValue::Float(x) => x.as_str().parse::<f64>().ok().filter(|x| x.is_finite()).map(Value::from),
        _ => None,
    }
}

/// Returns the value in the form of its kind, or what was expected.
pub(crate) fn check(kind: ValueType, value: Value) -> Result<Value, String> {
    let expected = match kind {
        ValueType::Text | ValueType::Path | ValueType::Secret => "expected a string".to_owned(),
        ValueType::OneOf(words) => format!("expected one of: {}", words.join(", ")),
        ValueType::Integer(least, i64::MAX) => format!("expected a whole number of at least {least}"),
        ValueType::Integer(least, most) => format!("expected a whole number from {least} to {most}"),
        ValueType::Float(least, f64::MAX) => format!("expected a number of at least {least}"),
        ValueType::Float(least, most) => format!("expected a number from {least} to {most}"),
        ValueType::Bool => "expected true or false".to_owned(),
        ValueType::Duration(least, most) => format!(
            "expected a time such as \"10s\", from {} to {}",
            humantime::format_duration(std::time::Duration::from_millis(least)),
            humantime::format_duration(std::time::Duration::from_millis(most)),
        ),
        ValueType::Listen => "expected an address such as \"127.0.0.1:8501\", or \"off\"".to_owned(),
        ValueType::Time => "expected a time such as \"2026-11-23T17:00:00Z\"".to_owned(),
        ValueType::Step => "expected a time such as \"10ms\"".to_owned(),
        ValueType::List => "expected strings such as [\"a\", \"b\"]".to_owned(),
    };
    let fits = match (kind, &value) {
        (ValueType::Text | ValueType::Path | ValueType::Secret, Value::String(_)) => true,
        (ValueType::OneOf(words), Value::String(text)) => words.contains(&text.as_str()),
        (ValueType::Integer(least, most), Value::Number(n)) => n.as_i64().is_some_and(|n| (least..=most).contains(&n)),
        (ValueType::Float(least, most), Value::Number(n)) => n.as_f64().is_some_and(|n| (least..=most).contains(&n)),
        (ValueType::Bool, Value::Bool(_)) => true,
        (ValueType::Duration(least, most), Value::String(text)) => {
            humantime::parse_duration(text).is_ok_and(|d| (least as u128..=most as u128).contains(&d.as_millis()))
        }
        (ValueType::Listen, Value::String(text)) => {
            text.is_empty() || text == "off" || text.parse::<std::net::SocketAddr>().is_ok()
        }
        (ValueType::Step, Value::String(text)) => {
            text.is_empty() || humantime::parse_duration(text).is_ok_and(|step| !step.is_zero())
        }
        (ValueType::List, Value::Array(all)) => all.iter().all(Value::is_string),
        (ValueType::Time, Value::String(text)) => {
            text.is_empty() || crate::event::Timestamp::parse_rfc3339(text).is_some()
        }
        _ => false,
    };
    match (fits, kind) {
        (false, _) => Err(expected),
        _ if !is_printable(kind, &value) => Err(format!("{expected} without control characters")),
        (true, ValueType::Float(..)) => Ok(Value::from(value.as_f64())),
        (true, _) => Ok(value),
    }
}

/// Returns whether a text has no control characters: no name or path of Kafka, PostgreSQL or this host contains one, and
/// its C interface would end at NUL. A text to compare with may contain tabs, and a secret anything but NUL.
fn is_printable(kind: ValueType, value: &Value) -> bool {
    match value {
        Value::String(text) if kind == ValueType::Secret => !text.contains('\0'),
        Value::String(text) => !text.contains(char::is_control),
        Value::Array(all) => {
            all.iter().filter_map(Value::as_str).all(|text| !text.contains(|c: char| c.is_control() && c != '\t'))
        }
        _ => true,
    }
}

/// Parses a value that is outside a file, such as in an environment variable or an option. A list is the strings
/// between its commas.
pub(crate) fn parsed(kind: ValueType, text: &str) -> Value {
    let value = match kind {
        ValueType::Integer(..) => text.parse::<i64>().map(Value::from).ok(),
        ValueType::Float(..) => text.parse::<f64>().map(Value::from).ok(),
        ValueType::Bool => text.parse::<bool>().map(Value::from).ok(),
        ValueType::List => {
            Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect())
        }
        _ => None,
    };
    value.unwrap_or_else(|| text.into())
}
