//! A register in a table of PostgreSQL, shared by all nodes that reach the server.
//!
//! One statement makes a swap, in a transaction of its own, which PostgreSQL makes whole or not at all. The answer comes
//! after the commit, and the commit is on disk (and on its synchronous standby, where there is one).
//!
//! | what came back | outcome |
//! |---|---|
//! | no connection, or none free in time | refused: nothing was sent |
//! | an error of the statement | refused: it was rolled back |
//! | a connection that ended, a server that shuts down, silence until the deadline | unknown |
//! | a swap that was made, with a warning: the commit did not wait for its synchronous standby, as somebody ended the wait | unknown |
//!
//! Every connection is bounded on both sides: here each call has a deadline, there a statement that waits longer than the
//! caller is ended, so what nobody waits for any more does not happen much later. A call that is cut off gives its
//! connection up. Nothing is sent twice.
//!
//! What this engine cannot see: a standby that is promoted by hand, or a backup put back. Both may have forgotten writes.
//! It does see standbys that stream without being waited for, and then says in its [`Capabilities`] that a failover
//! forgets. It must reach the server itself or through a pooler that keeps sessions: one that hands out transactions
//! loses what is set for the session.

mod changes;
mod hive;
mod pool;
mod schema;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use keyreeve_core::id::WriteId;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};

pub use self::hive::{HiveTable, PAGE_MAX};
use self::pool::Pool;
use super::{VALUE_BYTES_MAX, check_value};
use crate::config::{PostgresUrl, SecretRef};
use crate::port::{Capabilities, Entry, FOLLOWED, Host, Key, LIST_MAX, Register, Secrets, StoreError, Swap};

/// Where the register is, who asks, and for how long.
pub struct Settings {
    /// Server, role and database.
    pub url: PostgresUrl,
    /// The role's password, read for each new connection.
    pub password: Option<SecretRef>,
    /// Certificates in PEM to believe instead of the system's authorities.
    pub authorities: Option<PathBuf>,
    /// Longest wait for an answer, in milliseconds, waiting for a connection included.
    pub answer_ms: u64,
}

/// Why a database cannot be used as a register. It is left as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer keyreeve has changed the schema.
    #[error(
        "`{url}` has schema version {found}, this keyreeve knows versions up to {known}\nhint: upgrade this node; the database was left as it is"
    )]
    Newer {
        /// The database.
        url: String,
        /// What it says.
        found: i32,
        /// The newest this program knows.
        known: usize,
    },
    /// It answers, and says no; or what it takes to ask it is missing here.
    #[error("`{url}` cannot be used as a store: {cause}")]
    Unusable {
        /// The database.
        url: String,
        /// What is wrong, and a hint on a line of its own.
        cause: String,
    },
    /// It does not answer. A node may start all the same: each call tries anew.
    #[error("`{url}` does not answer: {cause}")]
    Away {
        /// The database.
        url: String,
        /// Why not.
        cause: String,
    },
}

/// One register. When it is dropped, its connections are closed.
pub struct Postgres {
    pool: Arc<Pool>,
}

