//! A thread for blocking work: a bounded queue, a deadline for every request, and honest answers about both.
//!
//! A request that is still queued at its deadline is taken out and answered [`StoreError::Refused`]: it will never run.
//! One that is running is answered [`StoreError::Unknown`], because blocking work cannot be called back. A caller that
//! goes away takes its request along if it has not begun. Knows nothing about stores.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::sync::oneshot;

use crate::port::StoreError;

/// What a lane may hold, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most requests waiting; one more is refused.
    pub(super) queue_max: usize,
    /// Most requests handed to the work at once.
    pub(super) batch_max: usize,
    /// From asking to an answer, at the most.
    pub(super) answer_within: Duration,
}

/// The sending side. When it is dropped, what is queued is refused and the threads end.
pub(super) struct Lane<A, R> {
    shared: Arc<Shared<A, R>>,
}

type Reply<R> = oneshot::Sender<Result<R, StoreError>>;

struct Shared<A, R> {
    limits: Limits,
    state: Mutex<State<A, R>>,
    /// There is work, or the lane is closed.
    work: Condvar,
    /// There is a deadline to watch, or the lane is closed.
    deadlines: Condvar,
}

struct State<A, R> {
    queue: VecDeque<Queued<A, R>>,
    running: Vec<Running<R>>,
    is_watcher_idle: bool,
    is_closed: bool,
}

struct Queued<A, R> {
    ask: A,
    reply: Reply<R>,
    due: Instant,
}

struct Running<R> {
    reply: Option<Reply<R>>,
    due: Instant,
}

impl<A: Send + 'static, R: Send + 'static> Lane<A, R> {
    /// Starts a lane whose thread calls `act` with up to `batch_max` requests; it answers each, in order.
    pub(super) fn start(
        name: &str,
        limits: Limits,
        mut act: impl FnMut(Vec<A>) -> Vec<Result<R, StoreError>> + Send + 'static,
    ) -> io::Result<Self> {
        let state = State { queue: VecDeque::new(), running: Vec::new(), is_watcher_idle: false, is_closed: false };
        let (work, deadlines) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { limits, state: Mutex::new(state), work, deadlines });
        let lane = Self { shared: Arc::clone(&shared) };
        let worker = Arc::clone(&shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(asks) = worker.take() {
                let answers = act(asks);
                worker.answer(answers);
            }
        })?;
        thread::Builder::new().name(format!("{name}-watch")).spawn(move || shared.watch())?;
        Ok(lane)
    }

    /// Asks and waits for the answer. Dropping the future takes the request back, unless it has begun.
    pub(super) async fn ask(&self, ask: A) -> Result<R, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared.put(Queued { ask, reply, due: Instant::now() + self.shared.limits.answer_within })?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("its thread ended".into())))
    }
}

impl<A, R> Drop for Lane<A, R> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        state.queue.clear();
        self.shared.work.notify_all();
        self.shared.deadlines.notify_all();
    }
}

