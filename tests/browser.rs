//! Tests of the pages in a real browser: they update themselves without disturbing the user, work without script, and
//! are accessible at every size. Pictures of them are written to `target/pictures`.

use std::process::{Command, Stdio};
use std::time::Duration;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};

use super::common::{Case, Process, event, free_port, root, wait_for};
use super::dashboard::{Stage, ago, anomaly};

/// Timeout for a page to refresh, at an interval of one second.
const REFRESH: Duration = Duration::from_secs(60);

/// A browser with its own window, which ends with the test.
pub struct Browser {
    client: Client,
    runtime: tokio::runtime::Runtime,
    _driver: Process,
    _dir: tempfile::TempDir,
}

impl Browser {
    pub fn open() -> Browser {
        Browser::with(true)
    }

    /// Starts a browser that stores neither cookies nor data of any site.
    pub fn blocked() -> Browser {
        Browser::start(json!({"profile.default_content_setting_values.cookies": 2}), "localhost")
    }

    fn with(has_script: bool) -> Browser {
        let setting = if has_script { 1 } else { 2 };
        Browser::start(json!({"profile.managed_default_content_settings.javascript": setting}), "localhost")
    }

    /// Starts a browser that resolves this host name to this machine.
    pub fn with_host(name: &str) -> Browser {
        Browser::start(json!({}), name)
    }

    fn start(preferences: Value, host: &str) -> Browser {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdin(Stdio::null());
        let driver = Process::start(&mut command, dir.path().join("driver.log"), port);
        let profile = format!("--user-data-dir={}", dir.path().join("profile").display());
        let host = format!("--host-resolver-rules=MAP {host} 127.0.0.1");
        let arguments = [
            host.as_str(),
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
        let options = json!({"args": arguments, "prefs": preferences});
        let capabilities = json!({"goog:chromeOptions": options}).as_object().unwrap().clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut client = None;
        wait_for("the browser", Duration::from_secs(120), || {
            let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
            builder.capabilities(capabilities.clone());
            client = runtime.block_on(builder.connect(&format!("http://127.0.0.1:{port}"))).ok();
            client.is_some()
        });
        Browser { client: client.unwrap(), runtime, _driver: driver, _dir: dir }
    }

    pub fn visit(&self, stage: &Stage, path: &str) {
        self.go(&format!("http://{}{path}", stage.address));
    }

    pub fn go(&self, url: &str) {
        self.runtime.block_on(self.client.goto(url)).unwrap();
    }

    /// Returns the content of `<main>`, also without script.
    pub fn text(&self) -> String {
        let find = async { self.client.find(Locator::Css("#main")).await?.text().await };
        // The page may be on its way out.
        self.runtime.block_on(find).unwrap_or_default()
    }

    pub fn click(&self, css: &str) {
        let click = async { self.client.find(Locator::Css(css)).await?.click().await };
        self.runtime.block_on(click).unwrap_or_else(|e| panic!("{css}: {e}"));
    }

    pub fn keys(&self, keys: &str) {
        let send = async { self.client.find(Locator::Css("body")).await?.send_keys(keys).await };
        self.runtime.block_on(send).unwrap();
    }

    /// Sets the size of the page's area, and the colour scheme.
    fn set_view(&self, width: u32, height: u32, theme: &str) {
        self.size(width, height);
        let feature = json!({"name": "prefers-color-scheme", "value": theme});
        self.command("Emulation.setEmulatedMedia", json!({"media": "", "features": [feature]}));
    }

    /// Shows the page as it would be printed by a user of the dark theme.
    fn on_paper(&self, width: u32, height: u32) {
        self.size(width, height);
        let feature = json!({"name": "prefers-color-scheme", "value": "dark"});
        self.command("Emulation.setEmulatedMedia", json!({"media": "print", "features": [feature]}));
    }

    fn size(&self, width: u32, height: u32) {
        self.command(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
    }

    /// Returns the page as a PDF.
    fn print(&self) -> Vec<u8> {
        let printed = self.command("Page.printToPDF", json!({}));
        openssl::base64::decode_block(printed["data"].as_str().unwrap()).unwrap()
    }

    /// Moves the pointer; the position is an expression.
    fn point(&self, x: u32, y: &str) {
        let y = self.value(y).as_f64().unwrap();
        self.command("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": x, "y": y}));
    }

