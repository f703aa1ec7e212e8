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
    for foreign in
        ["evil.example", "localhost.evil.example:8501", "[evil]", "[::1]evil.com", "localhost:80@evil.com", ""]
    {
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

/// Makes the pages behind a proxy at 10.0.0.1, with these names of hosts and this secret.
fn behind_proxy(hosts: &[&str], secret: &str) -> Arc<Handler> {
    guarded(Access::Proxy {
        header: "X-Forwarded-User".into(),
        operators: vec!["ada".into()],
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        secret: serde_json::from_value(secret.into()).unwrap(),
    })
}

/// Returns the status for a request with these headers from an address.
fn visit(handler: &Arc<Handler>, peer: &str, headers: &[(&'static str, &str)], mut request: Request) -> u16 {
    request.peer = peer.parse().unwrap();
    headers.iter().for_each(|(name, value)| drop(request.headers.insert(*name, value.parse().unwrap())));
    send(handler, request).0.status
}

const LOCAL: (&str, &str) = ("host", "localhost:8501");
const BOB: (&str, &str) = ("x-forwarded-user", "bob");

#[test]
fn a_proxy_is_trusted_only_from_its_address() {
    let handler = behind_proxy(&[], "");
    let get = |peer: &str, headers: &[(&'static str, &str)]| visit(&handler, peer, headers, Request::get("/", ""));
    assert_eq!(get("10.0.0.1", &[LOCAL, BOB]), 200);
    assert_eq!(get("::ffff:10.0.0.1", &[LOCAL, BOB]), 200);
    assert_eq!(get("10.0.0.2", &[LOCAL, BOB]), 403);
    assert_eq!(get("10.0.0.1", &[LOCAL]), 403);
    let review =
        |name: &str| visit(&handler, "10.0.0.1", &[("x-forwarded-user", name)], post(REVIEWS, "review=true", &[]));
    assert_eq!((review("bob"), review("ada")), (403, 303));
}

#[test]
fn behind_a_proxy_pages_are_served_under_its_names_only() {
    fn status(hosts: &[&str], headers: &[(&'static str, &str)]) -> u16 {
        let headers = [headers, &[BOB]].concat();
        visit(&behind_proxy(hosts, ""), "10.0.0.1", &headers, Request::get("/", ""))
    }
    for (hosts, host, expected) in [
        (&[][..], "127.0.0.1:8501", 200),
        (&[], "[::1]:8501", 200),
        (&[], "evil.com", 421),
        (&[], "[::1]evil.com", 421),
        (&[], "localhost:80@evil.com", 421),
        (&["watch.example"], "watch.example", 200),
        (&["watch.example"], "Watch.Example:443", 200),
        (&["watch.example"], "localhost", 200),
        (&["watch.example"], "evil.watch.example", 421),
        (&["watch.example"], "watch.example.evil.com", 421),
        (&["*"], "evil.com", 200),
        (&["*"], "", 421),
    ] {
        assert_eq!(status(hosts, &[("host", host)]), expected, "{hosts:?} {host}");
    }
    assert_eq!(status(&["watch.example"], &[]), 421, "without a host");
    let forwarded = |host: &str| status(&["watch.example"], &[LOCAL, ("x-forwarded-host", host)]);
    assert_eq!((forwarded("watch.example"), forwarded("evil.com")), (200, 421));
}

#[test]
fn a_proxy_with_a_secret_must_send_it() {
    let handler = behind_proxy(&[], "0123456789abcdef");
    let status = |secret: Option<&str>| {
        let secret = secret.map(|secret| ("x-anomaly-proxy-secret", secret));
        let headers = [LOCAL, BOB].into_iter().chain(secret).collect::<Vec<_>>();
        visit(&handler, "10.0.0.1", &headers, Request::get("/", ""))
    };
    assert_eq!(status(Some("0123456789abcdef")), 200);
    for wrong in [None, Some(""), Some("0123456789abcde"), Some("0123456789abcdeg"), Some("0123456789abcdef0")] {
        assert_eq!(status(wrong), 403, "{wrong:?}");
    }
}
