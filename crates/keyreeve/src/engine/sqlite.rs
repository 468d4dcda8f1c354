//! A register in one SQLite file, shared by all processes of one machine.
//!
//! Write-ahead log, `synchronous=FULL`: what was acknowledged survives a crash of process or machine. One statement
//! makes a swap; swaps that wait together share a transaction, and with it one flush to disk.
//!
//! Blocking work runs on two threads of this engine (one writes, one reads), never on the caller's executor; a third one
//! looks for changes where somebody follows them.
//!
//! What this engine cannot see: whether the file lies on a network file system, where SQLite's locks do not hold and two
//! machines may both win. Keep it on a local disk. A copy put back from a backup has forgotten writes: treat it as a
//! wiped store. A process that is stopped in the middle of a commit keeps the others waiting, not wrong.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use keyreeve_core::id::WriteId;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};

use super::lane::{Lane, Limits};
use super::{VALUE_BYTES_MAX, changes, check_value, table};
use crate::port::{Capabilities, Entry, Key, LIST_MAX, Register, StoreError, Swap};

/// Written into the file's header, so that no other application's database is taken for ours. ASCII `krev`.
const APPLICATION_ID: i32 = 0x6b72_6576;
/// Most swaps in one transaction.
const BATCH_MAX: usize = 64;
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// Limits of one opened register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Longest wait for other processes while the file is opened, in milliseconds.
    pub open_ms: u64,
    /// Longest wait for another process's lock, in milliseconds. Must be shorter than `answer_ms`.
    pub busy_ms: u64,
    /// Longest wait for an answer, in milliseconds, the queue included.
    pub answer_ms: u64,
    /// Most requests waiting, for reads and for writes each.
    pub queue_max: usize,
    /// Largest file, in bytes, the write-ahead log aside.
    pub file_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { open_ms: 2000, busy_ms: 2000, answer_ms: 4000, queue_max: 1024, file_bytes_max: 4 << 30 }
    }
}

impl Options {
    /// For somebody who gives up after `ms` milliseconds: the answer that the file is busy still comes in time, and says
    /// more than silence.
    #[must_use]
    pub fn answering_within(ms: u64) -> Self {
        Self { busy_ms: ms.saturating_sub(ms / 4), answer_ms: ms, ..Self::default() }
    }
}

/// Why a file cannot be used as a register. The file is left as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer keyreeve has changed the schema.
    #[error(
        "`{path}` has schema version {found}, this keyreeve knows versions up to {known}\nhint: upgrade this node; the file was left as it is"
    )]
    Newer {
        /// The file.
        path: String,
        /// What the file says.
        found: i64,
        /// The newest this program knows.
        known: usize,
    },
    /// Missing, unreadable, locked, damaged, or something else's.
    #[error("`{path}` cannot be used as a store: {cause}\nhint: {hint}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it.
        cause: String,
        /// What helps.
        hint: &'static str,
    },
}

/// One opened register. When it is dropped, its threads end and close the file.
pub struct Sqlite {
    writes: Lane<Put, Swap>,
    reads: Lane<Get, Got>,
    path: PathBuf,
}

struct Put {
    key: Key,
    expected: Option<WriteId>,
    next: Entry,
}

enum Get {
    Entry(Key),
    Keys { prefix: String, after: String, limit: usize },
}

enum Got {
    Entry(Option<Entry>),
    Keys(Vec<Key>),
}

