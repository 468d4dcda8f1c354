//! The one table of the engines on SQLite: its schema, the schema's version, and the statements.
//!
//! One statement makes a swap, and SQLite makes a statement whole or not at all. Parameters are numbered; each statement
//! says what they are. How a statement is run, and where the version is kept, is the engine's business.

/// One step of the schema each. Forward only: never edit one.
const MIGRATIONS: [&str; 1] =
    ["CREATE TABLE register (key TEXT PRIMARY KEY, op BLOB NOT NULL, value BLOB NOT NULL) WITHOUT ROWID"];

/// The newest version of the schema that this program knows; 0 is an empty database.
pub const VERSION: usize = MIGRATIONS.len();

/// Puts an entry where there is none: `?1` key, `?2` its write id, `?3` value. Changes one row, or none where it is lost.
pub const CREATE: &str = "INSERT INTO register (key, op, value) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO NOTHING";

/// Puts an entry over the one written by `?4`: `?1` key, `?2` its write id, `?3` value. Changes one row, or none where
/// it is lost.
pub const REPLACE: &str = "UPDATE register SET op = ?2, value = ?3 WHERE key = ?1 AND op = ?4";

/// Write id and value under the key `?1`. A value of more than `?2` bytes, which nobody could have put there, is not
/// loaded and comes as null.
pub const READ: &str = "SELECT op, CASE WHEN length(value) <= ?2 THEN value END AS value FROM register WHERE key = ?1";

/// The first `?3` keys that begin with `?1` and come after `?2` (empty: from the beginning), in order. Keys are printable
/// ASCII, so those that begin with the prefix lie between it and it with DEL behind.
pub const LIST: &str =
    "SELECT key FROM register WHERE key >= ?1 AND key < ?1 || char(127) AND key > ?2 ORDER BY key LIMIT ?3";

/// The first `?2` keys that begin with `?1`, each with its write id, in order.
pub const OPS: &str = "SELECT key, op FROM register WHERE key >= ?1 AND key < ?1 || char(127) ORDER BY key LIMIT ?2";

/// The statements that bring a database of schema `version` to [`VERSION`]; all of them belong into one transaction.
/// `None` where a newer program has changed the schema: then nothing may be touched.
#[must_use]
pub fn migrations_after(version: i64) -> Option<&'static [&'static str]> {
    MIGRATIONS.get(usize::try_from(version).ok()?..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_gets_the_steps_it_lacks_and_one_from_the_future_gets_none() {
        assert_eq!(migrations_after(0).map(<[_]>::len), Some(VERSION));
        assert_eq!(migrations_after(VERSION as i64), Some([].as_slice()));
        assert_eq!(migrations_after(VERSION as i64 + 1), None);
        assert_eq!(migrations_after(-1), None);
    }
}
