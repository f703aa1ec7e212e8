//! Checks whether access to the pages is protected as the settings require.

use super::resolved::base::BasePath;
use super::resolved::network::Network;
use super::resolved::{DashboardSettings, ListenAddress};
use crate::foreign;

/// Minimum length of the secret that the proxy sends, in bytes.
const SHORTEST_SECRET: usize = 16;

/// Finds settings that contradict one another. Each problem is a key, a title, and what is expected.
pub(crate) fn problems(dashboard: &DashboardSettings) -> Vec<(&'static str, String, &'static str)> {
    let mut problems = Vec::new();
    let mut problem = |path: &'static str, title: String, expected| problems.push((path, title, expected));
    if let Err(expected) = BasePath::parse(&dashboard.path) {
        problem(
            "dashboard.path",
            format!("`{}` is not a path for the pages", foreign::name(&dashboard.path)),
            expected,
        );
    }
    let has_tls = !dashboard.tls_certificate.is_empty();
    if has_tls == dashboard.tls_key.is_empty() {
        let path = if has_tls { "dashboard.tls_certificate" } else { "dashboard.tls_key" };
        problem(path, format!("`{path}` is set alone"), "TLS needs dashboard.tls_certificate and dashboard.tls_key");
    }
    let (has_users, has_proxy) = (!dashboard.users.is_empty(), !dashboard.proxy_header.is_empty());
    if has_users && has_proxy {
        let title = "`dashboard.proxy_header` and `dashboard.users` exclude one another".to_owned();
        problem("dashboard.proxy_header", title, "either the proxy or the dashboard authenticates users");
    }
    if let Some(address) = dashboard.proxy_addresses.iter().find(|address| address.parse::<Network>().is_err()) {
        let title = format!("`{}` is neither an address nor a range", foreign::name(address));
        problem(
            "dashboard.proxy_addresses",
            title,
            "expected IP addresses or ranges, such as [\"127.0.0.1\", \"10.0.0.0/8\"]",
        );
    }
    if let Some(host) = dashboard.proxy_hosts.iter().find(|host| !is_host_name(host)) {
        let title = format!("`{}` is not a host name", foreign::name(host));
        problem(
            "dashboard.proxy_hosts",
            title,
            "expected names without scheme and port, such as [\"watch.example.com\"]",
        );
    }
    let secret = dashboard.proxy_secret.reveal();
    if !secret.is_empty() && (secret.len() < SHORTEST_SECRET || !secret.bytes().all(|b| b.is_ascii_graphic())) {
        let title = "`dashboard.proxy_secret` is too short, or has a character that a header cannot contain".to_owned();
        problem("dashboard.proxy_secret", title, "expected at least 16 visible ASCII characters");
    }
    let is_open = matches!(dashboard.listen, ListenAddress::At(address) if !address.ip().is_loopback());
    if is_open && !dashboard.insecure && !(has_tls && (has_users || has_proxy)) {
        let missing = match (has_tls, has_users || has_proxy) {
            (true, _) => "a login",
            (_, true) => "TLS",
            _ => "TLS and a login",
        };
        let title = format!("`dashboard.listen` is open to the network without {missing}");
        let expected = "set dashboard.tls_certificate, tls_key and users (see `anomaly passwd --help`), or dashboard.insecure = true \
                        where something else guards it";
        problem("dashboard.listen", title, expected);
    }
    problems
}

/// Returns whether the pages can be served under a name. `*` stands for all names.
fn is_host_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    name == "*" || !name.is_empty() && name.len() <= 253 && name.chars().all(is_allowed)
}