    pub fn command(&self, name: &str, parameters: Value) -> Value {
        let command = Devtools(json!({"cmd": name, "params": parameters}));
        self.runtime.block_on(self.client.issue_cmd(command)).unwrap()
    }

    fn picture(&self, name: &str) {
        let dir = root().join("target/pictures");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), self.runtime.block_on(self.client.screenshot()).unwrap()).unwrap();
    }

    /// Returns the value of an expression in the page.
    pub fn value(&self, expression: &str) -> Value {
        self.runtime.block_on(self.client.execute(&format!("return {expression}"), vec![])).unwrap()
    }

    pub fn wait(&self, what: &str, expression: &str) {
        // An element that is not on the page yet is an error of the expression.
        let run = || self.runtime.block_on(self.client.execute(&format!("return {expression}"), vec![]));
        wait_for(what, REFRESH, || run().is_ok_and(|value| value == json!(true)));
    }
}

/// A command of Chromium's own protocol.
#[derive(Debug)]
struct Devtools(Value);

impl WebDriverCompatibleCommand for Devtools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap()))
    }

    fn method_and_body(&self, _: &url::Url) -> (hyper::Method, Option<String>) {
        (hyper::Method::POST, Some(self.0.to_string()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.client.clone().close());
    }
}

/// Inserts sixty anomalies, the newest of which has offset 59.
fn sixty() -> Stage {
    let stage = Stage::with(|settings| settings.dashboard.refresh = Duration::from_secs(1));
    (0..60).for_each(|i| stage.insert(&anomaly("pump-0042", i, ago(600 - i), 24.6)));
    stage
}

/// Returns a script that checks whether the page shows a text.
pub fn has(text: &str) -> String {
    format!("document.getElementById('main').textContent.includes('{text}')")
}

/// Checks that rows which arrive move nothing on the page and do not change its height. A page that is loaded again meanwhile,
/// because the database was slow or a state changed, may move: the rows then have two more chances.
fn moves_nothing(browser: &Browser, what: &str, mut rows_arrive: impl FnMut()) {
    let mut moved = Vec::new();
    for _ in 0..3 {
        browser.value(
            "(window.observer?.disconnect(), window.moved = [], window.observer = new PerformanceObserver(list => list.getEntries()\
             .forEach(e => window.moved.push(`${e.value}: ${e.sources.map(s => s.node?.textContent?.slice(0, 60)).join(', ')}`))),\
             window.observer.observe({type: 'layout-shift'}), window.tall = document.documentElement.scrollHeight, true)",
        );
        rows_arrive();
        // Observers are notified a moment later.
        browser.value("new Promise(done => setTimeout(() => done(true), 300))");
        let now = browser.value("[window.moved, document.documentElement.scrollHeight - window.tall]");
        if now == json!([[], 0]) {
            return;
        }
        moved.push(now);
    }
    panic!("{what}: {moved:?}");
}

#[test]
fn new_rows_appear_by_themselves_and_rows_on_the_screen_keep_their_places() {
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
    browser.wait("the hold to be reported", "document.getElementById('live').textContent === 'Held while you read'");
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
    browser.wait("band and line to be as wide as the chart", drawn);
    assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth"), json!(true));
}

