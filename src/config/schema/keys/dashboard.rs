//! The settings of the dashboard.

use super::super::{SettingKey, ShippedFile, ValueType};
use super::key;

/// In the order in which the file shows them.
pub const KEYS: &[SettingKey] = {
    use ShippedFile::*;
    use ValueType::*;
    const DAY: u64 = 86_400_000;
    &[
        key("dashboard.listen", Listen, "\"127.0.0.1:8501\"", Dashboard, "Address of the pages."),
        key(
            "dashboard.path",
            Text,
            "\"\"",
            Dashboard,
            "Path below which a proxy serves the pages, such as \"/anomaly\". The proxy may pass it on or remove it.",
        ),
        key(
            "dashboard.refresh",
            Duration(1_000, 3_600_000),
            "\"5s\"",
            Dashboard,
            "Interval at which an open page refreshes itself.",
        ),
        key(
            "dashboard.tls_certificate",
            Path,
            "\"\"",
            Dashboard,
            "PEM file of the certificate with its chain; empty: no TLS.",
        ),
        key(
            "dashboard.hsts",
            OneOf(&["auto", "on", "off"]),
            "\"auto\"",
            Dashboard,
            "HSTS: browsers use only TLS for this host name, on all ports, for a year. auto: if the port is 443.",
        ),
        key(
            "dashboard.tls_key",
            Path,
            "\"\"",
            Dashboard,
            "PEM file of the certificate's key. A reload reads both files again.",
        ),
        key(
            "dashboard.users",
            Path,
            "\"\"",
            Dashboard,
            "File of user names and passwords, maintained by `anomaly passwd`; empty: none.",
        ),
        key("dashboard.session_idle", Duration(60_000, 365 * DAY), "\"12h\"", Dashboard, "Idle timeout of a session."),
        key(
            "dashboard.session_life",
            Duration(60_000, 365 * DAY),
            "\"7d\"",
            Dashboard,
            "Maximum lifetime of a session.",
        ),
        key(
            "dashboard.proxy_header",
            Text,
            "\"\"",
            Dashboard,
            "Request header in which a proxy names the user; empty: none.",
        ),
        key(
            "dashboard.proxy_addresses",
            Text,
            "\"127.0.0.1, ::1\"",
            Dashboard,
            "Addresses or ranges (10.0.0.0/8) of proxies. Only their X-Forwarded-*, Forwarded and proxy_header are trusted.",
        ),
        key(
            "dashboard.operators",
            Text,
            "\"\"",
            Dashboard,
            "Users behind the proxy who may review, separated by commas; *: all.",
        ),
        key("dashboard.insecure", Bool, "false", Dashboard, "Allow access from the network without TLS or login."),
        key(
            "dashboard.console",
            Text,
            "\"\"",
            Dashboard,
            "URL of a record in a Kafka console, with {topic}, {partition} and {offset} in it; empty: no link.",
        ),
        key("marks.user", Text, "\"\"", Dashboard, "Role that may only add reviews; empty: postgres.user."),
        key("marks.password", Secret, "\"\"", Dashboard, "Password of the role."),
        key("marks.password_file", Path, "\"\"", Dashboard, "File that contains the password and nothing else."),
    ]
};