impl Sqlite {
    /// Opens `path`, and creates the file (not its folder), readable by its owner only, where there is none.
    ///
    /// Blocks while other processes hold the file, at most about the longer of `open_ms` and `busy_ms`: call it at
    /// start.
    ///
    /// # Errors
    /// [`OpenError`] names the file, the cause, and what helps.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        create(path).map_err(|e| unusable(path, e.to_string(), "the folder must exist and be writable by keyreeve"))?;
        let until = Instant::now() + Duration::from_millis(options.open_ms);
        let connect = || retry(until, || connect(path, options)).map_err(|e| e.into_open(path));
        let (mut writer, reader) = (connect()?, connect()?);
        let limits = |batch_max| Limits {
            queue_max: options.queue_max,
            batch_max,
            answer_within: Duration::from_millis(options.answer_ms),
        };
        let threads = |e: io::Error| unusable(path, e.to_string(), "the process may not start more threads");
        Ok(Self {
            writes: Lane::start("keyreeve-store-write", limits(BATCH_MAX), move |puts| write(&mut writer, &puts))
                .map_err(threads)?,
            reads: Lane::start("keyreeve-store-read", limits(1), move |gets| {
                gets.iter().map(|get| look_up(&reader, get).map_err(|e| refused(&e))).collect()
            })
            .map_err(threads)?,
            path: path.to_owned(),
        })
    }
}

#[async_trait]
impl Register for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities { is_swap_atomic: true, is_durable: true, forgets_on_failover: false, is_shared: true }
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        match self.reads.ask(Get::Entry(key.clone())).await? {
            Got::Entry(entry) => Ok(entry),
            Got::Keys(_) => Err(StoreError::Refused("a list answered a read".into())),
        }
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        check_value(&next)?;
        self.writes.ask(Put { key: key.clone(), expected, next }).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let after = after.map_or_else(String::new, |key| key.as_str().to_owned());
        let get = Get::Keys { prefix: prefix.to_owned(), after, limit: limit.min(LIST_MAX) };
        match self.reads.ask(get).await? {
            Got::Keys(keys) => Ok(keys),
            Got::Entry(_) => Err(StoreError::Refused("a read answered a list".into())),
        }
    }

    fn changes(&self) -> Option<BoxStream<'static, Key>> {
        changes::follow(self.path.clone())
    }
}

/// Makes a batch of swaps in one transaction. Either all of them count, or none does.
fn write(connection: &mut Connection, puts: &[Put]) -> Vec<Result<Swap, StoreError>> {
    let all = |error: StoreError| puts.iter().map(|_| Err(error.clone())).collect();
    let made = connection
        .execute_batch("BEGIN IMMEDIATE")
        .and_then(|()| puts.iter().map(|put| put_one(connection, put)).collect::<rusqlite::Result<Vec<_>>>());
    let outcome = match made {
        // Nothing has been committed, and below everything is rolled back.
        Err(e) => all(refused(&e)),
        Ok(swaps) => match connection.execute_batch("COMMIT") {
            Ok(()) => swaps.into_iter().map(Ok).collect(),
            // Part of it may be on disk.
            Err(e) => all(StoreError::Unknown(explain(&e))),
        },
    };
    if !connection.is_autocommit() {
        let _ended = connection.execute_batch("ROLLBACK");
    }
    outcome
}

fn put_one(connection: &Connection, put: &Put) -> rusqlite::Result<Swap> {
    let (key, op, value) = (put.key.as_str(), put.next.op.0, &*put.next.bytes);
    let rows = match put.expected {
        None => connection.execute(table::CREATE, params![key, op, value])?,
        Some(expected) => connection.execute(table::REPLACE, params![key, op, value, expected.0])?,
    };
    Ok(if rows == 1 { Swap::Done } else { Swap::Lost })
}

fn look_up(connection: &Connection, get: &Get) -> rusqlite::Result<Got> {
    match get {
        Get::Entry(key) => connection
            .query_row(table::READ, params![key.as_str(), bounded(VALUE_BYTES_MAX)], |row| {
                Ok(Entry { op: WriteId(row.get(0)?), bytes: Bytes::from(row.get::<_, Vec<u8>>(1)?) })
            })
            .optional()
            .map(Got::Entry),
        Get::Keys { prefix, after, limit } => {
            let mut statement = connection.prepare(table::LIST)?;
            let keys = statement.query_map(params![prefix, after, bounded(*limit)], |row| row.get::<_, String>(0))?;
            keys.filter_map(|key| key.map(Key::new).transpose()).collect::<rusqlite::Result<_>>().map(Got::Keys)
        }
    }
}

