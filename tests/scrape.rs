//! Tests of `/metrics` as scrapers read it: in the format that they ask for, checked by Prometheus' own tool, with the
//! metrics of each role.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::common::{Case, Process, event, free_port, wait_for};

/// Sends a request as it is spelled; returns the whole answer.
fn ask(process: &Process, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", process.port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn scrape(process: &Process, accept: &str) -> (String, String) {
    let accept = if accept.is_empty() { String::new() } else { format!("accept: {accept}\r\n") };
    let answer = ask(process, &format!("GET /metrics HTTP/1.1\r\nhost: a\r\n{accept}connection: close\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

/// Starts a detector that has judged and rejected, a dashboard, and a producer.
fn roles(case: &Case) -> [Process; 3] {
    let detector = case.detector("a", &[]);
    case.produce((0..40).map(|i| event("pump-0042", 20.0 + f64::from(i % 3))));
    case.produce([event("pump-0042", 99.0)]);
    wait_for("the anomaly", Duration::from_secs(120), || {
        detector.metric("anomaly_anomalies_total{") > 0.0 || {
            detector
                .get("/metrics")
                .is_some_and(|(_, text)| text.contains("anomaly_anomalies_total{kind=\"critical\"} 1"))
        }
    });
    let listen = format!("127.0.0.1:{}", free_port());
    let dashboard = case.role("dashboard", &[("DASHBOARD__LISTEN", &listen)]);
    let producer = case.role("producer", &[("PRODUCER__RATE", "1")]);
    // The dashboard asks itself, the producer publishes.
    for (role, metric) in [(&dashboard, "anomaly_requests_total"), (&producer, "anomaly_published_total")] {
        wait_for(metric, Duration::from_secs(90), || {
            role.get("/metrics").is_some_and(|(_, text)| text.contains(metric))
        });
    }
    [detector, dashboard, producer]
}

#[test]
fn a_scraper_gets_the_format_that_it_asks_for_and_each_role_has_its_own_metrics() {
    let case = Case::new("scrape");
    let roles = roles(&case);
    let [detector, dashboard, producer] = &roles;
    for role in &roles {
        for accept in ["", "*/*", "text/plain;version=0.0.4", "application/openmetrics-text;q=0.1,text/plain;q=0.5"] {
            let (head, body) = scrape(role, accept);
            assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{accept}: {head}");
            assert!(!body.contains("# EOF") && body.contains("# TYPE anomaly_build_info gauge\n"), "{accept}: {body}");
        }
        let (head, body) = scrape(role, "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        assert!(body.ends_with("# EOF\n") && head.contains("vary: accept"), "{head}{body}");
    }
    let text = |role| scrape(role, "").1;
    assert!(text(detector).contains("# TYPE anomaly_events_total counter\n"));
    for (role, own, others) in [
        (detector, ["anomaly_events_total", "anomaly_lag"], ["anomaly_requests", "anomaly_published"]),
        (dashboard, ["anomaly_requests", "anomaly_ready"], ["anomaly_events", "anomaly_published"]),
        (producer, ["anomaly_published_total", "anomaly_ready"], ["anomaly_requests", "anomaly_lag"]),
    ] {
        let text = text(role);
        assert!(own.iter().all(|name| text.contains(name)), "{text}");
        assert!(!others.iter().any(|name| text.contains(name)), "{text}");
    }
}

#[test]
fn a_scrape_by_http_1_0_or_head_is_answered_and_a_form_is_not() {
    let case = Case::bare("scrape", super::common::Parts::shared());
    let listen = format!("127.0.0.1:{}", free_port());
    let dashboard = case.role("dashboard", &[("DASHBOARD__LISTEN", &listen)]);
    dashboard.wait_ready();
    let old = ask(&dashboard, "GET /metrics HTTP/1.0\r\n\r\n");
    assert!(old.contains(" 200 OK\r\n") && old.contains("\nanomaly_ready 1\n"), "{old}");
    let head = ask(&dashboard, "HEAD /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(head.contains(" 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let absolute = ask(&dashboard, "GET http://any/metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(absolute.contains("\nanomaly_ready 1\n"), "{absolute}");
    for method in ["POST", "DELETE", "OPTIONS"] {
        let request =
            format!("{method} /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert!(ask(&dashboard, &request).starts_with("HTTP/1.1 405"), "{method}");
    }
}

#[test]
#[ignore = "needs the package prometheus: `make test-all`"]
fn promtool_finds_nothing_wrong_and_prometheus_scrapes_every_role() {
    let case = Case::new("promtool");
    let roles = roles(&case);
    for role in &roles {
        let mut check = Command::new("promtool");
        let check =
            check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = check.spawn().expect("promtool: packaging/install-deps slow");
        check.stdin.take().unwrap().write_all(scrape(role, "").1.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let targets = roles.iter().map(|role| format!("'127.0.0.1:{}'", role.port)).collect::<Vec<_>>().join(", ");
    let config =
        format!("scrape_configs: [{{job_name: a, scrape_interval: 1s, static_configs: [{{targets: [{targets}]}}]}}]\n");
    let (dir, port) = (case.dir.path(), free_port());
    std::fs::write(dir.join("prometheus.yml"), config).unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _server = Process::start(&mut command, dir.join("prometheus.log"), port);
    for query in ["sum(up)", "count(anomaly_build_info)"] {
        wait_for(query, Duration::from_secs(90), || {
            let answer = super::common::get(port, &format!("/api/v1/query?query={query}"));
            answer.is_some_and(|(_, text)| text.contains(",\"3\"]"))
        });
    }
    let answer = super::common::get(port, "/api/v1/query?query=anomaly_anomalies_total").unwrap().1;
    assert!(answer.contains("\"kind\":\"critical\""), "{answer}");
}