#[test]
fn a_row_appears_at_once_by_the_stream_and_the_page_does_not_move() {
    let stage = Stage::with(|settings| settings.dashboard.refresh = Duration::from_secs(3600));
    (0..60).for_each(|i| stage.insert(&anomaly("pump-0042", i, ago(600 - i), 24.6)));
    let browser = Browser::open();
    browser.visit(&stage, "/");
    // The stream is open once the first row is there; each further one shows how quick it is.
    stage.insert(&anomaly("press-0001", 100, ago(3), 24.6));
    browser.wait("the first row", &has("press-0001"));
    let mut offset = 100;
    moves_nothing(&browser, "a row of the stream", || {
        offset += 1;
        let start = std::time::Instant::now();
        stage.insert(&anomaly("press-0002", offset, ago(2), 24.6));
        let first = format!("document.querySelector('tr[data-key]').dataset.key === 'raw_events/0/0/{offset}/0/point'");
        browser.wait("the next row", &first);
        println!("commit to the browser's page: {:?}", start.elapsed());
    });
    assert_eq!(browser.value("document.getElementById('status').textContent.length > 0"), json!(true));
    // Held while something is selected or focused; then it is offered, and taken when asked for.
    browser.value("(document.querySelector('#main tr a').focus(), true)");
    stage.insert(&anomaly("fan-0007", 110, ago(1), 24.6));
    browser.wait("the offer", "document.getElementById('news').textContent.includes('1 new')");
    assert_eq!(browser.value(&has("fan-0007")), json!(false));
    browser.click("#news a");
    browser.wait("the offered row", &has("fan-0007"));
}

#[test]
fn rows_that_come_move_nothing_on_any_size_and_wait_while_the_pointer_reads_them() {
    let stage = Stage::with(|settings| settings.dashboard.refresh = Duration::from_secs(3600));
    (0..60).for_each(|i| stage.insert(&anomaly("pump-0042", i, ago(600 - i), 24.6)));
    let browser = Browser::open();
    let mut offset = 100;
    for (width, path) in [(390, "/anomalies"), (390, "/"), (1440, "/devices/pump-0042"), (1440, "/anomalies")] {
        browser.set_view(width, 900, "light");
        browser.visit(&stage, path);
        moves_nothing(&browser, &format!("{path} at {width} pixels"), || {
            for _ in 0..5 {
                offset += 1;
                stage.insert(&anomaly("pump-0042", offset, ago(1), 24.6));
                let row =
                    format!("document.querySelector('tr[data-key]').dataset.key === 'raw_events/0/0/{offset}/0/point'");
                browser.wait("the row", &row);
            }
        });
    }
    // More than the table holds, at once.
    browser.visit(&stage, "/");
    let mut end = 300;
    moves_nothing(&browser, "twenty rows at once", || {
        end += 20;
        let many = (end - 20..end).map(|i| anomaly("pump-0042", i, ago(1), 24.6)).collect::<Vec<_>>();
        stage.insert_all(&many);
        let newest =
            format!("document.querySelector('tr[data-key]').dataset.key === 'raw_events/0/0/{}/0/point'", end - 1);
        browser.wait("the newest", &newest);
    });
    browser.visit(&stage, "/anomalies");
    browser.point(700, "document.querySelector('tr[data-key]').getBoundingClientRect().top + 10");
    stage.insert(&anomaly("pump-0042", 200, ago(1), 24.6));
    browser.wait("the offer", "document.getElementById('news').textContent.includes('1 new')");
    assert_eq!(browser.value("document.querySelectorAll('tr[data-key$=\"/200/0\"]').length"), json!(0));
}

#[test]
fn a_printed_page_shows_the_anomalies_and_no_controls() {
    let (stage, browser) = (sixty(), Browser::open());
    let pages = [
        ("overview", "/"),
        ("list", "/anomalies?severity=critical"),
        ("explain", "/anomalies/raw_events/0/59"),
        ("device", "/devices/pump-0042"),
        ("detection", "/detection"),
    ];
    for (name, path) in pages {
        let path = format!("{path}{}live=off", if path.contains('?') { "&" } else { "?" });
        browser.set_view(1440, 900, "dark");
        browser.visit(&stage, &format!("{path}&theme=dark"));
        let paper = browser.print();
        assert!(paper.starts_with(b"%PDF") && paper.len() > 10_000, "{path}");
        // A4 at 96 dots an inch, as the printer sees it.
        browser.on_paper(794, 1123);
        let shown = "[...document.querySelectorAll('nav, form, .filters, .live, button')].filter(e => e.checkVisibility()).length";
        assert_eq!(browser.value(shown), json!(0), "{path}");
        assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth"), json!(true), "{path}");
        let ink = "getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'";
        assert_eq!(browser.value(ink), json!(true), "{path} is dark on paper too");
        assert!(browser.text().contains("pump-0042") || name == "detection", "{path}");
        browser.picture(&format!("paper-{name}.png"));
    }
}