impl Postgres {
    /// Prepares a register; no connection is made. Deadlines are real time: a database does not run faster with a test's
    /// clock. Connections are driven by tasks of `host`.
    ///
    /// # Errors
    /// [`OpenError::Unusable`] where the authorities cannot be read.
    pub fn new(settings: Settings, secrets: Arc<dyn Secrets>, host: Arc<dyn Host>) -> Result<Self, OpenError> {
        let url = settings.url.to_string();
        let pool = Pool::new(settings, secrets, host).map_err(|cause| OpenError::Unusable { url, cause })?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Connects once: creates the table where there is none, and finds out what is wrong before it is needed.
    ///
    /// # Errors
    /// [`OpenError`] tells a server that is away from one that says no.
    pub async fn check(&self) -> Result<(), OpenError> {
        let url = self.pool.url();
        match self.pool.take().await {
            Ok(_) => Ok(()),
            Err(pool::Unready::Newer(found)) => Err(OpenError::Newer { url, found, known: schema::VERSION }),
            Err(pool::Unready::No(cause)) => Err(OpenError::Unusable { url, cause }),
            Err(pool::Unready::Away(cause)) => Err(OpenError::Away { url, cause }),
        }
    }

    /// Runs `ask` on a connection, all before the deadline. Returns what came of it, and what the server warned of meanwhile.
    async fn call<T>(
        &self,
        ask: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<(T, Option<String>), StoreError> {
        let until = self.pool.deadline();
        // Whatever goes wrong before there is a connection, nothing was sent.
        let session = self.pool.take().await.map_err(|unready| StoreError::Refused(unready.to_string()))?;
        // Of an earlier call, or of the connection itself.
        let _old = session.warning();
        // A future that is dropped here takes its connection with it: what it would answer belongs to nobody.
        match tokio::time::timeout_at(until, ask(session.client())).await {
            Ok(Ok(answer)) => {
                let warning = session.warning();
                session.give_back();
                Ok((answer, warning))
            }
            Ok(Err(error)) => {
                let (outcome, is_over) = outcome_of(&error);
                if !is_over {
                    session.give_back();
                }
                Err(outcome)
            }
            Err(_) => {
                let ms = self.pool.answer_ms();
                Err(StoreError::Unknown(format!("PostgreSQL did not answer within {ms}ms")))
            }
        }
    }
}

#[async_trait]
impl Register for Postgres {
    fn capabilities(&self) -> Capabilities {
        let seen = self.pool.seen();
        Capabilities {
            is_swap_atomic: true,
            is_durable: seen.is_some_and(|server| server.is_durable),
            forgets_on_failover: seen.is_none_or(|server| server.forgets_on_failover),
            is_shared: true,
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let key = key.as_str();
        let (found, _) = self
            .call(async move |client| client.query_typed_opt(schema::READ, &[text(&key), size(&VALUE_MAX)]).await)
            .await?;
        let Some(row) = found else { return Ok(None) };
        let op = row.try_get::<_, &[u8]>(0).ok().and_then(|op| op.try_into().ok());
        let value = row.try_get::<_, Option<&[u8]>>(1).ok().flatten();
        match (op, value) {
            (Some(op), Some(value)) => Ok(Some(Entry { op: WriteId(op), bytes: Bytes::copy_from_slice(value) })),
            _ => Err(StoreError::Refused(
                "the row was not written by keyreeve\nhint: restore the table from a backup".to_owned(),
            )),
        }
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        check_value(&next)?;
        let key = key.as_str();
        let is_followed = key.starts_with(FOLLOWED);
        let (changed, warning) = self
            .call(async move |client| {
                let (op, value) = (next.op.0.as_slice(), &*next.bytes);
                let three = [text(&key), bytes(&op), bytes(&value)];
                let Some(expected) = expected else {
                    return client.execute_typed(&schema::create(is_followed), &three).await;
                };
                let expected = expected.0.as_slice();
                let [key, op, value] = three;
                let four = [key, op, value, bytes(&expected)];
                client.execute_typed(&schema::replace(is_followed), &four).await
            })
            .await?;
        match (changed, warning) {
            // It is committed there, and nowhere else: whoever ended the wait for the standby has it answered like any other. A
            // failover now would forget it. The words are in the server's language, and no other warning belongs to a swap.
            (1, Some(said)) => Err(StoreError::Unknown(format!("PostgreSQL has committed a write and warned: {said}"))),
            (1, None) => Ok(Swap::Done),
            _ => Ok(Swap::Lost),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let after = after.map_or("", Key::as_str);
        let limit = i32::try_from(limit.min(LIST_MAX)).unwrap_or(i32::MAX);
        let (rows, _) = self
            .call(async move |client| {
                client.query_typed(schema::LIST, &[text(&prefix), text(&after), size(&limit)]).await
            })
            .await?;
        Ok(rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok().and_then(Key::new)).collect())
    }

    fn changes(&self) -> Option<BoxStream<'static, Key>> {
        Some(changes::follow(&self.pool))
    }
}

/// [`VALUE_BYTES_MAX`] in PostgreSQL's type for lengths.
const VALUE_MAX: i32 = VALUE_BYTES_MAX as i32;

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

fn text<'a>(value: &'a &'a str) -> Parameter<'a> {
    (value, Type::TEXT)
}

fn bytes<'a>(value: &'a &'a [u8]) -> Parameter<'a> {
    (value, Type::BYTEA)
}

const fn size(value: &i32) -> Parameter<'_> {
    (value, Type::INT4)
}

/// What an error of a statement says about it, and whether its connection is of no more use.
fn outcome_of(error: &tokio_postgres::Error) -> (StoreError, bool) {
    let said = explain(error);
    match error.as_db_error().map(|database| (database.parsed_severity(), database.code())) {
        // Said by a server of several machines that lost sight of its own commit.
        Some((_, code)) if *code == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN => (StoreError::Unknown(said), true),
        // It was the primary, and is not any more: the next connection finds the one that is.
        Some((_, code)) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => (StoreError::Refused(said), true),
        // The statement was rolled back, and the session goes on.
        Some((Some(Severity::Error), _)) => (StoreError::Refused(said), false),
        // A session that is ended may be so between its commit and the answer.
        _ => (StoreError::Unknown(said), true),
    }
}

/// An error with its cause, and what helps. PostgreSQL repeats no values of ours in these messages: they name tables and
/// rights.
fn explain(error: &tokio_postgres::Error) -> String {
    let Some(database) = error.as_db_error() else {
        let mut said = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            said = format!("{said}: {inner}");
            cause = inner.source();
        }
        return said;
    };
    let (code, message) = (database.code(), database.message());
    match hint(code) {
        Some(hint) => format!("{message} ({})\nhint: {hint}", code.code()),
        None => format!("{message} ({})", code.code()),
    }
}

