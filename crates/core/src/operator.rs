//! What an operator or a caller may write into a record: an early renewal, a verdict on an intent in doubt, a new seal.
//!
//! None of these may touch a record while a mint is under way: the holder compares its publication with the write id
//! of its intent, so a well-meant write in between would throw a minted credential away.

use crate::lifecycle::{Context, latest_mint};
use crate::record::{HistoryKind, Intent, LastMint, Record};
use crate::rules::{OnDoubt, Rules};
use crate::time::Moment;

/// Where a credential stands, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Published, and nothing is wrong.
    Ready,
    /// A holder is renewing it.
    Renewing,
    /// A mint may or may not have happened; the protocol goes on by itself.
    InDoubt,
    /// A mint may or may not have happened; an operator has to say.
    NeedsReauth,
    /// The last mint failed; the fleet holds back.
    BackingOff,
    /// Nothing has been minted yet.
    Empty,
}

impl Status {
    /// The name used in the API, the CLI and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Renewing => "renewing",
            Self::InDoubt => "in-doubt",
            Self::NeedsReauth => "needs-reauth",
            Self::BackingOff => "backing-off",
            Self::Empty => "empty",
        }
    }

    /// Every status, for metrics.
    pub const ALL: [Self; 6] =
        [Self::Ready, Self::Renewing, Self::InDoubt, Self::NeedsReauth, Self::BackingOff, Self::Empty];
}

/// Whether a mint under `intent` can still be on its way.
fn is_live(rules: &Rules, intent: &Intent, now: Moment) -> bool {
    let over_at = intent.started_at.plus(rules.lease_ms).plus(rules.skew_ms.saturating_mul(2));
    intent.doubt.is_none() && now.earliest() < over_at
}

/// Where the credential of `record` stands.
#[must_use]
pub fn status(rules: &Rules, record: Option<&Record>, now: Moment) -> Status {
    let Some(record) = record else { return Status::Empty };
    match (&record.intent, &record.failure) {
        (Some(intent), _) if is_live(rules, intent, now) => Status::Renewing,
        (Some(_), _) if rules.on_doubt == OnDoubt::Reauthorize => Status::NeedsReauth,
        (Some(_), _) => Status::InDoubt,
        (None, Some(_)) => Status::BackingOff,
        (None, None) if record.newest().is_none() => Status::Empty,
        (None, None) => Status::Ready,
    }
}

/// Who asks for an early renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A caller whose use of the credential was refused upstream.
    Report,
    /// An operator, who also lifts a back-off.
    Operator,
}

/// What became of a wish for an early renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// It is about a generation that has been replaced already.
    Stale,
    /// A renewal is under way.
    Renewing,
    /// A mint has no outcome; asking does not change that.
    InDoubt,
    /// No mint for this long: the upstream's floor, or the back-off that a report does not lift. An operator's wish is
    /// not kept; a report's is already.
    TooSoon {
        /// Milliseconds.
        wait_ms: u64,
    },
    /// Write this record; then the renewal is due, or will be once the floor has passed.
    Write {
        /// What to write over the record that was read.
        record: Box<Record>,
        /// Milliseconds until the next mint may be made, by this node's clock; 0 is now.
        wait_ms: u64,
    },
}

