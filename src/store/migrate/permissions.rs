//! Grants the roles of the detector and the dashboard the permissions that they need, and reports permissions that they lack.

use postgres::Client;

use crate::error::{Error, Result};
use crate::store::failure::{DatabaseError, explain};

/// The tables, and the permissions that the detector needs on them apart from `select`. `anomalies_maintain` deletes old
/// rows with the permissions of the owner. Only the dashboard adds reviews.
pub(super) const TABLES: [(&str, &[&str]); 17] = [
    ("anomalies", &["insert"]),
    ("sink_offsets", &["insert", "update"]),
    ("sink_rejects", &["insert"]),
    ("detector_status", &["insert", "update", "delete"]),
    ("detector_conditions", &["insert", "update", "delete"]),
    ("activity", &["insert", "update"]),
    ("rejected_samples", &["insert", "delete"]),
    ("seen_devices", &["insert", "update", "delete"]),
    ("detector_settings", &["insert"]),
    ("coverage", &["insert", "update"]),
    ("anomaly_minutes", &["insert", "update"]),
    ("anomaly_hours", &["insert", "update"]),
    ("anomaly_days", &["insert", "update"]),
    ("anomaly_metrics", &["insert", "update"]),
    ("topic_generations", &["insert", "update"]),
    ("devices", &["insert"]),
    ("reviews", &[]),
];

/// Names of everything else in the schema that a role may read: views, and tables in which the migrations and the
/// retention keep their state.
const READ: [&str; 4] = ["anomalies_parts", "current_reviews", "retention_state", "refinery_schema_history"];

/// The function that creates partitions and applies the retention.
const MAINTAIN: &str = "anomalies_maintain(interval, timestamptz, interval, interval)";

/// Grants the tables to another role than the owner: the one of the detector and the dashboard. Revokes what an earlier
/// build granted. `adds_reviews` says whether this role may also add reviews, because no other role does.
///
/// # Errors
/// 69 with the database's reason.
pub fn grant(client: &mut Client, schema: &str, role: &str, adds_reviews: bool) -> Result<()> {
    let target = GrantTarget::find(client, schema, role).map_err(|e| refused(role, &e))?;
    let GrantTarget { schema, role: quoted, is_owner } = &target;
    let mut sql = format!("grant usage on schema {schema} to {quoted};");
    // The owner has all permissions, and the retention needs them.
    if !is_owner {
        sql += &target.revoke(client).map_err(|e| refused(role, &e))?;
    }
    for (table, permissions) in TABLES {
        let reviews = (table == "reviews" && adds_reviews).then_some("insert");
        let all = ["select"].iter().chain(permissions).copied().chain(reviews).collect::<Vec<_>>().join(", ");
        sql += &format!("grant {all} on {schema}.{table} to {quoted};");
    }
    for name in READ {
        sql += &format!("grant select on {schema}.{name} to {quoted};");
    }
    let name = role.replace('\'', "''");
    sql += &format!(
        "grant execute on function {schema}.{MAINTAIN} to {quoted};
         do $$ begin
             -- The sink copies through a temporary table. By default every role may create one; where that was revoked,
             -- only the database's owner can grant it.
             if not has_database_privilege('{name}', current_database(), 'TEMPORARY') then
                 execute format('grant temporary on database %I to {quoted}', current_database());
             end if;
         end $$"
    );
    client.batch_execute(&sql).map_err(|e| refused(role, &e))
}

fn refused(role: &str, error: &postgres::Error) -> Error {
    Error::unavailable(format_args!("cannot grant {role} its permissions: {}", explain(error)))
}

/// A schema and a role, both quoted for statements.
struct GrantTarget {
    schema: String,
    role: String,
    /// Whether the tables belong to the role.
    is_owner: bool,
}

