//! Makes HTTP responses from the content of pages, with the security headers that all responses have.

use std::io::Write;

use hyper::body::Bytes;
use serde::Serialize;

use super::frame::Frame;
use super::site::Site;
use crate::http::{Request, Response};

/// Content security policy: no inline scripts or styles, no resources of other sites, no embedding in frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// Adds the headers that every response has.
pub(crate) fn guarded(mut response: Response, is_tls_only: bool) -> Response {
    if is_tls_only {
        response.headers.push(("strict-transport-security", "max-age=31536000".to_owned()));
    }
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        response.headers.push((name, value.to_owned()));
    }
    if !response.headers.iter().any(|(name, _)| *name == "cache-control") {
        response.headers.push(("cache-control", "no-store".to_owned()));
    }
    response
}

/// Bodies below this number of bytes are not compressed.
const MIN_COMPRESSED_BYTES: usize = 1024;

/// Compresses the body if the client accepts gzip.
pub(crate) fn packed(mut response: Response, request: &Request) -> Response {
    let is_text = response.header("content-type").is_some_and(|kind| {
        kind.starts_with("text/") || ["application/json", "image/svg+xml"].iter().any(|text| kind.starts_with(text))
    });
    let is_read = reads_gzip(&request.list("accept-encoding"));
    let Some(bytes) = response.body.whole().filter(|bytes| is_text && bytes.len() >= MIN_COMPRESSED_BYTES) else {
        return response;
    };
    if is_read {
        let mut encoder =
            flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 4), flate2::Compression::new(5));
        if let Ok(packed) = encoder.write_all(bytes).and_then(|()| encoder.finish()) {
            response.headers.push(("content-encoding", "gzip".to_owned()));
            response.body = Bytes::from(packed).into();
        }
    }
    response.headers.push(("vary", "accept-encoding".to_owned()));
    response
}

/// Returns whether an `Accept-Encoding` header allows gzip; `q=0` forbids it.
fn reads_gzip(accepted: &str) -> bool {
    let quality = |name: &str| {
        accepted.split(',').find_map(|one| {
            let (coding, rest) = one.split_once(';').unwrap_or((one, ""));
            let quality = rest.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse::<f32>().unwrap_or(0.0));
            coding.trim().eq_ignore_ascii_case(name).then_some(quality)
        })
    };
    quality("gzip").or_else(|| quality("*")).is_some_and(|quality| quality > 0.0)
}

/// Renders a template with a frame and its content.
pub(crate) fn html(site: &Site, status: u16, template: &str, frame: &Frame<'_>, content: &impl Serialize) -> Response {
    let mut context = tera::Context::new();
    context.insert("frame", frame);
    context.insert("page", content);
    match site.templates.render(template, &context) {
        Ok(text) => {
            let headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
            Response { status, headers, body: Bytes::from(text).into() }
        }
        Err(error) => {
            tracing::error!(%error, template, "cannot render a page");
            Response::text(500, "this page could not be rendered; see the log\n")
        }
    }
}

/// Marks the response as containing old data.
pub(crate) fn stale(mut response: Response) -> Response {
    response.headers.push(("x-stale", "1".to_owned()));
    response
}

/// Redirects to another URL path of this site, which the browser loads with GET.
pub(crate) fn see_other(site: &Site, address: &str) -> Response {
    let mut response = Response::text(303, "");
    response.headers.push(("location", site.base.link(address)));
    response
}

/// Makes a response in JSON.
pub(crate) fn json(status: u16, content: &impl Serialize) -> Response {
    let headers = vec![("content-type", "application/json".to_owned())];
    match serde_json::to_vec(content) {
        Ok(body) => Response { status, headers, body: Bytes::from(body).into() },
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            Response { status: 500, headers, body: Bytes::from_static(b"{\"error\":\"internal error\"}").into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::reads_gzip;

    #[test]
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        for yes in ["gzip", "br, GZIP;q=0.5", "*", "identity;q=0, *;q=0.1", "deflate,gzip ; q=1.0"] {
            assert!(reads_gzip(yes), "{yes}");
        }
        for no in ["", "gzip;q=0", "br", "*;q=0", "gzip;q=0.000, *", "gzipped", "identity"] {
            assert!(!reads_gzip(no), "{no}");
        }
    }
}
