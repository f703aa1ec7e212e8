//! Tests of unusual databases: behind a pooler, refusing, with another encoding, restored, replaced, or one of several
//! hosts.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{Case, Parts, Process, event, free_port, wait, wait_for};

/// A real PgBouncer in front of the box's database.
struct Bouncer {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Bouncer {
    fn start(parts: &Parts, mode: &str) -> Bouncer {
        let password = std::fs::read_to_string(parts.get("POSTGRES__PASSWORD_FILE")).unwrap();
        Bouncer::of(parts, mode, parts.get("POSTGRES__USER"), password.trim())
    }

    /// Starts a pooler in which every client becomes this role.
    fn of(parts: &Parts, mode: &str, user: &str, password: &str) -> Bouncer {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let get = |key: &str| parts.get(key).to_owned();
        let (host, server, dbname) = (get("POSTGRES__HOST"), get("POSTGRES__PORT"), get("POSTGRES__DBNAME"));
        let settings = format!(
            "[databases]\n{dbname} = host={host} port={server} dbname={dbname} user={user} password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n\
             pool_mode = {mode}\nignore_startup_parameters = options\ndefault_pool_size = 10\n"
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        // It does not run as root.
        for path in [dir.path(), &file] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new("pgbouncer");
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let log = File::create(dir.path().join("log")).unwrap();
        let child = command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("pgbouncer is missing: run packaging/install-deps test");
        wait("PgBouncer", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Bouncer { child, port, _dir: dir }
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the program connect to another port.
fn through(case: &mut Case, port: u16) {
    case.set("POSTGRES__HOST", "127.0.0.1");
    case.set("POSTGRES__PORT", port);
}

/// Publishes values of device `a`, the last of which is this one.
fn anomaly(case: &Case, value: f64) {
    case.produce((0..40).map(|i| event("a", f64::from(i % 5))).chain([event("a", value)]));
}

/// Returns both outputs of a command.
fn said(case: &Case, arguments: &[&str]) -> String {
    let output = case.run(arguments);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn ready(process: &Process) -> (u16, String) {
    process.get("/readyz").unwrap_or_default()
}

#[test]
fn a_pooler_of_sessions_that_ignores_options_keeps_time_zone_search_path_and_totals_right() {
    let mut case = Case::bare("pooled", Parts::shared());
    // What a connection has by default must not matter: half-hour zones shift the hours of totals.
    let (owner, role) = (case.parts.get("POSTGRES__USER").to_owned(), format!("{}_role", case.name));
    let mut admin = case.parts.admin();
    let dbname = case.parts.get("POSTGRES__DBNAME");
    admin
        .batch_execute(&format!(
            "create role {role} login password 'w'; alter role {role} set timezone = 'Asia/Kolkata';
             grant {role} to {owner}; grant create on database {dbname} to {role}"
        ))
        .unwrap();
    let bouncer = Bouncer::of(&case.parts, "session", &role, "w");
    through(&mut case, bouncer.port);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    assert!(case.count("anomalies") == 0, "the tables are in the schema of the settings");
    case.ok(&["check", "--role", "detector", "--connect"]);
    let detector = case.detector("a", &[]);
    anomaly(&case, 99.0);
    wait("the row", || case.count("anomalies") == 1);
    let hours = "select count(*) from anomaly_hours where extract(minute from hour at time zone 'UTC') <> 0";
    assert_eq!(case.sql().query_one(hours, &[]).unwrap().get::<_, i64>(0), 0);
    wait("the detector to be ready", || ready(&detector).0 == 200);
    drop((detector, bouncer));
    drop(case);
    admin.batch_execute(&format!("drop owned by {role}; drop role {role}")).unwrap();
}

#[test]
fn a_pooler_of_transactions_is_recognised_and_refused_with_the_remedy_everywhere() {
    let mut case = Case::new("transactions");
    let bouncer = Bouncer::start(&case.parts, "transaction");
    through(&mut case, bouncer.port);
    for command in [&["check", "--role", "detector", "--connect"][..], &["migrate"], &["status"]] {
        let text = said(&case, command);
        assert!(text.contains("Transaction pooling is not supported: use pool_mode = session"), "{command:?}: {text}");
    }
    let detector = case.detector("a", &[]);
    wait("the detector to say so", || ready(&detector).1.contains("Transaction pooling is not supported"));
    assert_eq!(ready(&detector).0, 503);
}

#[test]
fn a_refusal_of_the_database_is_not_called_an_outage_and_has_sqlstate_and_remedy() {
    let mut case = Case::new("refusing");
    let mut admin = case.parts.admin();
    let role = format!("{}_other", case.name);
    admin.batch_execute(&format!("create role {role} login password 'w' connection limit 0")).unwrap();
    let (own, file) =
        (case.parts.get("POSTGRES__USER").to_owned(), case.parts.get("POSTGRES__PASSWORD_FILE").to_owned());
    case.set("POSTGRES__PASSWORD", "w");
    case.set("POSTGRES__PASSWORD_FILE", "");
    let refused = |case: &Case, wanted: &[&str]| {
        for command in [&["status"][..], &["check", "--role", "dashboard", "--connect"]] {
            let text = said(case, command);
            assert!(wanted.iter().all(|part| text.contains(part)), "{wanted:?} in {command:?}: {text}");
            assert!(!text.contains("is unreachable"), "{text}");
        }
    };
    case.set("POSTGRES__USER", &own);
    refused(&case, &["28P01: password authentication failed", "/etc/anomaly/credentials/postgres.password"]);
    case.set("MIGRATE__USER", &own);
    case.set("MIGRATE__PASSWORD", "wrong");
    let text = said(&case, &["migrate"]);
    let remedy = "Correct migrate.user and the password in /etc/anomaly/credentials/migrate.password";
    assert!(text.contains("28P01: ") && text.contains(remedy) && !text.contains("postgres.password"), "{text}");
    case.env.retain(|(name, _)| !name.starts_with("ANOMALY__MIGRATE__"));
    case.set("POSTGRES__USER", &role);
    refused(&case, &["53300: too many connections", "Raise max_connections or the connection limit"]);
    // A role without the permission to create tables.
    admin.batch_execute(&format!("alter role {role} connection limit -1; create schema {role}")).unwrap();
    admin.batch_execute(&format!("grant usage on schema {role} to {role}")).unwrap();
    case.set("POSTGRES__SCHEMA", &role);
    let text = said(&case, &["migrate"]);
    let remedy = format!("grant create on schema {role} to {role}");
    assert!(text.contains("42501: permission denied for schema") && text.contains(&remedy), "{text}");
    case.set("POSTGRES__SCHEMA", case.name.clone());
    admin.batch_execute(&format!("drop schema {role}")).unwrap();
    admin.batch_execute(&format!("alter role {role} nologin")).unwrap();
    refused(&case, &["28000: role", "is not permitted to log in", "alter role"]);
    admin.batch_execute(&format!("drop role {role}")).unwrap();
    case.set("POSTGRES__USER", &own);
    case.set("POSTGRES__PASSWORD_FILE", &file);
    case.env.retain(|(name, _)| name != "ANOMALY__POSTGRES__PASSWORD");
    case.set("POSTGRES__DBNAME", "nothing_of_this_name");
    refused(&case, &["3D000: database", "Create the database, or correct postgres.dbname"]);
    case.set("POSTGRES__DBNAME", case.parts.get("POSTGRES__DBNAME").to_owned());
    case.set("POSTGRES__SSLMODE", "require");
    refused(&case, &["TLS", "postgres.sslmode"]);
    // The detector's sink says the same, and so does a page.
    let detector = case.detector("a", &[]);
    wait("the sink to say so", || ready(&detector).1.contains("PostgreSQL refuses: "));
    assert!(!detector.log().contains("is unreachable"), "{}", detector.log());
    let port = free_port();
    let _dashboard = case.role("dashboard", &[("DASHBOARD__LISTEN", &format!("127.0.0.1:{port}"))]);
    let page = || crate::common::get(port, "/").unwrap_or_default().1;
    wait("the page to say so", || page().contains("PostgreSQL refuses") && page().contains("postgres.sslmode"));
    case.set("POSTGRES__SSLMODE", "prefer");
    case.set("POSTGRES__PORT", free_port());
    assert!(said(&case, &["status"]).contains("PostgreSQL is unreachable: "));
}

/// Starts a proxy that forwards to the box's database, and counts the connections.
fn counted(case: &Case) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let far = format!("{}:{}", case.parts.get("POSTGRES__HOST"), case.parts.get("POSTGRES__PORT"));
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            let far = TcpStream::connect(&far).unwrap();
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (port, count)
}

#[test]
fn where_a_role_may_have_one_connection_a_second_one_is_not_tried_each_time() {
    let mut case = Case::bare("alone", Parts::shared());
    let mut admin = case.parts.admin();
    let role = format!("{}_role", case.name);
    admin.batch_execute(&format!("create role {role} login password 'w' connection limit 1")).unwrap();
    let (port, count) = counted(&case);
    through(&mut case, port);
    case.set("POSTGRES__USER", &role);
    case.set("POSTGRES__PASSWORD", "w");
    case.set("POSTGRES__PASSWORD_FILE", "");
    case.set("POSTGRES__SCHEMA", "");
    let places = anomaly::config::SettingFiles {
        dir: crate::common::root().join("etc"),
        required: true,
        file: None,
        env: case.env.clone(),
        credentials: None,
    };
    let settings = anomaly::config::load(&places).unwrap().settings.postgres;
    let mut connections = || {
        let before = count.load(Ordering::SeqCst);
        let client = anomaly::store::connect(&settings).unwrap();
        let made = count.load(Ordering::SeqCst) - before;
        drop(client);
        let left = "select count(*) from pg_stat_activity where usename = $1";
        wait("the connection to end", || admin.query_one(left, &[&role]).unwrap().get::<_, i64>(0) == 0);
        made
    };
    assert_eq!([connections(), connections(), connections()], [2, 1, 1]);
    admin.batch_execute(&format!("drop role {role}")).unwrap();
}

#[test]
fn rows_that_the_table_refuses_are_a_condition_that_outlives_a_restart() {
    let utf8 = Case::new("utf8");
    let mut case = Case::topics("latin");
    let database = format!("{}_latin1", case.name);
    let mut admin = case.parts.admin();
    let owner = case.parts.get("POSTGRES__USER").to_owned();
    let create = format!("create database {database} owner {owner} encoding 'LATIN1' locale 'C' template template0");
    admin.batch_execute(&create).unwrap();
    case.set("POSTGRES__DBNAME", &database);
    let refused = case.run(&["migrate"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("LATIN1") && text.contains("UTF8"), "{text}");
    assert_eq!(refused.status.code(), Some(78));
    // A database that an older version has migrated.
    let dump = utf8.dir.path().join("dump");
    let made = tool(&utf8, "pg_dump", None).args(["-n", &utf8.name, "-f", dump.to_str().unwrap()]).status().unwrap();
    assert!(made.success());
    let done = tool(&case, "psql", Some(&database)).args(["-q", "-f", dump.to_str().unwrap()]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    case.set("POSTGRES__SCHEMA", &utf8.name);
    assert!(said(&case, &["migrate"]).contains("warning: the database's encoding is LATIN1"));
    case.produce((0..40).map(|i| event("a", f64::from(i % 5))).chain([event("a", 99.0)]));
    case.produce((0..40).map(|i| event("泵", f64::from(i % 5))).chain([event("泵", 99.0)]));
    for run in ["first", "second"] {
        let detector = case.detector("a", &[]);
        let is_reported =
            |text: &str| text.contains("1 records of") && text.contains("22P05") && text.contains("sink_rejects");
        wait(&format!("the condition in the {run} run"), || is_reported(&ready(&detector).1));
        assert_eq!(ready(&detector).0, 503);
        assert!(is_reported(&detector.log()));
        wait("the metric", || {
            detector.metric("anomaly_condition{component=\"sink\",code=\"rows_refused\",severity=\"degraded\"} ") == 1.0
        });
        detector.terminate(Duration::from_secs(20));
    }
    drop(case);
    admin.batch_execute(&format!("drop database {database} with (force)")).unwrap();
}

/// Runs a tool such as `psql` with the box's password.
fn tool(case: &Case, name: &str, database: Option<&str>) -> Command {
    let mut command = Command::new(Path::new("/usr/lib/postgresql/15/bin").join(name));
    let password = std::fs::read_to_string(case.parts.get("POSTGRES__PASSWORD_FILE")).unwrap();
    command.env("PGPASSWORD", password.trim());
    command.args(["-h", case.parts.get("POSTGRES__HOST"), "-p", case.parts.get("POSTGRES__PORT")]);
    command.args([
        "-U",
        case.parts.get("POSTGRES__USER"),
        "-d",
        database.unwrap_or_else(|| case.parts.get("POSTGRES__DBNAME")),
    ]);
    command
}

/// It may lose to the detector's statements, which lock the tables in another order.
fn drop_schema(case: &Case) -> bool {
    case.sql().batch_execute(&format!("drop schema if exists {} cascade", case.name)).is_ok()
}

#[test]
fn a_database_that_is_restored_or_replaced_under_a_running_detector_gets_its_rows_without_a_new_anomaly() {
    let case = Case::new("restored");
    let detector = case.detector("a", &[]);
    anomaly(&case, 99.0);
    wait("the first row", || case.count("anomalies") == 1);
    let dump = case.dir.path().join("dump");
    let schema = case.name.as_str();
    let made = tool(&case, "pg_dump", None).args(["-n", schema, "-f", dump.to_str().unwrap()]).status().unwrap();
    assert!(made.success());
    case.produce((0..11).map(|i| event("a", f64::from(200 + i * 100))));
    wait("the newer rows", || case.count("anomalies") > 5);
    let all = case.count("anomalies");
    wait("the schema to go", || drop_schema(&case));
    let done =
        tool(&case, "psql", None).args(["-q", "-v", "ON_ERROR_STOP=1", "-f", dump.to_str().unwrap()]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    wait_for("the rows that the copy lacks", Duration::from_secs(90), || case.count("anomalies") == all);
    assert!(detector.log().contains("the database is behind what this sink had stored"), "{}", detector.log());
    wait("the condition to end", || ready(&detector).0 == 200);
    // An empty one in its place.
    wait("the schema to go", || drop_schema(&case));
    case.ok(&["migrate"]);
    wait_for("all rows in the new database", Duration::from_secs(90), || case.count("anomalies") == all);
    assert_eq!(case.count("sink_rejects"), 0);
}

#[test]
fn a_partition_that_is_missing_a_right_that_is_taken_and_a_lock_stop_the_sink_with_the_remedy_and_lose_nothing() {
    let case = Case::new("detached");
    let detector = case.detector("a", &[("POSTGRES__STATEMENT_TIMEOUT", "2s")]);
    wait("the sink", || ready(&detector).0 == 200);
    case.sql().batch_execute("alter table anomalies detach partition anomalies_rest").unwrap();
    let far = |value: f64| {
        let json = serde_json::json!({"device_id": "far", "metric_value": value, "timestamp": "1999-01-01T00:00:00Z"});
        crate::common::Sent {
            key: Some(b"far".to_vec()),
            value: Some(json.to_string().into_bytes()),
            ..Default::default()
        }
    };
    case.produce((0..40).map(|i| far(f64::from(i % 5))).chain([far(99.0)]));
    wait("the sink to say what is missing", || ready(&detector).1.contains("attach anomalies_rest again"));
    assert_eq!(case.count("sink_rejects"), 0);
    case.sql().batch_execute("alter table anomalies attach partition anomalies_rest default").unwrap();
    wait("the row", || case.count("anomalies") == 1);
    assert_eq!(case.count("sink_rejects"), 0);
    case.sql().batch_execute("revoke insert on anomaly_hours from current_user").unwrap();
    anomaly(&case, 99.0);
    wait("the sink to say what is refused", || {
        let text = ready(&detector).1;
        text.contains("42501: permission denied for table anomaly_hours") && text.contains("anomaly migrate")
    });
    case.sql().batch_execute("grant insert on anomaly_hours to current_user").unwrap();
    wait("the second row", || case.count("anomalies") == 2);
    // Slow is not away.
    let mut sql = case.sql();
    let mut transaction = sql.transaction().unwrap();
    transaction.batch_execute("lock table anomaly_hours in access exclusive mode").unwrap();
    anomaly(&case, 98.0);
    wait("the sink to say that it is slow", || ready(&detector).1.contains("PostgreSQL is too slow: 57014"));
    transaction.rollback().unwrap();
    wait("the third row", || case.count("anomalies") == 3);
}

/// While the upkeep creates a partition, rows for its range wait for the default partition, which then refuses them.
#[test]
fn a_partition_that_is_created_while_its_row_waits_is_no_fault() {
    let case = Case::new("late_partition");
    let detector = case.detector("a", &[]);
    wait("the sink", || ready(&detector).0 == 200);
    let mut sql = case.sql();
    let mut upkeep = sql.transaction().unwrap();
    upkeep
        .batch_execute(
            "lock table anomalies_rest in access exclusive mode;
             create table anomalies_late (like anomalies including all);
             alter table anomalies attach partition anomalies_late for values from ('1999-01-01Z') to ('1999-01-02Z')",
        )
        .unwrap();
    let far = |value: f64| {
        let json = serde_json::json!({"device_id": "far", "metric_value": value, "timestamp": "1999-01-01T12:00:00Z"});
        crate::common::Sent {
            key: Some(b"far".to_vec()),
            value: Some(json.to_string().into_bytes()),
            ..Default::default()
        }
    };
    case.produce((0..40).map(|i| far(f64::from(i % 5))).chain([far(99.0)]));
    let mut admin = case.parts.admin();
    wait("the sink to wait for the default partition", || {
        let waits = "select exists (select from pg_locks join pg_class as c on c.oid = relation
            where not granted and relname = 'anomalies_rest' and relnamespace = $1::text::regnamespace)";
        admin.query_one(waits, &[&case.name]).unwrap().get(0)
    });
    upkeep.commit().unwrap();
    wait("the row", || case.count("anomalies_late") == 1);
    assert!(!detector.log().contains("23514"), "{}", detector.log());
    assert_eq!(case.count("sink_rejects"), 0);
}

#[test]
fn of_several_hosts_the_one_that_answers_and_takes_writes_is_used() {
    let mut case = Case::new("hosts");
    let host = case.parts.get("POSTGRES__HOST").to_owned();
    case.set("POSTGRES__HOST", format!("127.0.0.9, {host}"));
    case.ok(&["status"]);
    let text = said(&case, &["check", "--role", "detector", "--connect"]);
    assert!(text.contains("ok      schema"), "{text}");
    // All of them take no writes.
    let schema = case.name.clone();
    let mut admin = case.parts.admin();
    let role = format!("{schema}_reads");
    admin
        .batch_execute(&format!(
            "create role {role} login password 'w'; alter role {role} set default_transaction_read_only = on"
        ))
        .unwrap();
    case.set("POSTGRES__USER", &role);
    case.set("POSTGRES__PASSWORD", "w");
    case.set("POSTGRES__PASSWORD_FILE", "");
    let text = said(&case, &["status"]);
    assert!(text.contains("name the primary in postgres.host"), "{text}");
    admin.batch_execute(&format!("drop role {role}")).unwrap();
}

#[test]
fn status_forget_removes_and_names_partitions_that_stopped_reporting() {
    let case = Case::new("forget");
    let detector = case.detector("a", &[]);
    // The partitions serve, and report, one after the other.
    wait("heartbeats", || case.count("detector_status") == 4);
    let own = case.count("detector_status");
    // With the policy that the hash in each row stands for, defaults included.
    let sql = "select settings from detector_settings natural join detector_status limit 1";
    let settings: serde_json::Value = case.sql().query_one(sql, &[]).unwrap().get(0);
    let names = ["method", "min_relative_std_dev", "min_samples", "min_std_dev", "override", "threshold", "window"];
    assert!(settings.as_object().unwrap().keys().eq(names), "{settings}");
    let old = "insert into detector_status (detector_group, topic, partition, worker, state, series, settings_hash, updated_at)
        select 'old', 'gone', n, 'w', 'running', 0, 'h', now() - interval '3 days' from generate_series(0, 7) n;
        insert into detector_conditions (detector_group, topic, worker, code, severity, message, since, updated_at)
        values ('old', 'gone', 'w', 'not_serving', 'degraded', 'x', now(), now() - interval '3 days')";
    case.sql().batch_execute(old).unwrap();
    assert!(case.ok(&["status"]).contains("not reporting for"));
    let text = case.ok(&["status", "--forget"]);
    assert!(text.contains("forgot 8 partitions of topic gone in group old"), "{text}");
    assert_eq!((case.count("detector_status"), case.count("detector_conditions where topic = 'gone'")), (own, 0));
    assert!(case.ok(&["status", "--forget"]).contains("nothing to forget"));
    drop(detector);
}

#[test]
fn the_ledger_stands_at_the_end_of_the_topic_after_commits_and_aborts() {
    let case = Case::new("controls");
    let detector = case.detector("a", &[]);
    for value in [99.0, 98.0] {
        anomaly(&case, value);
    }
    wait("the rows", || case.count("anomalies") == 2);
    // One that is aborted, behind them.
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let id = format!("{}-aborts", case.name);
    let producer: BaseProducer = case.client().set("transactional.id", id).create().unwrap();
    producer.init_transactions(Duration::from_secs(20)).unwrap();
    producer.begin_transaction().unwrap();
    let topic = case.anomalies();
    for partition in 0..4 {
        producer.send(BaseRecord::<[u8], [u8]>::to(&topic).payload(b"x").partition(partition)).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    producer.abort_transaction(Duration::from_secs(20)).unwrap();
    let ends = || {
        (0..4)
            .map(|partition| producer.client().fetch_watermarks(&topic, partition, Duration::from_secs(20)).unwrap().1)
    };
    let sum = "select sum(next_offset)::bigint from sink_offsets";
    wait("the ledger at the end", || {
        let at: Option<i64> = case.sql().query_one(sum, &[]).unwrap().get(0);
        at == Some(ends().sum())
    });
    assert_eq!((case.count("anomalies"), case.count("sink_rejects")), (2, 0));
    // The client knows the end of an open transaction for up to a second longer.
    wait("lag 0", || detector.metric("anomaly_sink_lag ") == 0.0);
}

#[test]
fn a_batch_that_takes_longer_than_statement_timeout_is_stored_in_smaller_ones_and_a_single_record_is_reported() {
    let case = Case::new("cancelled");
    let sleep = |seconds: f64| {
        let body = format!("begin perform pg_sleep({seconds}); return new; end");
        let function = format!("create or replace function slow() returns trigger language plpgsql as $f$ {body} $f$");
        case.sql().batch_execute(&function).unwrap();
    };
    sleep(0.02);
    case.sql()
        .batch_execute("create trigger slow before insert on anomalies for each row execute function slow()")
        .unwrap();
    // A batch of 200 rows takes 4 s, and one of 25 rows half a second.
    let all = (0..40).map(|i| event("a", f64::from(i % 5))).chain((0..200).map(|i| event("a", 1e3 * 2f64.powi(i))));
    case.produce(all);
    let since = std::time::Instant::now();
    let detector = case.detector("a", &[("POSTGRES__STATEMENT_TIMEOUT", "1s"), ("DETECTOR__WINDOW", "30")]);
    let published = || case.read(&case.anomalies()).len() as i64;
    wait("all anomalies", || published() > 100 && case.count("anomalies") == published());
    println!("stored after {:?}", since.elapsed());
    wait("the detector to be ready", || ready(&detector).0 == 200);
    assert!(detector.log().contains("fewer records are stored at once"), "{}", detector.log());
    assert!(!detector.log().contains("unreachable"), "it is no outage: {}", detector.log());
    sleep(1.5);
    anomaly(&case, 1e200);
    wait("the sink to report the record", || {
        let text = ready(&detector).1;
        ["57014", "also for a single record", "postgres.statement_timeout"].iter().all(|words| text.contains(words))
    });
    sleep(0.0);
    wait("the record", || case.count("anomalies") == published());
    wait("the detector to be ready", || ready(&detector).0 == 200);
    assert_eq!(case.count("sink_rejects"), 0);
}
