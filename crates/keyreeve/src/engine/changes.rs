//! Who wrote to a SQLite file: asked of SQLite's own counter, many times a second, for next to nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::stream::BoxStream;
use rusqlite::{Connection, OpenFlags, params};

use super::table;
use crate::port::{FOLLOWED, Key, LIST_MAX};

/// How often the counter is read, in milliseconds. It lies in memory that all processes share: nothing is read from the file
/// until it has changed.
const EVERY: Duration = Duration::from_millis(20);
/// Most keys that nobody has taken yet.
const WAITING_MAX: usize = 16;

/// Followed keys soon after somebody has written them. `None` where the process may not start another thread.
pub(super) fn follow(path: PathBuf) -> Option<BoxStream<'static, Key>> {
    let (sender, keys) = mpsc::channel(WAITING_MAX);
    let follower = Follower { path, sender, known: BTreeMap::new() };
    thread::Builder::new().name("keyreeve-store-changes".into()).spawn(move || follower.run()).ok()?;
    Some(keys.boxed())
}

struct Follower {
    path: PathBuf,
    sender: mpsc::Sender<Key>,
    /// The write of each key that was told.
    known: BTreeMap<String, Vec<u8>>,
}

impl Follower {
    fn run(mut self) {
        let (mut connection, mut version) = (None, None);
        while !self.sender.is_closed() {
            // Whatever fails, a file that was moved or a lock, is tried again; whoever follows reads now and then anyway.
            let told = self.look(&mut connection, version);
            if told.is_err() {
                connection = None;
            }
            version = told.ok().flatten();
            thread::sleep(EVERY);
        }
    }

    /// Tells what has changed since `version`. Returns the version it was told for; none where not all of it could be told.
    fn look(&mut self, connection: &mut Option<Connection>, version: Option<i64>) -> rusqlite::Result<Option<i64>> {
        let open = match connection.take() {
            Some(open) => open,
            None => Connection::open_with_flags(
                &self.path,
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?,
        };
        let open = connection.insert(open);
        // Before the rows: what is written in between is told next time.
        let now = open.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if version == Some(now) {
            return Ok(version);
        }
        let mut statement = open.prepare(table::OPS)?;
        let most = i64::try_from(LIST_MAX).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![FOLLOWED, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(String, Vec<u8>)> = rows.collect::<rusqlite::Result<_>>()?;
        let mut is_all_told = true;
        for (text, op) in rows {
            if self.known.get(&text) == Some(&op) {
                continue;
            }
            let Some(key) = Key::new(text.clone()) else { continue };
            match self.sender.try_send(key) {
                Ok(()) => drop(self.known.insert(text, op)),
                Err(_) => is_all_told = false,
            }
        }
        Ok(is_all_told.then_some(now))
    }
}