impl GrantTarget {
    fn find(client: &mut Client, schema: &str, role: &str) -> std::result::Result<GrantTarget, postgres::Error> {
        let row = client.query_one(
            "select quote_ident(coalesce(nullif($1, ''), current_schema())), quote_ident($2), exists (
                select from pg_class where relname = 'anomalies' and pg_get_userbyid(relowner) = $2
                and relnamespace = quote_ident(coalesce(nullif($1, ''), current_schema()))::regnamespace)",
            &[&schema, &role],
        )?;
        Ok(GrantTarget { schema: row.get(0), role: row.get(1), is_owner: row.get(2) })
    }

    /// Returns the statements that revoke all permissions of the role on the program's own tables, their partitions and
    /// sequences. Other tables of the schema belong to other programs.
    fn revoke(&self, client: &mut Client) -> std::result::Result<String, postgres::Error> {
        let names = TABLES.iter().map(|table| table.0).chain(READ).collect::<Vec<_>>();
        let rows = client.query(
            "select oid::regclass::text from pg_class where relnamespace = $1::text::regnamespace and (
                relname = any($2) and relkind in ('r', 'p', 'v')
                or oid in (select inhrelid from pg_inherits where inhparent = to_regclass($1 || '.anomalies')))
             union all
             select s.oid::regclass::text from pg_class as s join pg_depend on classid = 'pg_class'::regclass and objid = s.oid
                join pg_class as t on t.oid = refobjid and t.relname = any($2)
             where s.relkind = 'S' and t.relnamespace = $1::text::regnamespace",
            &[&self.schema, &names],
        )?;
        let revoke = |row: postgres::Row| format!("revoke all on {} from {};", row.get::<_, String>(0), self.role);
        Ok(rows.into_iter().map(revoke).collect())
    }
}

/// Permissions of a role of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DashboardRole {
    /// The role may read all tables.
    Reads,
    /// The role may only add reviews.
    Reviews,
}

/// Grants a role of the dashboard its permissions.
///
/// # Errors
/// 69 with the database's reason.
pub fn grant_page(client: &mut Client, schema: &str, role: &str, part: DashboardRole) -> Result<()> {
    let GrantTarget { schema, role: quoted, .. } =
        GrantTarget::find(client, schema, role).map_err(|e| refused(role, &e))?;
    let permissions = match part {
        DashboardRole::Reads => {
            let names = TABLES.iter().map(|table| table.0).chain(READ).map(|name| format!("{schema}.{name}"));
            format!("grant select on {} to {quoted}", names.collect::<Vec<_>>().join(", "))
        }
        DashboardRole::Reviews => format!("grant insert on {schema}.reviews to {quoted}"),
    };
    client
        .batch_execute(&format!("grant usage on schema {schema} to {quoted}; {permissions}"))
        .map_err(|e| refused(role, &e))
}

/// Returns the first permission that the role lacks; `None` if it has all. A role that only reads needs no others.
///
/// # Errors
/// Fails with [`DatabaseError`].
pub fn missing_permission(client: &mut Client, only_reads: bool) -> std::result::Result<Option<String>, DatabaseError> {
    for (table, permissions) in TABLES {
        let permissions = if only_reads { &[] } else { permissions };
        for permission in ["select"].iter().chain(permissions) {
            let row = client.query_one("select has_table_privilege($1, $2)", &[&table, permission])?;
            if !row.get::<_, bool>(0) {
                return Ok(Some(format!("{permission} on {table}")));
            }
        }
    }
    if only_reads {
        return Ok(None);
    }
    let temporary = client.query_one("select has_database_privilege(current_database(), 'TEMPORARY')", &[])?;
    if !temporary.get::<_, bool>(0) {
        return Ok(Some("temporary on the database".into()));
    }
    let maintains = client.query_one("select has_function_privilege($1, 'EXECUTE')", &[&MAINTAIN])?;
    Ok((!maintains.get::<_, bool>(0)).then(|| format!("execute on function {MAINTAIN}")))
}
