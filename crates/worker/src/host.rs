//! Clocks, chance and tasks of the Workers runtime, as the [`Host`] port.
//!
//! The runtime has one clock. It stands still while code runs and moves on at every answer from outside and every timer,
//! so a reading is at most as old as the last of these. A step back of that clock is seen and taken out of the
//! monotonic time; a step forward looks like time that passed.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, poll_fn};
use keyreeve::core::time::{Moment, Mono, Steady, Timestamp};
use keyreeve::port::Host;
use worker::js_sys;
use worker::send::SendFuture;
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::{Context, Date, Delay, State, wasm_bindgen_futures, worker_sys};

/// The longest single timer, in milliseconds; longer waits take several.
const TIMER_MS_MAX: u64 = 60 * 60 * 1000;
/// Most random bytes in one call (W3C Web Cryptography 10.1.1).
const RANDOM_BYTES_MAX: usize = 65_536;

thread_local! {
    /// The event whose code runs right now.
    static RUNNING: RefCell<Option<Anchor>> = const { RefCell::new(None) };
}

/// An event, or a Durable Object, that the runtime keeps alive for the tasks that were started under it.
#[derive(Clone, Debug)]
pub struct Anchor(JsValue);

impl Anchor {
    /// A request, an alarm or a cron event.
    #[must_use]
    pub fn of_event(context: &Context) -> Self {
        let js: &JsValue = context.as_ref().as_ref();
        Self(js.clone())
    }

    /// A Durable Object.
    #[must_use]
    pub fn of_object(state: &State) -> Self {
        let js: &JsValue = state.as_raw().as_ref();
        Self(js.clone())
    }

    /// Both kinds have the one method that is used here: `waitUntil`.
    fn keep(self, task: BoxFuture<'static, ()>) {
        let context: worker_sys::Context = self.0.clone().unchecked_into();
        Context::new(context).wait_until(within(self, task));
    }
}

/// Runs `future` as part of an event: [`Host::spawn`] anchors there what it spawns. Each event runs its handler in this;
/// events that take turns are kept apart.
pub async fn within<T>(anchor: Anchor, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _entered = Entered(RUNNING.replace(Some(anchor.clone())));
        future.as_mut().poll(context)
    })
    .await
}

/// The same for what needs no waiting.
pub fn within_now<T>(anchor: Anchor, work: impl FnOnce() -> T) -> T {
    let _entered = Entered(RUNNING.replace(Some(anchor)));
    work()
}

/// Puts back who ran before, also when it panics.
struct Entered(Option<Anchor>);

impl Drop for Entered {
    fn drop(&mut self) {
        RUNNING.set(self.0.take());
    }
}

/// One isolate, or one object. Made once and kept: its monotonic time begins when it is made.
#[derive(Debug, Default)]
pub struct WorkerHost {
    clock: Mutex<Clock>,
}

impl WorkerHost {
    /// Starts the monotonic clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self) -> Moment {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).read(Date::now().as_millis())
    }
}

#[async_trait]
impl Host for WorkerHost {
    fn now(&self) -> Moment {
        self.read()
    }

    async fn sleep_until(&self, until: Mono) {
        loop {
            let left_ms = until.since(self.read().mono);
            if left_ms == 0 {
                return;
            }
            SendFuture::new(Delay::from(Duration::from_millis(left_ms.min(TIMER_MS_MAX)))).await;
        }
    }

    /// # Panics
    /// Where the runtime has no random numbers to give, which is so only before the first event: then no secret can be
    /// made and nothing may go on.
    fn fill(&self, bytes: &mut [u8]) {
        #[expect(clippy::expect_used, reason = "without random numbers every lease and nonce would be unsafe")]
        random(bytes).expect("the runtime's random generator");
    }

    /// Outlives the answer of the event it is called in, for as long as the runtime allows (30 s after the answer). Outside
    /// of [`within`] it lives as long as the runtime pleases.
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        match RUNNING.with_borrow(Clone::clone) {
            Some(anchor) => anchor.keep(task),
            None => wasm_bindgen_futures::spawn_local(task),
        }
    }
}

fn random(bytes: &mut [u8]) -> Result<(), JsValue> {
    let scope: web_sys::WorkerGlobalScope = js_sys::global().unchecked_into();
    let crypto = scope.crypto()?;
    for chunk in bytes.chunks_mut(RANDOM_BYTES_MAX) {
        crypto.get_random_values_with_u8_array(chunk)?;
    }
    Ok(())
}

/// Makes a clock that never goes back out of one that may.
#[derive(Debug, Default)]
struct Clock {
    last_ms: Option<u64>,
    mono_ms: u64,
    steady: Steady,
}

impl Clock {
    fn read(&mut self, raw_ms: u64) -> Moment {
        let passed_ms = raw_ms.saturating_sub(self.last_ms.unwrap_or(raw_ms));
        self.last_ms = Some(raw_ms);
        self.mono_ms = self.mono_ms.saturating_add(passed_ms);
        self.steady.read(Timestamp(raw_ms), Mono(self.mono_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_follows_the_clock_and_never_goes_back() {
        const START: u64 = 1_800_000_000_000;
        let mut clock = Clock::default();
        assert_eq!(clock.read(START), Moment::new(Timestamp(START), Mono(0)));
        assert_eq!(clock.read(START + 250), Moment::new(Timestamp(START + 250), Mono(250)));
        assert_eq!(clock.read(START + 250).mono, Mono(250), "it stands still while code runs");
        // An hour back: time goes on from there, and the estimate of the wall clock does not believe it yet.
        let stepped = clock.read(START + 250 - 3_600_000);
        assert_eq!((stepped.mono, stepped.wall), (Mono(250), Timestamp(START + 250)));
        let later = clock.read(START + 1250 - 3_600_000);
        assert_eq!((later.mono, later.wall), (Mono(1250), Timestamp(START + 1250)));
    }
}
