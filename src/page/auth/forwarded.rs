//! Evaluates the headers of proxies: the client's address, the host name it used, and whether its connection is
//! encrypted. Only proxies named in the settings are trusted, because a client can send the same headers.
//!
//! `X-Forwarded-For`, `-Host` and `-Proto`, or `Forwarded` (<https://www.rfc-editor.org/rfc/rfc7239>).

use std::net::IpAddr;

use crate::config::resolved::network::Network;
use crate::http::Request;

/// Proxies whose forwarding headers are trusted.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Vec<Network>);

impl Proxies {
    /// Creates the list from the configured addresses.
    pub fn new(networks: Vec<Network>) -> Proxies {
        Proxies(networks)
    }

    /// Returns whether the request came directly from one of these proxies.
    pub fn sent(&self, request: &Request) -> bool {
        self.has(request.peer)
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Returns the client's address: the last one in the chain that is not a trusted proxy. Addresses before it are not
    /// trusted, because the client may have sent them.
    pub fn client(&self, request: &Request) -> IpAddr {
        let peer = request.peer.to_canonical();
        if !self.has(peer) {
            return peer;
        }
        let by_x = self.walk(peer, &request.list("x-forwarded-for"), address);
        let by_forwarded = self.walk(peer, &request.list("forwarded"), |hop| address(&parameter(hop, "for")?));
        match (by_x, by_forwarded) {
            (Some(one), Some(other)) if one == other => one,
            // A proxy sets one of the two headers and passes on the other as its client sent it. It is not known which
            // one.
            (Some(_), Some(_)) | (None, None) => peer,
            (Some(one), None) | (None, Some(one)) => one,
        }
    }

    /// Walks the chain from the nearest hop to the client; `None` if the header is absent.
    fn walk(&self, peer: IpAddr, header: &str, read: impl Fn(&str) -> Option<IpAddr>) -> Option<IpAddr> {
        if header.is_empty() {
            return None;
        }
        let mut last = peer;
        for hop in split(header, ',').into_iter().rev() {
            // The address is "unknown" or hidden on purpose, so only the proxy that wrote it is known.
            let Some(address) = read(hop) else { break };
            last = address;
            if !self.has(address) {
                break;
            }
        }
        Some(last)
    }

    /// Returns whether the client's connection is encrypted, to the dashboard or to the proxy.
    pub fn is_encrypted(&self, request: &Request) -> bool {
        request.is_tls
            || self.said(request, "x-forwarded-proto", "proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
    }

    /// Returns the host name in the client's address bar, if a proxy sends it.
    pub fn host(&self, request: &Request) -> Option<String> {
        self.said(request, "x-forwarded-host", "host")
    }

    /// Returns a value of the first proxy, which the client connected to.
    fn said(&self, request: &Request, header: &str, name: &str) -> Option<String> {
        if !self.sent(request) {
            return None;
        }
        let own = request.list(header);
        let first = split(&own, ',').into_iter().next().map(|value| value.trim().to_owned());
        let forwarded = || parameter(split(&request.list("forwarded"), ',').first()?, name);
        first.filter(|value| !value.is_empty()).or_else(forwarded)
    }
}

/// Splits at separators that are not in quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            c if c == separator && !is_quoted => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Returns a parameter of one hop in `Forwarded`, without its quotes.
fn parameter(hop: &str, name: &str) -> Option<String> {
    let of = |pair: &&str| pair.split_once('=').is_some_and(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    let (_, value) = split(hop, ';').into_iter().find(of)?.split_once('=')?;
    let value = value.trim();
    let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(inside.map_or_else(|| value.to_owned(), |quoted| quoted.replace('\\', "")))
}

/// Parses an address with or without brackets, port and zone.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = match text.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?.0,
        // IPv6 without brackets has several colons and therefore no port.
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    let bare = bare.split('%').next().unwrap_or(bare);
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(peer: &str, headers: &[(&'static str, &str)]) -> Request {
        let mut request = Request { peer: peer.parse().unwrap(), ..Request::get("/", "") };
        for (name, value) in headers {
            request.headers.append(*name, value.parse().unwrap());
        }
        request
    }

    fn proxies() -> Proxies {
        let all = ["127.0.0.1", "::1", "10.0.0.0/8", "::ffff:192.0.2.7"];
        Proxies::new(all.into_iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_trusted_proxy() {
        let x = "x-forwarded-for";
        for (peer, headers, client) in [
            ("127.0.0.1", &[][..], "127.0.0.1"),
            ("127.0.0.1", &[(x, "198.51.100.7")], "198.51.100.7"),
            ("::ffff:127.0.0.1", &[(x, "198.51.100.7")], "198.51.100.7"),
            ("192.0.2.7", &[(x, "198.51.100.7")], "198.51.100.7"),
            // This address is not a trusted proxy, so its headers are ignored.
            ("198.51.100.1", &[(x, "198.51.100.7")], "198.51.100.1"),
            // The address that the client sent comes before the one that the trusted proxy saw.
            ("127.0.0.1", &[(x, "1.1.1.1, 198.51.100.7")], "198.51.100.7"),
            ("127.0.0.1", &[(x, "1.1.1.1"), (x, "198.51.100.7, 10.1.1.1")], "198.51.100.7"),
            ("127.0.0.1", &[(x, "10.3.3.3, 10.1.1.1")], "10.3.3.3"),
            ("127.0.0.1", &[(x, "198.51.100.7:4711")], "198.51.100.7"),
            ("127.0.0.1", &[(x, "[2001:db8::7]:4711")], "2001:db8::7"),
            ("127.0.0.1", &[(x, "2001:db8::7")], "2001:db8::7"),
            ("127.0.0.1", &[(x, "::ffff:198.51.100.7")], "198.51.100.7"),
            ("127.0.0.1", &[(x, "fe80::1%eth0")], "fe80::1"),
            // Nothing behind "unknown" is trusted.
            ("127.0.0.1", &[(x, "1.1.1.1, unknown")], "127.0.0.1"),
            ("127.0.0.1", &[(x, "1.1.1.1, unknown, 10.1.1.1")], "10.1.1.1"),
            ("127.0.0.1", &[(x, "")], "127.0.0.1"),
            ("127.0.0.1", &[(x, "1.1.1.1,")], "127.0.0.1"),
            ("127.0.0.1", &[("forwarded", "for=198.51.100.7;proto=https")], "198.51.100.7"),
            ("127.0.0.1", &[("forwarded", "for=1.1.1.1, For=\"[2001:db8::7]:4711\" ; by=x")], "2001:db8::7"),
            ("127.0.0.1", &[("forwarded", "for=\"198.51.100.7:80\"")], "198.51.100.7"),
            ("127.0.0.1", &[("forwarded", "for=1.1.1.1"), ("forwarded", "for=198.51.100.7")], "198.51.100.7"),
            ("127.0.0.1", &[("forwarded", "for=1.1.1.1;by=\"a,for=2.2.2.2\"")], "1.1.1.1"),
            ("127.0.0.1", &[("forwarded", "for=_hidden")], "127.0.0.1"),
            ("127.0.0.1", &[("forwarded", "proto=https")], "127.0.0.1"),
            // One header is the proxy's, the other one was passed on. Neither is trusted unless they agree.
            ("127.0.0.1", &[(x, "198.51.100.7"), ("forwarded", "for=1.1.1.1")], "127.0.0.1"),
            ("127.0.0.1", &[(x, "198.51.100.7"), ("forwarded", "for=198.51.100.7")], "198.51.100.7"),
        ] {
            assert_eq!(
                proxies().client(&request(peer, headers)),
                client.parse::<IpAddr>().unwrap(),
                "{peer} {headers:?}"
            );
        }
    }

    #[test]
    fn name_and_encryption_are_taken_from_trusted_proxies_only() {
        let headers = [("x-forwarded-proto", "https"), ("x-forwarded-host", "watch.example, inner")];
        let (ours, other) = (request("127.0.0.1", &headers), request("198.51.100.1", &headers));
        assert!(proxies().is_encrypted(&ours) && !proxies().is_encrypted(&other));
        assert_eq!(proxies().host(&ours).as_deref(), Some("watch.example"));
        assert_eq!(proxies().host(&other), None);
        let forwarded =
            request("10.0.0.1", &[("forwarded", "for=x;host=\"watch.example:8443\";Proto=HTTPS, proto=http")]);
        assert!(proxies().is_encrypted(&forwarded));
        assert_eq!(proxies().host(&forwarded).as_deref(), Some("watch.example:8443"));
    }
}
