//! The heartbeat of the detector while the database refuses one of its tables: the others are written, and no count is
//! lost.

use anomaly::config::{self, Settings};
use anomaly::event::Timestamp;
use anomaly::health::{Component, Health, Tally};
use anomaly::store::heartbeat::{Heartbeat, HeartbeatError};

use crate::common::Case;

/// Returns the settings of a case, for the server itself.
pub fn settings(case: &Case) -> Settings {
    let places = config::SettingFiles {
        dir: crate::common::root().join("etc"),
        required: true,
        file: None,
        env: case.env.clone(),
        credentials: None,
    };
    config::load(&places).unwrap().settings
}

#[test]
fn a_right_that_is_missing_on_one_table_of_the_heartbeat_hides_no_other_table_and_loses_no_count() {
    let case = Case::new("tables");
    let settings = settings(&case);
    let mut heartbeat = Heartbeat::new(&settings.postgres, "g", "t", "a", ("hash", serde_json::json!({})));
    let part = Health::default().component("worker-0");
    part.set_partitions([(0, anomaly::health::PartitionStatus::default())].into());
    let minute = Timestamp::now().millis() / 60_000;
    let count = |part: &Component| {
        let tally = Tally { judged: 1, ..Tally::default() };
        part.cover([((minute, 0), tally)]);
        part.note_activity([((minute, 0), anomaly::health::Activity { tally, ..Default::default() })]);
        part.note_devices(["pump"]);
    };
    let mut write = || {
        count(&part);
        heartbeat.write(std::slice::from_ref(&part))
    };
    let judged = |table: &str| -> i64 {
        let sql = format!("select coalesce(sum(judged), 0)::bigint from {table}");
        case.sql().query_one(&sql, &[]).unwrap().get(0)
    };
    assert_eq!(write(), Ok(()));
    for table in ["coverage", "activity", "seen_devices", "detector_conditions", "detector_status"] {
        case.sql().batch_execute(&format!("revoke insert, update, delete on {table} from current_user")).unwrap();
        for round in 0..2 {
            if table == "seen_devices" {
                part.forget_devices();
            }
            let (seen, active) = (judged("coverage"), judged("activity"));
            case.sql().batch_execute("update detector_status set updated_at = now() - interval '1 hour'").ok();
            let Err(HeartbeatError::Tables(failed)) = write() else { panic!("{table}, round {round}") };
            assert_eq!(failed.keys().copied().collect::<Vec<_>>(), [table], "{failed:?}");
            let refused = format!("PostgreSQL refuses: 42501: permission denied for table {table}");
            assert!(failed[table].starts_with(&refused), "{failed:?}");
            assert_eq!(judged("coverage") - seen, i64::from(table != "coverage"), "{table}");
            assert_eq!(judged("activity") - active, i64::from(table != "activity"), "{table}");
            let fresh = case.count("detector_status where updated_at > now() - interval '10 minutes'");
            assert!(fresh == 1 || table == "detector_status", "{table} hides the status");
        }
        case.sql().batch_execute(&format!("grant insert, update, delete on {table} to current_user")).unwrap();
        assert_eq!(write(), Ok(()), "{table}");
    }
    // Each count is in its table once: one write at the beginning, and three for each table.
    assert_eq!([judged("coverage"), judged("activity")], [16, 16]);
    assert_eq!(case.count("seen_devices"), 1);
}

#[test]
fn a_table_that_takes_the_counts_of_one_component_only_is_reported_whichever_comes_last() {
    let case = Case::new("parts");
    let settings = settings(&case);
    let mut heartbeat = Heartbeat::new(&settings.postgres, "g", "t", "a", ("hash", serde_json::json!({})));
    let health = Health::default();
    let parts = [health.component("worker-0"), health.component("worker-1"), health.component("worker-2")];
    let cover = |part: &Component, judged| {
        part.cover([((1, 0), Tally { judged, ..Tally::default() })]);
    };
    cover(&parts[0], 1);
    assert_eq!(heartbeat.write(&parts), Ok(()));
    for _ in 0..2 {
        cover(&parts[0], 1);
        // The sum is out of range.
        cover(&parts[1], i64::MAX as u64);
        cover(&parts[2], 1);
        let Err(HeartbeatError::Tables(failed)) = heartbeat.write(&parts) else { panic!("no failure") };
        assert!(failed.len() == 1 && failed["coverage"].contains("22003"), "{failed:?}");
        parts[1].take_coverage();
    }
    assert!(heartbeat.write(&parts).is_err(), "nothing was written that would prove anything else");
    cover(&parts[1], 1);
    assert_eq!(heartbeat.write(&parts), Ok(()));
    assert_eq!(case.count("coverage where judged = 6"), 1);
}
