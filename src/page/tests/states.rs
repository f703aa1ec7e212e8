//! Tests of the pages in each state of the data.

use super::*;

#[test]
fn hostile_names_stay_text_on_every_page_and_every_page_is_guarded() {
    let (_, handler) = pages(1.0, 9);
    for url in all() {
        let (response, body) = get(&handler, &url);
        assert_eq!(response.status, 200, "{url}: {body}");
        assert!(body.contains("&lt;script&gt;alert(1)"), "{url} does not show the device");
        assert!(!body.contains("<script>alert"), "{url}");
        assert!(!body.contains(" style=") && !body.contains("<style"), "{url} is styled inline");
        assert!(!body.contains("NaN"), "{url}");
        let policy = header(&response, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
        assert!(header(&response, "referrer-policy").is_some());
    }
}

#[test]
fn foreign_names_are_isolated_on_every_page_and_direction_characters_are_visible() {
    let status = StatusRow { topic: HOSTILE.into(), worker: HOSTILE.into(), state: HOSTILE.into(), ..status(1.0) };
    let gone = StatusRow { topic: HOSTILE.into(), partition: 1, ..super::status(3_600.0) };
    let condition = ConditionRow {
        group: "g".into(),
        topic: HOSTILE.into(),
        worker: HOSTILE.into(),
        code: HOSTILE.into(),
        severity: crate::health::ConditionSeverity::Notice,
        message: HOSTILE.into(),
        since: now(),
        age: 1.0,
    };
    let dead_letter = DeadLetter {
        group: "g".into(),
        topic: HOSTILE.into(),
        partition: 0,
        offset: 1,
        class: HOSTILE.into(),
        message: HOSTILE.into(),
        key: Some(Excerpt { bytes: HOSTILE.into(), size: HOSTILE.len() as i64 }),
        value: Some(Excerpt { bytes: HOSTILE.into(), size: 5_000 }),
        at: now(),
    };
    let mut fake = Fake {
        mood: AtomicU8::new(0),
        age: 1.0,
        judged: 9,
        facts: ArchiveFacts {
            status: Some(vec![status, gone]),
            conditions: vec![condition],
            dead_letters: vec![dead_letter],
            ..ArchiveFacts::default()
        },
        reviews: Mutex::default(),
    };
    fake.facts.outside = Outside { records: vec![fake.record()], is_more: false };
    let review = NewReview {
        anomaly: fake.record().anomaly.id(),
        review: Review::True,
        note: HOSTILE.into(),
        by: HOSTILE.into(),
    };
    fake.reviews.lock().unwrap().push(review);
    let handler = app(Arc::new(fake), options(Access::Open { is_anywhere: true })).unwrap();
    let hostile = super::super::view::links::segment(HOSTILE);
    let mut urls = all();
    urls.extend(["/detection".into(), "/dead-letters".into(), "/anomalies?span=1h".into()]);
    urls.extend([format!("/?{hostile}=1"), format!("/anomalies?q={hostile}")]);
    for url in urls {
        let (_, body) = get(&handler, &url);
        // The value of a form field is isolated by the field itself.
        let mut parts = body.split("value=\"");
        let first = parts.next().unwrap_or_default().to_owned();
        let shown = parts.fold(first, |shown, part| shown + part.split_once('"').map_or("", |(_, rest)| rest));
        let turning =
            |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}' | '\u{2067}' | '\u{200e}' | '\u{200f}');
        assert!(!shown.contains(turning), "{url} turns the text");
        assert!(shown.contains("\\u{202e}"), "{url} does not show what turns the text");
        let name = "&lt;script&gt;alert(1)";
        for (at, _) in shown.match_indices(name) {
            let before = &shown[..at];
            let is_isolated =
                ["<bdi>", "\u{2068}", "title=\"", "dir=\"auto\">"].iter().any(|start| before.ends_with(start));
            let is_within = before
                .rsplit("<bdi>")
                .next()
                .is_some_and(|inside| !inside.contains("</bdi>") && before.contains("<bdi>"));
            assert!(is_isolated || is_within, "{url}: {}", &before[before.len().saturating_sub(80)..]);
        }
    }
}

