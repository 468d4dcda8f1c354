//! Moments and durations, in whole milliseconds. All arithmetic saturates: a clock at its limit waits, it never wraps.

use std::fmt;

/// Wall-clock time: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted (POSIX).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// Monotonic time of one process: milliseconds since an origin that only this process knows. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// One reading of both clocks, taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Moment {
    /// The best estimate of wall-clock time: the wall clock, but not its sudden steps (see [`Steady`]).
    pub wall: Timestamp,
    /// What the wall clock said. May be wrong, may jump.
    pub raw: Timestamp,
    /// What the monotonic clock said.
    pub mono: Mono,
}

impl Moment {
    /// A reading of clocks that agree.
    #[must_use]
    pub const fn new(wall: Timestamp, mono: Mono) -> Self {
        Self { wall, raw: wall, mono }
    }

    /// The later of the two wall-clock readings: for "is it over already?".
    #[must_use]
    pub fn latest(self) -> Timestamp {
        self.wall.max(self.raw)
    }

    /// The earlier of the two wall-clock readings: for "has it certainly passed?".
    #[must_use]
    pub fn earliest(self) -> Timestamp {
        self.wall.min(self.raw)
    }
}

/// Follows a wall clock through smooth corrections, and rides over its steps.
///
/// A step (somebody sets the clock, a time server is wrong for a while) is believed only after it has lasted
/// [`STEP_BELIEVED_MS`](Self::STEP_BELIEVED_MS). Until then the estimate runs on with the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steady {
    /// Estimate and monotonic clock at the last agreement.
    base: Option<(Timestamp, Mono)>,
    /// Since when the wall clock has disagreed.
    off_since: Option<Mono>,
}

impl Steady {
    /// A difference up to this, in milliseconds, between two readings is a correction, not a step.
    pub const STEP_MS: u64 = 1000;
    /// How long a step must last, in milliseconds, to be believed.
    pub const STEP_BELIEVED_MS: u64 = 5 * 60_000;

    /// Takes the next reading at its word, however far it is from the estimate.
    ///
    /// For a wall clock that has just been corrected by a better one: the difference is no step to ride over, and one
    /// that was being ridden over is settled by it.
    pub fn believe_next(&mut self) {
        *self = Self::default();
    }

    /// Takes a reading of both clocks and returns the moment it stands for.
    pub fn read(&mut self, raw: Timestamp, mono: Mono) -> Moment {
        let wall = match self.base {
            None => raw,
            Some((wall, since)) => {
                let steady = wall.plus(mono.since(since));
                let off_ms = raw.since(steady).max(steady.since(raw));
                if off_ms <= Self::STEP_MS {
                    raw
                } else {
                    let off_since = *self.off_since.get_or_insert(mono);
                    if mono.since(off_since) < Self::STEP_BELIEVED_MS {
                        return Moment { wall: steady, raw, mono };
                    }
                    raw
                }
            }
        };
        self.base = Some((wall, mono));
        self.off_since = None;
        Moment { wall, raw, mono }
    }
}

impl Timestamp {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The moment `ms` milliseconds earlier; 1970 at the earliest.
    #[must_use]
    pub const fn minus(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to this; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since 1970 (RFC 7519 `NumericDate`), rounded down.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// This moment with the part below a second dropped.
    #[must_use]
    pub const fn floor_to_second(self) -> Self {
        Self(self.0 / 1000 * 1000)
    }
}

impl Mono {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Prints a duration the way an operator would write it in the configuration: `90s`, `20m`, `1h 5m`, `250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
        let mut rest = self.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        let mut first = true;
        for (size, unit) in UNITS {
            let count = rest / size;
            if count > 0 {
                rest %= size;
                write!(f, "{}{count}{unit}", if first { "" } else { " " })?;
                first = false;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_prints_in_the_units_of_the_configuration() {
        assert_eq!(Span(0).to_string(), "0s");
        assert_eq!(Span(250).to_string(), "250ms");
        assert_eq!(Span(90_000).to_string(), "1m 30s");
        assert_eq!(Span(20 * 60_000).to_string(), "20m");
        assert_eq!(Span(3_900_000).to_string(), "1h 5m");
    }

    #[test]
    fn a_step_of_the_clock_is_ridden_over_until_it_has_lasted() {
        const HOUR: u64 = 3_600_000;
        let mut steady = Steady::default();
        let start = Timestamp(1_000 * HOUR);
        assert_eq!(steady.read(start, Mono(0)).wall, start);
        // A correction of half a second is followed at once.
        assert_eq!(steady.read(start.plus(1500), Mono(1000)).wall, start.plus(1500));
        // A step of an hour is not, but both readings are there for whoever has to be careful.
        let stepped = steady.read(start.plus(HOUR + 2500), Mono(2000));
        assert_eq!(stepped.wall, start.plus(2500));
        assert_eq!(stepped.latest(), start.plus(HOUR + 2500));
        assert_eq!(stepped.earliest(), start.plus(2500));
        // Stepping back is ridden over too.
        assert_eq!(steady.read(start.plus(3500).minus(HOUR), Mono(3000)).wall, start.plus(3500));
        // What lasts is believed.
        let edge = 2000 + Steady::STEP_BELIEVED_MS;
        assert_eq!(steady.read(start.plus(HOUR + edge - 1), Mono(edge - 1)).wall, start.plus(edge + 499));
        assert_eq!(steady.read(start.plus(HOUR + edge), Mono(edge)).wall, start.plus(HOUR + edge));
    }

    #[test]
    fn a_correction_is_believed_at_once_also_in_the_middle_of_a_step() {
        let start = Timestamp(1_000_000_000);
        let mut steady = Steady::default();
        steady.read(start, Mono(0));
        for (at, raw) in [(1000, start.plus(301_000)), (2000, start.minus(298_000))] {
            steady.believe_next();
            assert_eq!(steady.read(raw, Mono(at)), Moment { wall: raw, raw, mono: Mono(at) });
        }
        // A step is ridden over, until somebody knows better.
        assert_eq!(steady.read(start.plus(3000), Mono(3000)).wall, start.minus(297_000));
        steady.believe_next();
        assert_eq!(steady.read(start.plus(3100), Mono(3100)).wall, start.plus(3100));
        // The next step is one again, and has its whole time to last.
        assert_eq!(steady.read(start, Mono(3200)).wall, start.plus(3200));
        let edge = 3200 + Steady::STEP_BELIEVED_MS;
        assert_eq!(steady.read(start, Mono(edge - 1)).wall, start.plus(edge - 1));
        assert_eq!(steady.read(start, Mono(edge)).wall, start);
    }

    #[test]
    fn time_saturates_at_both_ends() {
        assert_eq!(Timestamp(5).minus(6), Timestamp(0));
        assert_eq!(Timestamp(u64::MAX).plus(1), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(9)), 0);
        assert_eq!(Mono(9).since(Mono(5)), 4);
        assert_eq!(Timestamp(1999).floor_to_second(), Timestamp(1000));
    }
}