#[test]
fn one_stream_serves_all_tabs_of_a_browser() {
    let stage = Stage::with(|settings| settings.dashboard.refresh = Duration::from_secs(3600));
    stage.insert(&anomaly("pump-0042", 1, ago(60), 24.6));
    let browser = Browser::open();
    browser.visit(&stage, "/");
    let first = browser.runtime.block_on(browser.client.window()).unwrap();
    let second = browser.runtime.block_on(browser.client.new_window(true)).unwrap().handle;
    browser.runtime.block_on(browser.client.switch_to_window(second.clone())).unwrap();
    browser.visit(&stage, "/anomalies?device=press-0001");
    stage.insert(&anomaly("press-0001", 2, ago(3), 24.6));
    stage.insert(&anomaly("press-0002", 3, ago(2), 24.6));
    let streams = "performance.getEntriesByType('resource').filter(e => e.name.includes('/events')).length";
    let query = "navigator.locks.query().then(all => all.pending.length)";
    for (window, name) in [(&first, "press-0002"), (&second, "press-0001")] {
        browser.runtime.block_on(browser.client.switch_to_window(window.clone())).unwrap();
        browser.wait(name, &has(name));
    }
    assert_eq!(browser.value(&has("press-0002")), json!(false), "the second tab is filtered");
    assert_eq!(browser.value(streams), json!(0), "the second tab has no stream of its own");
    assert_eq!(browser.value(query), json!(1), "it waits to take over");
}

#[test]
fn a_page_that_the_database_answered_too_late_becomes_whole_and_live_by_itself() {
    let stage = Stage::with(|settings| settings.dashboard.refresh = Duration::from_secs(3600));
    stage.insert(&anomaly("pump-0042", 1, ago(60), 24.6));
    let browser = Browser::open();
    let mut client = stage.client();
    let mut lock = client.transaction().unwrap();
    lock.batch_execute("lock table sink_offsets in access exclusive mode").unwrap();
    browser.visit(&stage, "/");
    assert_eq!(browser.value("document.body.dataset.cursor === undefined"), json!(true));
    assert!(browser.text().contains("PostgreSQL does not answer in time"));
    lock.rollback().unwrap();
    browser.wait("what was there", &has("pump-0042"));
    stage.insert(&anomaly("press-0001", 2, ago(3), 24.6));
    browser.wait("what comes", &has("press-0001"));
}

#[test]
fn an_older_answer_does_not_remove_rows_of_the_stream() {
    let stage = Stage::with(|settings| settings.dashboard.refresh = Duration::from_secs(3600));
    stage.insert(&anomaly("pump-0042", 1, ago(60), 24.6));
    let browser = Browser::open();
    browser.visit(&stage, "/");
    // A slow network: the answer is made, and is there only when the row is too.
    let slow =
        "(window.asked = window.fetch, window.fetch = async (...all) => { const answer = await window.asked(...all);
                window.hasAnswer = true; await new Promise(go => window.deliver = go); return answer; }, true)";
    browser.value(slow);
    browser.value("document.dispatchEvent(new Event('visibilitychange'))");
    browser.wait("the answer", "window.hasAnswer === true");
    stage.insert(&anomaly("press-0001", 2, ago(3), 24.6));
    browser.wait("the row by the stream", &has("press-0001"));
    browser.value("(document.getElementById('clock').textContent = '', window.deliver(), true)");
    browser.wait("the answer on the page", "document.getElementById('clock').textContent !== ''");
    assert_eq!(browser.value(&has("press-0001")), json!(true));
}

#[test]
fn without_script_the_page_shows_everything_and_refreshes_itself() {
    let stage = Stage::with(|settings| settings.dashboard.refresh = Duration::from_secs(1));
    stage.insert(&anomaly("pump-0042", 1, ago(60), 24.6));
    let browser = Browser::with(false);
    browser.visit(&stage, "/");
    assert!(browser.text().contains("pump-0042"));
    stage.insert(&anomaly("press-0009", 2, ago(30), 24.6));
    wait_for("the new row", REFRESH, || browser.text().contains("press-0009"));
    browser.visit(&stage, "/anomalies/raw_events/0/1");
    browser.click("button[value=ack]");
    wait_for("the mark", REFRESH, || browser.text().contains("acknowledged by anyone"));
}

