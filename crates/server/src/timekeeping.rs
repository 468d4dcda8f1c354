//! Whether the system clock is right: asked of `clock.url` before anything is minted or served, then every hour, and as
//! soon as somebody sets the clock. What is wrong with it is corrected for this process only.

use keyreeve::clock::{measure, shown};
use keyreeve::core::clock::Correction;
use keyreeve::core::time::{Moment, Span, Steady};
use tokio::task::AbortHandle;

use crate::load::Ground;

/// How long an answer is waited for, in real milliseconds.
const ANSWER_MS: u64 = 5000;
/// How often the clock is measured, in milliseconds.
const EVERY_MS: u64 = 60 * 60_000;
/// How soon a measurement that failed is repeated, in milliseconds.
const AGAIN_MS: u64 = 60_000;
/// How often the clock is looked at for having been set, in milliseconds. Far less than a step takes to be believed.
const LOOK_MS: u64 = 10_000;

/// What a measurement found.
pub(crate) struct Measured {
    /// How far the system clock is behind, in milliseconds; below 0 where it is ahead.
    pub(crate) behind_ms: i64,
    /// What was done about it.
    pub(crate) correction: Correction,
}

/// Measures the system clock once, and corrects this process's time by what is wrong with it.
///
/// # Errors
/// A sentence that holds no part of the URL; the time then stays as it was.
pub(crate) async fn correct(ground: &Ground, url: &str) -> Result<Measured, String> {
    if ground.scale != 1.0 {
        return Err("simulated time does not run as fast as that of others".to_owned());
    }
    let deadline = ground.host.now().mono.plus(ANSWER_MS);
    let offset = measure(ground.host.as_ref(), ground.tools.http.as_ref(), url, deadline).await?;
    let added_ms = ground.os.added_ms();
    let behind_ms = offset.ms.saturating_add(added_ms);
    metrics::gauge!("keyreeve_clock_offset_ms").set(behind_ms as f64);
    let correction = offset.correct(added_ms);
    if let Correction::Set(ms) = correction {
        ground.os.correct(ms);
    }
    Ok(Measured { behind_ms, correction })
}

/// An offset in words, to the second, because a `Date` says no more: `5m behind`.
pub(crate) fn in_words(behind_ms: i64) -> String {
    let span = Span(behind_ms.unsigned_abs().saturating_add(500) / 1000 * 1000);
    if behind_ms < 0 { format!("{span} ahead of") } else { format!("{span} behind") }
}

/// Measures the clock for as long as it lives.
pub(crate) struct Timekeeping {
    url: String,
    task: AbortHandle,
}

impl Timekeeping {
    /// Measures once, [`ANSWER_MS`] at the most, and then in the background. Without an answer the clock is taken as it is.
    pub(crate) async fn start(ground: &Ground, url: &str) -> Self {
        let is_measured = report(correct(ground, url).await, url, true);
        let (ground, asked) = (ground.clone(), url.to_owned());
        let task = tokio::spawn(async move { keep(&ground, &asked, is_measured).await });
        Self { url: url.to_owned(), task: task.abort_handle() }
    }

    /// Follows a configuration that was read again.
    pub(crate) async fn follow(kept: Option<Self>, ground: &Ground, url: Option<&str>) -> Option<Self> {
        match (kept, url) {
            (Some(kept), Some(url)) if kept.url == url => Some(kept),
            (kept, Some(url)) => {
                drop(kept);
                Some(Self::start(ground, url).await)
            }
            (Some(kept), None) => {
                drop(kept);
                if ground.os.added_ms() != 0 {
                    tracing::warn!("the system clock is no longer measured, and trusted as it is");
                    ground.os.correct(0);
                }
                metrics::gauge!("keyreeve_clock_offset_ms").set(f64::NAN);
                None
            }
            (None, None) => None,
        }
    }
}

impl Drop for Timekeeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(ground: &Ground, url: &str, mut is_measured: bool) {
    loop {
        pause(ground, if is_measured { EVERY_MS } else { AGAIN_MS }).await;
        is_measured = report(correct(ground, url).await, url, is_measured);
    }
}

/// Waits, but not past a moment at which somebody has set the clock.
async fn pause(ground: &Ground, pause_ms: u64) {
    let mut before = ground.host.now();
    let until = before.mono.plus(pause_ms);
    while before.mono < until {
        ground.host.sleep_until(before.mono.plus(LOOK_MS).min(until)).await;
        let now = ground.host.now();
        if is_step(before, now) {
            tracing::info!("somebody has set the system clock: it is measured again");
            return;
        }
        before = now;
    }
}

fn is_step(before: Moment, now: Moment) -> bool {
    let expected = before.raw.plus(now.mono.since(before.mono));
    now.raw.0.abs_diff(expected.0) > Steady::STEP_MS
}

/// Says what is new; whether there was an answer.
fn report(measured: Result<Measured, String>, url: &str, was_measured: bool) -> bool {
    let whose = shown(url);
    match measured {
        Ok(Measured { behind_ms, correction }) => {
            let offset = in_words(behind_ms);
            match correction {
                Correction::Keep => tracing::debug!("the system clock is {offset} {whose}"),
                Correction::Set(0) => tracing::warn!("the system clock is right again, and no longer corrected"),
                Correction::Set(_) => tracing::warn!("the system clock is {offset} {whose}: corrected"),
                Correction::Refuse => tracing::error!(
                    "the system clock is {offset} {whose}: not corrected, because one of them is utterly wrong"
                ),
            }
            true
        }
        Err(cause) if was_measured => {
            tracing::warn!("the system clock could not be measured by {whose}, and is taken as it was: {cause}");
            false
        }
        Err(cause) => {
            tracing::debug!("the system clock could not be measured by {whose}: {cause}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use keyreeve::core::time::{Mono, Timestamp};

    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told_from_one_that_runs() {
        let before = Moment::new(Timestamp(1_000_000), Mono(50));
        let after = |raw| Moment { raw: Timestamp(raw), wall: Timestamp(0), mono: Mono(10_050) };
        for (raw, is_set) in
            [(1_010_000, false), (1_011_000, false), (1_011_001, true), (1_009_000, false), (1_008_999, true)]
        {
            assert_eq!(is_step(before, after(raw)), is_set, "{raw}");
        }
    }

    #[test]
    fn an_offset_reads_from_the_side_of_the_system_clock() {
        assert_eq!(in_words(300_499), "5m behind");
        assert_eq!(in_words(-2500), "3s ahead of");
    }
}
