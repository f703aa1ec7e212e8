//! Tests of the permissions of the detector's role in the database: it does its work with them, and everything else is
//! refused.

use crate::common::{Case, Parts, event, wait};

/// The tables, and what the role may do in them apart from reading: inserting, updating, deleting.
const TABLES: [(&str, &str); 20] = [
    ("anomalies", "i"),
    ("sink_offsets", "iu"),
    ("sink_rejects", "i"),
    ("reviews", ""),
    ("detector_status", "iud"),
    ("detector_conditions", "iud"),
    ("detector_settings", "i"),
    ("rejected_samples", "id"),
    ("seen_devices", "iud"),
    ("coverage", "iu"),
    ("activity", "iu"),
    ("anomaly_minutes", "iu"),
    ("anomaly_hours", "iu"),
    ("anomaly_days", "iu"),
    ("anomaly_metrics", "iu"),
    ("topic_generations", "iu"),
    ("devices", "i"),
    ("retention_state", ""),
    ("refinery_schema_history", ""),
    ("anomalies_parts", ""),
];

/// Tries a statement as a role, and undoes it; returns whether the role may do it.
fn may(client: &mut postgres::Client, role: &str, schema: &str, statement: &str) -> bool {
    let begin = format!("begin; set local search_path = {schema}; set local role {role}; savepoint tried");
    client.batch_execute(&begin).unwrap();
    let tried = client.batch_execute(statement);
    client.batch_execute("rollback").unwrap();
    // Other errors come after the check of the permissions.
    tried.err().is_none_or(|error| error.code().is_some_and(|state| state.code() != "42501"))
}

/// Tries every kind of statement on every table.
fn check(client: &mut postgres::Client, role: &str, schema: &str, adds_reviews: bool) {
    let columns = "select quote_ident(column_name) from information_schema.columns where table_schema = $1
        and table_name = $2 and is_identity = 'NO' order by ordinal_position limit 1";
    for (table, permissions) in TABLES {
        let column: String = client.query_one(columns, &[&schema, &table]).unwrap().get(0);
        let may_insert = permissions.contains('i') || table == "reviews" && adds_reviews;
        for (statement, expected) in [
            (format!("select count(*) from {table}"), true),
            (format!("insert into {table} default values"), may_insert),
            (format!("update {table} set {column} = {column}"), permissions.contains('u')),
            (format!("delete from {table}"), permissions.contains('d')),
            (format!("truncate {table}"), false),
            (format!("alter table {table} add column mine integer"), false),
            (format!("drop table {table}"), false),
        ] {
            // This view cannot be changed, whoever asks.
            if table == "anomalies_parts" && !statement.starts_with("select") {
                continue;
            }
            assert_eq!(may(client, role, schema, &statement), expected, "{statement}");
        }
    }
    for (statement, expected) in [
        ("create table mine (x integer)", false),
        ("delete from anomalies_rest", false),
        ("insert into anomalies_rest default values", false),
        ("select nextval('reviews_id_seq')", false),
        ("select setval('sink_offsets_id_seq', 1)", false),
        ("select * from current_reviews", true),
        ("create temp table incoming (like anomalies)", true),
        ("select anomalies_maintain('28 days', now(), '0', '0')", true),
        ("create or replace function anomalies_maintain() returns int language sql return 1", false),
    ] {
        assert_eq!(may(client, role, schema, statement), expected, "{statement}");
    }
}

/// Calls the function of the maintenance while a temporary table of the role has the name of one of its tables and a
/// trigger; returns whether the trigger ran, with the permissions of the owner.
fn is_hijacked(client: &mut postgres::Client, role: &str, schema: &str) -> bool {
    let begin = format!("begin; set local search_path = {schema}; set local role {role}");
    client.batch_execute(&begin).unwrap();
    let called = client.batch_execute(&format!(
        "create temp table retention_state (like {schema}.retention_state including all);
         create function pg_temp.hijack() returns trigger language plpgsql as
             $$ begin raise exception 'the trigger runs as %', current_user; end $$;
         create trigger hijack before insert or update on pg_temp.retention_state execute function pg_temp.hijack();
         grant all on pg_temp.retention_state to public;
         select anomalies_maintain('28 days', now(), '0', '0')"
    ));
    client.batch_execute("rollback").unwrap();
    called.err().is_some_and(|error| {
        let message = error.as_db_error().map(ToString::to_string).unwrap_or_else(|| error.to_string());
        assert!(message.contains("the trigger runs as"), "{message}");
        true
    })
}

#[test]
fn the_role_of_the_detector_does_its_work_and_nothing_else() {
    let mut case = Case::bare("permissions", Parts::shared());
    let (role, schema) = (format!("{}_writer", case.name), case.name.clone());
    let owner = case.parts.get("POSTGRES__USER").to_owned();
    let mut admin = case.parts.admin();
    admin.batch_execute(&format!("create role {role} login password 'w'")).unwrap();
    case.set("MIGRATE__USER", &owner);
    case.set("MIGRATE__PASSWORD_FILE", case.parts.get("POSTGRES__PASSWORD_FILE").to_owned());
    case.set("POSTGRES__USER", &role);
    case.set("POSTGRES__PASSWORD_FILE", "");
    case.set("POSTGRES__PASSWORD", "w");
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    check(&mut admin, &role, &schema, true);
    assert!(!is_hijacked(&mut admin, &role, &schema));
    let unknown = "select string_agg(relname::text, ', ') from pg_class where relnamespace = $1::text::regnamespace
        and relkind in ('r', 'p', 'v', 'm', 'f') and not relispartition and relname <> all($2)";
    let known = TABLES.map(|table| table.0).into_iter().chain(["current_reviews"]).collect::<Vec<_>>();
    let unknown: Option<String> = admin.query_one(unknown, &[&schema, &known]).unwrap().get(0);
    assert_eq!(unknown, None, "no permissions are tried on these tables");

    // An earlier version granted more. Tables of other programs keep their permissions.
    case.sql()
        .batch_execute(&format!(
            "create table other (x integer);
             grant select, insert, update, delete on all tables in schema {schema} to {role};
             grant usage, select on all sequences in schema {schema} to {role}"
        ))
        .unwrap();
    assert!(may(&mut admin, &role, &schema, "delete from refinery_schema_history"));
    // A role of its own adds the reviews.
    case.set("MIGRATE__REVIEWER", &owner);
    case.ok(&["migrate"]);
    check(&mut admin, &role, &schema, false);
    assert!(may(&mut admin, &role, &schema, "delete from other"));

    let checked = case.ok(&["check", "--role", "detector", "--connect"]);
    assert!(checked.contains("permissions: select, insert, update, delete"), "{checked}");
    let detector = case.detector("a", &[]);
    let normal = (0..100).map(|i| event("pump", 20.0 + f64::from(i % 7) / 10.0));
    let rejected = crate::common::Sent { value: Some(b"not JSON".to_vec()), ..Default::default() };
    case.produce(normal.chain([event("pump", 90.0), rejected]));
    for table in ["anomalies", "sink_offsets", "detector_status", "rejected_samples", "coverage", "activity", "devices"]
    {
        wait(table, || case.count(table) > 0);
    }
    assert!(!detector.log().contains("42501"), "{}", detector.log());
    drop((detector, case));
    admin.batch_execute(&format!("drop owned by {role}; drop role {role}")).unwrap();
}