#[test]
fn the_keyboard_leads_to_an_explanation_a_review_and_back() {
    let (stage, browser) = (sixty(), Browser::open());
    browser.visit(&stage, "/anomalies?live=off");
    browser.keys("jj");
    assert_eq!(browser.value("document.querySelector('tr.at').dataset.key"), json!("raw_events/0/0/58/0/point"));
    browser.keys("\u{e007}");
    browser.wait("the explanation", "location.pathname === '/anomalies/raw_events/0/58/0/point'");
    browser.keys("e");
    browser.wait("the mark", "document.getElementById('main').textContent.includes('expected by anyone')");
    browser.keys("?");
    browser.wait("the list of keys", "location.pathname === '/keys'");
    browser.click("#keys");
    browser.keys("go");
    assert_eq!(browser.value("location.pathname"), json!("/keys"), "single keys are off");
}

#[test]
fn from_the_producer_to_the_page_its_explanation_a_review_and_an_export() {
    let case = Case::new("story");
    let _detector = case.detector("a", &[]);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let _dashboard = case.role("dashboard", &[("DASHBOARD__LISTEN", &listen), ("DASHBOARD__REFRESH", "1h")]);
    wait_for("the pages", REFRESH, || std::net::TcpStream::connect(&listen).is_ok());
    let browser = Browser::open();
    browser.go(&format!("http://{listen}/"));
    let main = |text: &str| format!("document.getElementById('main').textContent.includes('{text}')");
    browser.wait("the empty page", &main("No anomaly is recorded yet"));
    case.produce((0..40).map(|i| event("pump-0042", 20.0 + f64::from(i % 3))));
    case.produce([event("pump-0042", 99.0)]);
    // The table is not there before the first row is: the next refresh shows it, or the reader's own.
    wait_for("the row", Duration::from_secs(120), || {
        browser.go(&format!("http://{listen}/"));
        browser.value(&main("pump-0042")) == json!(true)
    });
    case.produce([event("pump-0042", 98.0)]);
    browser.wait("the second row by the stream", "document.querySelectorAll('tr[data-key]').length === 2");
    browser.click("tr[data-key] .go a");
    browser.wait("the explanation", &main("equal to the stored record in every bit"));
    assert_eq!(browser.value("document.querySelectorAll('.figure.large svg *').length > 100"), json!(true));
    browser.value("(document.querySelector('textarea').value = 'seen <it>', true)");
    browser.click("button[value=true]");
    browser.wait("the mark", &main("true alarm by anyone"));
    assert_eq!(browser.value(&main("seen <it>")), json!(true));
    let export = "fetch('/api/v1/anomalies.csv?review=true').then(answer => answer.text())";
    let csv = browser.value(export);
    let lines = csv.as_str().unwrap().lines().collect::<Vec<_>>();
    assert!(lines.len() == 2 && lines[1].contains("pump-0042,m,98"), "{lines:?}");
}

