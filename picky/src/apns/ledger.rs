//! What the fake Apple remembers: the current tokens, every token seen, and the counts.

use std::collections::{BTreeMap, HashMap};

use super::rules::{Age, Current, Limits, Scope, Verdict, judge};
use super::score::{Change, Score, TokenRow, Use, most_at_once};
use super::token::{Claims, TokenId};
use crate::faults::{Chooser, Chosen};

/// How many distinct tokens are remembered, and how many changes are listed. Further tokens are refused.
pub const ROWS_MAX: usize = 10_000;

/// A request's token, presented on a connection at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presentation<'a> {
    pub(crate) id: TokenId,
    pub(crate) claims: &'a Claims,
    pub(crate) connection: u64,
    pub(crate) now_ms: i64,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    scope: Scope,
    teams: BTreeMap<String, Team>,
    connections: HashMap<u64, Connection>,
    tokens: HashMap<TokenId, Seen>,
    pub(crate) faults: Chooser<super::Fault>,
    score: Score,
    first_seen_ms: Option<i64>,
    last_seen_ms: i64,
    arrivals: u64,
}

/// A team's memory, under either scope.
#[derive(Debug, Default)]
struct Team {
    current: Option<Current>,
    /// The two newest tokens, newest first, each with the moment of its first usable presentation.
    newest: Vec<Newest>,
    first_seen_ms: i64,
    last_seen_ms: i64,
    changes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    id: TokenId,
    issued_at: i64,
    first_seen_ms: i64,
}

#[derive(Debug, Default)]
struct Connection {
    team_id: Option<String>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Seen {
    claims: Claims,
    number: usize,
    first_seen_ms: i64,
    last_seen_ms: i64,
    presentations: u64,
    accepted: u64,
    stragglers: u64,
    in_use: Use,
    in_use_strict: Use,
}

impl Ledger {
    pub(crate) fn new(limits: Limits, scope: Scope, faults: super::Faults) -> Self {
        Self {
            limits,
            scope,
            teams: BTreeMap::new(),
            connections: HashMap::new(),
            tokens: HashMap::new(),
            faults: Chooser::new(faults),
            score: Score::default(),
            first_seen_ms: None,
            last_seen_ms: 0,
            arrivals: 0,
        }
    }

    pub(crate) fn connected(&mut self, connection: u64) {
        bump(&mut self.score.connections);
        self.connections.insert(connection, Connection::default());
    }

    pub(crate) fn disconnected(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }

    /// Counts a request and decides whether it is to be spoiled.
    pub(crate) fn arrived(&mut self) -> Chosen<super::Fault> {
        bump(&mut self.score.requests);
        self.faults.choose()
    }

    pub(crate) fn answered(&mut self, reason: Option<&str>) {
        match reason {
            None => bump(&mut self.score.ok),
            Some(reason) => bump(self.score.by_reason.entry(reason.to_owned()).or_default()),
        }
    }

    pub(crate) fn spoiled(&mut self, kind: &str) {
        bump(self.score.faults.entry(kind.to_owned()).or_default());
    }

    /// The claims of a token whose signature was found good before, so that it need not be checked again.
    pub(crate) fn known(&self, id: TokenId) -> Option<Claims> {
        self.tokens.get(&id).map(|seen| seen.claims.clone())
    }

    /// Judges a correctly signed token and keeps score; `None` when the table is full.
    pub(crate) fn present(&mut self, presentation: Presentation<'_>) -> Option<Verdict> {
        let Presentation { id, claims, now_ms, .. } = presentation;
        if !self.tokens.contains_key(&id) && self.tokens.len() >= ROWS_MAX {
            bump(&mut self.score.untracked);
            return None;
        }
        self.first_seen_ms.get_or_insert(now_ms);
        self.last_seen_ms = self.last_seen_ms.max(now_ms);
        bump(&mut self.arrivals);
        let age = self.limits.age(claims.issued_at, now_ms);
        let verdict = match age {
            Age::Future => Verdict::Invalid,
            Age::TooOld => Verdict::Expired,
            Age::Usable => self.judge(presentation),
        };
        let is_first_use = self.tokens.get(&id).is_none_or(|seen| seen.in_use_strict.is_empty());
        let is_straggler = age == Age::Usable && self.is_straggler(presentation, is_first_use);
        let arrival = self.arrivals;
        let number = self.tokens.len();
        let seen = self.tokens.entry(id).or_insert_with(|| Seen::new(claims.clone(), number, now_ms));
        seen.last_seen_ms = now_ms;
        bump(&mut seen.presentations);
        if matches!(verdict, Verdict::Accepted { .. }) {
            bump(&mut seen.accepted);
        }
        if age == Age::Usable {
            seen.in_use_strict.extend(arrival);
            if is_straggler {
                bump(&mut seen.stragglers);
            } else {
                seen.in_use.extend(arrival);
            }
        }
        Some(verdict)
    }