#[test]
fn a_device_without_anomalies_says_whether_it_sends_and_an_unknown_one_is_404() {
    let of = |known| {
        let facts = ArchiveFacts { is_empty: true, known: Some(known), ..ArchiveFacts::default() };
        let fake = Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() };
        let handler = app(Arc::new(fake), options(Access::Open { is_anywhere: true })).unwrap();
        let (response, body) = get(&handler, "/devices/pump-0042");
        (response.status, body)
    };
    let (status, body) = of(Known::Seen(now()));
    assert!(status == 200 && body.contains("· no anomaly is recorded"), "{body}");
    // Its values may be excluded, or only learned.
    let said = "A record of this device was noted at 17:00:12 (once a day). No anomaly of it is recorded. Whether its \
                values are judged is not known here; the page Detection has the overrides.";
    assert!(plain(&body).contains(said) && !body.contains("watches"), "{body}");
    let (status, body) = of(Known::Incomplete);
    assert!(status == 200 && body.contains("It is not known whether it sends"), "{body}");
    let (status, body) = of(Known::Unknown);
    assert!(status == 404 && body.contains("There is no such device"), "{body}");
}

#[test]
fn a_search_without_a_match_says_that_a_device_sends_only_if_that_is_known() {
    let month = Timestamp::from_millis(now().millis() - 30 * 86_400_000).unwrap();
    for (known, words, is_linked) in [
        (Known::Seen(now()), "It has sent within the last 2 days.", true),
        (Known::Seen(month), "Its last record was noted 30 d ago.", true),
        (Known::Unknown, "No device of exactly this name is known to have sent a record.", false),
        (Known::Incomplete, "It is not known whether a device of exactly this name sends.", false),
    ] {
        let facts = ArchiveFacts { is_empty: true, known: Some(known), ..ArchiveFacts::default() };
        let fake = Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() };
        let handler = app(Arc::new(fake), options(Access::Open { is_anywhere: true })).unwrap();
        let (_, found) = get(&handler, "/anomalies?q=pump-0042");
        assert!(found.contains(words), "{known:?}: {found}");
        assert_eq!(found.contains("There is <a href=\"/devices/pump-0042\">a device of this name</a>."), is_linked);
        assert_eq!(found.contains("It has sent"), words.starts_with("It has sent"), "{known:?}: {found}");
    }
}

#[test]
fn the_zone_and_the_colours_can_be_chosen_on_every_page_and_every_time_can_be_written_in_both_zones() {
    let (_, handler) = pages(1.0, 9);
    for url in all() {
        let (_, body) = get(&handler, &url);
        for choice in [">local</a>", ">UTC</a>", ">system</a>", ">light</a>", ">dark</a>"] {
            assert!(body.contains(choice), "{url} has no {choice}");
        }
        assert!(body.contains("tz=UTC") && body.contains("theme=dark"), "{url}");
        // A time of day outside of an element that the script rewrites would stay in UTC.
        let main = body.split("<main").nth(1).unwrap();
        for part in main.split('<').filter(|part| !part.starts_with("time ") && !part.contains("data-t=")) {
            let text = part.split_once('>').map_or("", |(_, text)| text);
            let is_clock =
                |w: &[u8]| w[0].is_ascii_digit() && w[1].is_ascii_digit() && w[2] == b':' && w[3].is_ascii_digit();
            assert!(!text.as_bytes().windows(4).any(is_clock), "{url}: {text}");
        }
        let (_, utc) = get(&handler, &format!("{url}{}tz=UTC", if url.contains('?') { "&" } else { "?" }));
        assert!(utc.contains("data-tz=\"UTC\""), "{url}");
    }
}

#[test]
fn an_unknown_key_is_400_with_its_name() {
    let (_, handler) = pages(1.0, 9);
    for url in all() {
        let (response, body) = get(&handler, &format!("{}?c%3Colour=red", url.split('?').next().unwrap()));
        assert_eq!(response.status, 400, "{url}");
        assert!(body.contains("`c&lt;olour` is not a parameter of this page"), "{url}: {body}");
    }
    let (response, body) = get(&handler, "/api/v1/anomalies?limit=0");
    assert_eq!(response.status, 400);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["parameter"], "limit");
}

#[test]
fn an_unknown_path_is_404() {
    let (_, handler) = pages(1.0, 9);
    let long = format!("/devices/{}", "x".repeat(257));
    for url in [
        "/x",
        "/anomalies/t/0",
        "/anomalies/t/0/0/point",
        "/anomalies/t/x/0",
        "/anomalies/t/x/0/0/point",
        "/anomalies/raw_events/3/1/0/point",
        "/devices/%00",
        "/devices/%ff",
        &long,
        "/assets/style.css",
        "/../etc/passwd",
        "/api",
        "/api/x",
    ] {
        assert_eq!(get(&handler, url).0.status, 404, "{url}");
    }
}

