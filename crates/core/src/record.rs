//! The register value that a fleet shares: one record per credential, and its stored form.
//!
//! Stored form: one byte for the layout (1), then a CBOR map (RFC 8949) with small integer keys. Unknown keys are skipped, so
//! a field may be added; a change of meaning takes a new layout byte. A record that cannot be read is never
//! overwritten: the register still compares the write id that stands beside it.

use minicbor::{Decode, Encode};

use crate::id::{Holder, NodeId, WriteId};
use crate::time::{Moment, Timestamp};

const LAYOUT: u8 = 1;
/// The largest stored record, in bytes.
pub const RECORD_BYTES_MAX: usize = 128 * 1024;
/// The longest text kept about one event, in bytes.
pub const DETAIL_BYTES_MAX: usize = 512;
/// The most history entries a record keeps, whatever the configuration says: with two secrets of the largest size beside
/// them they still fit [`RECORD_BYTES_MAX`], so that no write makes a record that cannot be read.
pub const HISTORY_MAX: usize = 100;

/// How many things that are used up a record remembers between two publications.
pub const SPENT_MAX: usize = 8;

/// What the fleet knows about one credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    /// The write that made this record; what the register compares.
    #[n(0)]
    pub op: WriteId,
    /// Counts writes. For order in logs; never the fence.
    #[n(1)]
    pub rev: u64,
    /// When it was written, by the writer's clock, but later than the record before it.
    #[n(2)]
    pub written_at: Timestamp,
    /// The highest generation ever attempted. Only intents raise it.
    #[n(3)]
    pub generation: u64,
    /// Grows whenever the lease changes hands.
    #[n(4)]
    pub epoch: u64,
    /// The published credential.
    #[n(5)]
    pub current: Option<Credential>,
    /// The credential that takes over at its `use_from`.
    #[n(6)]
    pub next: Option<Credential>,
    /// A mint that has been announced and has no outcome yet. While its lease lasts, nobody else may mint.
    #[n(7)]
    pub intent: Option<Intent>,
    /// The last mint that may have happened.
    #[n(8)]
    pub last: Option<LastMint>,
    /// The failure the whole fleet is backing off from.
    #[n(9)]
    pub failure: Option<Failure>,
    /// A generation that somebody asked to have replaced before its time.
    #[n(10)]
    pub renew: Option<u64>,
    /// Who held the lease last. Its node looks first next time.
    #[n(11)]
    pub holder: Option<Holder>,
    /// What happened, oldest first; bounded.
    #[n(12)]
    pub history: Vec<HistoryEntry>,
    /// Set by an operator who says that what a mint in doubt has used is used up, until something is published: then what
    /// the newest generation has left counts no more, and neither do these, the latest last; at most [`SPENT_MAX`].
    #[n(13)]
    pub spent: Option<Vec<OneUse>>,
}

/// A SHA-256 digest of something that is good for one use, such as a refresh token. Whatever it is of has too much entropy
/// to be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OneUse(pub [u8; 32]);

/// One published generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Credential {
    /// Its number.
    #[n(0)]
    pub generation: u64,
    /// The secret, in a seal envelope bound to name and generation.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
    /// When the upstream, or the token itself, says it was issued.
    #[n(2)]
    pub issued_at: Timestamp,
    /// When it stops being valid.
    #[n(3)]
    pub expires_at: Timestamp,
    /// When its renewal falls due.
    #[n(4)]
    pub refresh_at: Timestamp,
    /// When nodes switch to it.
    #[n(5)]
    pub use_from: Timestamp,
}

