//! The table's partitions: rows of all times are kept, old ones go, and an older schema keeps its rows.

use crate::common::{Case, Parts, root, wait};

fn partitions(case: &Case) -> i64 {
    let sql = "select count(*) from pg_inherits where inhparent = 'anomalies'::regclass";
    case.sql().query_one(sql, &[]).unwrap().get(0)
}

/// A row as the sink writes it, of an event and a detection so many days ago.
fn row(case: &Case, offset: i64, days: i32, detected_days: i32) {
    let sql =
        "insert into anomalies (source_topic, source_partition, source_offset, source_index, kind, schema_version,
                   device_id, metric_value, event_time, score, window_count, method, direction, severity, \"window\",
                   detected_at)
               values ('t', 0, $1, 0, 'point', 1, 'd', 1, now() - make_interval(days => $2), 1, 1, 'sigma', 'high',
                   'warning', '{}', now() - make_interval(days => $3))";
    case.sql().execute(sql, &[&offset, &days, &detected_days]).unwrap();
}

fn offsets(case: &Case, table: &str) -> Vec<i64> {
    let sql = format!("select source_offset from {table} order by 1");
    case.sql().query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// As often as there is something to do; made, dropped, trimmed.
fn maintain(case: &Case, retention: &str) -> (i32, i32, i64) {
    let mut all = (0, 0, 0);
    loop {
        let sql = format!("select * from anomalies_maintain('{retention}')");
        let row = case.sql().query_one(&sql, &[]).unwrap();
        let (made, dropped, trimmed): (i32, i32, i64) = (row.get(0), row.get(1), row.get(2));
        assert!(made <= 8, "a little at a time");
        all = (all.0 + made, all.1 + dropped, all.2 + trimmed);
        if !row.get::<_, bool>(3) {
            return all;
        }
    }
}

#[test]
fn rows_move_into_partitions_that_are_made_and_go_with_those_that_are_old() {
    let case = Case::new("retention");
    for (offset, days) in [(1, 0), (2, 100), (3, 1000), (4, -1000), (5, -20)] {
        row(&case, offset, days, 0);
    }
    row(&case, 6, 2000, 400);
    assert_eq!(offsets(&case, "anomalies_rest"), [2, 3, 4, 6]);
    let before = partitions(&case);
    // A year to both sides in weeks, and the row that was detected longer ago goes.
    let (made, dropped, trimmed) = maintain(&case, "365 days");
    assert!((94..=97).contains(&made), "{made}");
    assert_eq!((dropped, trimmed), (0, 1));
    assert_eq!(partitions(&case), before + i64::from(made));
    assert_eq!(offsets(&case, "anomalies_rest"), [3, 4]);
    assert_eq!(offsets(&case, "anomalies"), [1, 2, 3, 4, 5]);
    assert_eq!(maintain(&case, "365 days"), (0, 0, 0));
    // Less is kept now: whole weeks go, the future stays.
    let (made, dropped, trimmed) = maintain(&case, "60 days");
    assert_eq!((made, trimmed), (0, 0));
    assert!((42..=45).contains(&dropped), "{dropped}");
    assert_eq!(offsets(&case, "anomalies"), [1, 3, 4, 5]);
    // For ever.
    assert_eq!(maintain(&case, "0").1, 0);
    assert_eq!(offsets(&case, "anomalies"), [1, 3, 4, 5]);
}

#[test]
fn coverage_and_totals_go_with_the_retention() {
    let case = Case::new("coverage");
    let tables = [
        ("coverage", "'t', 0, 1, 1, 1"),
        ("anomaly_minutes", "0, 'critical', 1, 0"),
        ("anomaly_hours", "'pump', '', 'critical', 1"),
        ("anomaly_days", "'pump', '', 'critical', 1"),
        ("anomaly_metrics", "'', 'critical', 0, 1"),
    ];
    for (table, rest) in tables {
        let ages = "unnest(array[0, 100]) d";
        let sql = format!("insert into {table} select now() - make_interval(days => d), {rest} from {ages}");
        case.sql().execute(&sql, &[]).unwrap();
    }
    maintain(&case, "60 days");
    for (table, _) in tables {
        assert_eq!(case.count(table), 1, "{table}");
    }
}

#[test]
fn the_detector_follows_postgres_retention_although_its_role_may_not_make_tables() {
    let mut case = Case::bare("upkeep", Parts::shared());
    let role = format!("{}_writer", case.name);
    let owner = case.parts.get("POSTGRES__USER").to_owned();
    let mut admin = case.parts.admin();
    admin.batch_execute(&format!("create role {role} login password 'w'")).unwrap();
    case.set("MIGRATE__USER", &owner);
    case.set("MIGRATE__PASSWORD_FILE", case.parts.get("POSTGRES__PASSWORD_FILE").to_owned());
    case.set("POSTGRES__USER", &role);
    case.set("POSTGRES__PASSWORD_FILE", "");
    case.set("POSTGRES__PASSWORD", "w");
    case.set("POSTGRES__RETENTION", "100d");
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    case.ok(&["check", "--role", "detector", "--connect"]);
    let before = partitions(&case);
    let detector = case.detector("a", &[]);
    let told = "partitions of the table follow postgres.retention";
    wait("the partitions of the settings", || detector.log().contains(told));
    assert!(partitions(&case) > before + 15);
    drop(detector);
    case.sql().batch_execute(&format!("revoke execute on function anomalies_maintain(interval) from {role}")).unwrap();
    let check = case.run(&["check", "--role", "detector", "--connect"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(text.contains("no execute on function anomalies_maintain(interval)"), "{text}");
    drop(case);
    admin.batch_execute(&format!("drop owned by {role}; drop role {role}")).unwrap();
}

#[test]
fn a_table_of_the_first_version_keeps_its_rows() {
    let other = Case::new("newest");
    let case = Case::topics("oldest");
    let mut sql = case.parts.postgres();
    sql.batch_execute(&format!("create schema {}", case.name)).unwrap();
    let first = std::fs::read_to_string(root().join("sql/V1__anomalies.sql")).unwrap();
    case.sql().batch_execute(&first).unwrap();
    let history = format!(
        "create table refinery_schema_history as select * from {}.refinery_schema_history where version = 1;
         alter table refinery_schema_history add primary key (version)",
        other.name
    );
    case.sql().batch_execute(&history).unwrap();
    row(&case, 1, 0, 0);
    row(&case, 2, 5000, 0);
    // Until it is migrated the detector waits, and says for what.
    let told = format!("version 1 of {}: run `anomaly migrate`", anomaly::store::migrate::wanted());
    let detector = case.detector("a", &[]);
    wait("the sink to say what is to be done", || detector.log().contains(&told));
    case.ok(&["migrate"]);
    wait("the sink to go on", || case.count("sink_offsets") > 0);
    assert_eq!(offsets(&case, "anomalies"), [1, 2]);
    assert_eq!(offsets(&case, "anomalies_rest"), [2]);
    for table in ["anomaly_minutes", "anomaly_hours", "anomaly_days", "anomaly_metrics"] {
        let sum: i64 =
            case.sql().query_one(&format!("select sum(anomalies)::bigint from {table}"), &[]).unwrap().get(0);
        assert_eq!(sum, 2, "{table}");
    }
}
