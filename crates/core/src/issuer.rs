//! The signing keys of one issuer: what a fleet shares about them, and who changes it when.
//!
//! A key goes through phases, which follow from the record and the clock, so that no write is needed at the moment of a
//! switch and a store that is away does not delay one:
//!
//! ```text
//!            published            use_from                    the next key's use_from      leaves_at
//!   next  ------|--- overlap ---------|          active                 |     retiring          | gone
//! ```
//! - *next*: in the key set, so that every verifier knows it in good time; signs nothing.
//! - *active*: signs. Exactly one key is active at any time.
//! - *retiring*: signs nothing, and stays until the longest token it can have signed is over.
//!
//! A node that has not read the record for the overlap stops signing. A successor is used no sooner than an overlap after
//! its publication, so a node that has not heard of it has stopped by then: nobody signs with a key after its successor has
//! taken over, whatever the network does.
//!
//! Stored form: as [`record`](crate::record) has it, one byte for the layout (1), then a CBOR map.

use minicbor::{Decode, Encode};

use crate::id::{NodeId, WriteId};
use crate::record::{RecordError, bounded, read, stored};
use crate::schedule::spread;
use crate::time::{Moment, Mono, Timestamp};

const LAYOUT: u8 = 1;
/// The largest stored key set, in bytes.
pub const KEY_SET_BYTES_MAX: usize = 128 * 1024;
/// The most keys of one issuer at once, whatever their phase.
pub const KEYS_MAX: usize = 12;
/// The largest sealed private key, in bytes: an RSA key of 4096 bits in JWK has 3.2 KiB.
pub const SEALED_BYTES_MAX: usize = 6 * 1024;
/// The largest public key, in bytes of JWK.
pub const PUBLIC_BYTES_MAX: usize = 2 * 1024;
/// The most notes a key set keeps about what happened to it.
pub const NOTES_MAX: usize = 24;
/// The longest key id, in bytes.
pub const KID_BYTES_MAX: usize = 64;

/// The numbers of one issuer, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRules {
    /// The JOSE algorithm that new keys are for, such as `EdDSA`.
    pub algorithm: String,
    /// How long a key is active.
    pub rotate_ms: u64,
    /// How long a key is published before it signs. At least what verifiers may keep a key set for, and how long nodes take to
    /// read the record.
    pub overlap_ms: u64,
    /// For how long a node that cannot read the record goes on with what it read; at most `overlap_ms`.
    pub stale_ms: u64,
    /// The longest life of a token.
    pub ttl_ms: u64,
    /// How far the clocks of nodes and verifiers may be apart.
    pub skew_ms: u64,
    /// Over how long the nodes other than the last writer spread their look for what is due.
    pub spread_ms: u64,
}

/// What the fleet knows about the keys of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct KeySet {
    /// The write that made this set; what the register compares.
    #[n(0)]
    pub op: WriteId,
    /// Counts writes. For order in logs; never the fence.
    #[n(1)]
    pub rev: u64,
    /// When it was written, by the writer's clock, but later than the set before it.
    #[n(2)]
    pub written_at: Timestamp,
    /// The node that wrote it. It looks first next time.
    #[n(3)]
    pub writer: NodeId,
    /// The number of the newest key ever made.
    #[n(4)]
    pub serial: u64,
    /// Keys with a lower number never sign again.
    #[n(5)]
    pub sign_floor: u64,
    /// The overlap that whoever read this set may rely on, in milliseconds.
    #[n(6)]
    pub overlap_ms: u64,
    /// No new key signs before this, because readers of an earlier set may rely on a longer overlap.
    #[n(7)]
    pub settled_at: Timestamp,
    /// The keys, in the order of their numbers; never empty.
    #[n(8)]
    pub keys: Vec<Key>,
    /// What happened, oldest first; bounded.
    #[n(9)]
    pub notes: Vec<Note>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Key {
    /// Its number; each key of an issuer has its own.
    #[n(0)]
    pub serial: u64,
    /// What tokens name it by.
    #[n(1)]
    pub kid: String,
    /// Its JOSE algorithm.
    #[n(2)]
    pub algorithm: String,
    /// The public key, as JWK.
    #[n(3)]
    pub public: String,
    /// The private key, in a seal envelope bound to issuer and `kid`. Forgotten when it will not sign again.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub sealed: Option<Vec<u8>>,
    /// When it was made and published.
    #[n(5)]
    pub published_at: Timestamp,
    /// When it starts to sign.
    #[n(6)]
    pub use_from: Timestamp,
    /// The longest life of a token that may be signed with it, in milliseconds. Only grows.
    #[n(7)]
    pub life_ms: u64,
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Published, and signs nothing yet.
    Next,
    /// Signs.
    Active,
    /// Signs nothing any more; its tokens are good until they expire.
    Retiring,
    /// Every token that it can have signed is over.
    Gone,
}

