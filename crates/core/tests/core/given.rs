//! What the tests of every subject start from.

use keyreeve_core::id::{Holder, NodeId, WriteId};
use keyreeve_core::record::{Credential, Record};
use keyreeve_core::rules::{Mode, OnDoubt, Rules};
use keyreeve_core::time::{Moment, Mono, Timestamp};

pub(crate) const SECOND: u64 = 1000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;

/// The wall clock at which the tests begin: 2027-01-15T08:00:00Z.
pub(crate) const START: Timestamp = Timestamp(1_800_000_000_000);
/// The monotonic clock then; another origin than the wall clock's on purpose.
pub(crate) const BOOTED: u64 = 77 * HOUR;

/// A moment `ms` after the start, by clocks that agree.
pub(crate) const fn at(ms: u64) -> Moment {
    Moment::new(START.plus(ms), Mono(BOOTED + ms))
}

/// A wall-clock moment `ms` after the start.
pub(crate) const fn wall(ms: u64) -> Timestamp {
    START.plus(ms)
}

/// The `n`th write id. Differs from its neighbours in many bytes, as random ones do.
pub(crate) fn op(n: u64) -> WriteId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&keyreeve_core::schedule::spread(n, u64::MAX).to_be_bytes());
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    WriteId(bytes)
}

/// The first life of a node.
pub(crate) fn holder(node: &str) -> Holder {
    Holder { node: NodeId::parse(node).unwrap(), boot: 1 }
}

/// Exclusive mode with the numbers of an APNs-like issuer: at least 20 minutes apart, at most 60 minutes old.
pub(crate) fn exclusive() -> Rules {
    Rules {
        mode: Mode::Exclusive,
        on_doubt: OnDoubt::Wait,
        lease_ms: 20 * SECOND,
        takeover_ms: 25 * SECOND,
        send_ms: 5 * SECOND,
        answer_ms: 10 * SECOND,
        min_interval_ms: 20 * MINUTE,
        skew_ms: 2 * SECOND,
        is_clock_trusted: false,
        life_ms: HOUR,
        lead_ms: 30 * MINUTE,
        backdate_ms: 0,
        handover_ms: 0,
        wake_spread_ms: 0,
        refresh_jitter_ms: 0,
        hold_ms: 2 * SECOND,
        hold_ms_max: 5 * MINUTE,
        hard_hold_ms: MINUTE,
        hard_hold_ms_max: 15 * MINUTE,
        poll_ms: 2 * SECOND,
        stale_ms: 0,
        first_mint_waits: false,
        quiet: Vec::new(),
        history_max: 20,
    }
}

/// Lease mode with the numbers of an STS-like issuer of one-hour credentials.
pub(crate) fn lease() -> Rules {
    Rules { mode: Mode::Lease, min_interval_ms: 10 * SECOND, lead_ms: 10 * MINUTE, ..exclusive() }
}

/// Replay mode: a local signer whose credentials may not change faster than every 20 minutes.
pub(crate) fn replay() -> Rules {
    Rules { mode: Mode::Replay, on_doubt: OnDoubt::RetrySame, ..exclusive() }
}

/// A credential issued and used from `issued_ms` after the start, for an hour, due half an hour before its end.
pub(crate) fn credential(generation: u64, issued_ms: u64) -> Credential {
    Credential {
        generation,
        sealed: format!("sealed {generation}").into_bytes(),
        issued_at: wall(issued_ms),
        expires_at: wall(issued_ms + HOUR),
        refresh_at: wall(issued_ms + 30 * MINUTE),
        use_from: wall(issued_ms),
    }
}

/// A record with nothing but `current`, written when that was issued.
pub(crate) fn record(current: Credential) -> Record {
    let mut record = Record::following(None, op(1000 + current.generation), Moment::new(current.issued_at, Mono(0)));
    record.generation = current.generation;
    record.current = Some(current);
    record
}

/// The bytes of a file of hexadecimal digits; white space does not count.
pub(crate) fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Bytes as a file of hexadecimal digits has them: 32 a line.
pub(crate) fn hex_of(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n");
    lines.collect()
}

/// The Kolmogorov-Smirnov distance of `values` from a uniform spread over `from..=to`: 0 fits, 1 is all on one spot.
/// A thousand truly uniform values stay below 0.0617 in 999 of 1,000 cases (1.95 / sqrt n).
pub(crate) fn distance_from_uniform(mut values: Vec<u64>, from: u64, to: u64) -> f64 {
    values.sort_unstable();
    assert!(values[0] >= from && values[values.len() - 1] <= to, "{}..={}", values[0], values[values.len() - 1]);
    let count = values.len() as f64;
    let share = |value: u64| (value - from) as f64 / (to - from) as f64;
    let distances = values.iter().enumerate().map(|(n, value)| {
        let (below, above) = (n as f64 / count, (n + 1) as f64 / count);
        (share(*value) - below).abs().max((above - share(*value)).abs())
    });
    distances.fold(0.0, f64::max)
}

/// What [`distance_from_uniform`] of a thousand values must stay below.
pub(crate) const UNIFORM: f64 = 0.0617;