/// Asks to have `generation` replaced before its time.
#[must_use]
pub fn ask_renewal(ctx: Context<'_>, record: &Record, generation: u64, asker: Asker) -> Ask {
    let newest = record.newest().map(|newest| newest.generation);
    let is_stale = match newest {
        Some(newest) => newest != generation,
        // Nobody can have been refused with what was never published.
        None => asker == Asker::Report,
    };
    if is_stale {
        return Ask::Stale;
    }
    if let Some(intent) = &record.intent {
        return if is_live(ctx.rules, intent, ctx.now) { Ask::Renewing } else { Ask::InDoubt };
    }
    let floor = record.last.map(|last| last.at_most.plus(ctx.rules.min_interval_ms));
    let held = record.failure.as_ref().filter(|_| asker == Asker::Report);
    let held = held.map(|failure| failure.at.plus(failure.hold_ms));
    let wait_ms = floor.max(held).map_or(0, |end| end.since(ctx.now.earliest()));
    if wait_ms > 0 && asker == Asker::Operator {
        return Ask::TooSoon { wait_ms };
    }
    // Kept already; only an operator's wish to lift a back-off adds anything.
    if record.renew == Some(generation) && (record.failure.is_none() || asker == Asker::Report) {
        return if wait_ms > 0 { Ask::TooSoon { wait_ms } } else { Ask::Renewing };
    }
    let mut next = Record::following(Some(record), ctx.fresh, ctx.now);
    next.renew = newest;
    let by = match asker {
        Asker::Report => "reported as refused upstream",
        Asker::Operator => {
            next.failure = None;
            "asked for by an operator"
        }
    };
    next.note(ctx.rules.history_max, HistoryKind::RenewalAsked, generation, &ctx.me.node, by);
    Ask::Write { record: Box::new(next), wait_ms }
}

/// What an operator believes about a mint without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It happened, and its result is lost: count it, and mint the next generation when the upstream allows.
    Adopt,
    /// It did not happen: mint as soon as the last known mint allows.
    Discard,
    /// What it may have spent has been replaced (a new refresh token, a new key): start over, and use none of it again.
    Reauthorize,
}

impl Verdict {
    /// The name used in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Discard => "discard",
            Self::Reauthorize => "reauthorize",
        }
    }
}

/// A verdict where there is nothing to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No intent, or one whose holder is still at work.
    #[error("no mint is in doubt")]
    NotInDoubt,
    /// The mint that is to be counted may not even have happened yet: its request can still be on its way.
    #[error("the mint in doubt may still be on its way for {}", crate::time::Span(*wait_ms))]
    TooSoon {
        /// Milliseconds.
        wait_ms: u64,
    },
}

/// The record after an operator's verdict on the intent in doubt.
///
/// # Errors
/// [`ResolveError::NotInDoubt`] where the record has no intent, or one that may still get an answer.
/// [`ResolveError::TooSoon`] where a mint is to be counted that may still happen: whoever sees the count would believe
/// that it lies behind, and mint too close after it.
pub fn resolve(ctx: Context<'_>, record: &Record, verdict: Verdict, who: &str) -> Result<Record, ResolveError> {
    let mut next = Record::following(Some(record), ctx.fresh, ctx.now);
    let intent = next.intent.take().filter(|intent| !is_live(ctx.rules, intent, ctx.now));
    let intent = intent.ok_or(ResolveError::NotInDoubt)?;
    if verdict == Verdict::Adopt {
        let wait_ms = latest_mint(ctx.rules, &intent).plus(ctx.rules.skew_ms).since(ctx.now.earliest());
        if wait_ms > 0 {
            return Err(ResolveError::TooSoon { wait_ms });
        }
        next.last = Some(LastMint { generation: intent.generation, at_most: latest_mint(ctx.rules, &intent) });
    }
    // What happened has used up what it used.
    if verdict == Verdict::Reauthorize || (verdict == Verdict::Adopt && intent.uses.is_some()) {
        next.use_up(intent.uses);
    }
    next.failure = None;
    let detail = format!("{} by {who}", verdict.as_str());
    next.note(ctx.rules.history_max, HistoryKind::Resolved, intent.generation, &ctx.me.node, &detail);
    Ok(next)
}

/// The record with its secrets sealed anew; `None` while an intent is open.
#[must_use]
pub fn resealed(ctx: Context<'_>, record: &Record, current: Option<Vec<u8>>, next: Option<Vec<u8>>) -> Option<Record> {
    if record.intent.is_some() {
        return None;
    }
    let mut resealed = Record::following(Some(record), ctx.fresh, ctx.now);
    for (credential, sealed) in [(&mut resealed.current, current), (&mut resealed.next, next)] {
        if let (Some(credential), Some(sealed)) = (credential, sealed) {
            credential.sealed = sealed;
        }
    }
    let generation = record.newest().map_or(0, |newest| newest.generation);
    resealed.note(ctx.rules.history_max, HistoryKind::Resealed, generation, &ctx.me.node, "");
    Some(resealed)
}
