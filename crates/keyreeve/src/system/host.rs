//! The operating system's clocks, random generator and tasks, as the [`Host`] port.
//!
//! For demonstrations and tests, time can run faster and be wrong: see [`Clock`].

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::future::BoxFuture;
use keyreeve_core::time::{Moment, Mono, Steady, Timestamp};

use crate::port::Host;

/// The variable that [`Clock::from_environment`] reads.
pub const TEST_CLOCK: &str = "KEYREEVE_TEST_CLOCK";
/// Time runs at most this much faster.
pub const SCALE_MAX: f64 = 10_000.0;
/// The longest single sleep; longer ones wake up in between.
const SLEEP_MAX: Duration = Duration::from_secs(60 * 60);

/// How simulated time follows real time: `epoch + (real - epoch) * scale + offset`. For demonstrations and tests only.
///
/// All processes that are to agree on the time need the same `epoch_unix_ms` and `scale`; a process with another
/// `offset_ms` has a clock that is wrong by that much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// When simulated time and real time are equal, in milliseconds since 1970.
    pub epoch_unix_ms: u64,
    /// How much faster than real time it runs; above 0.
    pub scale: f64,
    /// What the wall clock is wrong by, in simulated milliseconds.
    pub offset_ms: i64,
}

impl Clock {
    /// Real time.
    pub const REAL: Self = Self { epoch_unix_ms: 0, scale: 1.0, offset_ms: 0 };

    /// Parses `epoch=1767225600000,scale=60,offset=90000`. Each part may be left out: the epoch is then 1970, which
    /// goes with a scale of 1 only.
    ///
    /// # Errors
    /// A sentence that names the part.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut clock = Self::REAL;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not `name=value`"))?;
            let wrong = |what: &str| format!("`{name}` must be {what}, not `{value}`");
            match name {
                "epoch" => clock.epoch_unix_ms = value.parse().map_err(|_| wrong("milliseconds since 1970"))?,
                "offset" => clock.offset_ms = value.parse().map_err(|_| wrong("milliseconds"))?,
                "scale" => {
                    clock.scale = value.parse().map_err(|_| wrong("a number"))?;
                    if !(clock.scale > 0.0 && clock.scale <= SCALE_MAX) {
                        return Err(wrong(&format!("above 0 and at most {SCALE_MAX}")));
                    }
                }
                _ => return Err(format!("no such part: `{name}`\nhint: there are `epoch`, `scale` and `offset`")),
            }
        }
        if clock.scale != 1.0 && clock.epoch_unix_ms == 0 {
            return Err("`scale` needs `epoch`: all processes have to start from the same moment".into());
        }
        Ok(clock)
    }

    /// Reads [`TEST_CLOCK`]; `None` where it is not set.
    ///
    /// # Errors
    /// A sentence that names the variable and the part.
    pub fn from_environment() -> Result<Option<Self>, String> {
        match std::env::var(TEST_CLOCK) {
            Ok(text) => Self::parse(&text).map(Some).map_err(|cause| format!("`{TEST_CLOCK}`: {cause}")),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("`{TEST_CLOCK}` is not text")),
        }
    }

    fn is_identity(&self) -> bool {
        self.scale == 1.0 && self.offset_ms == 0
    }

    fn wall_ms(&self, real_ms: u64) -> u64 {
        if self.is_identity() {
            return real_ms;
        }
        let epoch = i128::from(self.epoch_unix_ms);
        let since = i128::from(real_ms).saturating_sub(epoch);
        let simulated = epoch.saturating_add(scaled(since, self.scale)).saturating_add(i128::from(self.offset_ms));
        u64::try_from(simulated.max(0)).unwrap_or(u64::MAX)
    }

    fn mono_ms(&self, real: Duration) -> u64 {
        // Asked for with every request, and nearly always of real time.
        if self.scale == 1.0 {
            return whole_ms(real);
        }
        let real_us = i128::try_from(real.as_micros()).unwrap_or(i128::MAX);
        u64::try_from(scaled(real_us, self.scale) / 1000).unwrap_or(u64::MAX)
    }

    /// How long simulated milliseconds take, rounded up: whoever sleeps this long is not early.
    fn real(&self, simulated_ms: u64) -> Duration {
        if self.scale == 1.0 {
            return Duration::from_millis(simulated_ms);
        }
        Duration::try_from_secs_f64(simulated_ms as f64 / self.scale / 1000.0)
            .unwrap_or(SLEEP_MAX)
            .saturating_add(Duration::from_micros(1))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch={},scale={},offset={}", self.epoch_unix_ms, self.scale, self.offset_ms)
    }
}

