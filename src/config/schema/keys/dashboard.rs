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
            "Path below which a proxy shows the pages, such as \"/anomaly\"; the proxy may pass it on or remove it.",
        ),
        key(
            "dashboard.refresh",
            Duration(1_000, 3_600_000),
            "\"5s\"",
            Dashboard,
            "Time after which an open page refreshes itself.",
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
            "Tells browsers to use this host name with TLS only, on all ports, for a year; auto: if the port is 443.",
        ),
        key("dashboard.tls_key", Path, "\"\"", Dashboard, "PEM file of its key; both are read again on reload."),
        key(
            "dashboard.users",
            Path,
            "\"\"",
            Dashboard,
            "File of names and passwords, kept by `anomaly passwd`; empty: none.",
        ),
        key("dashboard.session_idle", Duration(60_000, 365 * DAY), "\"12h\"", Dashboard, "A session ends unused."),
        key("dashboard.session_life", Duration(60_000, 365 * DAY), "\"7d\"", Dashboard, "A session ends."),
        key(
            "dashboard.proxy_header",
            Text,
            "\"\"",
            Dashboard,
            "Header in which a proxy names its visitor; empty: none.",
        ),
        key(
            "dashboard.proxy_addresses",
            Text,
            "\"127.0.0.1, ::1\"",
            Dashboard,
            "Addresses or ranges (10.0.0.0/8) of proxies; only their X-Forwarded-*, Forwarded and proxy_header are believed.",
        ),
        key("dashboard.operators", Text, "\"\"", Dashboard, "Visitors behind the proxy who may mark; * is everybody."),
        key("dashboard.insecure", Bool, "false", Dashboard, "Allow what is open to the network without TLS or login."),
        key(
            "dashboard.console",
            Text,
            "\"\"",
            Dashboard,
            "Address of a record in a Kafka console, with {topic}, {partition} and {offset} in it; empty: no link.",
        ),
        key("marks.user", Text, "\"\"", Dashboard, "Role that writes marks and nothing else; empty: postgres.user."),
        key("marks.password", Secret, "\"\"", Dashboard, "Its password."),
        key("marks.password_file", Path, "\"\"", Dashboard, "File that holds it."),
    ]
};
