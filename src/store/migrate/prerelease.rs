//! Recognises tables from before the first release. No migration upgrades them, and the program does not drop them. The
//! message says how to replace them.

use postgres::{Client, Error};

use crate::config::resolved::PostgresSettings;

/// Names of tables that a schema from before the first release may have besides the current ones.
const OLD: [&str; 3] = ["marks", "retention_state", "refinery_schema_history"];

/// Returns the commands that export the tables, drop them and create the current ones.
///
/// # Errors
/// Returns the error of the database.
pub fn replacement(client: &mut Client, settings: &PostgresSettings) -> Result<[String; 3], Error> {
    let names = super::permissions::TABLES.iter().map(|table| table.0).chain(OLD).collect::<Vec<_>>();
    let row = client.query_one(
        "select current_schema()::text,
                string_agg(oid::regclass::text, ', ' order by relname) filter (where relkind in ('r', 'p')),
                (select string_agg(oid::regprocedure::text, ', ' order by proname)
                 from pg_proc where pronamespace = current_schema()::regnamespace and proname like 'anomalies\\_maintain%')
         from pg_class where relnamespace = current_schema()::regnamespace and relname = any($1)",
        &[&names],
    )?;
    let (schema, tables, functions): (String, Option<String>, Option<String>) = (row.get(0), row.get(1), row.get(2));
    let mut drop = format!("set search_path = \\\"{schema}\\\"; drop table {} cascade", tables.unwrap_or_default());
    if let Some(functions) = functions {
        drop += &format!("; drop function {functions} cascade");
    }
    let PostgresSettings { host, port, dbname, user, .. } = settings;
    let place = format!("-h {host} -p {port} -U {user} -d {dbname}");
    Ok([
        format!("pg_dump {place} -n {schema} -f anomalies-{schema}.sql"),
        format!("psql {place} -c \"{drop}\""),
        "anomaly migrate".to_owned(),
    ])
}
