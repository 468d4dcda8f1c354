//! The schema `keyreeve` of a database, its version, and the statements.

use tokio_postgres::{Client, Error};

/// One step of the schema each. Forward only: never edit one. Keys compare by their bytes, whatever the database's locale.
const MIGRATIONS: [&str; 1] = ["CREATE TABLE keyreeve.register (
    key text COLLATE \"C\" PRIMARY KEY, op bytea NOT NULL, value bytea NOT NULL)"];

/// The newest version of the schema that this program knows; 0 is none at all.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// The channel on which changed keys are told.
pub(super) const CHANNEL: &str = "keyreeve";

/// Whoever changes the schema holds this lock of the database. ASCII `keyreeve`.
const LOCK: i64 = 0x6b65_7972_6565_7665;

/// Write id and value under the key `$1`. A value of more than `$2` bytes, which nobody could have put there, is not loaded
/// and comes as null.
pub(super) const READ: &str =
    "SELECT op, CASE WHEN octet_length(value) <= $2 THEN value END FROM keyreeve.register WHERE key = $1";

/// The first `$3` keys that begin with `$1` and come after `$2` (empty: from the beginning), in order. Keys are printable
/// ASCII, so those that begin with the prefix lie between it and it with DEL behind.
pub(super) const LIST: &str = "SELECT key FROM keyreeve.register
    WHERE key >= $1 AND key < $1 || chr(127) AND key > $2 ORDER BY key LIMIT $3";

/// Puts an entry where there is none: `$1` key, `$2` its write id, `$3` value. Changes one row, or none where it is lost:
/// it waits for whoever is creating the same key.
pub(super) fn create(is_followed: bool) -> String {
    let put = "INSERT INTO keyreeve.register (key, op, value) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING";
    told(put, is_followed)
}

/// Puts an entry over the one written by `$4`: `$1` key, `$2` its write id, `$3` value. Changes one row, or none where it is
/// lost: it waits for whoever is changing the row, and then compares again.
pub(super) fn replace(is_followed: bool) -> String {
    told("UPDATE keyreeve.register SET op = $2, value = $3 WHERE key = $1 AND op = $4", is_followed)
}

/// Those who listen hear of the key when the change is committed, and only then. Commits that tell something come one after
/// the other in the whole server, so only keys that somebody follows are told.
fn told(statement: &str, is_followed: bool) -> String {
    if is_followed { format!("{statement} RETURNING pg_notify('{CHANNEL}', key)") } else { statement.to_owned() }
}

/// The version of the schema; 0 where there is none.
pub(super) async fn version(client: &Client) -> Result<i32, Error> {
    // Two statements, because one that names a table that is not there does not run.
    let exists = "SELECT to_regclass('keyreeve.version') IS NOT NULL";
    if !client.query_typed_one(exists, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let row = client.query_typed_opt("SELECT max(number) FROM keyreeve.version", &[]).await?;
    Ok(row.map(|row| row.try_get::<_, Option<i32>>(0)).transpose()?.flatten().unwrap_or(0))
}

/// Whether a program that knows [`VERSION`] may use a schema of this version, once it is migrated.
pub(super) fn is_known(version: i32) -> bool {
    usize::try_from(version).is_ok_and(|version| version <= VERSION)
}

/// Brings the schema to [`VERSION`], in one transaction: a node that dies half-way has done nothing. Nodes that start
/// together take turns.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Error> {
    let change = client.transaction().await?;
    change.batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    // A role that may not create schemas can use one that was made for it.
    let exists = change.query_typed_one("SELECT to_regnamespace('keyreeve') IS NOT NULL", &[]).await?;
    if !exists.try_get::<_, bool>(0)? {
        change.batch_execute("CREATE SCHEMA keyreeve").await?;
    }
    change
        .batch_execute("CREATE TABLE IF NOT EXISTS keyreeve.version (number integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
        .await?;
    // Read again under the lock: whoever had it before may have done this.
    let found = change.query_typed_one("SELECT coalesce(max(number), 0) FROM keyreeve.version", &[]).await?;
    let found = usize::try_from(found.try_get::<_, i32>(0)?).unwrap_or(usize::MAX);
    for (number, step) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        change.batch_execute(step).await?;
        change.batch_execute(&format!("INSERT INTO keyreeve.version (number) VALUES ({number})")).await?;
    }
    change.commit().await
}