impl Phase {
    /// The name used in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Gone => "gone",
        }
    }
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum NoteKind {
    /// Made and published.
    #[n(0)]
    Published,
    /// An operator asked for its publication, before its time.
    #[n(1)]
    Rotated,
    /// Taken out by an operator; its tokens are refused.
    #[n(2)]
    Retired,
    /// Taken out because every token of it is over.
    #[n(3)]
    Left,
    /// Put into use at once, in the place of a retired one.
    #[n(4)]
    Promoted,
}

impl NoteKind {
    /// The name used in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Rotated => "rotated",
            Self::Retired => "retired",
            Self::Left => "left",
            Self::Promoted => "promoted",
        }
    }
}

/// One line of what happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Note {
    /// When, by the writer's clock.
    #[n(0)]
    pub at: Timestamp,
    /// What.
    #[n(1)]
    pub kind: NoteKind,
    /// Which key.
    #[n(2)]
    pub kid: String,
    /// The node that wrote it.
    #[n(3)]
    pub node: NodeId,
    /// More, in words; bounded, and no secret.
    #[n(4)]
    pub detail: String,
}

/// A key that has just been generated.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What tokens name it by; at most [`KID_BYTES_MAX`] bytes.
    pub kid: String,
    /// The public key, as JWK.
    pub public: String,
    /// The private key, sealed.
    pub sealed: Vec<u8>,
}

/// What a decision needs besides the set.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The numbers of the issuer.
    pub rules: &'a KeyRules,
    /// This node.
    pub me: &'a NodeId,
    /// Both clocks.
    pub now: Moment,
    /// A fresh write id.
    pub fresh: WriteId,
}

/// What to do about a key set now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Generate a key of the plan's algorithm, and write what [`Plan::with`] makes of it.
    Make(Box<Plan>),
    /// Write this over the set that was read.
    Write(Box<KeySet>),
}

/// A set that lacks the one key that is to be generated for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The set that has to be there for the write; none where there must be none.
    pub expected: Option<WriteId>,
    /// The algorithm of the key.
    pub algorithm: String,
    /// Its number.
    pub serial: u64,
    base: KeySet,
    use_from: Timestamp,
    life_ms: u64,
    kind: NoteKind,
    detail: String,
}

impl Plan {
    /// The set to write.
    ///
    /// # Errors
    /// A sentence, where the key is larger than a set has room for.
    pub fn with(mut self, key: NewKey) -> Result<KeySet, &'static str> {
        let NewKey { kid, public, sealed } = key;
        if sealed.len() > SEALED_BYTES_MAX || public.len() > PUBLIC_BYTES_MAX {
            return Err("the key is too large");
        }
        if !is_kid(&kid) || self.base.keys.iter().any(|key| key.kid == kid) {
            return Err("the key id is not one, or is taken");
        }
        self.base.note(self.kind, &kid, &self.detail);
        self.base.serial = self.serial;
        self.base.keys.push(Key {
            serial: self.serial,
            kid,
            algorithm: self.algorithm,
            public,
            sealed: Some(sealed),
            published_at: self.base.written_at,
            use_from: self.use_from,
            life_ms: self.life_ms,
        });
        Ok(self.base)
    }
}

impl KeySet {
    /// The key that signs at `now`, for a node that has signed with number `floor` already: a clock that is set back brings
    /// no older key back, unless the newer one was retired meanwhile. `None` only where there is no key at all.
    #[must_use]
    pub fn active(&self, now: Timestamp, floor: u64) -> Option<&Key> {
        let is_there = self.keys.iter().any(|key| key.serial == floor);
        let floor = if is_there { floor.max(self.sign_floor) } else { self.sign_floor };
        let mut able = self.keys.iter().filter(|key| key.serial >= floor);
        let first = able.next();
        able.take_while(|key| key.use_from <= now).last().or(first).or(self.keys.last())
    }

    /// The key that takes over from `key`.
    fn after(&self, key: &Key) -> Option<&Key> {
        self.keys.iter().find(|other| other.serial > key.serial)
    }