    fn judge(&mut self, presentation: Presentation<'_>) -> Verdict {
        let Presentation { id, claims, connection, now_ms } = presentation;
        // A stream may outlive its connection's entry by a moment; it then gets a memory of its own.
        let mut forgotten = Connection::default();
        let by_connection = self.connections.get_mut(&connection).unwrap_or(&mut forgotten);
        // Apple wants one team per connection; the first token decides which.
        let team_id = by_connection.team_id.get_or_insert_with(|| claims.team_id.clone());
        if *team_id != claims.team_id {
            return Verdict::Invalid;
        }
        let team = self.teams.entry(claims.team_id.clone()).or_default();
        if team.changes == 0 {
            team.first_seen_ms = now_ms;
        }
        team.last_seen_ms = now_ms;
        let by_team = judge(&mut team.current, id, claims.issued_at, now_ms, &self.limits);
        if matches!(by_team, Verdict::Accepted { is_change: true }) {
            bump(&mut team.changes);
        }
        let verdict = match self.scope {
            Scope::Team => by_team,
            Scope::Connection => judge(&mut by_connection.current, id, claims.issued_at, now_ms, &self.limits),
        };
        let is_change = matches!(verdict, Verdict::Accepted { is_change: true });
        if is_change && self.score.changes.len() < ROWS_MAX {
            let (team_id, token) = (claims.team_id.clone(), id.short());
            self.score.changes.push(Change { at_ms: now_ms, team_id, connection, token });
        }
        verdict
    }

    /// Whether this is the last-but-one token, shortly after the newest one was first seen.
    fn is_straggler(&mut self, presentation: Presentation<'_>, is_first_use: bool) -> bool {
        let Presentation { id, claims, now_ms, .. } = presentation;
        let team = self.teams.entry(claims.team_id.clone()).or_default();
        if is_first_use {
            // The sort is stable: of two with one iat, the one that came later is the newer.
            team.newest.insert(0, Newest { id, issued_at: claims.issued_at, first_seen_ms: now_ms });
            team.newest.sort_by_key(|newest| std::cmp::Reverse(newest.issued_at));
            team.newest.truncate(2);
        }
        match team.newest.as_slice() {
            [newest, before] => {
                before.id == id && now_ms.saturating_sub(newest.first_seen_ms) < self.limits.handover_ms
            }
            _ => false,
        }
    }

    /// The score at `now_ms`.
    pub(crate) fn score(&self, now_ms: i64) -> Score {
        let mut score = self.score.clone();
        score.now_ms = now_ms;
        score.connections_open = self.connections.len() as u64;
        score.observed_ms = self.first_seen_ms.map_or(0, |first| self.last_seen_ms.saturating_sub(first));
        score.minted = self.tokens.len() as u64;
        for seen in self.tokens.values() {
            score.accepted_tokens = score.accepted_tokens.saturating_add(u64::from(seen.accepted > 0));
            score.stragglers = score.stragglers.saturating_add(seen.stragglers);
        }
        for (team_id, team) in &self.teams {
            let of_team = || self.tokens.values().filter(|seen| seen.claims.team_id == *team_id);
            let at_once = most_at_once(of_team().map(|seen| seen.in_use));
            let at_once_strict = most_at_once(of_team().map(|seen| seen.in_use_strict));
            score.most_valid_at_once = score.most_valid_at_once.max(at_once);
            score.most_valid_at_once_strict = score.most_valid_at_once_strict.max(at_once_strict);
            score.allowed = score.allowed.saturating_add(team.changes);
            let observed_ms = team.last_seen_ms.saturating_sub(team.first_seen_ms);
            score.allowed_max = score.allowed_max.saturating_add(full(observed_ms, self.limits.min_interval_ms) + 1);
            let covered = full(observed_ms.saturating_sub(1), self.limits.max_age_ms);
            score.needed_min = score.needed_min.saturating_add(covered + 1);
        }
        let mut rows: Vec<(&TokenId, &Seen)> = self.tokens.iter().collect();
        rows.sort_unstable_by_key(|(_, seen)| seen.number);
        score.tokens = rows.into_iter().map(|(id, seen)| seen.row(*id)).collect();
        score
    }
}

impl Seen {
    fn new(claims: Claims, number: usize, now_ms: i64) -> Self {
        Self {
            claims,
            number,
            first_seen_ms: now_ms,
            last_seen_ms: now_ms,
            presentations: 0,
            accepted: 0,
            stragglers: 0,
            in_use: Use::default(),
            in_use_strict: Use::default(),
        }
    }

    fn row(&self, id: TokenId) -> TokenRow {
        TokenRow {
            token: id.short(),
            team_id: self.claims.team_id.clone(),
            key_id: self.claims.key_id.clone(),
            iat: self.claims.issued_at,
            first_seen_ms: self.first_seen_ms,
            last_seen_ms: self.last_seen_ms,
            presentations: self.presentations,
            accepted: self.accepted,
            rejected: self.presentations.saturating_sub(self.accepted),
            stragglers: self.stragglers,
        }
    }
}

fn bump(count: &mut u64) {
    *count = count.saturating_add(1);
}

/// How many whole parts fit into a span; a part of nothing counts as a millisecond.
fn full(span_ms: i64, part_ms: i64) -> u64 {
    u64::try_from(span_ms.max(0) / part_ms.max(1)).unwrap_or(0)
}