impl<A, R> Shared<A, R> {
    fn lock(&self) -> MutexGuard<'_, State<A, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, queued: Queued<A, R>) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.queue.len() >= self.limits.queue_max {
            state.queue.retain(|waiting| !waiting.reply.is_closed());
        }
        if state.queue.len() >= self.limits.queue_max {
            return Err(StoreError::Refused(format!("{} requests are waiting already", self.limits.queue_max)));
        }
        state.queue.push_back(queued);
        if state.is_watcher_idle {
            self.deadlines.notify_one();
        }
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Waits for requests and takes some out of the queue; `None` when the lane is closed.
    fn take(&self) -> Option<Vec<A>> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            let mut asks = Vec::new();
            while asks.len() < self.limits.batch_max
                && let Some(queued) = state.queue.pop_front()
            {
                if queued.reply.is_closed() {
                    continue;
                }
                if queued.due <= Instant::now() {
                    refuse(queued);
                    continue;
                }
                state.running.push(Running { reply: Some(queued.reply), due: queued.due });
                asks.push(queued.ask);
            }
            if !asks.is_empty() {
                return Some(asks);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn answer(&self, answers: Vec<Result<R, StoreError>>) {
        let running = std::mem::take(&mut self.lock().running);
        for (running, answer) in running.into_iter().zip(answers) {
            if let Some(reply) = running.reply {
                let _caller_may_be_gone = reply.send(answer);
            }
        }
    }

    /// Answers whatever is past its deadline, even while the work is stuck.
    fn watch(&self) {
        let mut state = self.lock();
        while !state.is_closed {
            let now = Instant::now();
            // All requests wait equally long, so the queue is in order of its deadlines.
            while state.queue.front().is_some_and(|queued| queued.due <= now) {
                if let Some(late) = state.queue.pop_front() {
                    refuse(late);
                }
            }
            for running in state.running.iter_mut().filter(|running| running.due <= now) {
                if let Some(reply) = running.reply.take() {
                    let _caller_may_be_gone = reply.send(Err(StoreError::Unknown("it took too long".into())));
                }
            }
            let open = state.running.iter().filter(|running| running.reply.is_some()).map(|running| running.due);
            let next = open.chain(state.queue.front().map(|queued| queued.due)).min();
            state = match next {
                Some(due) => {
                    let wait = self.deadlines.wait_timeout(state, due.saturating_duration_since(now));
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    state.is_watcher_idle = true;
                    let mut woken = self.deadlines.wait(state).unwrap_or_else(PoisonError::into_inner);
                    woken.is_watcher_idle = false;
                    woken
                }
            };
        }
    }
}

fn refuse<A, R>(queued: Queued<A, R>) {
    let _caller_may_be_gone =
        queued.reply.send(Err(StoreError::Refused("the queue was too long for its deadline".into())));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LIMITS: Limits = Limits { queue_max: 2, batch_max: 1, answer_within: Duration::from_secs(20) };

    fn text(result: Result<u32, StoreError>) -> String {
        result.map_or_else(|e| e.to_string(), |value| value.to_string())
    }

    /// A lane whose work waits until the returned sender lets it go on, and tells which asks it began.
    fn gated(limits: Limits) -> (Lane<u32, u32>, mpsc::Sender<()>, mpsc::Receiver<u32>) {
        let (go, gate) = mpsc::channel();
        let (tell, begun) = mpsc::channel();
        let lane = Lane::start("test", limits, move |asks: Vec<u32>| {
            asks.iter().for_each(|ask| tell.send(*ask).unwrap_or_default());
            gate.recv().unwrap_or_default();
            asks.into_iter().map(|ask| Ok(ask * 10)).collect()
        });
        (lane.unwrap(), go, begun)
    }

    #[tokio::test]
    async fn a_running_request_past_its_deadline_is_unknown_and_a_queued_one_is_refused_and_never_runs() {
        let (lane, go, begun) = gated(Limits { answer_within: Duration::from_millis(50), ..LIMITS });
        let (first, second) = tokio::join!(lane.ask(1), lane.ask(2));
        assert_eq!(text(first), "the store did not answer: it took too long");
        assert_eq!(text(second), "the store refused: the queue was too long for its deadline");
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(text(lane.ask(3).await), "30", "the lane goes on");
        drop(lane);
        assert_eq!(begun.iter().collect::<Vec<_>>(), [1, 3]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_caller_that_leaves_frees_its_place() {
        let (lane, go, begun) = gated(LIMITS);
        let lane = Arc::new(lane);
        let ask = |n| {
            let lane = Arc::clone(&lane);
            tokio::spawn(async move { text(lane.ask(n).await) })
        };
        let first = ask(1);
        let begun = tokio::task::spawn_blocking(move || begun.recv()).await;
        assert_eq!(begun.unwrap(), Ok(1));
        let (mut second, mut third) = (Box::pin(lane.ask(2)), Box::pin(lane.ask(3)));
        assert!(futures::poll!(&mut second).is_pending() && futures::poll!(&mut third).is_pending());
        assert_eq!(text(lane.ask(4).await), "the store refused: 2 requests are waiting already");
        drop(third);
        let fifth = ask(5);
        while lane.shared.lock().queue.iter().all(|queued| queued.ask != 5) {
            tokio::task::yield_now().await;
        }
        drop(go);
        assert_eq!(text(second.await), "20");
        assert_eq!((first.await.unwrap(), fifth.await.unwrap()), ("10".into(), "50".into()));
    }
}