    /// When every token that `key` can have signed is over; none where nothing takes over from it.
    #[must_use]
    pub fn leaves_at(&self, rules: &KeyRules, key: &Key) -> Option<Timestamp> {
        let after = self.after(key)?;
        Some(after.use_from.plus(key.life_ms).plus(rules.skew_ms.saturating_mul(2)))
    }

    /// Where `key` is in its life, for a node that has signed with number `floor` already.
    #[must_use]
    pub fn phase(&self, rules: &KeyRules, key: &Key, now: Timestamp, floor: u64) -> Phase {
        let active = self.active(now, floor).map_or(0, |active| active.serial);
        match key.serial.cmp(&active) {
            std::cmp::Ordering::Equal => Phase::Active,
            std::cmp::Ordering::Greater => Phase::Next,
            std::cmp::Ordering::Less if self.leaves_at(rules, key).is_some_and(|at| now >= at) => Phase::Gone,
            std::cmp::Ordering::Less => Phase::Retiring,
        }
    }

    /// The keys that verify, each with its phase.
    pub fn listed<'a>(
        &'a self,
        rules: &'a KeyRules,
        now: Timestamp,
        floor: u64,
    ) -> impl Iterator<Item = (&'a Key, Phase)> + 'a {
        let phased = self.keys.iter().map(move |key| (key, self.phase(rules, key, now, floor)));
        phased.filter(|(_, phase)| *phase != Phase::Gone)
    }

    /// For how long after it was read this set may be signed and verified with, in milliseconds.
    #[must_use]
    pub fn good_for_ms(&self, rules: &KeyRules) -> u64 {
        rules.stale_ms.min(self.overlap_ms)
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        stored(LAYOUT, self)
    }

    /// Reads a stored form of layout 1.
    ///
    /// # Errors
    /// [`RecordError`] where the bytes are too new, too many, or no key set; nothing is guessed.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let set: Self = read(LAYOUT, KEY_SET_BYTES_MAX, bytes)?;
        set.check().map_err(|text| RecordError::Corrupt(text.to_owned()))?;
        Ok(set)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.keys.len() > KEYS_MAX || self.notes.len() > NOTES_MAX {
            return Err("it has more keys or notes than there can be");
        }
        if !self.keys.iter().all(|key| is_kid(&key.kid)) {
            return Err("a key id is not one");
        }
        if !self.keys.is_sorted_by(|left, right| left.serial < right.serial && left.kid != right.kid) {
            return Err("its keys are not in order");
        }
        Ok(())
    }

    /// The set that follows this one, with nothing else changed.
    fn following(&self, ctx: Context<'_>) -> Self {
        Self {
            op: ctx.fresh,
            rev: self.rev.saturating_add(1),
            // Hybrid logical clock rule: never at or before the write it follows.
            written_at: ctx.now.wall.max(self.written_at.plus(1)),
            writer: ctx.me.clone(),
            ..self.clone()
        }
    }

    fn note(&mut self, kind: NoteKind, kid: &str, detail: &str) {
        let excess = self.notes.len().saturating_add(1).saturating_sub(NOTES_MAX);
        self.notes.drain(..excess.min(self.notes.len()));
        let (node, detail) = (self.writer.clone(), bounded(detail));
        self.notes.push(Note { at: self.written_at, kind, kid: kid.to_owned(), node, detail });
    }
}

fn is_kid(text: &str) -> bool {
    !text.is_empty() && text.len() <= KID_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a node has seen itself, by the clock that cannot jump. Of one life of one node; never stored.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The keys, by their numbers, and since when.
    first: Vec<(u64, Mono)>,
}

impl Seen {
    /// Takes note of a set that was read.
    pub fn note(&mut self, set: &KeySet, now: Mono) {
        self.first.retain(|(serial, _)| set.keys.iter().any(|key| key.serial == *serial));
        for key in &set.keys {
            if !self.first.iter().any(|(serial, _)| *serial == key.serial) {
                self.first.push((key.serial, now));
            }
        }
    }

    fn for_ms(&self, serial: u64, now: Mono) -> u64 {
        self.first.iter().find(|(known, _)| *known == serial).map_or(0, |(_, since)| now.since(*since))
    }
}