#[test]
fn assets_are_kept_for_ever_under_the_hash_of_their_content() {
    let (_, handler) = pages(1.0, 9);
    let (_, body) = get(&handler, "/");
    for (start, kind) in
        [("/assets/style.", "text/css; charset=utf-8"), ("/assets/app.", "text/javascript; charset=utf-8")]
    {
        let at = body.find(start).unwrap();
        let path = &body[at..at + body[at..].find('"').unwrap()];
        let (response, _) = get(&handler, path);
        assert_eq!((response.status, header(&response, "content-type")), (200, Some(kind)));
        assert!(header(&response, "cache-control").unwrap().contains("immutable"));
    }
}

#[test]
fn the_page_refreshes_itself_with_and_without_script_unless_paused() {
    let (_, handler) = pages(1.0, 9);
    let (_, body) = get(&handler, "/?severity=critical");
    assert!(body.contains("data-refresh=\"5\"") && body.contains("http-equiv=\"refresh\" content=\"5\""));
    assert!(body.contains("href=\"/?severity=critical&amp;live=off\""), "{body}");
    let (_, paused) = get(&handler, "/?severity=critical&live=off");
    assert!(!paused.contains("data-refresh") && !paused.contains("http-equiv=\"refresh\""));
    assert!(paused.contains("href=\"/?severity=critical\""));
}

#[test]
fn quiet_learning_and_stopped_never_look_alike() {
    let sentence = |age, judged| {
        let (_, body) = get(&pages(age, judged).1, "/");
        let at = body.find("class=\"sentence\"").unwrap();
        body[at..at + 200].to_owned()
    };
    assert!(sentence(1.0, 9).contains("Detecting. <strong>1 anomaly</strong>"));
    assert!(sentence(1.0, 0).contains("Learning. <strong>Nothing is judged yet.</strong>"));
    // Seven series sent nine values in two minutes, so they need about forty-five more minutes for thirty each.
    assert!(
        get(&pages(1.0, 0).1, "/").1.contains("a series is judged in about 50 min."),
        "{}",
        get(&pages(1.0, 0).1, "/").1
    );
    assert!(sentence(16.0, 9).contains("Detection has stopped. <strong>No report for 16 s.</strong>"));
    let (_, stopped) = get(&pages(600.0, 9).1, "/");
    assert!(plain(&stopped).contains("has not reported since 16:50:12"), "{stopped}");
    assert!(stopped.contains("class=\"hatch\""));
}

#[test]
fn overrides_are_a_table_that_shows_foreign_text_as_text_and_an_unknown_form_as_it_is() {
    let detection = |value: String| {
        let settings = Some(vec![("threshold".into(), "3.0".into()), ("override".into(), value)]);
        let facts = ArchiveFacts { settings, ..ArchiveFacts::default() };
        let fake = Arc::new(Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() });
        let handler = app(fake, options(Access::Open { is_anywhere: true })).unwrap();
        let (response, body) = get(&handler, "/detection");
        assert_eq!(response.status, 200, "{body}");
        assert!(!body.contains("<script>alert") && !body.contains('\u{202e}'), "{body}");
        body
    };
    let body = detection(
        serde_json::json!([
            { "device": "pump-*", "threshold": 4.5, "method": "ewma" },
            { "device": HOSTILE, "metric": "noise", "enabled": false, "season": { "days": 7 } },
            { "metric": "temp*" },
        ])
        .to_string(),
    );
    let table = body.split("id=\"h-overrides-1\"").nth(1).unwrap();
    let (_, rows) = table.split_once("<tbody>").unwrap();
    let rows = rows.split_once("</tbody>").unwrap().0.split("</tr>").map(|row| {
        let cells = row.split("</td>").map(|cell| plain(cell).replace(['\u{2068}', '\u{2069}'], ""));
        cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    });
    let rows = rows.filter(|row| !row.is_empty()).collect::<Vec<_>>();
    let hostile = plain(&crate::page::chart::escape(&crate::foreign::text(HOSTILE).to_string()));
    assert_eq!(rows[0], ["pump-*", "*", "method = ewma, threshold = 4.5"]);
    assert_eq!(rows[1], [hostile.as_str(), "noise", "enabled = false, season = {&quot;days&quot;:7}"]);
    assert_eq!(rows[2..], [vec!["*", "temp*", "nothing"]]);
    assert!(!plain(&body).contains("override ["), "{body}");
    // A later version may store another form; it must not break the page.
    let body = detection(format!("{{\"{}\": 1}}", HOSTILE.replace(['"', '\\'], "")));
    assert!(body.contains("<dt>\u{2068}override\u{2069}</dt>") && !body.contains("h-overrides"), "{body}");
}

