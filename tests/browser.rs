//! The pages in a real browser: they refresh by themselves, and take nothing from the reader's hands.

use std::process::{Command, Stdio};
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};

use super::common::{Process, free_port, wait_for};
use super::dashboard::{Stage, ago, anomaly};

/// For a page to refresh, at one second a time.
const REFRESH: Duration = Duration::from_secs(20);

/// A browser with a window of its own; it ends with the test.
struct Browser {
    client: Client,
    runtime: tokio::runtime::Runtime,
    _driver: Process,
    _dir: tempfile::TempDir,
}

impl Browser {
    fn open() -> Browser {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdin(Stdio::null());
        let driver = Process::start(&mut command, dir.path().join("driver.log"), port);
        let profile = format!("--user-data-dir={}", dir.path().join("profile").display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1000,700",
            profile.as_str(),
        ];
        let capabilities = json!({"goog:chromeOptions": {"args": arguments}}).as_object().unwrap().clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut client = None;
        wait_for("the browser", Duration::from_secs(60), || {
            let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
            builder.capabilities(capabilities.clone());
            client = runtime.block_on(builder.connect(&format!("http://127.0.0.1:{port}"))).ok();
            client.is_some()
        });
        Browser { client: client.unwrap(), runtime, _driver: driver, _dir: dir }
    }

    fn visit(&self, stage: &Stage, path: &str) {
        self.runtime.block_on(self.client.goto(&format!("http://{}{path}", stage.address))).unwrap();
    }

    /// The value of an expression in the page.
    fn value(&self, expression: &str) -> Value {
        self.runtime.block_on(self.client.execute(&format!("return {expression}"), vec![])).unwrap()
    }

    fn wait(&self, what: &str, expression: &str) {
        wait_for(what, REFRESH, || self.value(expression) == json!(true));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.client.clone().close());
    }
}

/// Sixty anomalies, the newest of which has offset 59.
fn sixty() -> Stage {
    let stage = Stage::with(|settings| settings.dashboard.refresh = Duration::from_secs(1));
    (0..60).for_each(|i| stage.insert(&anomaly("pump-0042", i, ago(600 - i), 24.6)));
    stage
}

#[test]
fn new_rows_appear_by_themselves_and_what_is_on_the_screen_stays_where_it_is() {
    let (stage, browser) = (sixty(), Browser::open());
    browser.visit(&stage, "/anomalies");
    let row = "document.querySelectorAll('[data-key]')[30]";
    browser.value(&format!("(window.kept = {row}.dataset.key, {row}.scrollIntoView(), true)"));
    let top = "document.querySelector(`[data-key=\"${CSS.escape(window.kept)}\"]`).getBoundingClientRect().top";
    let before = browser.value(top).as_f64().unwrap();
    (60..65).for_each(|i| stage.insert(&anomaly("press-0009", i, ago(60), 24.6)));
    browser.wait("the new rows", "document.getElementById('main').textContent.includes('press-0009')");
    let after = browser.value(top).as_f64().unwrap();
    assert!((before - after).abs() <= 1.0, "the row moved from {before} to {after}");
    assert!(browser.value("scrollY").as_f64().unwrap() > 0.0);
    // While something has the focus nothing is replaced; once it is left, it goes on.
    let link = browser.runtime.block_on(browser.client.find(Locator::Css("#main [data-key] a"))).unwrap();
    browser.runtime.block_on(browser.client.execute("arguments[0].focus()", vec![json!(link)])).unwrap();
    stage.insert(&anomaly("fan-0007", 70, ago(30), 24.6));
    browser.wait("the hold to be told", "document.getElementById('live').textContent === 'Held while you read'");
    assert_eq!(browser.value("document.getElementById('main').textContent.includes('fan-0007')"), json!(false));
    browser.value("document.activeElement.blur()");
    browser.wait("the held row", "document.getElementById('main').textContent.includes('fan-0007')");
}

#[test]
fn a_device_has_the_window_of_its_anomaly_drawn_with_the_expected_band() {
    let (stage, browser) = (sixty(), Browser::open());
    browser.visit(&stage, "/devices/pump-0042");
    browser.wait("a chart", "document.querySelectorAll('svg').length > 0");
    browser.visit(&stage, "/anomalies/raw_events/0/59");
    let drawn = "[...document.querySelectorAll('svg *')].filter(e => e.getBBox && e.getBBox().width > 200).length > 2";
    assert_eq!(browser.value(drawn), json!(true), "band and line are as wide as the chart");
    assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth"), json!(true));
}
