//! Which generation a node serves at a moment. No lock, no I/O: numbers in, a generation out.

use crate::record::{Credential, Record};
use crate::rules::Rules;
use crate::time::{Moment, Mono, Timestamp};

/// One generation's times, as one node sees them.
///
/// Each moment is kept by both clocks: by the wall clock, because that is what it was given in, and by this node's
/// monotonic clock from when it was learnt, so that a wall clock which is set back afterwards cannot bring an
/// expired credential to life or undo a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// Its number.
    pub generation: u64,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When its renewal falls due.
    pub refresh_at: Timestamp,
    /// When nodes switch to it.
    pub use_from: Timestamp,
    expires_mono: Mono,
    use_from_mono: Mono,
}

impl Held {
    /// Takes a published generation, learnt at `now`.
    #[must_use]
    pub fn new(credential: &Credential, now: Moment) -> Self {
        Self {
            generation: credential.generation,
            issued_at: credential.issued_at,
            expires_at: credential.expires_at,
            refresh_at: credential.refresh_at,
            use_from: credential.use_from,
            // By the estimate: a clock that is ahead for a moment must not shorten a life for good. While it is ahead,
            // `left_ms` heeds it.
            expires_mono: now.mono.plus(credential.expires_at.since(now.wall)),
            use_from_mono: now.mono.plus(credential.use_from.since(now.wall)),
        }
    }

    /// The same credential under a number that every register's is higher than: for what came from another register.
    #[must_use]
    pub const fn uncounted(self) -> Self {
        Self { generation: 0, ..self }
    }

    /// Milliseconds of life left, less the declared skew; 0 where either clock says that it is over.
    #[must_use]
    pub fn left_ms(&self, now: Moment, skew_ms: u64) -> u64 {
        let by_wall = self.expires_at.since(now.latest());
        let by_mono = self.expires_mono.since(now.mono);
        by_wall.min(by_mono).saturating_sub(skew_ms)
    }

    /// Whether the switch to it has come, by either clock.
    #[must_use]
    pub fn is_in_use(&self, now: Moment) -> bool {
        now.wall >= self.use_from || now.mono >= self.use_from_mono
    }
}

/// Until when a view's current generation answers, by either clock, with no need to look closer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Calm {
    /// Before this by the wall clock, and
    pub wall: Timestamp,
    /// before this by the monotonic clock.
    pub mono: Mono,
    /// Milliseconds of life that are left at that moment, less the declared skew.
    pub left_ms: u64,
}

/// What a node holds of one credential: at most a current and a next generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// The generation in use.
    pub current: Option<Held>,
    /// The generation that takes over.
    pub next: Option<Held>,
}

/// An answer to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serve {
    /// Whether it is the next generation, rather than the current one, that answers.
    pub is_next: bool,
    /// The generation.
    pub held: Held,
    /// Milliseconds of life left; 0 for a stale answer.
    pub left_ms: u64,
    /// Past expiry, served because the policy of this kind allows it while it cannot be renewed.
    pub is_stale: bool,
}

impl View {
    /// Takes what `record` publishes. Returns `None` where that is nothing new.
    ///
    /// INVARIANT: the newest generation of a view never goes back, whatever an old or lying store says.
    #[must_use]
    pub fn adopt(&self, record: &Record, now: Moment) -> Option<Self> {
        let newest = record.newest()?.generation;
        if newest <= self.newest_generation() {
            return None;
        }
        let keep = |published: Option<&Credential>| {
            published.map(|credential| {
                let known = [self.current, self.next].into_iter().flatten();
                known
                    .into_iter()
                    .find(|held| held.generation == credential.generation)
                    .unwrap_or_else(|| Held::new(credential, now))
            })
        };
        let current = keep(record.current.as_ref()).filter(|held| held.generation >= self.serving_generation(now));
        Some(Self { current, next: keep(record.next.as_ref()) })
    }

