//! A register in the SQLite of a Durable Object: the same table and statements as the native file.
//!
//! One statement makes a swap, and runs to its end before anything else runs in the object. What the object sends to the
//! outside, an answer or a request to an upstream, the runtime holds back until the write is on disk (the output gate),
//! so nobody sees a swap that can still be forgotten; where the write fails, the object starts anew.

use async_trait::async_trait;
use bytes::Bytes;
use keyreeve::core::id::WriteId;
use keyreeve::engine::{VALUE_BYTES_MAX, check_value, table};
use keyreeve::port::{Capabilities, Entry, Key, LIST_MAX, Register, StoreError, Swap};
use worker::js_sys::{Function, Reflect};
use worker::wasm_bindgen::closure::Closure;
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::{SqlStorage, SqlStorageValue, Storage};

use crate::js;

/// Holds one number: the version of the schema. Objects have no `PRAGMA user_version`.
const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS keyreeve_schema (version INTEGER NOT NULL)";
const VERSION_SELECT: &str = "SELECT max(version) FROM keyreeve_schema";
const VERSION_CLEAR: &str = "DELETE FROM keyreeve_schema";
const VERSION_INSERT: &str = "INSERT INTO keyreeve_schema (version) VALUES (?1)";

/// The storage of the object that this code runs in.
pub struct Durable {
    sql: SqlStorage,
}

impl Durable {
    /// Brings the object's storage to the schema of this program. Takes no time: call it when the object is made.
    ///
    /// # Errors
    /// A sentence: a newer keyreeve has changed the schema, or SQLite refused. Then the storage is as it was.
    pub fn open(storage: &Storage) -> Result<Self, String> {
        let sql = storage.sql();
        let migrated = sql.clone();
        in_one_transaction(storage, move || migrate(&migrated))?;
        Ok(Self { sql })
    }

    /// Writes half of something, and panics: for the test of what is left of it.
    #[cfg(feature = "testing")]
    #[expect(clippy::panic, reason = "the test of what a panic leaves behind needs one")]
    pub(crate) fn panic_half_way(storage: &Storage) -> Result<(), String> {
        let sql = storage.sql();
        in_one_transaction(storage, move || {
            run(&sql, "CREATE TABLE half_way (a)", vec![])?;
            panic!("a deliberate panic in a transaction")
        })
    }

    fn rows(&self, statement: &str, values: Vec<SqlStorageValue>) -> Result<Vec<Vec<SqlStorageValue>>, StoreError> {
        run(&self.sql, statement, values).map_err(StoreError::Refused)
    }
}

#[async_trait]
impl Register for Durable {
    fn capabilities(&self) -> Capabilities {
        // One object, one thread: whoever reaches this register at all reaches the only one.
        Capabilities { is_swap_atomic: true, is_durable: true, forgets_on_failover: false, is_shared: true }
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let mut rows = self.rows(table::READ, vec![key.as_str().into(), count(VALUE_BYTES_MAX)])?;
        rows.pop().map(entry).transpose()
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        check_value(&next)?;
        let mut values = vec![key.as_str().into(), next.op.0.to_vec().into(), next.bytes.to_vec().into()];
        let statement = match expected {
            None => table::CREATE,
            Some(expected) => {
                values.push(expected.0.to_vec().into());
                table::REPLACE
            }
        };
        let cursor = self.sql.exec(statement, values).map_err(|error| StoreError::Refused(reason(error)))?;
        Ok(if cursor.rows_written() > 0 { Swap::Done } else { Swap::Lost })
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let after = after.map_or("", Key::as_str);
        let rows = self.rows(table::LIST, vec![prefix.into(), after.into(), count(limit.min(LIST_MAX))])?;
        let key = |row: Vec<SqlStorageValue>| match row.into_iter().next() {
            Some(SqlStorageValue::String(key)) => Key::new(key),
            _ => None,
        };
        Ok(rows.into_iter().filter_map(key).collect())
    }
}

fn migrate(sql: &SqlStorage) -> Result<(), String> {
    run(sql, VERSION_TABLE, vec![])?;
    let version = match run(sql, VERSION_SELECT, vec![])?.pop().and_then(|row| row.into_iter().next()) {
        Some(SqlStorageValue::Integer(version)) => version,
        _ => 0,
    };
    let missing = table::migrations_after(version).ok_or_else(|| {
        format!(
            "the storage of this object has schema version {version}, this keyreeve knows versions up to {}\nhint: deploy a newer keyreeve; the object was left as it is",
            table::VERSION
        )
    })?;
    for migration in missing {
        run(sql, migration, vec![])?;
    }
    if !missing.is_empty() {
        run(sql, VERSION_CLEAR, vec![])?;
        run(sql, VERSION_INSERT, vec![count(table::VERSION)])?;
    }
    Ok(())
}

/// Runs a statement and reads all its rows.
fn run(sql: &SqlStorage, statement: &str, values: Vec<SqlStorageValue>) -> Result<Vec<Vec<SqlStorageValue>>, String> {
    let cursor = sql.exec(statement, values).map_err(reason)?;
    cursor.raw().collect::<Result<_, _>>().map_err(reason)
}

/// All of `work`, or nothing of it: also where it panics.
fn in_one_transaction(storage: &Storage, work: impl FnMut() -> Result<(), String> + 'static) -> Result<(), String> {
    let mut work = work;
    let whole: Closure<dyn FnMut() -> Result<(), JsValue>> =
        Closure::wrap_assert_unwind_safe(Box::new(move || work().map_err(|cause| JsValue::from_str(&cause))));
    let raw: &JsValue = storage.as_raw().as_ref();
    let begin: Function = Reflect::get(raw, &JsValue::from_str("transactionSync"))
        .and_then(JsValue::dyn_into)
        .map_err(|_| "this object has no SQLite storage\nhint: name its class under `new_sqlite_classes`".to_owned())?;
    begin.call1(raw, whole.as_ref()).map(drop).map_err(|error| match error.as_string() {
        Some(ours) => ours,
        None => js::reason(&error),
    })
}

fn entry(row: Vec<SqlStorageValue>) -> Result<Entry, StoreError> {
    let mut blobs = row.into_iter().map(|value| match value {
        SqlStorageValue::Blob(bytes) => Some(bytes),
        _ => None,
    });
    let op = blobs.next().flatten().and_then(|bytes| bytes.try_into().ok());
    match (op, blobs.next().flatten()) {
        (Some(op), Some(bytes)) => Ok(Entry { op: WriteId(op), bytes: Bytes::from(bytes) }),
        _ => Err(StoreError::Refused(
            "the row was not written by keyreeve\nhint: restore the object to an earlier point in time".into(),
        )),
    }
}

fn reason(error: worker::Error) -> String {
    js::reason(&error.into())
}

/// A count in SQLite's type.
fn count(count: usize) -> SqlStorageValue {
    SqlStorageValue::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}
