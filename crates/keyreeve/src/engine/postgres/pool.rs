//! A few connections, made when they are needed and checked once each.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use keyreeve_core::secret::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Socket};

use super::{Settings, before, explain, patience, schema, tls};
use crate::config::Reach;
use crate::port::{Host, Secrets};

/// Most connections of one node, besides the one that listens.
const CONNECTIONS_MAX: usize = 4;
/// Most calls that wait for a connection.
const WAITING_MAX: usize = 1024;
/// A connection is replaced after this long, so that what was found out about the server stays true.
const LIFE: Duration = Duration::from_secs(10 * 60);
/// A server that has gone without a word is noticed after about twice this long.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Why there is no connection. Nothing was sent.
pub(super) enum Unready {
    /// No answer.
    Away(String),
    /// It answers, and says no.
    No(String),
    /// A schema of this version, which is newer than ours.
    Newer(i32),
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(cause) | Self::No(cause) => f.write_str(cause),
            Self::Newer(found) => write!(
                f,
                "the schema has version {found}, this keyreeve knows versions up to {}\nhint: upgrade this node",
                schema::VERSION
            ),
        }
    }
}

impl Unready {
    /// What an error while connecting means.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        // Connections, resources, and whoever operates the server; a pooler reports its own troubles with the server as 08.
        const PASSING: [&str; 3] = ["08", "53", "57"];
        let said = explain(error);
        match error.code() {
            Some(code) if !PASSING.iter().any(|class| code.code().starts_with(class)) => Self::No(said),
            _ => Self::Away(said),
        }
    }
}

/// What was found out about the server when it was last connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// It flushes what it acknowledges.
    pub(super) is_durable: bool,
    /// Standbys stream from it, and it acknowledges without waiting for them.
    pub(super) forgets_on_failover: bool,
}

pub(super) struct Pool {
    settings: Settings,
    secrets: Arc<dyn Secrets>,
    host: Arc<dyn Host>,
    tls: Option<tls::Tls>,
    /// One permit a connection in use.
    permits: Arc<Semaphore>,
    waiting: Semaphore,
    idle: Mutex<Vec<Link>>,
    /// A [`Seen`] in two bits, and a third that says that there is one.
    seen: AtomicU8,
}

type Warning = Arc<Mutex<Option<String>>>;

/// Where the payloads of notifications go.
pub(super) type Hear = mpsc::Sender<String>;

/// An open connection. Its task ends when this is dropped, whatever the server does.
pub(super) struct Link {
    pub(super) client: Client,
    made: Instant,
    /// What the server has warned of, since it was last asked for.
    warning: Warning,
    _open: oneshot::Sender<()>,
}

/// A connection in use by one call. Dropped without [`Session::give_back`], it is closed.
pub(super) struct Session {
    link: Link,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Session {
    pub(super) const fn client(&self) -> &Client {
        &self.link.client
    }

    /// What the server has warned of since this was last called.
    pub(super) fn warning(&self) -> Option<String> {
        self.link.warning.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The call is over, and the next one may use the connection.
    pub(super) fn give_back(self) {
        if self.link.is_usable() {
            self.pool.idle().push(self.link);
        }
    }
}

impl Link {
    /// Whether it is open, and not so old that what was found out about the server may be wrong.
    pub(super) fn is_usable(&self) -> bool {
        !self.client.is_closed() && self.made.elapsed() < LIFE
    }
}

impl Pool {
    pub(super) fn new(settings: Settings, secrets: Arc<dyn Secrets>, host: Arc<dyn Host>) -> Result<Self, String> {
        let is_encrypted = settings.url.is_remote() || settings.authorities.is_some();
        let is_near = matches!(settings.url.reach, Reach::Socket(..));
        let tls = (is_encrypted && !is_near).then(|| tls::Tls::new(settings.authorities.as_deref())).transpose()?;
        Ok(Self {
            settings,
            secrets,
            host,
            tls,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            waiting: Semaphore::new(WAITING_MAX),
            idle: Mutex::default(),
            seen: AtomicU8::new(0),
        })
    }

    pub(super) fn url(&self) -> String {
        self.settings.url.to_string()
    }

    pub(super) const fn answer_ms(&self) -> u64 {
        self.settings.answer_ms
    }

    /// When a call that begins now has to be over.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + patience(self.settings.answer_ms)
    }

    pub(super) fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found out last; `None` before the first connection.
    pub(super) fn seen(&self) -> Option<Seen> {
        let bits = self.seen.load(Ordering::Relaxed);
        (bits & 4 != 0).then_some(Seen { is_durable: bits & 1 != 0, forgets_on_failover: bits & 2 != 0 })
    }

    /// A connection for one call, before the deadline of a call that begins now.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Session, Unready> {
        let until = self.deadline();
        let place = self.waiting.try_acquire();
        let _place = place.map_err(|_| Unready::Away(format!("{WAITING_MAX} requests are waiting already")))?;
        let permit = timeout_at(until, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            let ms = self.settings.answer_ms;
            return Err(Unready::Away(format!("none of {CONNECTIONS_MAX} connections was free within {ms}ms")));
        };
        let kept = {
            let mut idle = self.idle();
            idle.retain(Link::is_usable);
            idle.pop()
        };
        let link = match kept {
            Some(link) => link,
            None => self.connect(until, None).await?,
        };
        Ok(Session { link, pool: Arc::clone(self), _permit: permit })
    }

