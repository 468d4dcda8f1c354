//! The score: what was presented, what the rules made of it, and how many tokens were in use at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the fake Apple has seen so far. All times are simulated.
///
/// A token counts as *presented* when its signature is good, whatever the rules then say. It is *usable* at a
/// presentation when its `iat` is neither in the future nor older than `max_age`.
///
/// **A fleet is clean** ([`is_clean`](Self::is_clean)) when `minted == allowed` and `most_valid_at_once <= 1`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The time of this score, in milliseconds since 1970.
    pub now_ms: i64,
    /// From the first presentation of a token to the last.
    pub observed_ms: i64,
    /// TLS connections that spoke HTTP/2.
    pub connections: u64,
    /// Those of them that are still open.
    pub connections_open: u64,
    /// Requests that arrived, spoiled ones included.
    pub requests: u64,
    /// Requests answered with 200.
    pub ok: u64,
    /// Requests answered with an error, by its reason.
    pub by_reason: BTreeMap<String, u64>,
    /// Requests spoiled by a fault, by its kind. Their tokens were judged and counted before.
    pub faults: BTreeMap<String, u64>,
    /// Distinct tokens ever presented.
    pub minted: u64,
    /// Distinct tokens that the rules let through at least once, under the configured scope.
    pub accepted_tokens: u64,
    /// Distinct tokens that became a team's current token, as a judge with one memory per *team* sees it (which is
    /// the configured judge for `Scope::Team`; under `Scope::Connection` it is a second opinion that decides
    /// nothing). So `minted == allowed` says: every token that was ever presented was a rightful change; none was
    /// minted in vain, too early, or beside another.
    pub allowed: u64,
    /// The most changes that the rules permit in `observed_ms`: one, and one more for each full `min_interval`.
    pub allowed_max: u64,
    /// The fewest tokens with which `observed_ms` can be covered without one growing older than `max_age`.
    pub needed_min: u64,
    /// The most usable tokens of one team that were in use at the same time. A token is in use from its first to its
    /// last usable presentation, in order of arrival: `A A B B` is 1, `A B A` is 2, and eight processes with a token
    /// each are 8. Presentations that were rejected count, since the token exists and somebody uses it. Stragglers
    /// are left out.
    pub most_valid_at_once: u64,
    /// The same with the stragglers: any old token after its successor makes it 2.
    pub most_valid_at_once_strict: u64,
    /// Presentations of the last-but-one token (by `iat`) within the `handover` window after the newest one was first
    /// seen: nodes whose clocks are slightly late at a scheduled switch. With a window of 0 there are none.
    pub stragglers: u64,
    /// Correctly signed tokens that did not fit the table and were refused with 503.
    pub untracked: u64,
    /// Each time a token became current, in order; the first [`ROWS_MAX`](super::ROWS_MAX) of them.
    pub changes: Vec<Change>,
    /// Every token, in order of first presentation.
    pub tokens: Vec<TokenRow>,
}

impl Score {
    /// Whether every token was a rightful change and no two were in use at once.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.minted == self.allowed && self.most_valid_at_once <= 1
    }
}

/// A token became current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, in simulated milliseconds since 1970.
    pub at_ms: i64,
    /// Whose.
    pub team_id: String,
    /// The connection it came by, counted from 1.
    pub connection: u64,
    /// The token, as in [`TokenRow::token`].
    pub token: String,
}

/// One token's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The first 12 hex digits of the SHA-256 of the token; the token itself is not kept.
    pub token: String,
    /// Its `iss`.
    pub team_id: String,
    /// Its `kid`.
    pub key_id: String,
    /// Its `iat`, in seconds since 1970.
    pub iat: i64,
    /// First presentation, in simulated milliseconds since 1970.
    pub first_seen_ms: i64,
    /// Last presentation so far.
    pub last_seen_ms: i64,
    /// How often it was presented.
    pub presentations: u64,
    /// Presentations that the rules let through.
    pub accepted: u64,
    /// Presentations that they did not.
    pub rejected: u64,
    /// Presentations counted as stragglers.
    pub stragglers: u64,
}

/// A closed interval of arrival numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Use(Option<(u64, u64)>);

impl Use {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn extend(&mut self, arrival: u64) {
        self.0 = Some(self.0.map_or((arrival, arrival), |(first, _)| (first, arrival)));
    }
}

/// The most intervals that share one arrival number.
pub(crate) fn most_at_once(uses: impl Iterator<Item = Use>) -> u64 {
    let mut edges: Vec<(u64, bool)> = Vec::new();
    for (first, last) in uses.filter_map(|in_use| in_use.0) {
        edges.push((first, true));
        // One arrival is one token's, so ends and beginnings never share a number once the end is moved past it.
        edges.push((last.saturating_add(1), false));
    }
    // At the same number an end (`false`) comes before a beginning.
    edges.sort_unstable();
    let (mut now, mut most) = (0_u64, 0_u64);
    for (_, begins) in edges {
        now = if begins { now.saturating_add(1) } else { now.saturating_sub(1) };
        most = most.max(now);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_once(arrivals: &str) -> u64 {
        let mut uses: BTreeMap<char, Use> = BTreeMap::new();
        for (number, token) in arrivals.chars().enumerate() {
            uses.entry(token).or_default().extend(number as u64);
        }
        most_at_once(uses.into_values())
    }

    #[test]
    fn an_orderly_handover_is_one_and_interleaving_counts_its_tokens() {
        for (arrivals, most) in [("", 0), ("A", 1), ("AABB", 1), ("AB", 1), ("ABC", 1), ("ABA", 2), ("ABCA", 2)] {
            assert_eq!(at_once(arrivals), most, "{arrivals}");
        }
        assert_eq!(at_once("ABCABC"), 3);
        assert_eq!(at_once("ABABCDCD"), 2, "two pairs, one after the other");
        assert_eq!(at_once("ABCDEFGHABCDEFGH"), 8);
    }
}
