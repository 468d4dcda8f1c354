//! Quiet windows as text: `22:00-06:00`, `mon-fri 08:00-18:00`, `sat 00:00-24:00`, in UTC.

use keyreeve_core::quiet::{Quiet, WEEK_MS};

use super::problem::{Fault, shown};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Reads one window; the result has one entry for each day on which it starts.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence, and what to do.
pub(super) fn windows(text: &str) -> Result<Vec<Quiet>, Fault> {
    let malformed = || {
        let hint = "times are UTC: `22:00-06:00` for every day, `mon-fri 08:00-18:00`, `sun 00:00-24:00`";
        Fault::new(format!("must be `HH:MM-HH:MM`, with days before it or without, not {}", shown(text)), hint)
    };
    let trimmed = text.trim();
    let (days, times) = match trimmed.rsplit_once(' ') {
        Some((days, times)) => (range(days.trim()).ok_or_else(malformed)?, times),
        None => ((0, 6), trimmed),
    };
    let (from, until) = times.split_once('-').ok_or_else(malformed)?;
    let (from_ms, until_ms) = (of_day(from).ok_or_else(malformed)?, of_day(until).ok_or_else(malformed)?);
    if from_ms == until_ms || from_ms == DAY_MS {
        return Err(Fault::new(
            format!("is no time at all, or a day that starts at its end: {}", shown(text)),
            "`00:00-24:00` is a whole day",
        ));
    }
    // Past midnight, where it ends before it starts.
    let for_ms = if until_ms > from_ms { until_ms - from_ms } else { until_ms + DAY_MS - from_ms };
    let (first, last) = days;
    let last = if last < first { last + 7 } else { last };
    let starts = (first..=last).map(|day| (day * DAY_MS + from_ms) % WEEK_MS);
    Ok(starts.map(|from_ms| Quiet { from_ms, for_ms }).collect())
}

/// `mon`, `mon-fri`, `fri-mon`: the first day and the last, 0 for Monday.
fn range(text: &str) -> Option<(u64, u64)> {
    let day = |name: &str| DAYS.iter().zip(0..).find(|(day, _)| **day == name).map(|(_, number)| number);
    match text.split_once('-') {
        Some((first, last)) => Some((day(first)?, day(last)?)),
        None => day(text).map(|day| (day, day)),
    }
}

/// `HH:MM` as milliseconds of the day, `24:00` included.
fn of_day(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let is_right = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_right.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let ms = (hours * 60 + minutes) * MINUTE_MS;
    (minutes < 60 && ms <= DAY_MS).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 60 * MINUTE_MS;

    #[test]
    fn windows_are_read_day_by_day() {
        let one = |text| windows(text).unwrap();
        assert_eq!(one("sat 06:30-08:00"), [Quiet { from_ms: 5 * DAY_MS + 390 * MINUTE_MS, for_ms: 90 * MINUTE_MS }]);
        let nights = one("22:00-06:00");
        assert_eq!(nights.len(), 7);
        assert_eq!(nights[6], Quiet { from_ms: 6 * DAY_MS + 22 * HOUR_MS, for_ms: 8 * HOUR_MS });
        let days: Vec<u64> = one("sat-mon 00:00-24:00").iter().map(|window| window.from_ms / DAY_MS).collect();
        assert_eq!(days, [5, 6, 0], "over the end of the week");
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "-",
            "22:00",
            "22-06",
            "25:00-26:00",
            "22:60-23:00",
            "2:00-3:00",
            "sat",
            "Sat 02:00-03:00",
            "mon-fun 02:00-03:00",
            "02:00-02:00",
            "24:00-06:00",
            "02:00-03:00-04:00",
            "+2:00-03:00",
            "sat  02:00 - 03:00",
        ] {
            assert!(windows(text).is_err(), "{text}");
        }
    }
}