/// A count in SQLite's type.
fn bounded(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Creates the file, for the owner's eyes only, unless it exists. SQLite gives its log the same mode.
fn create(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// Why a connection could not be made ready.
enum Unready {
    Sql(rusqlite::Error),
    Newer(i64),
    Not(&'static str, &'static str),
}

impl From<rusqlite::Error> for Unready {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Unready {
    fn into_open(self, path: &Path) -> OpenError {
        match self {
            Self::Newer(found) => OpenError::Newer { path: path.display().to_string(), found, known: table::VERSION },
            Self::Not(cause, hint) => unusable(path, cause.into(), hint),
            Self::Sql(e) => unusable(path, e.to_string(), hint(&e)),
        }
    }
}

/// Switching to the write-ahead log ignores the busy timeout, so several nodes that start together must try again.
fn retry<T>(until: Instant, mut attempt: impl FnMut() -> Result<T, Unready>) -> Result<T, Unready> {
    loop {
        match attempt() {
            Err(Unready::Sql(e)) if is_busy(&e) && Instant::now() < until => thread::sleep(RETRY_EVERY),
            other => return other,
        }
    }
}

fn connect(path: &Path, options: Options) -> Result<Connection, Unready> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_millis(options.busy_ms))?;
    if connection.is_readonly("main")? {
        return Err(Unready::Not("it can only be read", "keyreeve needs to write to the file and its folder"));
    }
    let missing = missing(&mut connection)?;
    let journal: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if journal != "wal" {
        return Err(Unready::Not("it has no write-ahead log", "put it on a local disk"));
    }
    // FULL flushes each commit: a store that forgets an intent lets a second token be minted. `fullfsync` does so on macOS.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA trusted_schema = OFF;")?;
    let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let pages = options.file_bytes_max / u64::try_from(page_bytes).unwrap_or(1).max(1);
    connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    connection.query_row("PRAGMA journal_size_limit = 16777216", [], |_| Ok(()))?;
    if !missing.is_empty() {
        migrate(&mut connection)?;
    }
    Ok(connection)
}

/// The steps of the schema that the file lacks, if it is ours or empty. Changes nothing.
fn missing(connection: &mut Connection) -> Result<&'static [&'static str], Unready> {
    // One transaction: another process may be creating the schema right now.
    let look = connection.transaction()?;
    let number = |sql| look.query_row(sql, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    if application != i64::from(APPLICATION_ID) && (application, version, tables) != (0, 0, 0) {
        return Err(Unready::Not("it belongs to another application", "give keyreeve a file of its own"));
    }
    table::migrations_after(version).ok_or(Unready::Newer(version))
}

fn migrate(connection: &mut Connection) -> Result<(), Unready> {
    let change = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Read again under the lock: whoever had it before may have done this.
    let version = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let missing = table::migrations_after(version).ok_or(Unready::Newer(version))?;
    for migration in missing {
        change.execute_batch(migration)?;
    }
    if !missing.is_empty() {
        let version = table::VERSION;
        change.execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"))?;
    }
    Ok(change.commit()?)
}

fn unusable(path: &Path, cause: String, hint: &'static str) -> OpenError {
    OpenError::Unusable { path: path.display().to_string(), cause, hint }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Nothing was written.
fn refused(error: &rusqlite::Error) -> StoreError {
    StoreError::Refused(explain(error))
}

fn explain(error: &rusqlite::Error) -> String {
    format!("{error}\nhint: {}", hint(error))
}

const fn hint(error: &rusqlite::Error) -> &'static str {
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return "the row was not written by keyreeve; restore the file from a backup";
    };
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "another process holds the file; keyreeve tries again",
        ErrorCode::DiskFull => "the disk, or the file's size limit, is full: free some space",
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            "stop all nodes, keep a copy, and restore the file from a backup, or remove it to start anew"
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
            "keyreeve needs to write to the file and its folder"
        }
        _ => "look at the disk and the file's folder",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn entry(op: u8, bytes: &[u8]) -> Entry {
        Entry { op: WriteId([op; 16]), bytes: Bytes::copy_from_slice(bytes) }
    }

    fn message(path: &Path, options: Options) -> String {
        let error = Sqlite::open(path, options).err().map(|e| e.to_string()).unwrap();
        error.replace(&path.display().to_string(), "PATH")
    }

    /// Waits until the threads of a dropped register have closed the file. The last to close it removes the log; two that close
    /// it at once may both leave that to the other, so this one tries as well.
    fn settle(path: &Path) {
        let until = Instant::now() + Duration::from_secs(10);
        while path.with_extension("db-wal").exists() {
            assert!(Instant::now() < until, "the file is still open");
            let _ = Connection::open(path).and_then(|file| file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        }
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_with_both_versions_and_the_file_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.db");
        drop(Sqlite::open(&path, Options::default()).unwrap());
        settle(&path);
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
        let before = fs::read(&path).unwrap();
        assert_eq!(
            message(&path, Options::default()),
            "`PATH` has schema version 7, this keyreeve knows versions up to 1\nhint: upgrade this node; the file was left as it is"
        );
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn files_that_are_not_a_store_are_refused_by_name_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = folder.path().join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
        assert_eq!(
            message(&foreign, Options::default()),
            "`PATH` cannot be used as a store: it belongs to another application\nhint: give keyreeve a file of its own"
        );

        let text = folder.path().join("text.db");
        fs::write(
            &text,
            "a shopping list, long enough not to look like an empty database header at all: milk, bread, eggs, tea",
        )
        .unwrap();
        assert_eq!(
            message(&text, Options::default()),
            "`PATH` cannot be used as a store: file is not a database\nhint: stop all nodes, keep a copy, and restore the file from a backup, or remove it to start anew"
        );
        assert!(fs::read_to_string(&text).unwrap().starts_with("a shopping list"));

        let nowhere = folder.path().join("missing").join("k.db");
        assert_eq!(
            message(&nowhere, Options::default()),
            "`PATH` cannot be used as a store: No such file or directory (os error 2)\nhint: the folder must exist and be writable by keyreeve"
        );
        assert!(!folder.path().join("missing").exists());
        assert!(message(folder.path(), Options::default()).contains("unable to open database file"));
    }

    #[cfg(unix)]
    #[test]
    fn the_file_and_its_log_are_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.db");
        let _open = Sqlite::open(&path, Options::default()).unwrap();
        for file in ["k.db", "k.db-wal", "k.db-shm"] {
            assert_eq!(fs::metadata(folder.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
    }

    #[tokio::test]
    async fn a_full_file_refuses_and_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { file_bytes_max: 64 * 1024, ..Options::default() };
        let register = Sqlite::open(&folder.path().join("k.db"), options).unwrap();
        assert_eq!(register.swap(&key("a"), None, entry(1, b"small")).await, Ok(Swap::Done));
        let Err(StoreError::Refused(text)) = register.swap(&key("b"), None, entry(1, &[7; 100_000])).await else {
            panic!("100 KB do not fit");
        };
        assert_eq!(
            text,
            "database or disk is full\nhint: the disk, or the file's size limit, is full: free some space"
        );
        assert_eq!(register.read(&key("b")).await, Ok(None));
        assert_eq!(register.swap(&key("a"), Some(WriteId([1; 16])), entry(2, b"still works")).await, Ok(Swap::Done));
        assert_eq!(register.read(&key("a")).await, Ok(Some(entry(2, b"still works"))));
    }

    #[tokio::test]
    async fn a_lock_held_by_somebody_else_refuses_after_the_busy_time_and_reads_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.db");
        let register = Sqlite::open(&path, Options { busy_ms: 20, ..Options::default() }).unwrap();
        assert_eq!(register.swap(&key("a"), None, entry(1, b"1")).await, Ok(Swap::Done));
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let Err(StoreError::Refused(text)) = register.swap(&key("a"), Some(WriteId([1; 16])), entry(2, b"2")).await
        else {
            panic!("the file is locked");
        };
        assert_eq!(text, "database is locked\nhint: another process holds the file; keyreeve tries again");
        assert_eq!(register.read(&key("a")).await, Ok(Some(entry(1, b"1"))));
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(register.swap(&key("a"), Some(WriteId([1; 16])), entry(2, b"2")).await, Ok(Swap::Done));
    }

    #[tokio::test]
    async fn rows_that_keyreeve_cannot_have_written_are_refused_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.db");
        let register = Sqlite::open(&path, Options::default()).unwrap();
        let other = Connection::open(&path).unwrap();
        let plant = "INSERT INTO register VALUES ('short-op', x'0102', x'00'), ('text', zeroblob(16), 'x'),
                     ('large', zeroblob(16), zeroblob(200000))";
        other.execute_batch(plant).unwrap();
        for planted in ["short-op", "text", "large"] {
            let answer = register.read(&key(planted)).await;
            let Err(StoreError::Refused(text)) = answer else { panic!("{planted}: {answer:?}") };
            assert!(text.contains("was not written by keyreeve"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_write_above_the_limit_is_refused_before_it_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let register = Sqlite::open(&folder.path().join("k.db"), Options::default()).unwrap();
        let fits = entry(1, &vec![1; VALUE_BYTES_MAX]);
        assert_eq!(register.swap(&key("a"), None, fits.clone()).await, Ok(Swap::Done));
        assert_eq!(register.read(&key("a")).await, Ok(Some(fits)));
        let above = register.swap(&key("b"), None, entry(1, &vec![1; VALUE_BYTES_MAX + 1])).await;
        assert!(matches!(above, Err(StoreError::Refused(text)) if text.contains("larger than the limit of 131072")));
    }

    #[tokio::test]
    async fn whoever_follows_hears_soon_what_anybody_has_written_and_nothing_else() {
        use futures::StreamExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.db");
        let (here, there) =
            (Sqlite::open(&path, Options::default()).unwrap(), Sqlite::open(&path, Options::default()).unwrap());
        assert_eq!(here.swap(&key("rl/a"), None, entry(1, b"1")).await, Ok(Swap::Done));
        let mut changes = here.changes().unwrap();
        let mut next = async || tokio::time::timeout(Duration::from_secs(10), changes.next()).await.unwrap().unwrap();
        assert_eq!(next().await, key("rl/a"), "what is there comes once");
        for (writer, name, n) in [(&there, "rk/x", 2), (&there, "rl/b", 3), (&here, "rm/x", 4), (&here, "rl/c", 5)] {
            assert_eq!(writer.swap(&key(name), None, entry(n, b"1")).await, Ok(Swap::Done));
            if name.starts_with("rl/") {
                assert_eq!(next().await, key(name));
            }
        }
        assert_eq!(there.swap(&key("rl/a"), Some(WriteId([1; 16])), entry(6, b"2")).await, Ok(Swap::Done));
        assert_eq!(next().await, key("rl/a"));
    }

    #[test]
    fn whoever_gives_up_in_time_hears_before_that_the_file_is_busy() {
        for ms in [50, 2000, 30_000] {
            let options = Options::answering_within(ms);
            assert!(options.busy_ms < options.answer_ms && options.answer_ms <= ms, "{options:?}");
            assert!(options.busy_ms >= ms / 2, "{options:?}");
        }
    }

    #[test]
    fn nodes_that_start_together_create_the_schema_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.db");
        thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Sqlite::open(&path, Options { open_ms: 20_000, ..Options::default() })))
                .collect();
            for start in starts {
                assert!(start.join().unwrap().is_ok());
            }
        });
    }
}
