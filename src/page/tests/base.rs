//! Tests of a base path: every URL of a response has the path, whether or not the proxy removes it from requests.

use super::*;

/// Makes the pages below `path` with this access control.
fn below(path: &str, access: Access) -> Arc<Handler> {
    let base = BasePath::parse(path).unwrap();
    app(Fake::new(1.0, 9), SiteOptions { base, ..options(access) }).unwrap()
}

fn open(path: &str) -> Arc<Handler> {
    below(path, Access::Open { is_anywhere: true })
}

/// Returns the values of these attributes in a page.
fn addresses(body: &str) -> Vec<&str> {
    let values = ["href=\"", "src=\"", "action=\""].map(|start| body.split(start).skip(1));
    values.into_iter().flatten().filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn every_address_on_every_page_carries_the_path_and_is_found_below_it() {
    let handler = open("/a b/anomaly/");
    let mut count = 0;
    for url in all() {
        let (response, body) = get(&handler, &format!("/a%20b/anomaly{url}"));
        assert_eq!(response.status, 200, "{url}");
        assert!(body.contains("data-base=\"/a%20b/anomaly\""), "{url}");
        for address in addresses(&body) {
            if ["#", "data:", "https://console/"].iter().any(|other| address.starts_with(other)) || address.is_empty() {
                continue;
            }
            let address = address.replace("&amp;", "&");
            let inside = address.strip_prefix("/a%20b/anomaly/").unwrap_or_else(|| panic!("{url} has {address}"));
            let is_form = inside.split('?').next().is_some_and(|path| path.ends_with("/reviews"));
            if !is_form && !inside.starts_with("events") {
                let status = get(&handler, &address).0.status;
                assert_eq!(status, 200, "{url} leads to {address}");
            }
            count += 1;
        }
    }
    assert!(count > 150, "only {count} addresses");
    let (_, api) = get(&handler, "/a%20b/anomaly/api/openapi.json");
    let api = serde_json::from_str::<serde_json::Value>(&api).unwrap();
    assert_eq!(api["servers"][0]["url"], "/a%20b/anomaly");
}

#[test]
fn a_proxy_may_pass_the_path_on_or_remove_it() {
    let handler = open("/anomaly");
    let kept = get(&handler, "/anomaly/devices?span=1h").1;
    let removed = get(&handler, "/devices?span=1h").1;
    assert_eq!(kept, removed);
    assert!(kept.contains("href=\"/anomaly/devices"));
    let (bare, _) = get(&handler, "/anomaly?span=1h");
    assert_eq!((bare.status, header(&bare, "location")), (303, Some("/anomaly/?span=1h")));
    assert_eq!(get(&handler, "/anomalyx").0.status, 404);
    assert_eq!(get(&handler, "/other/devices").0.status, 404);
}

#[test]
fn a_login_a_review_and_a_logout_stay_below_the_path() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("ada:operator:{}\n", crate::page::auth::hash("secret").unwrap())).unwrap();
    let (idle, life) = (Duration::from_secs(60), Duration::from_secs(60));
    let handler = below("/anomaly", Access::Passwords { file: file.path().into(), idle, life });
    let (asked, _) = get(&handler, "/anomaly/devices?span=1h");
    let location = header(&asked, "location").unwrap();
    assert_eq!(location, "/anomaly/login?next=%2Fdevices%3Fspan%3D1h");
    let (_, form) = get(&handler, location);
    assert!(form.contains("action=\"/anomaly/login\"") && form.contains("value=\"/devices?span=1h\""), "{form}");
    let post = |path: &str, form: &str, cookie: &str| {
        let mut request =
            Request { method: hyper::Method::POST, body: form.to_owned().into(), ..Request::get(path, "") };
        request.headers.insert("cookie", cookie.parse().unwrap());
        send(&handler, request).0
    };
    let entered = post("/anomaly/login", "name=ada&password=secret&next=%2Fdevices%3Fspan%3D1h", "");
    assert_eq!(header(&entered, "location"), Some("/anomaly/devices?span=1h"));
    let cookie = header(&entered, "set-cookie").unwrap();
    assert!(cookie.starts_with("anomaly-8501.anomaly=") && cookie.contains("; Path=/anomaly;"), "{cookie}");
    let reviewed = post("/anomaly/anomalies/raw_events/3/184467/0/point/reviews", "review=true", cookie);
    assert_eq!(header(&reviewed, "location"), Some("/anomaly/anomalies/raw_events/3/184467/0/point"));
    let left = post("/anomaly/logout", "", cookie);
    assert_eq!(header(&left, "location"), Some("/anomaly/login"));
    assert_eq!(header(&left, "clear-site-data"), None, "other services have the same host");
    let (refused, json) = get(&handler, "/anomaly/api/v1/anomalies");
    assert!(refused.status == 401 && json.contains("/anomaly/login"), "{json}");
}

#[test]
fn templates_write_addresses_of_this_site_only_with_the_filter_link() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/page/templates");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for address in addresses(&text) {
            let is_elsewhere = address.is_empty()
                || address.starts_with('#')
                || address.starts_with("data:")
                || address == "{{ page.console }}";
            let is_link = address.starts_with("{{ ") && address.contains(" | link }}");
            assert!(is_elsewhere || is_link, "{}: {address}", path.display());
        }
    }
}

#[test]
fn two_dashboards_on_one_host_do_not_share_cookies() {
    let cookie = |path: &str, port| {
        let cookies = crate::page::auth::Cookies::of(&BasePath::parse(path).unwrap(), port);
        let name = |is_encrypted| cookies.set("", is_encrypted).split('=').next().unwrap().to_owned();
        [name(false), name(true)]
    };
    let all = [cookie("", 8501), cookie("", 8502), cookie("/a", 8501), cookie("/b", 8501), cookie("/a/b", 8501)];
    for (i, names) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|other| other != names), "{names:?}");
    }
}
