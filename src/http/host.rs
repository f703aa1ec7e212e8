//! Parses the header `Host` strictly. A lenient parser may take a foreign host for this machine, because
//! `localhost:80@evil.example` and `[::1]evil.example` begin like names of this machine.

use std::net::{IpAddr, Ipv6Addr};

/// Longest host name in bytes, as DNS limits it.
const MAX_HOST_BYTES: usize = 253;

/// A host and its port, as in the header `Host` (RFC 9110, 7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName {
    /// Name in lower case, or address without brackets.
    pub name: String,
    /// Port, if one is given.
    pub port: Option<u16>,
}

impl HostName {
    /// Parses `name`, `name:port`, `[address]` or `[address]:port`; `None` for any other text.
    pub fn parse(text: &str) -> Option<HostName> {
        let (name, rest) = match text.strip_prefix('[') {
            Some(inside) => {
                let (address, rest) = inside.split_once(']')?;
                (address.parse::<Ipv6Addr>().ok()?.to_string(), rest)
            }
            None => {
                let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                // Names of other writing systems arrive in the form `xn--...`.
                let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                if name.is_empty() || name.len() > MAX_HOST_BYTES || !name.chars().all(is_allowed) {
                    return None;
                }
                (name.to_ascii_lowercase(), rest)
            }
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        Some(HostName { name, port })
    }

    /// Returns whether the host always means this machine or an address, so that no other site can use it.
    pub fn is_own(&self) -> bool {
        self.name == "localhost" || self.name.ends_with(".localhost") || self.name.parse::<IpAddr>().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for (text, name, port, is_own) in [
            ("localhost", "localhost", None, true),
            ("LocalHost:8501", "localhost", Some(8501), true),
            ("box.localhost", "box.localhost", None, true),
            ("127.0.0.1:80", "127.0.0.1", Some(80), true),
            ("[::1]", "::1", None, true),
            ("[2001:DB8::0:1]:443", "2001:db8::1", Some(443), true),
            ("watch.example.com", "watch.example.com", None, false),
            ("my_host-1.xn--p1ai:1", "my_host-1.xn--p1ai", Some(1), false),
            ("localhost.evil.example", "localhost.evil.example", None, false),
            ("127.0.0.1.evil.example", "127.0.0.1.evil.example", None, false),
        ] {
            let host = HostName::parse(text).unwrap_or_else(|| panic!("{text} is refused"));
            assert_eq!((host.name.as_str(), host.port, host.is_own()), (name, port, is_own), "{text}");
        }
    }

    #[test]
    fn any_other_text_is_no_host() {
        let long = "x".repeat(254);
        for text in [
            "",
            "[::1]evil.com",
            "[::1]:80@evil.com",
            "[::1",
            "[evil]",
            "[127.0.0.1]",
            "::1",
            "localhost:80@evil.com",
            "user@localhost",
            "localhost:80:90",
            "localhost:65536",
            "localhost:+80",
            "localhost: 80",
            "localhost:",
            "localhost, evil.com",
            "localhost evil.com",
            "localhost/evil",
            "localhost\\evil",
            "localhost?x",
            "localhost#x",
            "local%68ost",
            "l\u{f6}calhost",
            ":80",
            &long,
        ] {
            assert_eq!(HostName::parse(text), None, "{text}");
        }
    }
}