/// Written before a mint: "this holder may mint this generation". Intent and lease are the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Intent {
    /// The generation that may be minted.
    #[n(0)]
    pub generation: u64,
    /// The write that announced it. Stays the same while the record changes around it.
    #[n(1)]
    pub op: WriteId,
    /// Who may mint.
    #[n(2)]
    pub holder: Holder,
    /// The holder's wall clock before it asked for the lease.
    #[n(3)]
    pub started_at: Timestamp,
    /// Whether an earlier holder may already have minted this generation.
    #[n(4)]
    pub is_replay: bool,
    /// The issue time to sign, or to derive an idempotency key from.
    #[n(5)]
    pub issued_at: Timestamp,
    /// The expiry to sign or to ask for.
    #[n(6)]
    pub expires_at: Timestamp,
    /// Set by the holder when the call ended without an answer.
    #[n(7)]
    pub doubt: Option<String>,
    /// The source answered with something that nobody can use, and would answer the same again: no replay.
    #[cbor(n(8), default, skip_if = "is_false")]
    pub is_spent: bool,
    /// What this mint uses up. Written before it is used, so that whoever finds this intent without an outcome knows.
    #[n(9)]
    pub uses: Option<OneUse>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that minicbor calls")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// An upper bound on when the last mint may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct LastMint {
    /// Its generation; 0 for a mint that somebody else may have made before this record existed.
    #[n(0)]
    pub generation: u64,
    /// Not later than this, by any clock within the declared skew.
    #[n(1)]
    pub at_most: Timestamp,
}

/// What kind of failure it was, by what helps against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum FaultClass {
    /// Likely to pass by itself.
    #[n(0)]
    Transient,
    /// The upstream asked for fewer calls, perhaps with a `Retry-After`.
    #[n(1)]
    Throttled,
    /// The upstream said no and will say no again.
    #[n(2)]
    Terminal,
    /// This side is set up wrongly.
    #[n(3)]
    Misconfigured,
}

impl FaultClass {
    /// The name used in the API, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Terminal => "terminal",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// Failures since the last success. Lives in the record, so that the whole fleet backs off together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Failure {
    /// How many in a row.
    #[n(0)]
    pub count: u32,
    /// The kind of the last one.
    #[n(1)]
    pub class: FaultClass,
    /// No mint for this long, in milliseconds. A duration, so that no clock can shorten it.
    #[n(2)]
    pub hold_ms: u64,
    /// When it was recorded, by the writer's clock.
    #[n(3)]
    pub at: Timestamp,
    /// What to tell the caller. Holds no secret.
    #[n(4)]
    pub message: String,
}

/// What happened to a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum HistoryKind {
    /// A generation was published.
    #[n(0)]
    Minted,
    /// The upstream refused, or could not be asked.
    #[n(1)]
    Failed,
    /// A call ended without an answer.
    #[n(2)]
    InDoubt,
    /// A node took over from a holder that went silent.
    #[n(3)]
    TakenOver,
    /// An operator decided what to believe about an intent.
    #[n(4)]
    Resolved,
    /// Somebody asked for an early renewal.
    #[n(5)]
    RenewalAsked,
    /// The stored secrets were sealed anew with another key.
    #[n(6)]
    Resealed,
}

impl HistoryKind {
    /// The name used in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minted => "minted",
            Self::Failed => "failed",
            Self::InDoubt => "in-doubt",
            Self::TakenOver => "taken-over",
            Self::Resolved => "resolved",
            Self::RenewalAsked => "renewal-asked",
            Self::Resealed => "resealed",
        }
    }
}

/// One line of a credential's history.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct HistoryEntry {
    /// When, by the writer's clock.
    #[n(0)]
    pub at: Timestamp,
    /// What.
    #[n(1)]
    pub kind: HistoryKind,
    /// The generation it is about.
    #[n(2)]
    pub generation: u64,
    /// The epoch it happened in.
    #[n(3)]
    pub epoch: u64,
    /// The node that wrote it.
    #[n(4)]
    pub node: NodeId,
    /// More, in words; redacted and bounded before it gets here.
    #[n(5)]
    pub detail: String,
}

/// A stored record that this keyreeve will not touch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Written by a newer keyreeve.
    #[error(
        "the stored record has layout {0}, this keyreeve reads layout 1\nhint: upgrade this node; the record was left as it is"
    )]
    Newer(u8),
    /// Not a record.
    #[error(
        "the stored record cannot be read: {0}\nhint: the record was left as it is; restore it from a backup, or remove it to start anew"
    )]
    Corrupt(String),
}

/// The stored form of whatever lies in a register: one byte for the layout, then CBOR.
pub(crate) fn stored<T: Encode<()>>(layout: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![layout];
    // Cannot fail: writing to a Vec has the error type `Infallible`, and no field refuses to be encoded.
    let _: Result<(), minicbor::encode::Error<std::convert::Infallible>> = minicbor::encode(value, &mut bytes);
    bytes
}

