//! What happened, when, to whom.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use keyreeve_picky::clock::PickyClock;
use serde::Serialize;

use super::args::Strategy;
use crate::exit::{say, tell};

/// The most lines that are kept; further ones are printed only.
const LINES_MAX: usize = 4000;

/// One line of the timeline.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// Simulated milliseconds since the fleet was ready.
    pub(crate) at_ms: i64,
    /// Real milliseconds since then.
    pub(crate) real_ms: u64,
    /// The node concerned; empty for the whole fleet.
    pub(crate) node: String,
    /// What happened.
    pub(crate) text: String,
}

/// Prints and keeps the lines of one run.
pub(crate) struct Timeline {
    strategy: Strategy,
    clock: PickyClock,
    is_json: bool,
    state: Mutex<State>,
}

struct State {
    start_ms: i64,
    start: Instant,
    lines: Vec<Line>,
}

impl Timeline {
    pub(crate) fn new(strategy: Strategy, clock: PickyClock, is_json: bool) -> Self {
        let state = State { start_ms: clock.now_ms(), start: Instant::now(), lines: Vec::new() };
        Self { strategy, clock, is_json, state: Mutex::new(state) }
    }

    /// Counts time from now on, and returns the simulated time of now.
    pub(crate) fn restart(&self) -> i64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.start_ms = self.clock.now_ms();
        state.start = Instant::now();
        state.start_ms
    }

    /// Adds a line about `node`, or about the fleet where that is empty.
    pub(crate) fn add(&self, node: &str, text: impl Into<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line {
            at_ms: self.clock.now_ms().saturating_sub(state.start_ms),
            real_ms: u64::try_from(state.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            node: node.to_owned(),
            text: text.into(),
        };
        let strategy = self.strategy.as_str();
        let seconds = line.at_ms / 1000;
        let text = format!(
            "{strategy:<8} {:>4}m{:02} {:>6.1}s  {:<8} {}",
            seconds / 60,
            seconds % 60,
            line.real_ms as f64 / 1000.0,
            line.node,
            line.text
        );
        // In JSON mode standard output belongs to the result.
        if self.is_json {
            tell(&text)
        } else {
            say(&text)
        }
        if state.lines.len() < LINES_MAX {
            state.lines.push(line);
        }
    }

    /// Everything so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }
}