    /// A new connection, ready for use. What it is told by the channels it listens on goes to `hear`.
    pub(super) async fn connect(&self, until: Instant, hear: Option<Hear>) -> Result<Link, Unready> {
        match timeout_at(until, self.connect_and_look(hear)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let ms = self.settings.answer_ms;
                Err(Unready::Away(format!("no connection was made within {ms}ms")))
            }
        }
    }

    async fn connect_and_look(&self, hear: Option<Hear>) -> Result<Link, Unready> {
        let mut link = self.dial(hear).await?;
        self.prepare(&mut link.client).await?;
        Ok(link)
    }

    /// A connection to whatever is there: the first host that answers in its share of the time.
    pub(super) async fn dial(&self, hear: Option<Hear>) -> Result<Link, Unready> {
        let Reach::Hosts(hosts) = &self.settings.url.reach else { return self.dial_one(None, hear).await };
        let share = before(self.settings.answer_ms) / u64::try_from(hosts.len().max(1)).unwrap_or(1);
        let mut failed = Unready::Away("`store.url` names no host".into());
        for host in hosts {
            // One that takes connections and says nothing must leave time for the others.
            let error = match timeout(patience(share), self.dial_one(Some(host), hear.clone())).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => error,
                Err(_) => Unready::Away(format!("`{}:{}` did not answer within {share}ms", host.0, host.1)),
            };
            // What waiting would not mend is said, whatever the others said.
            if !matches!(failed, Unready::No(_)) {
                failed = error;
            }
        }
        Err(failed)
    }

    async fn dial_one(&self, host: Option<&(String, u16)>, hear: Option<Hear>) -> Result<Link, Unready> {
        let config = self.config(host)?;
        let made = match &self.tls {
            // The authorities are read for each connection, as the password is: they are replaced without a restart.
            Some(_) => {
                let tls = tls::Tls::new(self.settings.authorities.as_deref()).map_err(Unready::No)?;
                self.drive(config.connect(tls).await, hear)
            }
            None => self.drive(config.connect(tokio_postgres::NoTls).await, hear),
        };
        made.map_err(|error| Unready::of(&error))
    }

    /// Everything that decides whom a connection reaches, and as whom. `one` of the hosts, where there are hosts.
    fn config(&self, one: Option<&(String, u16)>) -> Result<Config, Unready> {
        let url = &self.settings.url;
        let mut config = Config::new();
        config.user(&url.user).dbname(&url.database).application_name("keyreeve");
        match &url.reach {
            Reach::Socket(folder, port) => {
                config.host_path(folder).port(*port);
            }
            Reach::Hosts(hosts) => {
                if let Some((host, port)) = one {
                    config.host(host).port(*port);
                }
                // Of several servers, the one that may be written to.
                if hosts.len() > 1 {
                    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
                }
            }
        }
        config.ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config.connect_timeout(patience(before(self.settings.answer_ms)));
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 4).keepalives_retries(4);
        config.tcp_user_timeout(KEEPALIVE * 2);
        if let Some(reference) = &self.settings.password {
            let password = self.secrets.read(reference);
            let password: Secret<_> = password.map_err(|cause| Unready::No(format!("`store.password`: {cause}")))?;
            config.password(password.expose());
        }
        Ok(config)
    }

    /// Lets the host run a connection until its link is dropped.
    fn drive<S>(
        &self,
        made: Result<(Client, Connection<Socket, S>), tokio_postgres::Error>,
        hear: Option<Hear>,
    ) -> Result<Link, tokio_postgres::Error>
    where
        S: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
    {
        let (client, mut connection) = made?;
        let (open, mut closed) = oneshot::channel::<()>();
        let warning = Warning::default();
        let warned = Arc::clone(&warning);
        self.host.spawn(Box::pin(async move {
            loop {
                let message = poll_fn(|cx| connection.poll_message(cx));
                match select(pin!(message), &mut closed).await {
                    Either::Left((Some(Ok(AsyncMessage::Notification(told))), _)) => {
                        // Where it does not fit, as many wait already.
                        let _heard = hear.as_ref().map(|hear| hear.try_send(told.payload().to_owned()));
                    }
                    // Comes before the end of the answer that it is about.
                    Either::Left((Some(Ok(AsyncMessage::Notice(notice))), _)) => {
                        if notice.parsed_severity() == Some(Severity::Warning) {
                            let said = format!("{} ({})", notice.message(), notice.code().code());
                            *warned.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
                        }
                    }
                    Either::Left((Some(Ok(_)), _)) => {}
                    Either::Left((Some(Err(error)), _)) => {
                        tracing::debug!(cause = explain(&error), "a PostgreSQL connection ended");
                        return;
                    }
                    Either::Left((None, _)) | Either::Right(_) => return,
                }
            }
        }));
        Ok(Link { client, made: Instant::now(), warning, _open: open })
    }

    /// Sets the session, looks at the server, and brings the schema up to date.
    async fn prepare(&self, client: &mut Client) -> Result<(), Unready> {
        let failed = |error: tokio_postgres::Error| Unready::of(&error);
        let ms = before(self.settings.answer_ms).max(1);
        // A role or a database may have other defaults. Each statement here is a transaction of its own and compares again
        // after it has waited, which `read committed` does; and it is acknowledged when it is kept, or not at all.
        let session = format!(
            "SET default_transaction_isolation = 'read committed'; SET statement_timeout = {ms}; SET lock_timeout = {ms}; \
             SET idle_in_transaction_session_timeout = {ms}; SET client_min_messages = 'warning'; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        );
        client.batch_execute(&session).await.map_err(failed)?;
        self.look(client).await.map_err(failed)??;
        let found = schema::version(client).await.map_err(failed)?;
        if !schema::is_known(found) {
            return Err(Unready::Newer(found));
        }
        if usize::try_from(found).is_ok_and(|found| found < schema::VERSION) {
            schema::migrate(client).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn look(&self, client: &Client) -> Result<Result<(), Unready>, tokio_postgres::Error> {
        // A subscriber to changes streams too, but nobody promotes one.
        let sql = "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool,
            current_setting('fsync')::bool, current_setting('synchronous_standby_names') <> '',
            EXISTS (SELECT FROM pg_stat_replication AS sender WHERE NOT EXISTS (
                SELECT FROM pg_replication_slots AS slot WHERE slot.active_pid = sender.pid AND slot.slot_type = 'logical'))";
        let row = client.query_typed_one(sql, &[]).await?;
        if row.try_get::<_, bool>(0)? {
            let said = "this server only reads\nhint: name the primary, or all servers, in `store.url`";
            return Ok(Err(Unready::No(said.to_owned())));
        }
        let (is_flushed, is_waited_for): (bool, bool) = (row.try_get(1)?, row.try_get(2)?);
        let forgets_on_failover = row.try_get::<_, bool>(3)? && !is_waited_for;
        let seen = Seen { is_durable: is_flushed, forgets_on_failover };
        let bits = 4 | u8::from(seen.forgets_on_failover) << 1 | u8::from(seen.is_durable);
        let before = self.seen.swap(bits, Ordering::Relaxed);
        if before != bits && !is_flushed {
            tracing::warn!(
                "this PostgreSQL has `fsync = off`: a crash of its machine may forget what it has acknowledged"
            );
        }
        if before != bits && forgets_on_failover {
            tracing::warn!(
                "this PostgreSQL has standbys that it does not wait for: a failover may forget acknowledged writes"
            );
        }
        Ok(Ok(()))
    }
}
