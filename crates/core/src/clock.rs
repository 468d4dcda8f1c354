//! How wrong a clock is, by the `Date` of somebody whose clock is right, and what to do about it.

use crate::time::Timestamp;

/// A clock is left alone while it is wrong by no more than this, in milliseconds: that is what `skew` is for, and a
/// `Date` says no more than the second.
pub const OFFSET_MS_MIN: u64 = 2000;
/// An offset of more than this, in milliseconds, says more about whoever was asked than about this clock.
pub const OFFSET_MS_MAX: u64 = 24 * 60 * 60_000;
/// A `Date` is cut off to the second (RFC 9110 5.6.7), so the moment it was written is half of one later on average.
const HALF_A_SECOND_MS: u64 = 500;

/// An answer with a `Date`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dated {
    /// What it says.
    pub date: Timestamp,
    /// From the question to the answer, by the monotonic clock, in milliseconds.
    pub took_ms: u64,
    /// When it came, by the clock that is measured.
    pub answered_at: Timestamp,
}

/// How wrong a clock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// What has to be added to the clock, in milliseconds: above 0 where the clock is behind.
    pub ms: i64,
    /// The truth is no further from `ms` than this, in milliseconds.
    pub error_ms: u64,
}

/// What to do about an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Nothing: the clock, with what is added to it already, is right.
    Keep,
    /// Add this to the system clock from now on, in milliseconds, instead of what was added before.
    Set(i64),
    /// Nothing, and say so loudly: nobody's clock is that wrong by accident.
    Refuse,
}

impl Dated {
    /// Cristian's rule: the `Date` was written somewhere between question and answer, most likely in the middle.
    #[must_use]
    pub fn offset(self) -> Offset {
        let half_ms = self.took_ms / 2;
        let truth = self.date.plus(HALF_A_SECOND_MS).plus(half_ms);
        let ms = i128::from(truth.0).saturating_sub(i128::from(self.answered_at.0));
        let ms = i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX });
        Offset { ms, error_ms: HALF_A_SECOND_MS.saturating_add(self.took_ms.div_ceil(2)) }
    }
}

impl Offset {
    /// Whether a clock that may be off by `allowed_ms` is certainly further off than that.
    #[must_use]
    pub fn is_beyond(self, allowed_ms: u64) -> bool {
        self.ms.unsigned_abs() > allowed_ms.max(self.error_ms)
    }

    /// What to do, where this is the offset of the clock with `added_ms` added to it already.
    ///
    /// A clock that has become right by itself gets nothing added again.
    #[must_use]
    pub fn correct(self, added_ms: i64) -> Correction {
        if !self.is_beyond(OFFSET_MS_MIN) {
            return Correction::Keep;
        }
        let whole = Self { ms: self.ms.saturating_add(added_ms), ..self };
        if whole.is_beyond(OFFSET_MS_MAX) {
            return Correction::Refuse;
        }
        Correction::Set(if whole.is_beyond(OFFSET_MS_MIN) { whole.ms } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(1_767_225_600_000);

    fn offset(ms: i64) -> Offset {
        Offset { ms, error_ms: 520 }
    }

    #[test]
    fn a_date_was_written_in_the_middle_of_its_second_and_of_the_call() {
        let dated = Dated { date: NOON, took_ms: 300, answered_at: NOON.plus(650) };
        assert_eq!(dated.offset(), Offset { ms: 0, error_ms: 650 });
        let behind = Dated { answered_at: NOON.minus(300_000), ..dated };
        assert_eq!(behind.offset().ms, 300_650);
        let ahead = Dated { answered_at: NOON.plus(300_650), ..dated };
        assert_eq!(ahead.offset().ms, -300_000);
        // An odd call is not more exact than it was.
        assert_eq!(Dated { took_ms: 301, ..dated }.offset(), Offset { ms: 0, error_ms: 651 });
        let absurd = Dated { date: Timestamp(u64::MAX), took_ms: u64::MAX, answered_at: Timestamp(0) };
        assert_eq!(absurd.offset().ms, i64::MAX);
        let absurd = Dated { date: Timestamp(0), took_ms: 0, answered_at: Timestamp(u64::MAX) };
        assert_eq!(absurd.offset().ms, i64::MIN);
    }

    #[test]
    fn the_truth_is_never_further_off_than_the_error_says() {
        // The second was cut off anywhere, and the answer was written anywhere in the call.
        for cut_ms in [0, 1, 499, 500, 999] {
            for took_ms in [0, 1, 30, 4999] {
                for written_ms in [0, took_ms / 2, took_ms] {
                    let asked_at = NOON.plus(cut_ms).minus(written_ms);
                    let found = Dated { date: NOON, took_ms, answered_at: asked_at.plus(took_ms) }.offset();
                    assert!(found.ms.unsigned_abs() <= found.error_ms, "{cut_ms} {took_ms} {written_ms}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn two_seconds_are_left_alone_and_a_day_is_not_believed() {
        for sign in [1, -1] {
            assert_eq!(offset(2000 * sign).correct(0), Correction::Keep);
            assert_eq!(offset(2001 * sign).correct(0), Correction::Set(2001 * sign));
            assert_eq!(offset(300_000 * sign).correct(0), Correction::Set(300_000 * sign));
            assert_eq!(offset(86_400_000 * sign).correct(0), Correction::Set(86_400_000 * sign));
            assert_eq!(offset(86_400_001 * sign).correct(0), Correction::Refuse);
        }
        assert_eq!(offset(i64::MIN).correct(-1), Correction::Refuse);
        assert_eq!(offset(i64::MAX).correct(1), Correction::Refuse);
    }

    #[test]
    fn a_slow_answer_corrects_only_what_is_certain() {
        let slow = |ms| Offset { ms, error_ms: 3000 };
        assert_eq!(slow(3000).correct(0), Correction::Keep);
        assert_eq!(slow(3001).correct(0), Correction::Set(3001));
        assert!(!slow(-3000).is_beyond(100) && slow(-3001).is_beyond(100));
    }

    #[test]
    fn a_correction_is_kept_changed_and_taken_back() {
        assert_eq!(offset(-2000).correct(300_000), Correction::Keep);
        assert_eq!(offset(-2001).correct(300_000), Correction::Set(297_999));
        assert_eq!(offset(5000).correct(300_000), Correction::Set(305_000));
        // Somebody has set the clock right.
        assert_eq!(offset(-300_000).correct(300_000), Correction::Set(0));
        assert_eq!(offset(-298_000).correct(300_000), Correction::Set(0));
        assert_eq!(offset(-297_999).correct(300_000), Correction::Set(2001));
        // Small steps do not get past the limit.
        assert_eq!(offset(3000).correct(86_399_000), Correction::Refuse);
    }
}
