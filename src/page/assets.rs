//! The embedded style sheet and script. Their URLs contain a hash of their content, so that browsers can cache them for
//! ever and still load every new version.

use std::fmt::Write;

use hyper::body::Bytes;
use sha2::{Digest, Sha256};

use crate::http::Response;

struct Asset {
    path: String,
    kind: &'static str,
    content: &'static str,
}

/// All files embedded into the program.
pub(crate) struct Assets(Vec<Asset>);

const FILES: [(&str, &str, &str, &str); 2] = [
    ("style", "css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("app", "js", "text/javascript; charset=utf-8", include_str!("assets/app.js")),
];

impl Assets {
    /// Loads the embedded files and computes their URLs.
    pub(crate) fn embedded() -> Assets {
        let asset = |(name, end, kind, content): (&str, &str, &'static str, &'static str)| {
            let hash = Sha256::digest(content).iter().take(6).fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            Asset { path: format!("/assets/{name}.{hash}.{end}"), kind, content }
        };
        Assets(FILES.into_iter().map(asset).collect())
    }

    /// Returns the URLs of the style sheet and the script.
    pub(crate) fn paths(&self) -> [&str; 2] {
        [0, 1].map(|i| self.0.get(i).map_or("", |asset| asset.path.as_str()))
    }

    /// Returns the file at a URL path.
    pub(crate) fn find(&self, path: &str) -> Option<Response> {
        let asset = self.0.iter().find(|asset| asset.path == path)?;
        let headers = vec![
            ("content-type", asset.kind.to_owned()),
            ("cache-control", "public, max-age=31536000, immutable".to_owned()),
        ];
        Some(Response { status: 200, headers, body: Bytes::from_static(asset.content.as_bytes()).into() })
    }
}