    /// The same view with the next generation in use from `now` on: for a node that learns that others have switched, or
    /// that the current generation is refused upstream.
    #[must_use]
    pub fn switched(mut self, now: Moment) -> Self {
        if let Some(next) = &mut self.next {
            next.use_from_mono = next.use_from_mono.min(now.mono);
        }
        self
    }

    /// Until when [`serve_within`](Self::serve_within) is certain to answer with the current generation: neither its expiry
    /// nor the switch to the next one can have come. All zero where there is no current generation.
    #[must_use]
    pub fn calm(&self, skew_ms: u64) -> Calm {
        let Some(current) = self.current else { return Calm::default() };
        let ends_wall = Timestamp(current.expires_at.0.saturating_sub(skew_ms));
        let ends_mono = Mono(current.expires_mono.0.saturating_sub(skew_ms));
        let (wall, mono) = match self.next {
            Some(next) => (ends_wall.min(next.use_from), ends_mono.min(next.use_from_mono)),
            None => (ends_wall, ends_mono),
        };
        Calm { wall, mono, left_ms: ends_wall.since(wall).min(ends_mono.since(mono)) }
    }

    /// Milliseconds until the renewal of the newest generation is late by this node's monotonic clock: half-way from when
    /// it falls due to its expiry, when every node should have looked for it. `None` where nothing is held.
    #[must_use]
    pub fn late_in(&self, now: Moment) -> Option<u64> {
        let newest = self.next.or(self.current)?;
        let half_way_ms = newest.expires_at.since(newest.refresh_at) / 2;
        Some(newest.expires_mono.since(now.mono).saturating_sub(half_way_ms))
    }

    /// The newest generation held; 0 for none.
    #[must_use]
    pub fn newest_generation(&self) -> u64 {
        [self.current, self.next].into_iter().flatten().map(|held| held.generation).max().unwrap_or(0)
    }

    /// The generation that is in use at `now`, valid or not; 0 for none.
    #[must_use]
    pub fn serving_generation(&self, now: Moment) -> u64 {
        match (self.current, self.next) {
            (_, Some(next)) if next.is_in_use(now) => next.generation,
            (Some(current), _) => current.generation,
            _ => 0,
        }
    }

    /// The generation to hand out at `now` with at least `min_ttl_ms` of life left, if there is one.
    ///
    /// The next generation answers from its `use_from`, or earlier once the current one is over. A wish for more life
    /// than the current one has left does not bring it forward: until the switch an upstream may know only one.
    #[must_use]
    pub fn serve(&self, rules: &Rules, now: Moment, min_ttl_ms: u64) -> Option<Serve> {
        self.serve_within(rules.skew_ms, rules.stale_ms, now, min_ttl_ms)
    }

    /// [`serve`](Self::serve) with the two numbers it needs.
    #[must_use]
    pub fn serve_within(&self, skew_ms: u64, stale_ms: u64, now: Moment, min_ttl_ms: u64) -> Option<Serve> {
        // A credential is valid before, not at, its expiry (RFC 7519 4.1.4: "on or after").
        let is_over = |held: Held| held.left_ms(now, skew_ms) == 0;
        let next = self.next.filter(|next| next.is_in_use(now) || self.current.is_none_or(is_over));
        let is_next = next.is_some();
        let fresh = next.or(self.current).and_then(|held| {
            let left_ms = held.left_ms(now, skew_ms);
            (left_ms > 0 && left_ms >= min_ttl_ms).then_some(Serve { is_next, held, left_ms, is_stale: false })
        });
        fresh.or_else(|| self.stale(stale_ms, now, min_ttl_ms))
    }

    fn stale(&self, stale_ms: u64, now: Moment, min_ttl_ms: u64) -> Option<Serve> {
        let (held, is_next) = match (self.next, self.current) {
            (Some(next), _) => (next, true),
            (None, Some(current)) => (current, false),
            (None, None) => return None,
        };
        let late_ms = now.latest().since(held.expires_at).max(now.mono.since(held.expires_mono));
        (stale_ms > 0 && min_ttl_ms == 0 && late_ms < stale_ms).then_some(Serve {
            is_next,
            held,
            left_ms: 0,
            is_stale: true,
        })
    }
}