/// What to do about the set that was just read. To be asked at every look, which is what makes time pass here.
#[must_use]
pub fn step(ctx: Context<'_>, set: Option<&KeySet>, seen: &Seen) -> Step {
    let Some(set) = set else { return Step::Make(Box::new(first(ctx))) };
    let Some(active) = set.active(ctx.now.wall, 0) else {
        return Step::Make(Box::new(replacement(ctx, set.op, set.following(ctx), "no key was left")));
    };
    if let Some(write) = raised(ctx, set, active) {
        return Step::Write(Box::new(write));
    }
    let now = ctx.now.wall.minus(wait_ms(ctx, set));
    if let Some(write) = tidied(ctx, set, seen, now) {
        return Step::Write(Box::new(write));
    }
    let newest = set.keys.last().unwrap_or(active);
    let is_pending = newest.serial != active.serial;
    let is_other = newest.algorithm != ctx.rules.algorithm;
    let due_at = active.use_from.plus(ctx.rules.rotate_ms).minus(ctx.rules.overlap_ms.max(set.overlap_ms));
    if is_pending || (now < due_at && !is_other) || set.keys.len() >= KEYS_MAX {
        return Step::Rest;
    }
    let why = if is_other { "the algorithm was changed" } else { "due" };
    Step::Make(Box::new(successor(ctx, set, NoteKind::Published, why)))
}

/// Asks for the next key now.
///
/// # Errors
/// [`AskError`]: one is on its way already, or there are too many.
pub fn rotate(ctx: Context<'_>, set: &KeySet, who: &str) -> Result<Plan, AskError> {
    let active = set.active(ctx.now.wall, 0);
    if let Some(newest) = set.keys.last()
        && active.is_some_and(|active| active.serial != newest.serial)
    {
        return Err(AskError::Pending { kid: newest.kid.clone(), use_from: newest.use_from });
    }
    if set.keys.len() >= KEYS_MAX {
        return Err(AskError::TooMany);
    }
    Ok(successor(ctx, set, NoteKind::Rotated, &format!("asked for by {who}")))
}

/// What taking a key out at once comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// Write this.
    Write(Box<KeySet>),
    /// Generate a key first: none is left to sign with.
    Make(Box<Plan>),
}

/// Takes the key `kid` out at once: its tokens are refused by whoever reads the set. Where it was the active one, the next
/// key takes over now, or else a new one.
///
/// # Errors
/// [`AskError::Unknown`].
pub fn retire(ctx: Context<'_>, set: &KeySet, kid: &str, who: &str) -> Result<Retirement, AskError> {
    let active = set.active(ctx.now.wall, 0).map(|active| active.serial);
    let retired = set.keys.iter().find(|key| key.kid == kid).map(|key| key.serial).ok_or(AskError::Unknown)?;
    let mut base = set.following(ctx);
    base.keys.retain(|key| key.serial != retired);
    base.note(NoteKind::Retired, kid, &format!("by {who}"));
    if active != Some(retired) {
        return Ok(Retirement::Write(Box::new(base)));
    }
    let now = base.written_at;
    let Some(next) = base.keys.last_mut().filter(|key| key.serial > retired) else {
        let why = format!("`{kid}` was retired");
        return Ok(Retirement::Make(Box::new(replacement(ctx, set.op, base, &why))));
    };
    next.use_from = now;
    let (serial, promoted) = (next.serial, next.kid.clone());
    base.sign_floor = serial;
    base.note(NoteKind::Promoted, &promoted, &format!("`{kid}` was retired"));
    Ok(Retirement::Write(Box::new(base)))
}

/// A wish that is not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The next key is there already.
    #[error("`{kid}` is published already and takes over by itself")]
    Pending {
        /// The next key.
        kid: String,
        /// When it takes over.
        use_from: Timestamp,
    },
    /// Rotated faster than old keys can leave.
    #[error("there are {KEYS_MAX} keys, the most there can be: wait until the oldest leaves")]
    TooMany,
    /// There is no such key, or no longer.
    #[error("there is no such key")]
    Unknown,
}

/// The same set with other seal envelopes, by key id.
#[must_use]
pub fn resealed(ctx: Context<'_>, set: &KeySet, anew: Vec<(String, Vec<u8>)>) -> KeySet {
    let mut next = set.following(ctx);
    for (kid, sealed) in anew {
        if let Some(key) = next.keys.iter_mut().find(|key| key.kid == kid && key.sealed.is_some()) {
            key.sealed = Some(sealed);
        }
    }
    next
}

