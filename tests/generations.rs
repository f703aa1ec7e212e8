//! Anomalies of two topics of one name, which differ only in their generation: each has its own row, page, review, line of
//! an export and message of the stream.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common::{Case, event, free_port, get, wait};
use crate::live::Reader;
use crate::pipeline::{forge, wait_done};

/// Returns the generation, the kind and the review of each record, sorted.
fn named(records: &[Value]) -> Vec<String> {
    let text = |record: &Value| {
        let (kind, review) = (record["kind"].as_str().unwrap(), record["review"].as_str().unwrap());
        format!("{} {kind} {review}", record["source"]["generation"])
    };
    let mut named = records.iter().map(text).collect::<Vec<_>>();
    named.sort();
    named
}

#[test]
fn anomalies_that_differ_only_in_their_generation_are_stored_shown_reviewed_exported_and_sent_apart() {
    let case = Case::new("generations");
    case.produce((0..40).map(|i| event("a", f64::from(i % 5))).chain([event("a", 99.0)]));
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let _dashboard = case.role("dashboard", &[("DASHBOARD__LISTEN", &listen)]);
    let _detector = case.detector("a", &[]);
    wait_done(&case, 41);
    let first = case.read(&case.anomalies())[0].json();
    assert_eq!(first["source"]["generation"], 0);
    let (topic, partition) = (case.raw().replace('.', "%2E"), &first["source"]["partition"]);
    let record = format!("/anomalies/{topic}/{partition}/{}", first["source"]["offset"]);
    let place = format!("{record}/0/point");
    let page = |url: &str| {
        let mut answer = None;
        // A busy database may answer too late for one request.
        wait(url, || {
            answer = get(port, url).filter(|(status, _)| *status != 503);
            answer.is_some()
        });
        answer.unwrap()
    };
    assert!(page("/anomalies").1.contains(&format!("href=\"{place}\"")), "the only generation is the newest");

    let reader = Reader::default();
    reader.open(listen.parse().unwrap(), "");
    wait("the stream", || reader.has_begun());
    let other = |generation: i64, kind: &str, label: &str| {
        let mut other = first.clone();
        (other["source"]["generation"], other["kind"], other["label"]) = (generation.into(), kind.into(), label.into());
        other
    };
    let mut bare = first.clone();
    bare["source"].as_object_mut().unwrap().remove("generation");
    let forged = [other(1, "point", "second-topic"), other(0, "limit", ""), bare, other(1, "point", "conflicting")];
    forge(&case, &forged.map(|json| json.to_string().into_bytes()));
    wait("the three rows", || case.count("anomalies") == 3);
    wait("the conflict within the second generation", || case.count("sink_rejects") == 1);

    // The stream, and the keys of the rows on a page.
    reader.wait(2);
    let key = |generation: i64, kind: &str| {
        let place = record.trim_start_matches("/anomalies/").replacen('/', &format!("/{generation}/"), 1);
        format!("{place}/0/{kind}")
    };
    assert_eq!(reader.rows(), BTreeMap::from([(key(0, "limit"), 1), (key(1, "point"), 1)]));
    // An answer of less than a second ago may be sent again.
    let mut list = String::new();
    wait("the list with all three", || {
        list = page("/anomalies").1;
        list.matches("data-key=").count() == 3
    });
    for (generation, kind, url) in [
        (0, "limit", format!("{record}/0/limit?generation=0")),
        (0, "point", format!("{place}?generation=0")),
        (1, "point", place.clone()),
    ] {
        assert!(list.contains(&format!("data-key=\"{}\"", key(generation, kind))), "{generation} {kind}: {list}");
        assert!(list.contains(&format!("href=\"{url}\"")), "{url}: {list}");
    }

    // The pages of each, and the address of their record.
    let shown = |url: &str| {
        let (status, page) = page(url);
        (status, page.contains("second-topic"), page.contains("0, an earlier topic of this name"))
    };
    assert_eq!(shown(&place), (200, true, false));
    assert_eq!(shown(&format!("{place}?generation=1")), (200, true, false));
    assert_eq!(shown(&format!("{place}?generation=0")), (200, false, true));
    assert_eq!(shown(&format!("{place}?generation=2")).0, 404);
    assert_eq!(shown(&format!("{place}?generation=x")).0, 400);
    assert_eq!(shown(&record), (200, true, false));
    assert_eq!(shown(&format!("{record}?generation=0")), (200, false, true));
    // Only the first generation has this one.
    assert_eq!(shown(&format!("{record}/0/limit")), (200, false, true));

    // Reviews.
    let review = |url: &str, review: &str| {
        let config = ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false).build();
        let form = format!("review={review}&note=n");
        let answer = ureq::Agent::from(config).post(format!("http://{listen}{url}")).send(form).unwrap();
        (answer.status().as_u16(), answer.headers().get("location").map(|to| to.to_str().unwrap().to_owned()))
    };
    let reviews = format!("{place}/reviews");
    assert!(page(&format!("{place}?generation=0")).1.contains(&format!("action=\"{reviews}?generation=0\"")));
    let back = format!("{place}?generation=0");
    assert_eq!(review(&format!("{reviews}?generation=0"), "true"), (303, Some(back.clone())));
    assert_eq!(review(&reviews, "false"), (303, Some(place.clone())));
    assert_eq!(review(&format!("{reviews}?generation=2"), "ack").0, 404);
    let reviewed = |url: &str| {
        let (_, page) = page(url);
        (page.contains("true alarm</b> by"), page.contains("false alarm</b> by"))
    };
    assert_eq!((reviewed(&back), reviewed(&place)), ((true, false), (false, true)));
    assert_eq!(case.count("current_reviews"), 2);

    // The API, its pages, and the exports.
    let expected = ["0 limit none", "0 point true", "1 point false"];
    let api = |query: &str| serde_json::from_str::<Value>(&page(&format!("/api/v1/anomalies{query}")).1).unwrap();
    let (mut all, mut url) = (Vec::new(), "?limit=1".to_owned());
    loop {
        let answer = api(&url);
        all.extend(answer["anomalies"].as_array().unwrap().clone());
        let Some(next) = answer["next"].as_str() else { break };
        url = format!("?limit=1&before={next}");
    }
    assert_eq!(named(&all), expected);
    assert_eq!(named(api("?review=true").get("anomalies").unwrap().as_array().unwrap()), ["0 point true"]);
    let (_, lines) = page("/api/v1/anomalies.jsonl");
    assert_eq!(named(&lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()), expected);
    let (_, csv) = page("/api/v1/anomalies.csv");
    let mut table = csv::Reader::from_reader(csv.as_bytes());
    let column = table.headers().unwrap().iter().position(|name| name == "source_generation").unwrap();
    let mut generations = table.records().map(|line| line.unwrap()[column].to_owned()).collect::<Vec<_>>();
    generations.sort();
    assert_eq!(generations, ["0", "0", "1"]);
}