#[test]
fn every_time_of_a_page_is_in_one_zone_and_switches_lead_to_the_other_and_to_other_colours() {
    let (stage, browser) = (sixty(), Browser::open());
    stage.report();
    browser.command("Emulation.setTimezoneOverride", json!({"timezoneId": "Asia/Kolkata"}));
    let all = |selector: &str, is_right: &str| {
        format!(
            "(all => all.length > 0 && all.every(at => {is_right}))\
             ([...document.querySelectorAll('{selector}')].map(e => ({{text: e.textContent, time: new Date(e.dateTime || e.dataset.t)}})))"
        )
    };
    for (path, has_axis) in [("/", true), ("/anomalies", false), ("/detection", true), ("/devices/pump-0042", true)] {
        browser.visit(&stage, &format!("{path}?live=off"));
        let clocks = all("time[datetime]", "at.text.includes(at.time.toTimeString().slice(0, 8))");
        assert_eq!(browser.value(&clocks), json!(true), "{path}");
        if has_axis {
            let ticks = all("text[data-form=minute]", "at.text === at.time.toTimeString().slice(0, 5)");
            assert_eq!(browser.value(&ticks), json!(true), "{path}");
        }
        assert_eq!(browser.value("document.body.textContent.includes(' UTC:')"), json!(false), "{path}");
        assert_eq!(
            browser.value("document.getElementById('zone').textContent.startsWith('Times in Asia/')"),
            json!(true)
        );
        browser.click("footer a[href*='tz=UTC']");
        browser
            .wait("the same page in UTC", "location.search.includes('tz=UTC') && document.body.dataset.tz === 'UTC'");
        let clocks = all("time[datetime]", "at.text.includes(at.time.toISOString().slice(11, 19))");
        assert_eq!(browser.value(&clocks), json!(true), "{path} in UTC");
        assert_eq!(browser.value("document.getElementById('zone').textContent"), json!("Times in UTC."));
    }
    browser.click("footer a[href*='theme=dark']");
    browser.wait(
        "dark colours",
        "document.documentElement.dataset.theme === 'dark' && document.body.dataset.tz === 'UTC'",
    );
}

#[test]
fn no_name_becomes_markup_on_any_page_or_in_the_stream() {
    let corpus = [
        "<script>window.pwned=1</script>",
        "\"><img src=x onerror=window.pwned=1>",
        "'><svg onload=window.pwned=1>",
        "</title><script>window.pwned=1</script>",
        "</svg><script>window.pwned=1</script>",
        "javascript:window.pwned=1",
        "{{7*7}}{% raw %}",
        "]]><b id=pwned>",
        "<!--<b id=pwned>",
        "&lt;b id=pwned&gt;",
        "a\u{202e}b\u{2028}c\td\ne",
        "data: x\n\nevent: anomaly\ndata: {}",
    ];
    let stage = Stage::with(|settings| settings.dashboard.refresh = Duration::from_secs(3600));
    let row = |i: usize, name: &str| {
        let mut row = anomaly(name, i as i64, ago(100 - i as i64), 24.6);
        row.metric_name = Some(name.to_owned());
        row.label = Some(name.to_owned());
        row
    };
    corpus.iter().enumerate().for_each(|(i, name)| stage.insert(&row(i, name)));
    let browser = Browser::open();
    let clean =
        "window.pwned === undefined && !document.querySelector('#pwned, main script, main img, [onerror], [onload]')";
    let mut pages = ["/", "/anomalies", "/devices", "/detection"].map(str::to_owned).to_vec();
    for (i, name) in corpus.iter().enumerate() {
        let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string();
        pages.push(format!("/anomalies/raw_events/0/{i}"));
        pages.push(format!("/devices/{name}"));
        pages.push(format!("/devices/{name}/{name}"));
        pages.push(format!("/anomalies?device={name}&metric={name}&label={name}&q={name}"));
    }
    for page in pages {
        browser.visit(&stage, &page);
        assert_eq!(browser.value(clean), json!(true), "{page}");
        assert!(browser.value("document.getElementById('main').children.length").as_u64().unwrap() > 0, "{page}");
    }
    browser.visit(&stage, "/");
    stage.insert(&anomaly("first", 900, ago(5), 24.6));
    browser.wait("the stream", "document.getElementById('main').textContent.includes('first')");
    corpus.iter().enumerate().for_each(|(i, name)| stage.insert(&row(1_000 + i, name)));
    let count = corpus.len();
    browser.wait(
        "all of them",
        &format!("document.querySelectorAll('tr[data-key^=\"raw_events/0/0/1\"]').length >= {count}"),
    );
    assert_eq!(browser.value(clean), json!(true), "the stream");
}

#[test]
fn every_page_is_accessible_in_both_themes_at_every_size_and_never_scrolls_sideways() {
    let stage = sixty();
    (60..75).for_each(|i| {
        let name = format!("a-device-with-a-rather-long-name-{i}");
        stage.insert(&anomaly(&name, i, ago(3000 - i * 20), if i % 2 == 0 { 24.6 } else { 21.9 }));
    });
    stage.report();
    examine(&stage, &pages_of_calm());
}

