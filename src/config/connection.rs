//! Checks the addresses and names of Kafka's brokers, of PostgreSQL, and of the detector's instance: with a wrong one no
//! connection could ever work.

use std::net::IpAddr;

use super::resolved::{ListenAddress, Settings};
use crate::foreign;

/// Longest name of an instance in bytes. The number of the worker follows it, and Kafka accepts 249 bytes.
const LONGEST_INSTANCE: usize = 240;

/// Finds values that cannot work. Each problem is a key, a title, and what is expected.
pub(crate) fn problems(settings: &Settings) -> Vec<(&'static str, String, &'static str)> {
    let mut problems = Vec::new();
    let mut problem = |path: &'static str, wrong: String, expected| {
        problems.push((path, format!("`{path}` {wrong}"), expected));
    };
    let brokers = &settings.kafka.bootstrap_servers;
    // An empty text is reported with the other required values.
    if let Some(entry) = brokers.split(',').find(|entry| !brokers.trim().is_empty() && !is_broker(entry.trim())) {
        let wrong = match entry.trim() {
            "" => "has an empty entry".to_owned(),
            entry => format!("has the entry `{}`", foreign::name(entry)),
        };
        problem(
            "kafka.bootstrap_servers",
            wrong,
            "expected host:port with a port from 1 to 65535; several are separated by commas",
        );
    }
    let postgres = &settings.postgres;
    for (path, text) in [("postgres.dbname", &postgres.dbname), ("postgres.user", &postgres.user)] {
        if text.trim().is_empty() {
            problem(path, "is empty".into(), "it needs a value");
        }
    }
    if let Some(host) = postgres.host.split(',').find(|host| !is_host(host.trim())) {
        let wrong = match host.trim() {
            "" if postgres.host.trim().is_empty() => "is empty".to_owned(),
            "" => "has an empty entry".to_owned(),
            host => format!("has the entry `{}`", foreign::name(host)),
        };
        problem("postgres.host", wrong, "expected host names, addresses or socket directories, separated by commas");
    }
    let instance = &settings.detector.instance;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if instance.len() > LONGEST_INSTANCE || !instance.chars().all(is_allowed) {
        let wrong = format!("is `{}`, which Kafka refuses", foreign::name(instance));
        problem("detector.instance", wrong, "expected at most 240 of a-z, A-Z, 0-9, dot, underscore and hyphen");
    }
    let dashboard = &settings.dashboard;
    if dashboard.listen == ListenAddress::Off {
        let expected = "expected an address such as \"127.0.0.1:8501\"; without pages, stop the service";
        problem("dashboard.listen", "is \"off\": the dashboard would have no pages".into(), expected);
    }
    for (path, listen) in [("dashboard.listen", dashboard.listen), ("metrics.listen", settings.metrics.listen)] {
        if let ListenAddress::At(address) = listen
            && !is_bindable(address.ip())
        {
            problem(path, format!("is {address}, which no program can listen on"), "expected an address of this host");
        }
    }
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !dashboard.proxy_header.chars().all(is_token) {
        let wrong = format!("is `{}`, which is no name of a header", foreign::name(&dashboard.proxy_header));
        problem("dashboard.proxy_header", wrong, "expected a name such as \"X-Forwarded-User\"");
    }
    problems
}

/// Returns whether librdkafka can connect to an entry: a host, optionally with a protocol before it and a port behind it.
fn is_broker(entry: &str) -> bool {
    let address = entry.split_once("://").map_or(entry, |(_, address)| address);
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => return false,
        },
        // An IPv6 address without brackets has no port.
        None if address.parse::<IpAddr>().is_ok() => (address, None),
        None => address.rsplit_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0);
    is_host(host) && !host.contains('/') && port.is_none_or(is_port)
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && (host.starts_with('/') || !host.contains(char::is_whitespace))
}

/// Returns whether a socket can have this address. One of another host is found only at the start.
fn is_bindable(ip: IpAddr) -> bool {
    !ip.is_multicast() && !matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}
