//! `GET /v1/events`: what happens to the caller's credentials on this node, as server-sent events (WHATWG HTML 9.2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::request::Parts as Head;
use keyreeve_core::time::Mono;
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use super::api::Api;
use super::auth::Caller;
use super::input::{self, rfc3339};
use super::problem::{Answer, NOT_IMPLEMENTED, Problem, RATE_LIMITED};
use super::route::Later;
use crate::config::Action;
use crate::outbound::Notice;

/// A silent stream says this often that it is there, in milliseconds: proxies cut what is silent for a minute.
const KEEP_ALIVE_MS: u64 = 15_000;

pub(super) fn follow(later: &Later, head: &Head) -> Result<Answer, Problem> {
    input::query(head, [])?;
    if !later.api.has_streams {
        let text = "there is no event stream on a Worker: what happens, happens in an object for each credential\nhint: `GET /v1/credentials/{name}/history` tells what has become of one";
        return Err(Problem::new(NOT_IMPLEMENTED, text));
    }
    let caller = later.caller.clone().ok_or_else(Problem::unauthenticated)?;
    let place = Place::take(&later.api, later.live.limits.event_streams_max)?;
    // Watched before it is read: a change in between is seen.
    let changes = later.api.changes();
    let notices = later.api.live().outbound.notices();
    let state = Stream { place, caller, notices, changes, is_new: true };
    let body = stream::unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), state))
    });
    let mut answer = Answer::new(Body::from_stream(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(answer)
}

/// One of the streams there may be. Given back when dropped.
struct Place(Arc<Api>);

impl Place {
    fn take(api: &Arc<Api>, most: usize) -> Result<Self, Problem> {
        let place = Self(Arc::clone(api));
        if api.event_streams.fetch_add(1, Ordering::Relaxed) < most {
            return Ok(place);
        }
        let text =
            format!("all {most} event streams of this node are taken\nhint: try again later, or on another node");
        Err(Problem::new(RATE_LIMITED, text).after(5000))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.event_streams.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Stream {
    place: Place,
    caller: Arc<Caller>,
    notices: broadcast::Receiver<Notice>,
    changes: watch::Receiver<Option<u64>>,
    is_new: bool,
}

/// What a stream has waited for.
enum Woken {
    Notice(Result<Notice, RecvError>),
    Changed,
    Silence,
}

impl Stream {
    /// The next piece of the stream; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.is_new) {
            return Some(Bytes::from_static(b"retry: 3000\n: following\n\n"));
        }
        let silent_at = self.place.0.host.now().mono.plus(KEEP_ALIVE_MS);
        loop {
            match self.wait(silent_at).await {
                Woken::Notice(Ok(notice)) if self.caller.reaches(notice.name.as_str()) => return Some(event(&notice)),
                Woken::Notice(Ok(_)) => {}
                Woken::Notice(Err(RecvError::Lagged(missed))) => return Some(lagged(missed)),
                // The driver is gone: either another has taken over, or the process ends.
                Woken::Notice(Err(RecvError::Closed)) => {
                    self.changes.changed().await.ok()?;
                    self.join_again()?;
                }
                Woken::Changed => self.join_again()?,
                Woken::Silence => return Some(Bytes::from_static(b": keep-alive\n\n")),
            }
        }
    }

    async fn wait(&mut self, silent_at: Mono) -> Woken {
        let host = Arc::clone(&self.place.0.host);
        let notice = Box::pin(self.notices.recv());
        let changed = Box::pin(self.changes.changed());
        match select(notice, select(changed, host.sleep_until(silent_at))).await {
            Either::Left((notice, _)) => Woken::Notice(notice),
            Either::Right((Either::Left(_), _)) => Woken::Changed,
            Either::Right((Either::Right(_), _)) => Woken::Silence,
        }
    }

    /// Goes on under the present configuration, if the caller still may.
    fn join_again(&mut self) -> Option<()> {
        (*self.changes.borrow_and_update())?;
        let live = self.place.0.live();
        self.caller = Arc::clone(live.callers.named(&self.caller.name)?);
        self.notices = live.outbound.notices();
        self.caller.may(Action::Events).then_some(())
    }
}

fn event(notice: &Notice) -> Bytes {
    let data = json!({
        "at": rfc3339(notice.at),
        "name": notice.name.as_str(),
        "generation": notice.generation,
        "kind": notice.kind,
        "detail": notice.detail,
    });
    // JSON without line breaks of its own is one line of data.
    Bytes::from(format!("event: {}\ndata: {data}\n\n", notice.kind))
}

fn lagged(missed: u64) -> Bytes {
    Bytes::from(format!("event: lagged\ndata: {}\n\n", json!({ "missed": missed })))
}
