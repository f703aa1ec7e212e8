//! The path below which a proxy shows the dashboard, such as `/anomaly`. Pages know only addresses that begin at their own
//! root: this path is taken off what arrives and put before what leaves, each in one place.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What browsers percent-encode in a path, so that the cookie's `Path` is spelled as they spell the address
/// (<https://url.spec.whatwg.org/#path-percent-encode-set>), and `%` itself.
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

/// A path without a slash at its end; the empty one is the root of the site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath {
    /// As in an address: percent-encoded.
    text: String,
    /// Its segments, decoded.
    segments: Vec<String>,
}

impl BasePath {
    /// Reads a setting: "" and "/" are the root; a slash at the end does not matter.
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
                // `;` ends a cookie's path, and `/` and `\` inside a segment are read in two ways.
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

    /// Percent-encoded; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address of something at this site; `address` begins with a slash, or is left as it is.
    pub fn link(&self, address: &str) -> String {
        let is_own = address.starts_with('/') && !address.starts_with("//");
        if is_own { format!("{}{address}", self.text) } else { address.to_owned() }
    }

    /// What is left of a request's path; `None` when the path does not begin with this one.
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
    fn a_path_is_put_before_what_leaves_and_taken_off_what_arrives() {
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
    fn what_would_lead_elsewhere_is_refused() {
        for text in
            ["anomaly", "//evil.example", "/a//b", "/a/../b", "/%2e%2e", "/a%2Fb", "/a;b", "/a\nb", "/%ff", "/a\\b"]
        {
            assert!(BasePath::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(BasePath::parse("/100%25/a%3Fb").unwrap().as_str(), "/100%25/a%3Fb");
        assert_eq!(BasePath::parse("/v1.2_x~y").unwrap().as_str(), "/v1.2_x~y");
    }
}
