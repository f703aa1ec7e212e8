//! Tests of the verdict while partitions, or the whole detector, do not report or do not serve.

use super::blind::{banner, check, condition};
use super::*;
use crate::health::ConditionSeverity;

#[test]
fn a_detector_that_ended_or_has_no_partitions_is_stopped_at_once_and_its_reason_is_the_headline() {
    let of = |state: &str, age, conditions: Vec<ConditionRow>| {
        let status = StatusRow { state: state.into(), ..super::status(age) };
        banner(ArchiveFacts { status: Some(vec![status]), conditions, ..ArchiveFacts::default() }).0
    };
    let not_serving = |age| ConditionRow {
        code: "not_serving".into(),
        ..condition(ConditionSeverity::Degraded, "raw_events was recreated", age)
    };
    assert_eq!(of("stopped", 3.0, vec![]), "Detection has stopped. The detector ended 3 s ago.");
    assert_eq!(of("stopped", 3.0, vec![not_serving(3.0)]), "Detection has stopped. raw_events was recreated");
    assert_eq!(of("stopped", 600.0, vec![not_serving(600.0)]), "Detection has stopped. raw_events was recreated");
    // A worker without partitions reports no row: the last row is old, but the worker still reports.
    assert_eq!(of("running", 40.0, vec![not_serving(2.0)]), "Degraded. raw_events was recreated");
    assert_eq!(of("stopped", 600.0, vec![not_serving(2.0)]), "Degraded. raw_events was recreated");
    assert_eq!(of("stopped", 9.0, vec![not_serving(2.0)]), "Degraded. raw_events was recreated");
    // An old condition is no explanation.
    assert_eq!(of("running", 40.0, vec![not_serving(600.0)]), "Detection has stopped. No report for 40 s.");
}

#[test]
fn partitions_that_do_not_report_are_the_headline_and_their_lag_is_not_known() {
    let of = |age| {
        let silent = StatusRow { partition: 1, lag: Some(0), ..status(age) };
        let facts = ArchiveFacts { status: Some(vec![status(1.0), silent]), is_empty: true, ..ArchiveFacts::default() };
        banner(facts)
    };
    let (sentence, html, body) = of(40.0);
    assert_eq!(sentence, "Degraded. 1 of 2 partitions has not reported since 16:59:32.");
    assert!(html.starts_with(" degraded\"") && plain(&html).contains("What arrives there is not judged."), "{html}");
    assert_eq!(check(&html, "Kafka lag"), ("dash".into(), "53 events | not known of 1 partition".into()));
    assert!(title(&body).starts_with("Degraded · "), "{}", title(&body));
    // A rebalance takes some seconds.
    let (sentence, html, _) = of(12.0);
    assert_eq!(sentence, "Quiet. No anomalies in the last hour.");
    assert_eq!(check(&html, "Kafka lag").1.split(" | ").next(), Some("53 events"));
    // Another condition is the headline, but the banner still tells it.
    let rows =
        vec![status(1.0), StatusRow { partition: 1, ..status(40.0) }, StatusRow { partition: 2, ..status(60.0) }];
    let conditions = vec![condition(ConditionSeverity::Degraded, "an open transaction", 2.0)];
    let (sentence, html, _) = banner(ArchiveFacts { status: Some(rows), conditions, ..ArchiveFacts::default() });
    assert_eq!(sentence, "Degraded. an open transaction");
    assert!(plain(&html).contains("2 of 3 partitions have not reported since 16:59:32."), "{html}");
}

#[test]
fn while_windows_are_restored_no_time_is_called_quiet() {
    let row = |state: &str| StatusRow { state: state.into(), series: 0, ..status(1.0) };
    let of = |rows| banner(ArchiveFacts { status: Some(rows), is_empty: true, ..ArchiveFacts::default() });
    for state in ["reading windows of 3 partitions: 40 %", "starting"] {
        let (sentence, html, _) = of(vec![row(state)]);
        assert_eq!(sentence, "Starting. Windows are being restored: nothing is judged yet.");
        assert!(html.contains(&format!("<bdi>{state}</bdi>")) && !html.contains("none abnormal"), "{html}");
    }
    let served = StatusRow { partition: 1, ..status(1.0) };
    let partly = "Partly starting. The worker of 1 of 2 partitions is not ready: this partition is not judged yet.";
    assert_eq!(of(vec![row("starting"), served]).0, partly);
    let partition = |at: i32| match at {
        0..9 => StatusRow { partition: at, ..status(1.0) },
        at => StatusRow { partition: at, ..row("restoring: 40 %, 2 of 3 partitions left") },
    };
    let (sentence, html, _) = of((0..12).map(partition).collect());
    let partly = "Partly starting. The workers of 3 of 12 partitions are not ready: not all of these are judged yet.";
    assert_eq!(sentence, partly);
    assert!(html.contains("<bdi>restoring: 40 %, 2 of 3 partitions left</bdi>"), "{html}");
    assert_eq!(of((0..9).map(partition).collect()).0, "Quiet. No anomalies in the last hour.");
}

#[test]
fn a_report_from_the_future_does_not_prove_that_the_detector_runs() {
    let day = -86_400.0;
    let (sentence, html, body) = banner(ArchiveFacts { status: Some(vec![status(day)]), ..ArchiveFacts::default() });
    assert_eq!(
        sentence,
        "It is not known whether the detector runs. Its last report is dated 24 h ahead of the database&#39;s clock."
    );
    assert_eq!(check(&html, "Detector"), ("dash".into(), "not known | no report up to now".into()));
    assert!(!html.contains("reported 0"), "{html}");
    assert!(title(&body).starts_with("State not known · "), "{}", title(&body));
    let conditions = vec![condition(ConditionSeverity::Degraded, "an open transaction", day)];
    let facts = ArchiveFacts { conditions, is_empty: true, ..ArchiveFacts::default() };
    assert_eq!(banner(facts).0, "Quiet. No anomalies in the last hour.");
    let rows = vec![status(1.0), StatusRow { partition: 1, ..status(day) }];
    let (sentence, ..) = banner(ArchiveFacts { status: Some(rows), ..ArchiveFacts::default() });
    assert_eq!(sentence, "Degraded. 1 of 2 partitions has not reported up to now.");
}
