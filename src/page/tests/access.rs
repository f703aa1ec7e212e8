//! Tests of access control: who can see pages and review anomalies.

use super::*;

fn post(path: &str, form: &str, headers: &[(&'static str, &str)]) -> Request {
    let mut request = Request { method: hyper::Method::POST, body: form.to_owned().into(), ..Request::get(path, "") };
    request.headers.insert("host", "localhost:8501".parse().unwrap());
    headers.iter().for_each(|(name, value)| drop(request.headers.insert(*name, value.parse().unwrap())));
    request
}

const REVIEWS: &str = "/anomalies/raw_events/3/184467/0/point/reviews";

#[test]
fn a_review_is_stored_with_its_note_and_shown_as_text() {
    let (fake, handler) = pages(1.0, 9);
    let (before, _) = get(&handler, "/anomalies/raw_events/3/184467/0/point");
    assert_eq!(before.status, 200);
    let (response, _) =
        send(&handler, post(REVIEWS, "review=false&note=a+%3Cb%3E+pump", &[("sec-fetch-site", "same-origin")]));
    assert_eq!((response.status, header(&response, "location")), (303, Some("/anomalies/raw_events/3/184467/0/point")));
    let review = fake.reviews.lock().unwrap()[0].clone();
    assert_eq!(
        (review.review, review.note.as_str(), review.anomaly.source.offset),
        (Review::False, "a <b> pump", 184_467)
    );
    let (_, body) = get(&handler, "/anomalies/raw_events/3/184467/0/point");
    assert!(body.contains("<b>false alarm</b> by <bdi>anyone</bdi>") && body.contains("a &lt;b&gt; pump"), "{body}");
    for (path, form, status) in [
        (REVIEWS, "review=maybe", 400),
        (REVIEWS, "note=x", 400),
        (REVIEWS, "review=true&other=1", 400),
        (REVIEWS, &format!("review=true&note={}", "x".repeat(MAX_NOTE + 1)), 400),
        ("/anomalies/raw_events/3/1/0/point/reviews", "review=true", 404),
        ("/anomalies/raw_events/3/x/0/point/reviews", "review=true", 404),
        ("/anomalies", "review=true", 404),
    ] {
        assert_eq!(send(&handler, post(path, form, &[])).0.status, status, "{path} {form}");
    }
}

#[test]
fn a_page_of_another_site_cannot_review() {
    let (fake, handler) = pages(1.0, 9);
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://localhost:8502")],
    ] {
        assert_eq!(send(&handler, post(REVIEWS, "review=true", headers)).0.status, 403, "{headers:?}");
    }
    assert!(fake.reviews.lock().unwrap().is_empty());
    assert_eq!(send(&handler, post(REVIEWS, "review=true", &[("origin", "http://localhost:8501")])).0.status, 303);
}

#[test]
fn without_passwords_pages_are_served_under_names_of_this_machine_only() {
    let handler = guarded(Access::Open { is_anywhere: false });
    let status = |host: &str| {
        let mut request = Request::get("/", "");
        request.headers.insert("host", host.parse().unwrap());
        send(&handler, request).0.status
    };
    for own in ["localhost", "localhost:8501", "127.0.0.1:8501", "[::1]:8501", "10.0.0.7", "box.localhost"] {
        assert_eq!(status(own), 200, "{own}");
    }
    for foreign in ["evil.example", "localhost.evil.example:8501", "[evil]", ""] {
        assert_eq!(status(foreign), 421, "{foreign}");
    }
}

#[test]
fn the_login_form_reports_a_browser_that_keeps_no_cookies() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("ada:operator:{}\n", crate::page::auth::hash("secret").unwrap())).unwrap();
    let (idle, life) = (Duration::from_secs(60), Duration::from_secs(60));
    let handler = guarded(Access::Passwords { file: file.path().into(), idle, life });
    let (form, body) = get(&handler, "/login?next=%2Fdevices");
    let cookie = header(&form, "set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let field = "<input type=\"hidden\" name=\"form\" value=\"1\">";
    assert!(cookie == "anomaly-8501-test=1" && body.contains(field), "{cookie}: {body}");
    let filled = "form=1&name=ada&password=secret&next=%2Fdevices";
    let (without, body) = send(&handler, post("/login", filled, &[]));
    assert!(without.status == 400 && plain(&body).contains("A login needs a cookie"), "{body}");
    assert_eq!(header(&without, "set-cookie").map(|cookie| cookie.contains("-test=")), Some(true));
    let (with, _) = send(&handler, post("/login", filled, &[("cookie", &cookie)]));
    assert_eq!((with.status, header(&with, "location")), (303, Some("/devices")));
    // A script that posts without the form gets its session.
    assert_eq!(send(&handler, post("/login", "name=ada&password=secret", &[])).0.status, 303);
}

#[test]
fn a_proxy_is_trusted_only_from_its_address() {
    let handler = guarded(Access::Proxy { header: "X-Forwarded-User".into(), operators: vec!["ada".into()] });
    let visit = |peer: &str, name: Option<&str>, mut request: Request| {
        request.peer = peer.parse().unwrap();
        if let Some(name) = name {
            request.headers.insert("x-forwarded-user", name.parse().unwrap());
        }
        send(&handler, request).0.status
    };
    assert_eq!(visit("10.0.0.1", Some("bob"), Request::get("/", "")), 200);
    assert_eq!(visit("::ffff:10.0.0.1", Some("bob"), Request::get("/", "")), 200);
    assert_eq!(visit("10.0.0.2", Some("bob"), Request::get("/", "")), 403);
    assert_eq!(visit("10.0.0.1", None, Request::get("/", "")), 403);
    assert_eq!(visit("10.0.0.1", Some("bob"), post(REVIEWS, "review=true", &[])), 403);
    assert_eq!(visit("10.0.0.1", Some("ada"), post(REVIEWS, "review=true", &[])), 303);
}