/// Without the arithmetic in 128 bits of [`Duration::as_millis`].
fn whole_ms(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1000).saturating_add(u64::from(time.subsec_millis()))
}

/// Exact for whole scales; else to a millionth.
fn scaled(value: i128, scale: f64) -> i128 {
    const PARTS: f64 = 1e6;
    // In range: a scale is at most `SCALE_MAX`.
    let parts = (scale * PARTS).round() as i128;
    value.saturating_mul(parts) / 1_000_000
}

/// The operating system.
pub struct OsHost {
    clock: Clock,
    started: Instant,
    wall: Mutex<Wall>,
}

/// What stands between the system clock and the time that is told.
#[derive(Default)]
struct Wall {
    /// Added to the system clock, in milliseconds.
    added_ms: i64,
    steady: Steady,
}

impl OsHost {
    /// Real time.
    #[must_use]
    pub fn new() -> Self {
        Self { clock: Clock::REAL, started: Instant::now(), wall: Mutex::new(Wall::default()) }
    }

    /// Simulated time, for demonstrations and tests only. Logs a warning, because credentials minted by a wrong clock
    /// are wrong.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        tracing::warn!(%clock, "time is simulated: for demonstrations and tests only");
        Self { clock, ..Self::new() }
    }

    /// Real time, unless [`TEST_CLOCK`] is set.
    ///
    /// # Errors
    /// A sentence where the variable is set and wrong.
    pub fn from_environment() -> Result<Self, String> {
        Ok(Clock::from_environment()?.map_or_else(Self::new, Self::with_clock))
    }

    /// Adds `added_ms` to the system clock from now on, instead of what was added before, and believes the result at once.
    ///
    /// Only this process's time changes. The monotonic clock stays as it is.
    pub fn correct(&self, added_ms: i64) {
        let mut wall = self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        wall.added_ms = added_ms;
        wall.steady.believe_next();
    }

    /// What is added to the system clock, in milliseconds.
    #[must_use]
    pub fn added_ms(&self) -> i64 {
        self.wall.lock().unwrap_or_else(PoisonError::into_inner).added_ms
    }
}

impl Default for OsHost {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Host for OsHost {
    fn now(&self) -> Moment {
        let mut wall = self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that readings reach the follower in order.
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let raw = self.clock.wall_ms(whole_ms(real));
        let mono = self.clock.mono_ms(self.started.elapsed());
        let corrected = Timestamp(raw.saturating_add_signed(wall.added_ms));
        wall.steady.read(corrected, Mono(mono))
    }

    async fn sleep_until(&self, until: Mono) {
        loop {
            let left_ms = until.0.saturating_sub(self.clock.mono_ms(self.started.elapsed()));
            if left_ms == 0 {
                return;
            }
            tokio::time::sleep(self.clock.real(left_ms).min(SLEEP_MAX)).await;
        }
    }

