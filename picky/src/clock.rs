//! Simulated wall time that several processes agree on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A wall clock that runs `scale` times as fast as the real one, or stands still until a test moves it.
///
/// Every process that builds it from the same epoch and scale reads the same time, without talking to the others:
/// `now = epoch + (real_now - epoch) * scale`. The real wall clock is read once, at construction; from then on the
/// monotonic clock drives it, so a step of the machine's clock does not make rules jump.
///
/// Cloning is cheap; clones of a manual clock move together.
///
/// ```
/// use std::time::Duration;
/// use keyreeve_picky::clock::PickyClock;
///
/// let clock = PickyClock::manual(1_700_000_000_000);
/// clock.advance(Duration::from_secs(1200));
/// assert_eq!(clock.now_ms(), 1_700_001_200_000);
/// ```
#[derive(Clone, Debug)]
pub struct PickyClock(Source);

#[derive(Clone, Debug)]
enum Source {
    Scaled { epoch_unix_ms: i64, scale: f64, offset_ms: f64, start: Instant },
    Manual(Arc<AtomicI64>),
}

impl PickyClock {
    /// Real wall time.
    #[must_use]
    pub fn real() -> Self {
        Self::scaled(real_unix_ms(), 1.0)
    }

    /// Time that passes `scale` times as fast as real time since `epoch_unix_ms` (milliseconds since 1970).
    ///
    /// A scale that is not a positive finite number is taken as 1.
    #[must_use]
    pub fn scaled(epoch_unix_ms: i64, scale: f64) -> Self {
        let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        let offset_ms = real_unix_ms().saturating_sub(epoch_unix_ms) as f64;
        Self(Source::Scaled { epoch_unix_ms, scale, offset_ms, start: Instant::now() })
    }

    /// Time that stands at `unix_ms` until [`advance`](Self::advance) or [`set`](Self::set) moves it.
    #[must_use]
    pub fn manual(unix_ms: i64) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(unix_ms))))
    }

    /// Simulated milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::Manual(now) => now.load(Ordering::SeqCst),
            Source::Scaled { epoch_unix_ms, scale, offset_ms, start } => {
                let real_ms = offset_ms + start.elapsed().as_secs_f64() * 1000.0;
                epoch_unix_ms.saturating_add((real_ms * scale) as i64)
            }
        }
    }

    /// How much simulated time passes in one unit of real time; 0 for a manual clock.
    #[must_use]
    pub fn scale(&self) -> f64 {
        match &self.0 {
            Source::Manual(_) => 0.0,
            Source::Scaled { scale, .. } => *scale,
        }
    }

    /// The moment at which simulated and real time are equal; the present for a manual clock.
    #[must_use]
    pub fn epoch_unix_ms(&self) -> i64 {
        match &self.0 {
            Source::Manual(now) => now.load(Ordering::SeqCst),
            Source::Scaled { epoch_unix_ms, .. } => *epoch_unix_ms,
        }
    }

    /// The real time in which `simulated` passes; `None` for a manual clock, where it never passes by itself.
    #[must_use]
    pub fn real_for(&self, simulated: Duration) -> Option<Duration> {
        match &self.0 {
            Source::Manual(_) => None,
            Source::Scaled { scale, .. } => Duration::try_from_secs_f64(simulated.as_secs_f64() / scale).ok(),
        }
    }

    /// Moves a manual clock forward. A running clock is left as it is.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// Sets a manual clock, backwards too. A running clock is left as it is.
    pub fn set(&self, unix_ms: i64) {
        if let Source::Manual(now) = &self.0 {
            now.store(unix_ms, Ordering::SeqCst);
        }
    }
}

/// A duration in whole milliseconds; the largest number when it does not fit.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Real milliseconds since 1970; 0 on a machine whose clock stands before that.
pub(crate) fn real_unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clocks_of_one_epoch_and_scale_agree() {
        let epoch = real_unix_ms() - 5_000;
        let (one, two) = (PickyClock::scaled(epoch, 100.0), PickyClock::scaled(epoch, 100.0));
        let apart = (one.now_ms() - two.now_ms()).abs();
        assert!(apart <= 5_000, "{apart} simulated ms apart, more than 50 real ms");
        assert!(one.now_ms() >= epoch + 500_000, "5 real seconds are 500 simulated ones");
    }

    #[test]
    fn a_manual_clock_stands_still_and_its_clones_move_together() {
        let clock = PickyClock::manual(7);
        let clone = clock.clone();
        assert_eq!(clock.now_ms(), 7);
        clone.advance(Duration::from_millis(5));
        assert_eq!(clock.now_ms(), 12);
        clock.set(3);
        assert_eq!(clone.now_ms(), 3);
    }

    #[test]
    fn a_scale_that_makes_no_sense_is_taken_as_one() {
        for scale in [0.0, -3.0, f64::NAN, f64::INFINITY] {
            assert!((PickyClock::scaled(0, scale).scale() - 1.0).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn twenty_simulated_minutes_at_600_pass_in_two_seconds() {
        let real = PickyClock::scaled(0, 600.0).real_for(Duration::from_secs(1200));
        assert_eq!(real, Some(Duration::from_secs(2)));
        assert_eq!(PickyClock::manual(0).real_for(Duration::from_secs(1)), None);
    }
}
