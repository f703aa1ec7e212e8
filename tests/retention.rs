//! Tests of the table's partitions: rows of all times are stored, old ones are dropped, and an older schema keeps its
//! rows.

use crate::common::{Case, Parts, wait};

fn partitions(case: &Case) -> i64 {
    let sql = "select count(*) from pg_inherits where inhparent = 'anomalies'::regclass";
    case.sql().query_one(sql, &[]).unwrap().get(0)
}

/// Inserts a row as the sink writes it, with event and detection this number of days ago.
fn row(case: &Case, offset: i64, days: i32, detected_days: i32) {
    let sql =
        "insert into anomalies (source_topic, source_partition, source_offset, source_index, kind, schema_version,
                   device_id, metric_value, event_time, score, window_count, method, evidence, direction, severity,
                   \"window\", detected_at, stored_at)
               values ('t', 0, $1, 0, 'point', 2, 'd', 1, now() - make_interval(days => $2), 1, 1, 'sigma', '{}', 'high',
                   'warning', '{}', now() - make_interval(days => $3),
                   now() - make_interval(days => $3))";
    let mut client = case.sql();
    client.execute(sql, &[&offset, &days, &detected_days]).unwrap();
}

fn offsets(case: &Case, table: &str) -> Vec<i64> {
    let sql = format!("select source_offset from {table} order by 1");
    case.sql().query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Inserts a heartbeat that the database's clock wrote this long ago.
fn heartbeat(case: &Case, age: &str) {
    let sql = format!(
        "insert into detector_status (detector_group, topic, partition, worker, state, series, settings_hash, updated_at)
         values ('g', 't', 0, 'w', 'running', 0, 'h', now() - interval '{age}')
         on conflict (detector_group, topic, partition) do update set updated_at = excluded.updated_at"
    );
    case.sql().execute(&sql, &[]).unwrap();
}

/// The result of one pass, or the deletion that waits.
#[derive(Default, Debug, PartialEq)]
struct Pass {
    made: i32,
    dropped: i32,
    trimmed: i64,
    is_more: bool,
    waits: bool,
}

/// Runs one pass of a detector whose clock differs by an interval, an hour after the previous pass.
fn pass(case: &Case, retention: &str, detector: &str, delay: &str) -> Pass {
    let mut sql = case.sql();
    // The database believes that an hour has passed, too.
    sql.batch_execute("update retention_state set passed_at = passed_at - interval '1 hour'").unwrap();
    let call = format!(
        "select made, dropped, trimmed, is_more, due_to is not null
         from anomalies_maintain('{retention}', now() + interval '{detector}', '1 hour', '{delay}')"
    );
    let row = sql.query_one(&call, &[]).unwrap();
    Pass { made: row.get(0), dropped: row.get(1), trimmed: row.get(2), is_more: row.get(3), waits: row.get(4) }
}

/// Runs passes until nothing is left to do, with correct clocks and no delay; returns made, dropped, trimmed.
fn maintain(case: &Case, retention: &str) -> (i32, i32, i64) {
    heartbeat(case, "0 s");
    let mut all = (0, 0, 0);
    loop {
        let done = pass(case, retention, "0", "0");
        assert!(done.made <= 8 && done.dropped <= 4, "a little at a time");
        all = (all.0 + done.made, all.1 + done.dropped, all.2 + done.trimmed);
        if !done.is_more && !done.waits {
            return all;
        }
    }
}

#[test]
fn rows_move_into_new_partitions_and_are_dropped_with_old_ones() {
    let case = Case::new("retention");
    for (offset, days) in [(1, 0), (2, 100), (3, 1000), (4, -1000), (5, -20)] {
        row(&case, offset, days, 0);
    }
    row(&case, 6, 2000, 400);
    assert_eq!(offsets(&case, "anomalies_rest"), [2, 3, 4, 6]);
    let before = partitions(&case);
    // A year of weeks, and the row that was detected longer ago goes.
    let (made, dropped, trimmed) = maintain(&case, "365 days");
    assert!((47..=50).contains(&made), "{made}");
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

/// Inserts rows and totals of a year that begins this number of days ago.
fn year(case: &Case, days: i32) {
    maintain(case, "800 days");
    for offset in 0..52_i32 {
        row(case, offset.into(), days - offset * 7, days - offset * 7);
    }
    let sql = "insert into anomaly_metrics select event_time, '', 'critical', 0, 1 from anomalies;
         insert into anomaly_minutes select event_time, 0, 'critical', 1, 0 from anomalies;
         insert into coverage select event_time, 't', 0, 1, 1, 1 from anomalies";
    case.sql().batch_execute(sql).unwrap();
}

fn assert_whole(case: &Case, when: &str) {
    for table in ["anomalies", "anomaly_metrics", "anomaly_minutes", "coverage"] {
        assert_eq!(case.count(table), 52, "{table}, {when}");
    }
}

#[test]
fn one_wrong_clock_or_an_outage_deletes_no_row() {
    // The right time is 400 days ago: the database's clock is ahead, with or without the heartbeats that it wrote.
    let case = Case::new("ahead");
    year(&case, 400 + 364);
    heartbeat(&case, "400 days");
    case.sql().execute("delete from retention_state", &[]).unwrap();
    for _ in 0..3 {
        pass(&case, "365 days", "-400 days", "0");
        heartbeat(&case, "0");
    }
    assert_whole(&case, "the database's clock is ahead");
    // Both clocks are, as on one machine: not before there is a new heartbeat, and then after a warning.
    heartbeat(&case, "400 days");
    pass(&case, "365 days", "0", "24 hours");
    heartbeat(&case, "0");
    assert!(pass(&case, "365 days", "0", "24 hours").waits);
    assert_whole(&case, "both clocks are ahead");
    // They are right again before the delay is over: the plan is void.
    heartbeat(&case, "400 days");
    assert!(!pass(&case, "365 days", "-400 days", "24 hours").waits);
    // The detector's clock is ahead or behind, the database's and the heartbeat are right.
    let case = Case::new("behind");
    year(&case, 364);
    for clock in ["400 days", "-400 days", "0"] {
        heartbeat(&case, "0");
        for _ in 0..3 {
            pass(&case, "380 days", clock, "0");
        }
    }
    assert_whole(&case, "the detector's clock is wrong");
}

#[test]
fn a_lowered_retention_deletes_after_a_warning_and_a_delay_unless_it_is_raised_again() {
    let case = Case::new("typo");
    year(&case, 364);
    heartbeat(&case, "0");
    while pass(&case, "365 days", "0", "24 hours").is_more {}
    for _ in 0..20 {
        assert!(pass(&case, "1 hour", "0", "24 hours").waits);
    }
    assert_whole(&case, "before the delay is over");
    assert!(!pass(&case, "365 days", "0", "24 hours").waits);
    for _ in 0..20 {
        assert!(pass(&case, "1 hour", "0", "24 hours").waits);
    }
    assert_whole(&case, "the delay begins again");
    // Another one in the meantime also begins again.
    for _ in 0..20 {
        assert!(pass(&case, "100 days", "0", "24 hours").waits);
    }
    assert_whole(&case, "the delay begins again for another retention");
    let passes = (0..10).take_while(|_| pass(&case, "100 days", "0", "24 hours").waits).count();
    assert!((3..=6).contains(&passes), "{passes}");
    maintain(&case, "100 days");
    assert!((14..=16).contains(&case.count("anomalies")), "{}", case.count("anomalies"));
    assert!((14..=16).contains(&case.count("anomaly_metrics")));
}

#[test]
fn partitions_stay_few_when_the_retention_is_long_and_a_query_locks_few_of_them() {
    let case = Case::new("decade");
    heartbeat(&case, "0");
    // As of another retention: weeks, also in the far future, and one far row.
    let sql = "do $$ declare day timestamptz; begin for week in -60..160 loop
            day := date_bin('7 days', now(), '2001-01-01 00:00+00') + week * interval '7 days';
            if not exists (select from anomalies_parts where lower <= day and upper > day) then
                execute format('create table %I partition of anomalies for values from (%L) to (%L)',
                    'anomalies_' || to_char(day, 'YYYYMMDD'), day, day + interval '7 days');
            end if;
        end loop; end $$";
    case.sql().batch_execute(&format!("set timezone = 'UTC'; {sql}")).unwrap();
    for offset in 0..60_i32 {
        row(&case, offset.into(), offset * 20, 0);
    }
    row(&case, 60, -1300, 0);
    assert_eq!(maintain(&case, "3650 days").1, 0);
    assert_eq!(case.count("anomalies"), 61);
    assert!(partitions(&case) <= 121, "{}", partitions(&case));
    let mut sql = case.sql();
    let mut transaction = sql.transaction().unwrap();
    let page = anomaly::store::query::newest(&mut transaction, &anomaly::archive::Filter::default(), None, 2).unwrap();
    assert_eq!(page.records.len(), 2);
    let locks = "select count(*) from pg_locks where pid = pg_backend_pid()";
    let locks: i64 = transaction.query_one(locks, &[]).unwrap().get(0);
    assert!(locks < 200, "{locks} locks");
}

#[test]
fn coverage_and_totals_are_deleted_with_the_retention() {
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
fn the_detector_follows_postgres_retention_although_its_role_may_not_create_tables() {
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
    let message = "partitions of the table follow postgres.retention";
    wait("the partitions of the settings", || detector.log().contains(message));
    assert!(partitions(&case) > before + 8);
    drop(detector);
    case.sql()
        .batch_execute(&format!(
            "revoke execute on function anomalies_maintain(interval, timestamptz, interval, interval) from {role}"
        ))
        .unwrap();
    let check = case.run(&["check", "--role", "detector", "--connect"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        text.contains("no execute on function anomalies_maintain(interval, timestamptz, interval, interval)"),
        "{text}"
    );
    drop(case);
    admin.batch_execute(&format!("drop owned by {role}; drop role {role}")).unwrap();
}

#[test]
fn a_lock_that_another_role_holds_on_the_maintenance_is_reported() {
    let case = Case::new("locked");
    let role = format!("{}_eve", case.name);
    let mut admin = case.parts.admin();
    let connect = format!("create role {role} login password 'w'; grant usage on schema {} to {role}", case.name);
    admin.batch_execute(&connect).unwrap();
    let oid: i64 = case.sql().query_one("select 'anomalies'::regclass::oid::bigint", &[]).unwrap().get(0);
    let mut other = postgres::Config::new();
    other.host(case.parts.get("POSTGRES__HOST")).port(case.parts.get("POSTGRES__PORT").parse().unwrap());
    other.user(&role).password("w").dbname(case.parts.get("POSTGRES__DBNAME")).application_name("eve's tool");
    let mut other = other.connect(postgres::NoTls).unwrap();
    other.execute("select pg_advisory_lock($1)", &[&oid]).unwrap();
    let detector = case.detector("a", &[]);
    let reported =
        || detector.get("/readyz").is_some_and(|(_, text)| text.contains(&format!("a session of role {role}")));
    wait("the session that holds the lock", reported);
    assert!(detector.log().contains("retention_waits"), "{}", detector.log());
    drop(other);
    // The next pass follows in a minute.
    wait("the end of the condition", || !reported());
    drop((detector, case));
    admin.batch_execute(&format!("drop owned by {role}; drop role {role}")).unwrap();
}

#[test]
fn old_heartbeats_and_conditions_are_deleted_with_every_retention() {
    let case = Case::new("ages");
    for retention in ["0", "28 days"] {
        let rows = "insert into detector_status
                (detector_group, topic, partition, worker, state, series, settings_hash, updated_at)
            values ('g', 't', 0, 'w', 'running', 0, 'h', now()), ('g', 'gone', 0, 'w', 'running', 0, 'h', now() - interval '2 days'),
                ('h', 'stopped', 0, 'w', 'running', 0, 'h', now() - interval '29 days'),
                ('h', 'old', 0, 'w', 'running', 0, 'h', now() - interval '31 days')
            on conflict do nothing;
            insert into detector_conditions (detector_group, topic, worker, code, severity, message, since, updated_at)
            values ('g', 't', 'w', 'new', 'notice', '', now(), now() - interval '23 hours'),
                ('g', 't', 'w', 'old', 'notice', '', now(), now() - interval '25 hours')
            on conflict do nothing";
        case.sql().batch_execute(rows).unwrap();
        maintain(&case, retention);
        let left = |sql: &str| case.sql().query_one(sql, &[]).unwrap().get::<_, String>(0);
        let topics = left("select string_agg(topic, ' ' order by topic) from detector_status");
        assert_eq!(topics, "stopped t", "retention {retention}");
        assert_eq!(left("select string_agg(code, ' ') from detector_conditions"), "new", "retention {retention}");
    }
}

/// The test brings the next version along: there is none yet.
#[test]
fn a_table_of_an_older_version_keeps_its_rows_and_the_sink_waits_for_the_migration() {
    let mut case = Case::new("older");
    row(&case, 1, 0, 0);
    row(&case, 2, 5000, 0);
    let next = case.dir.path().join("next.sql");
    std::fs::write(&next, "alter table anomalies add column weight integer not null default 7").unwrap();
    case.env.push(("ANOMALY_NEXT_SCHEMA".into(), next.to_str().unwrap().into()));
    // Until it is migrated the detector waits, and says for what.
    let current = anomaly::store::migrate::wanted();
    let message = format!("version {current} of {}: run `anomaly migrate`", current + 1);
    let detector = case.detector("a", &[]);
    wait("the sink to say what is to be done", || detector.log().contains(&message));
    let check = case.run(&["check", "--role", "detector", "--connect"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains(&message));
    assert_eq!(case.ok(&["migrate"]), format!("applied V{}__next\n", current + 1));
    wait("the sink to go on", || case.count("sink_offsets") > 0);
    assert_eq!(case.count("anomalies where weight = 7"), 2);
    assert_eq!((offsets(&case, "anomalies"), offsets(&case, "anomalies_rest")), (vec![1, 2], vec![2]));
}

#[test]
fn a_schema_from_before_the_first_release_is_refused_with_commands_that_replace_it() {
    let case = Case::new("prerelease");
    row(&case, 1, 0, 0);
    case.sql().batch_execute("update refinery_schema_history set checksum = '1'").unwrap();
    let refused = || {
        let migrate = case.run(&["migrate"]);
        let text = String::from_utf8_lossy(&migrate.stderr).into_owned();
        assert_eq!(migrate.status.code(), Some(78), "{text}");
        assert_eq!(case.count("anomalies"), 1, "nothing is dropped");
        text
    };
    let text = refused();
    let check = case.run(&["check", "--role", "detector", "--connect"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("created by a version before the first release"));
    // Tables without any history, too.
    case.sql().batch_execute("drop table refinery_schema_history").unwrap();
    let text = format!("{text}{}", refused());
    // The commands do what they say.
    let password = std::fs::read_to_string(case.parts.get("POSTGRES__PASSWORD_FILE")).unwrap();
    let commands = text.lines().skip_while(|line| !line.starts_with("  pg_dump")).take(2).collect::<Vec<_>>();
    for command in commands {
        let command = command.replacen("refinery_schema_history, ", "", 1).replacen(", refinery_schema_history", "", 1);
        let done = std::process::Command::new("sh")
            .args(["-ec", &command])
            .env("PATH", "/usr/lib/postgresql/15/bin:/usr/bin:/bin")
            .env("PGPASSWORD", password.trim())
            .current_dir(case.dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let export = std::fs::read_to_string(case.dir.path().join(format!("anomalies-{}.sql", case.name))).unwrap();
    assert!(export.contains("CREATE TABLE") && export.contains("COPY"), "{export}");
    assert!(case.ok(&["migrate"]).contains("applied V1__schema"));
    assert_eq!(case.count("anomalies"), 0);
}