    /// # Panics
    /// Where the system has no random numbers to give: then no secret can be made and nothing may go on.
    fn fill(&self, bytes: &mut [u8]) {
        #[expect(clippy::expect_used, reason = "without random numbers every lease and nonce would be unsafe")]
        getrandom::fill(bytes).expect("the system's random generator");
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn simulated_time_is_scaled_from_the_epoch_and_offset() {
        let clock = Clock::parse("epoch=1000000,scale=60,offset=-90000").unwrap();
        assert_eq!(clock, Clock { epoch_unix_ms: 1_000_000, scale: 60.0, offset_ms: -90_000 });
        assert_eq!(clock.wall_ms(1_000_000), 1_000_000 - 90_000);
        assert_eq!(clock.wall_ms(1_000_500), 1_000_000 + 30_000 - 90_000);
        assert_eq!(clock.wall_ms(999_000), 1_000_000 - 60_000 - 90_000);
        assert_eq!(clock.mono_ms(Duration::from_millis(500)), 30_000);
        assert_eq!(clock.real(30_000), Duration::from_millis(500) + Duration::from_micros(1));
        assert_eq!(Clock::parse(&clock.to_string()), Ok(clock));
        assert_eq!(Clock::parse("offset=90000").unwrap().wall_ms(5), 90_005);
    }

    #[test]
    fn a_wrong_part_of_a_clock_is_named() {
        for (text, error) in [
            ("epoch", "`epoch` is not `name=value`"),
            ("epoch=now", "`epoch` must be milliseconds since 1970, not `now`"),
            ("scale=0", "`scale` must be above 0 and at most 10000, not `0`"),
            ("scale=NaN", "`scale` must be above 0 and at most 10000, not `NaN`"),
            ("offset=1h", "`offset` must be milliseconds, not `1h`"),
            ("scale=60", "`scale` needs `epoch`: all processes have to start from the same moment"),
            ("speed=2", "no such part: `speed`\nhint: there are `epoch`, `scale` and `offset`"),
        ] {
            assert_eq!(Clock::parse(text), Err(error.to_owned()));
        }
    }

    #[test]
    fn the_clock_is_the_system_clock_and_never_goes_back() {
        let host = OsHost::new();
        let first = host.now();
        let real = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        assert!(real.abs_diff(first.raw.0) < 5000, "{} is not {real}", first.raw.0);
        let mut before = first.mono;
        for _ in 0..1000 {
            let now = host.now().mono;
            assert!(now >= before);
            before = now;
        }
    }

    #[test]
    fn a_correction_moves_both_wall_clocks_at_once_and_nothing_else() {
        let host = OsHost::new();
        let before = host.now();
        let mut expected = i128::from(before.raw.0);
        for (added_ms, moved_ms) in [(300_000, 300_000), (-300_000, -600_000), (0, 300_000)] {
            host.correct(added_ms);
            assert_eq!(host.added_ms(), added_ms);
            let now = host.now();
            expected += moved_ms;
            let off_ms = i128::from(now.raw.0) - expected;
            assert!((0..5000).contains(&off_ms), "{added_ms}: {off_ms}");
            assert_eq!(now.wall, now.raw, "{added_ms} is no step to ride over");
            assert!(now.mono.since(before.mono) < 5000);
        }
    }

    #[tokio::test]
    async fn a_simulated_minute_passes_in_a_real_moment() {
        let host = OsHost::with_clock(Clock { epoch_unix_ms: 1, scale: 6000.0, offset_ms: 0 });
        let started = Instant::now();
        let before = host.now();
        host.sleep_until(before.mono.plus(60_000)).await;
        let after = host.now();
        assert!(after.mono.since(before.mono) >= 60_000);
        assert!(after.raw.since(before.raw) >= 59_000, "the wall clock runs along");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_task_outlives_whoever_spawned_it() {
        let host = Arc::new(OsHost::new());
        let (done, is_done) = tokio::sync::oneshot::channel();
        let inner = Arc::clone(&host);
        drop(tokio::spawn(async move { inner.spawn(Box::pin(async { done.send(7).unwrap() })) }));
        assert_eq!(is_done.await, Ok(7));
    }

    #[test]
    fn random_bytes_differ() {
        let host = OsHost::new();
        let (mut a, mut b) = ([0; 32], [0; 32]);
        host.fill(&mut a);
        host.fill(&mut b);
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }
}
