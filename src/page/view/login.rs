//! The login form, login and logout.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::http::{Request, Response};
use crate::page::context::RequestContext;
use crate::page::frame::Frame;
use crate::page::respond;
use crate::page::site::Site;

/// Answer to a browser that returns no cookies: without the session cookie a login would lead back to an empty form.
const NO_COOKIES: &str = "A login needs a cookie, and the browser has sent none back. Allow cookies for this address, then log in \
     again.";

#[derive(Serialize)]
struct LoginContent {
    /// Why the login failed; empty before the first attempt.
    problem: &'static str,
    name: String,
    next: String,
}

/// Redirects to the login form, which redirects back to the requested page.
pub(crate) fn ask(site: &Site, request: &Request) -> Response {
    let next = format!("{}{}", request.path, query(request));
    let address = match next.as_str() {
        "/" => "/login".to_owned(),
        next => format!("/login?next={}", utf8_percent_encode(next, NON_ALPHANUMERIC)),
    };
    respond::see_other(site, &address)
}

/// Returns the query of a request with its question mark; empty if there is none.
pub(crate) fn query(request: &Request) -> String {
    if request.query.is_empty() { String::new() } else { format!("?{}", request.query) }
}

/// Renders the form for name and password.
pub(crate) fn show(context: &RequestContext<'_>) -> Response {
    let mut next = String::from("/");
    for (name, value) in url::form_urlencoded::parse(context.request.query.as_bytes()) {
        if name == "next" {
            next = here(&value);
        }
    }
    form(context, 200, "", String::new(), next)
}

/// Checks the submitted name and password.
pub(crate) fn enter(context: &RequestContext<'_>) -> Response {
    let (mut user, mut password, mut next) = (String::new(), String::new(), String::from("/"));
    let mut is_from_form = false;
    for (name, value) in url::form_urlencoded::parse(&context.request.body) {
        match name.as_ref() {
            "name" => user = value.trim().to_owned(),
            "password" => password = value.into_owned(),
            "next" => next = here(&value),
            // A client that is not a browser may send the form without having loaded it.
            "form" => is_from_form = true,
            _ => {}
        }
    }
    if is_from_form && !context.site.auth.returns_cookies(context.request) {
        return form(context, 400, NO_COOKIES, user, next);
    }
    match context.site.auth.enter(context.request, &user, &password) {
        Ok(cookie) => {
            let mut response = respond::see_other(context.site, &next);
            response.headers.push(("set-cookie", cookie));
            response
        }
        Err((status, problem)) => {
            let mut response = form(context, status, problem, user, next);
            if status != 401 {
                response.headers.push(("retry-after", "60".to_owned()));
            }
            response
        }
    }
}

/// Ends the session, and removes the cookie.
pub(crate) fn leave(context: &RequestContext<'_>) -> Response {
    let mut response = respond::see_other(context.site, "/login");
    response.headers.push(("set-cookie", context.site.auth.leave(context.request)));
    // The header clears data of the whole host and port, of which this dashboard may be only a part.
    if context.site.base.as_str().is_empty() {
        response.headers.push(("clear-site-data", "\"cache\", \"storage\"".to_owned()));
    }
    response
}

fn form(context: &RequestContext<'_>, status: u16, problem: &'static str, name: String, next: String) -> Response {
    let content = LoginContent { problem, name, next };
    let mut response = respond::html(context.site, status, "login.html", &Frame::still(context, "Log in"), &content);
    response.headers.push(("set-cookie", context.site.auth.test_cookie(context.request)));
    response
}

/// Returns a path of this site, or `/` for any other target: `//host` and `/\host` are other sites.
fn here(next: &str) -> String {
    let is_path = next.starts_with('/') && !next[1..].starts_with(['/', '\\']) && !next.contains(char::is_control);
    if is_path { next.to_owned() } else { "/".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::here;

    #[test]
    fn a_login_leads_to_this_site_only() {
        for path in ["/", "/devices/a%2F?x=1"] {
            assert_eq!(here(path), path);
        }
        for other in ["//evil", "/\\evil", "https://evil", "javascript:alert(1)", "", "/a\nb"] {
            assert_eq!(here(other), "/", "{other}");
        }
    }
}