fn first(ctx: Context<'_>) -> Plan {
    let now = ctx.now.wall;
    let base = KeySet {
        op: ctx.fresh,
        rev: 1,
        written_at: now,
        writer: ctx.me.clone(),
        serial: 0,
        sign_floor: 1,
        overlap_ms: ctx.rules.overlap_ms,
        settled_at: now,
        keys: Vec::new(),
        notes: Vec::new(),
    };
    let kind = NoteKind::Published;
    let algorithm = ctx.rules.algorithm.clone();
    let life_ms = ctx.rules.ttl_ms;
    Plan { expected: None, algorithm, serial: 1, base, use_from: now, life_ms, kind, detail: "the first".into() }
}

/// A key that is used at once, because there is no other.
fn replacement(ctx: Context<'_>, expected: WriteId, mut base: KeySet, why: &str) -> Plan {
    let serial = base.serial.saturating_add(1);
    base.sign_floor = serial;
    Plan {
        expected: Some(expected),
        algorithm: ctx.rules.algorithm.clone(),
        serial,
        use_from: base.written_at,
        life_ms: ctx.rules.ttl_ms,
        kind: NoteKind::Promoted,
        detail: why.to_owned(),
        base,
    }
}

/// A key that takes over when everybody knows it.
fn successor(ctx: Context<'_>, set: &KeySet, kind: NoteKind, why: &str) -> Plan {
    let mut base = set.following(ctx);
    let now = base.written_at;
    // INVARIANT: readers of the set before this one rely on its overlap, not on that of a newer configuration.
    let overlap_ms = ctx.rules.overlap_ms.max(set.overlap_ms);
    let use_from = now.plus(overlap_ms).plus(ctx.rules.skew_ms).max(set.settled_at);
    base.settled_at = use_from;
    base.overlap_ms = ctx.rules.overlap_ms;
    Plan {
        expected: Some(set.op),
        algorithm: ctx.rules.algorithm.clone(),
        serial: set.serial.saturating_add(1),
        base,
        use_from,
        life_ms: ctx.rules.ttl_ms,
        kind,
        detail: why.to_owned(),
    }
}

/// The set with longer lives, where the configuration has a longer one than its keys may sign.
fn raised(ctx: Context<'_>, set: &KeySet, active: &Key) -> Option<KeySet> {
    let is_short = |key: &Key| key.serial >= active.serial && key.life_ms < ctx.rules.ttl_ms;
    if !set.keys.iter().any(is_short) {
        return None;
    }
    let mut next = set.following(ctx);
    let floor = active.serial;
    for key in next.keys.iter_mut().filter(|key| key.serial >= floor) {
        key.life_ms = key.life_ms.max(ctx.rules.ttl_ms);
    }
    Some(next)
}

/// The set without what is over: keys whose tokens are, private keys that will not sign again.
fn tidied(ctx: Context<'_>, set: &KeySet, seen: &Seen, now: Timestamp) -> Option<KeySet> {
    let skews_ms = ctx.rules.skew_ms.saturating_mul(2);
    let now = now.min(ctx.now.earliest());
    let is_over = |key: &Key| {
        let Some(after) = set.after(key) else { return false };
        let over_at = after.use_from.plus(key.life_ms).plus(skews_ms);
        // A wall clock that is ahead must not take a key from the whole fleet: this node has waited that long itself.
        let wait_ms = over_at.since(after.published_at);
        now >= over_at && seen.for_ms(after.serial, ctx.now.mono) >= wait_ms.min(key.life_ms.saturating_add(skews_ms))
    };
    let is_spent =
        |key: &Key| key.sealed.is_some() && set.after(key).is_some_and(|after| now >= after.use_from.plus(skews_ms));
    if !set.keys.iter().any(|key| is_over(key) || is_spent(key)) {
        return None;
    }
    let mut next = set.following(ctx);
    for old in &set.keys {
        if is_over(old) {
            next.keys.retain(|key| key.serial != old.serial);
            next.note(NoteKind::Left, &old.kid, "");
        } else if is_spent(old) {
            next.keys.iter_mut().filter(|key| key.serial == old.serial).for_each(|key| key.sealed = None);
            next.sign_floor = next.sign_floor.max(old.serial.saturating_add(1));
        }
    }
    Some(next)
}

/// How much later than the last writer this node looks for what is due.
fn wait_ms(ctx: Context<'_>, set: &KeySet) -> u64 {
    if set.writer == *ctx.me {
        return 0;
    }
    let seed = ctx.me.as_str().bytes().fold(set.rev, |seed, byte| spread(seed ^ u64::from(byte), u64::MAX));
    let half_ms = ctx.rules.spread_ms / 2;
    half_ms.saturating_add(spread(seed, half_ms))
}
