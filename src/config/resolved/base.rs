//! The path below which a proxy shows the dashboard, such as `/anomaly`. Pages know only addresses from their own root.
//! The path is removed from requests and added to responses, each in one place.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Characters that browsers percent-encode in a path, and `%` itself, so that the cookie's `Path` equals the browser's
/// address (<https://url.spec.whatwg.org/#path-percent-encode-set>).
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'%');

/// A path without a slash at its end; the empty path is the root of the site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath {
    /// The path as in an address, percent-encoded.
    text: String,
    /// Segments of the path, decoded.
    segments: Vec<String>,
}

impl BasePath {
    /// Parses the setting. "" and "/" are the root, and a slash at the end is ignored.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn parse(text: &str) -> Result<BasePath, &'static str> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let Some(inside) = text.strip_prefix('/') else {
            return if text.is_empty() {
                Ok(BasePath::default())
            } else {
                Err("expected a path that begins with a slash")
            };
        };
        let mut segments = Vec::new();
        for segment in inside.split('/') {
            let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| "expected a path of UTF-8")?;
            match decoded.as_ref() {
                "" => return Err("expected a path without empty segments"),
                "." | ".." => return Err("expected a path without the segments . and .."),
                // A `;` would end a cookie's path. Programs interpret `/` and `\` inside a segment differently.
                name if name.contains(|c: char| c.is_control() || ";/\\".contains(c)) => {
                    return Err(
                        "expected a path without control characters, encoded slashes, backslashes and semicolons",
                    );
                }
                name => segments.push(name.to_owned()),
            }
        }
        let text = segments.iter().map(|name| format!("/{}", utf8_percent_encode(name, ENCODED))).collect();
        Ok(BasePath { text, segments })
    }

    /// Returns the path percent-encoded; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns an address below this path, if `address` begins with a slash; otherwise `address` unchanged.
    pub fn link(&self, address: &str) -> String {
        let is_own = address.starts_with('/') && !address.starts_with("//");
        if is_own { format!("{}{address}", self.text) } else { address.to_owned() }
    }

    /// Returns the rest of a request's path; `None` if the path does not begin with this one.
    pub fn inside<'a>(&self, path: &'a str) -> Option<&'a str> {
        let mut rest = path;
        for name in &self.segments {
            let segment = rest.strip_prefix('/')?;
            let end = segment.find('/').unwrap_or(segment.len());
            if percent_decode_str(&segment[..end]).ne(name.bytes()) {
                return None;
            }
            rest = &segment[end..];
        }
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_added_to_responses_and_removed_from_requests() {
        let base = BasePath::parse("/my watch/ä/").unwrap();
        assert_eq!(base.as_str(), "/my%20watch/%C3%A4");
        assert_eq!(base.link("/devices?span=1h"), "/my%20watch/%C3%A4/devices?span=1h");
        for other in ["https://console/x", "//elsewhere", "?span=1h", "#main", ""] {
            assert_eq!(base.link(other), other);
        }
        for (path, inside) in [
            ("/my%20watch/%c3%a4/devices/a%2Fb", Some("/devices/a%2Fb")),
            ("/%6dy%20watch/%C3%A4/", Some("/")),
            ("/my%20watch/%C3%A4", Some("")),
            ("/my%20watch/%C3%A4b/", None),
            ("/my%20watch%2F%C3%A4/", None),
            ("/my%20watch", None),
            ("/devices", None),
            ("", None),
        ] {
            assert_eq!(base.inside(path), inside, "{path}");
        }
    }

    #[test]
    fn the_root_changes_nothing() {
        for root in ["", "/"] {
            let base = BasePath::parse(root).unwrap();
            assert_eq!((base.link("/devices"), base.inside("/devices")), ("/devices".to_owned(), Some("/devices")));
        }
    }

    #[test]
    fn a_path_that_leads_to_another_site_is_refused() {
        for text in
            ["anomaly", "//evil.example", "/a//b", "/a/../b", "/%2e%2e", "/a%2Fb", "/a;b", "/a\nb", "/%ff", "/a\\b"]
        {
            assert!(BasePath::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(BasePath::parse("/100%25/a%3Fb").unwrap().as_str(), "/100%25/a%3Fb");
        assert_eq!(BasePath::parse("/v1.2_x~y").unwrap().as_str(), "/v1.2_x~y");
    }
}
