//! Tests of the pages in a browser that is not on the pages' own host: below a path, over plain http, without storage.

use std::time::Duration;

use serde_json::json;

use super::browser::{Browser, has};
use super::dashboard::{Stage, ago, anomaly};

const LIVE: &str = "document.getElementById('live').textContent === 'Live'";

/// Inserts one anomaly, which only the stream can bring to the page.
fn stage() -> Stage {
    below("")
}

fn below(path: &str) -> Stage {
    let stage = Stage::with(|settings| {
        settings.dashboard.refresh = Duration::from_secs(3600);
        path.clone_into(&mut settings.dashboard.path);
    });
    stage.insert(&anomaly("pump-0042", 1, ago(60), 24.6));
    stage
}

#[test]
fn below_a_path_pages_are_live_and_their_links_and_keys_stay_there() {
    let stage = below("/my watch/anomaly");
    let browser = Browser::open();
    browser.visit(&stage, "/my%20watch/anomaly");
    browser.wait("the stream", LIVE);
    assert_eq!(browser.value("location.pathname"), json!("/my%20watch/anomaly/"));
    stage.insert(&anomaly("press-0001", 2, ago(3), 24.6));
    browser.wait("the row", &has("press-0001"));
    browser.click("tr[data-key] .go a");
    browser.wait("the explanation", "location.pathname === '/my%20watch/anomaly/anomalies/raw_events/0/2/0/point'");
    browser.keys("e");
    browser.wait("the mark", &has("expected by anyone"));
    browser.keys("gd");
    browser.wait("the devices", "location.pathname === '/my%20watch/anomaly/devices'");
    browser.visit(&stage, "/my%20watch/anomaly/devices/press-0001");
    browser.wait("the stream", LIVE);
    stage.insert(&anomaly("press-0001", 3, ago(1), 24.6));
    browser.wait("a row of this device", "document.querySelectorAll('tr[data-key]').length === 2");
}

#[test]
fn a_browser_that_blocks_storage_has_the_stream_and_its_keys() {
    let stage = stage();
    let browser = Browser::blocked();
    browser.visit(&stage, "/");
    let blocked = "(() => { try { return !localStorage } catch { return true } })()";
    assert_eq!(browser.value(blocked), json!(true), "storage is not blocked");
    browser.wait("the stream", LIVE);
    stage.insert(&anomaly("press-0001", 2, ago(3), 24.6));
    browser.wait("the row", &has("press-0001"));
    browser.keys("gd");
    browser.wait("the devices", "location.pathname === '/devices'");
}

#[test]
fn over_plain_http_from_another_host_each_tab_that_is_seen_has_a_stream() {
    let stage = Stage::with(|settings| {
        settings.dashboard.refresh = Duration::from_secs(3600);
        settings.dashboard.insecure = true;
    });
    stage.insert(&anomaly("pump-0042", 1, ago(60), 24.6));
    let browser = Browser::with_host("dashboard.example");
    browser.go(&format!("http://dashboard.example:{}/", stage.address.port()));
    assert_eq!(browser.value("navigator.locks === undefined"), json!(true), "it is not plain http");
    browser.wait("the stream", LIVE);
    stage.insert(&anomaly("press-0001", 2, ago(3), 24.6));
    browser.wait("the row", &has("press-0001"));
}

#[test]
fn a_page_says_live_only_while_its_stream_is_open() {
    let stage = stage();
    let browser = Browser::open();
    // What opens no stream: a proxy that refuses it.
    let broken =
        "window.EventSource = class extends EventTarget { constructor() { super(); this.readyState = 0; } close() {} }";
    browser.command("Page.addScriptToEvaluateOnNewDocument", json!({"source": broken}));
    browser.visit(&stage, "/");
    let says = "document.getElementById('live').textContent";
    assert_eq!(browser.value(says), json!("Every 1 h"));
    // The answer to a request of its own does not make it live either.
    browser.value("(document.getElementById('clock').textContent = '', document.dispatchEvent(new Event('visibilitychange')), true)");
    browser.wait("the answer", "document.getElementById('clock').textContent !== ''");
    assert_eq!(browser.value(says), json!("Every 1 h"));
    let mut stage = stage;
    let browser = Browser::open();
    browser.visit(&stage, "/");
    browser.wait("the stream", LIVE);
    stage.restart();
    browser.wait("the end of the stream", "document.getElementById('live').textContent !== 'Live'");
}

#[test]
fn rows_are_compared_with_the_bounds_of_a_page_as_instants() {
    let stage = stage();
    let browser = Browser::open();
    // An hour ago to in an hour, at UTC+14: as text both are later than any time in UTC.
    let zone = |seconds: i64| {
        let local = ago(seconds - 14 * 3600).to_string();
        format!("{}%2B14:00", local.trim_end_matches('Z'))
    };
    for path in ["/anomalies", "/"] {
        let offset = if path == "/" { 3 } else { 2 };
        browser.visit(&stage, &format!("{path}?from={}&to={}", zone(3600), zone(-3600)));
        browser.wait("the stream", LIVE);
        stage.insert(&anomaly(&format!("press-{offset}"), offset, ago(3), 24.6));
        browser.wait("the row", &has(&format!("press-{offset}")));
    }
    // An hour ago to half an hour ago: what comes now is not in it.
    browser.visit(&stage, &format!("/anomalies?from={}&to={}", zone(3600), zone(1800).replace("%2B", "+")));
    browser.wait("the stream", LIVE);
    stage.insert(&anomaly("press-4", 4, ago(3), 24.6));
    stage.insert(&anomaly("press-5", 5, ago(2400), 24.6));
    browser.wait("the row", &has("press-5"));
    assert_eq!(browser.value(&has("press-4")), json!(false));
}
