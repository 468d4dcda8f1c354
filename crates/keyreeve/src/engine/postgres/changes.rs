//! Changed keys, as PostgreSQL tells them: one connection that listens, made again whenever it ends.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout, timeout_at};

use super::pool::{Link, Pool};
use super::{explain, patience, schema, size, text};
use crate::port::{FOLLOWED, Key, LIST_MAX};

/// Most keys that wait to be heard. Whoever does not listen that long loses hints, not changes.
const HELD_MAX: usize = 256;
/// How long a connection that ended is waited for before the next try.
const AGAIN: Duration = Duration::from_millis(500);
/// A connection that only listens is asked this often whether anybody is there: one that was cut somewhere between, or whose
/// server hangs behind a proxy, looks just as one on which nothing happens.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Follows the register behind `pool`, for as long as somebody has the stream and the register.
pub(super) fn follow(pool: &Arc<Pool>) -> BoxStream<'static, Key> {
    let (tell, told) = mpsc::channel(HELD_MAX);
    pool.host().spawn(Box::pin(listen(Arc::downgrade(pool), tell)));
    stream::unfold(told, async |mut told| match told.recv().await {
        Some(key) => Some((key, told)),
        // The register is gone; whoever follows it will be too.
        None => std::future::pending().await,
    })
    .boxed()
}

async fn listen(pool: Weak<Pool>, tell: mpsc::Sender<Key>) {
    while let Some(strong) = pool.upgrade() {
        let (began, answer_ms) = (begin(&strong).await, strong.answer_ms());
        drop(strong);
        match began {
            Ok((link, there, mut heard)) => {
                there.into_iter().for_each(|key| hint(&tell, key));
                let ended = async {
                    // An old one ends too: by the next one's names and passwords, what is there is told anew.
                    while link.is_usable() && is_answered(&link, answer_ms).await {
                        sleep(ASK_EVERY).await;
                    }
                };
                let hear = async {
                    // Ends with the connection.
                    while let Some(key) = heard.recv().await {
                        Key::new(key).into_iter().for_each(|key| hint(&tell, key));
                    }
                };
                let either = async {
                    tokio::select! { () = ended => {}, () = hear => {} }
                };
                if until_closed(&tell, either).await.is_none() {
                    return;
                }
            }
            Err(cause) => tracing::debug!(cause, "changes are not heard of; what follows them reads more often"),
        }
        if until_closed(&tell, sleep(AGAIN)).await.is_none() {
            return;
        }
    }
}

/// Whether the server at the other end of a connection answers.
async fn is_answered(link: &Link, answer_ms: u64) -> bool {
    let asked = link.client.batch_execute("SELECT 1");
    matches!(timeout(patience(answer_ms), asked).await, Ok(Ok(())))
}

/// What comes of `future`; `None` as soon as nobody follows any more.
async fn until_closed<T>(tell: &mpsc::Sender<Key>, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        found = future => Some(found),
        () = tell.closed() => None,
    }
}

fn hint(tell: &mpsc::Sender<Key>, key: Key) {
    // Where it does not fit, as many wait already.
    let _told = tell.try_send(key);
}

/// A connection that listens, the keys there were when it began to, and those it hears of.
async fn begin(pool: &Pool) -> Result<(Link, Vec<Key>, mpsc::Receiver<String>), String> {
    let until = pool.deadline();
    let (hear, heard) = mpsc::channel(HELD_MAX);
    let link = pool.connect(until, Some(hear)).await.map_err(|unready| unready.to_string())?;
    let look = async {
        link.client.batch_execute(&format!("LISTEN {}", schema::CHANNEL)).await?;
        // After that, so that nothing changes unheard in between.
        let limit = i32::try_from(LIST_MAX).unwrap_or(i32::MAX);
        link.client.query_typed(schema::LIST, &[text(&FOLLOWED), text(&""), size(&limit)]).await
    };
    let rows = timeout_at(until, look).await.map_err(|_| "no answer in time")?.map_err(|error| explain(&error))?;
    let there = rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok().and_then(Key::new)).collect();
    Ok((link, there, heard))
}