/// The reverse of [`stored`]; nothing is guessed.
pub(crate) fn read<T: for<'b> Decode<'b, ()>>(layout: u8, bytes_max: usize, bytes: &[u8]) -> Result<T, RecordError> {
    if bytes.len() > bytes_max {
        let text = format!("{} bytes are more than the limit of {bytes_max}", bytes.len());
        return Err(RecordError::Corrupt(text));
    }
    match bytes.split_first() {
        None => Err(RecordError::Corrupt("it is empty".into())),
        Some((&found, _)) if found > layout => Err(RecordError::Newer(found)),
        Some((&found, body)) if found == layout => {
            let mut decoder = minicbor::Decoder::new(body);
            let value = decoder.decode().map_err(|e| RecordError::Corrupt(e.to_string()))?;
            if decoder.position() != body.len() {
                return Err(RecordError::Corrupt("there are bytes after its end".into()));
            }
            Ok(value)
        }
        Some((found, _)) => Err(RecordError::Corrupt(format!("no layout has the number {found}"))),
    }
}

impl Record {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        stored(LAYOUT, self)
    }

    /// Reads a stored form of layout 1.
    ///
    /// # Errors
    /// [`RecordError`] where the bytes are too new, too many, or no record; nothing is guessed.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        read(LAYOUT, RECORD_BYTES_MAX, bytes)
    }

    /// The newest published generation: the next one if there is one, else the current one.
    #[must_use]
    pub const fn newest(&self) -> Option<&Credential> {
        match &self.next {
            Some(next) => Some(next),
            None => self.current.as_ref(),
        }
    }

    /// The record that follows `base`, written as `op`, with nothing else changed.
    #[must_use]
    pub fn following(base: Option<&Self>, op: WriteId, now: Moment) -> Self {
        match base {
            Some(base) => Self {
                op,
                rev: base.rev.saturating_add(1),
                // Hybrid logical clock rule: never at or before the write it follows.
                written_at: now.wall.max(base.written_at.plus(1)),
                ..base.clone()
            },
            None => Self {
                op,
                rev: 1,
                written_at: now.wall,
                generation: 0,
                epoch: 0,
                current: None,
                next: None,
                intent: None,
                last: None,
                failure: None,
                renew: None,
                holder: None,
                history: Vec::new(),
                spent: None,
            },
        }
    }

    /// Counts what the newest generation has left, and `used`, as used up.
    pub fn use_up(&mut self, used: Option<OneUse>) {
        let spent = self.spent.get_or_insert_default();
        spent.extend(used.filter(|used| !spent.contains(used)));
        let excess = spent.len().saturating_sub(SPENT_MAX);
        spent.drain(..excess);
    }

    /// Adds a line to the history and drops the oldest beyond `max`, or beyond [`HISTORY_MAX`] if that is less.
    pub fn note(&mut self, max: usize, kind: HistoryKind, generation: u64, node: &NodeId, detail: &str) {
        let max = max.min(HISTORY_MAX);
        if max == 0 {
            return;
        }
        let excess = self.history.len().saturating_add(1).saturating_sub(max);
        self.history.drain(..excess.min(self.history.len()));
        self.history.push(HistoryEntry {
            at: self.written_at,
            kind,
            generation,
            epoch: self.epoch,
            node: node.clone(),
            detail: bounded(detail),
        });
    }
}

/// The beginning of `text`, at most [`DETAIL_BYTES_MAX`] bytes, cut between characters.
#[must_use]
pub fn bounded(text: &str) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= DETAIL_BYTES_MAX).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

impl<C> Encode<C> for Timestamp {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u64(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Timestamp {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.u64().map(Self)
    }
}

bytes_in_cbor!(WriteId, "a write id has 16 bytes");
bytes_in_cbor!(OneUse, "a digest has 32 bytes");

impl<C> Encode<C> for NodeId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(self.as_str())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for NodeId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::parse(d.str()?).map_err(minicbor::decode::Error::message)
    }
}

impl<C> Encode<C> for Holder {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?.str(self.node.as_str())?.u64(self.boot)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Holder {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(2) {
            return Err(minicbor::decode::Error::message("a holder has two parts"));
        }
        Ok(Self { node: NodeId::decode(d, ctx)?, boot: d.u64()? })
    }
}