#[test]
fn minutes_of_excluded_series_are_drawn_and_named_on_the_detection_page_and_the_overview() {
    let excluded = Tally { excluded: 9, ..Tally::default() };
    let facts = || ArchiveFacts {
        coverage: Some((0..10).map(|at| (at, excluded)).collect()),
        activity: Some(vec![]),
        is_empty: true,
        ..ArchiveFacts::default()
    };
    for (url, facts, is_named) in [
        ("/detection?span=1h", facts(), true),
        ("/", facts(), true),
        ("/detection?span=1h", ArchiveFacts::default(), false),
        ("/", ArchiveFacts::default(), false),
    ] {
        let fake = Arc::new(Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() });
        let (_, body) = get(&app(fake, options(Access::Open { is_anywhere: true })).unwrap(), url);
        assert_eq!(body.contains("</svg>excluded</span>"), is_named, "{url}: {body}");
        assert_eq!(body.contains("only excluded in"), is_named, "{url}: {body}");
    }
}

#[test]
fn an_outage_shows_the_last_data_with_its_date_and_ends_by_itself() {
    let (fake, handler) = pages(1.0, 9);
    assert_eq!(header(&get(&handler, "/").0, "x-stale"), None);
    std::thread::sleep(Duration::from_millis(900));
    fake.mood.store(1, Ordering::SeqCst);
    let start = Clock::now();
    let (response, body) = get(&handler, "/");
    assert_eq!((response.status, header(&response, "x-stale")), (200, Some("1")));
    assert!(plain(&body).contains("PostgreSQL has been unreachable since 17:00:12."), "{body}");
    assert!(plain(&body).contains("The last data is from 17:00:12.") && body.contains("Newest anomalies"));
    assert!(title(&body).starts_with("State not known · "), "the detector may run: {}", title(&body));
    let (response, cold) = get(&handler, "/anomalies");
    assert_eq!((response.status, header(&response, "retry-after")), (503, Some("5")));
    assert!(cold.contains("PostgreSQL has been unreachable since") && cold.contains("data-refresh"));
    let (response, api) = get(&handler, "/api/v1/anomalies");
    assert_eq!((response.status, header(&response, "retry-after")), (503, Some("5")));
    for text in [body, cold, api] {
        assert!(!text.contains("/var/run"), "{text}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    fake.mood.store(0, Ordering::SeqCst);
    let patience = Clock::now();
    while get(&handler, "/anomalies").0.status != 200 {
        assert!(patience.elapsed() < Duration::from_secs(5), "the end of the outage is not noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(header(&get(&handler, "/").0, "x-stale"), None);
}

#[test]
fn a_refusal_names_the_remedy() {
    let (fake, handler) = pages(1.0, 9);
    fake.mood.store(2, Ordering::SeqCst);
    let (response, body) = get(&handler, "/");
    assert_eq!(response.status, 503);
    assert!(body.contains("PostgreSQL refuses to answer.") && body.contains("`anomaly migrate`"), "{body}");
}

#[test]
fn a_page_is_complete_after_three_requests() {
    let (_, handler) = pages(1.0, 9);
    for url in all() {
        let (_, body) = get(&handler, &url);
        let loads =
            |start: &str| body.split(start).skip(1).filter_map(|rest| rest.split('"').next()).collect::<Vec<_>>();
        let (styles, scripts) = (loads("<link rel=\"stylesheet\" href=\""), loads("<script src=\""));
        assert_eq!((styles.len(), scripts.len()), (1, 1), "{url}");
        assert!(body.contains("<link rel=\"icon\" href=\"data:"), "{url}");
        assert_eq!(body.matches("/assets/").count(), 2, "{url}");
        assert!(!body.contains("<img"), "{url}");
    }
}

#[test]
fn texts_are_compressed_for_clients_that_accept_it() {
    let (_, handler) = pages(1.0, 9);
    let mut request = Request::get("/", "");
    request.headers.insert("accept-encoding", "br, gzip".parse().unwrap());
    let response = handler(request);
    assert_eq!(header(&response, "content-encoding"), Some("gzip"));
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(&response.body.whole().unwrap()[..]);
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert!(text.contains("Newest anomalies"));
    assert_eq!(header(&get(&handler, "/").0, "content-encoding"), None);
}

#[test]
fn the_script_is_small_when_it_is_sent() {
    // The limit was 4,096 bytes before the script worked without storage, without locks, and below a base path.
    const MAX_BYTES: usize = 5_120;
    let (_, handler) = pages(1.0, 9);
    let (_, body) = get(&handler, "/");
    let path = body.split("<script src=\"").nth(1).unwrap().split('"').next().unwrap();
    let mut request = Request::get(path, "");
    request.headers.insert("accept-encoding", "gzip".parse().unwrap());
    let length = handler(request).body.whole().unwrap().len();
    assert!(length <= MAX_BYTES, "{length} bytes");
}