fn hint(code: &SqlState) -> Option<&'static str> {
    const HINTS: &[(SqlState, &str)] = &[
        (SqlState::INVALID_PASSWORD, "look at `store.password`, and at the role's password in the database"),
        (
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            "look at the role in `store.url`, at `store.password`, and at the server's pg_hba.conf",
        ),
        (SqlState::INVALID_CATALOG_NAME, "create the database: `createdb --owner ROLE DATABASE`"),
        (
            SqlState::INSUFFICIENT_PRIVILEGE,
            "the role needs a schema of its own: `CREATE SCHEMA keyreeve AUTHORIZATION ROLE`",
        ),
        (
            SqlState::READ_ONLY_SQL_TRANSACTION,
            "this server only reads: name the primary, or all servers, in `store.url`",
        ),
        (SqlState::DISK_FULL, "free some space on the server"),
        (SqlState::TOO_MANY_CONNECTIONS, "each node holds up to 5 connections: raise `max_connections`"),
        (SqlState::QUERY_CANCELED, "the server is slow, or somebody holds a lock; keyreeve tries again"),
        (SqlState::LOCK_NOT_AVAILABLE, "somebody holds a lock on the table; keyreeve tries again"),
        (SqlState::UNDEFINED_TABLE, "stop all nodes and restore the schema `keyreeve` from a backup"),
        (SqlState::CANNOT_CONNECT_NOW, "the server is starting or recovering; keyreeve tries again"),
    ];
    HINTS.iter().find(|(known, _)| known == code).map(|(_, hint)| *hint)
}

/// A share of the time that a caller waits, so that the server gives up first and can say so.
const fn before(ms: u64) -> u64 {
    ms.saturating_sub(ms / 4)
}

/// As [`before`], as a time.
const fn patience(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