#[test]
fn problems_are_shown_accessibly_in_both_themes_at_every_size() {
    let stage = sixty();
    stage.report();
    let conditions = "insert into detector_conditions (detector_group, topic, worker, code, severity, message, since, updated_at) values
         ('g', 'raw_events', 'a/worker-0', 'open_transaction', 'degraded',
          'an open transaction at offset 1,234 of raw_events [3] holds back 500 records; the producer may have died', now(), now() + interval '1 hour'),
         ('g', 'raw_events', 'a/worker-0', 'split_series', 'notice',
          'devices are seen in two partitions: pump-0042; records are not keyed by device', now() - interval '2 days', now() + interval '1 hour'),
         ('g', 'raw_events', 'b/worker-0', 'rows_refused', 'degraded', 'the table refused 3 rows', now() - interval '2 days', now() - interval '1 day');
         update detector_status set updated_at = now() + interval '1 hour';
         insert into sink_rejects (topic, partition, record_offset, reason, message) select 'anomalies', 0, n, '22P05', 'no such character' from generate_series(1, 3) n;
         insert into rejected_samples select 'g', 'raw_events', 0, 0, n, 'device_id', '`device_id` is missing', null, null,
             convert_to('{\"device\":\"pump-0042\",\"metric_value\":21.5,\"note\":\"' || repeat('long ', 30) || '\"}', 'UTF8'), 5000, now() - n * interval '1 second'
         from generate_series(1, 12) n";
    for (i, hours) in [2, -3, 30_000].into_iter().enumerate() {
        stage.insert(&anomaly("clock-0007", 100 + i as i64, ago(3_600 * hours), 24.6));
    }
    stage.client().batch_execute("update anomalies set detected_at = now()").unwrap();
    stage.client().batch_execute(conditions).unwrap();
    let pages = [
        ("wrong-overview", "/?live=off"),
        ("wrong-list", "/anomalies?live=off&span=1h"),
        ("wrong-detection", "/detection?live=off"),
        ("wrong-letters", "/dead-letters?live=off"),
        ("wrong-device", "/devices/nobody?live=off"),
    ];
    examine(&stage, &pages);
}

fn pages_of_calm() -> Vec<(&'static str, &'static str)> {
    vec![
        ("overview", "/?live=off"),
        ("list", "/anomalies?live=off&severity=critical"),
        ("none", "/anomalies?live=off&device=nobody"),
        ("explain", "/anomalies/raw_events/0/59?live=off"),
        ("devices", "/devices?live=off&span=7d"),
        ("device", "/devices/pump-0042?live=off"),
        ("series", "/devices/pump-0042/temperature?live=off&span=30d"),
        ("detection", "/detection?live=off"),
        ("keys", "/keys"),
        ("gone", "/anomalies/raw_events/0/9999"),
        ("misread", "/?colour=red"),
    ]
}

/// Checks the pages for accessibility problems, and writes pictures of them.
fn examine(stage: &Stage, pages: &[(&str, &str)]) {
    let axe = std::fs::read_to_string(root().join("target/axe/axe.min.js")).expect("axe: `tests/run` fetches it");
    let browser = Browser::open();
    let mut problems = Vec::new();
    for (name, path) in pages.iter().copied() {
        for theme in ["light", "dark"] {
            for width in [320, 390, 1440] {
                browser.set_view(width, 900, theme);
                browser.visit(stage, path);
                browser.picture(&format!("{name}-{theme}-{width}.png"));
                let wide = browser.value("document.documentElement.scrollWidth");
                if wide.as_u64().unwrap() > u64::from(width) {
                    problems.push(format!("{name} {theme} {width}: {wide} pixels wide"));
                }
                browser.value(&format!("(() => {{ {axe}; return true }})()"));
                let found =
                    browser.value("axe.run().then(all => all.violations.map(v => v.id + ': ' + v.nodes[0].html))");
                let found = found.as_array().unwrap().iter().map(|v| format!("{name} {theme} {width}: {v}"));
                problems.extend(found);
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
