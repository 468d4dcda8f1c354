//! What people may write into a record, and when they may not.

use std::collections::BTreeSet;

use keyreeve_core::lifecycle::Context;
use keyreeve_core::operator::{Ask, Asker, ResolveError, Status, Verdict, ask_renewal, resealed, resolve, status};
use keyreeve_core::record::{Failure, FaultClass, HistoryKind, Intent, LastMint, OneUse, Record};
use keyreeve_core::rules::{OnDoubt, Rules};
use keyreeve_core::time::Moment;

use crate::given::{HOUR, MINUTE, SECOND, at, credential, exclusive, holder, lease, op, record, wall};

/// Generation 7, published at the start by a mint that was over two seconds later at most.
fn published() -> Record {
    let mut record = record(credential(7, 0));
    record.last = Some(LastMint { generation: 7, at_most: wall(2 * SECOND) });
    record
}

fn intent() -> Intent {
    Intent {
        generation: 8,
        op: op(8),
        holder: holder("a"),
        started_at: wall(30 * MINUTE),
        is_replay: false,
        issued_at: wall(30 * MINUTE),
        expires_at: wall(90 * MINUTE),
        doubt: None,
        is_spent: false,
        uses: None,
    }
}

/// [`published`], and an intent for generation 8 since minute 30.
fn renewing() -> Record {
    Record { generation: 8, intent: Some(intent()), ..published() }
}

fn in_doubt() -> Record {
    Record { intent: Some(Intent { doubt: Some("no answer".into()), ..intent() }), ..renewing() }
}

fn backing_off() -> Record {
    let failure = Failure {
        count: 3,
        class: FaultClass::Terminal,
        hold_ms: 4 * MINUTE,
        at: wall(30 * MINUTE),
        message: "403".into(),
    };
    Record { failure: Some(failure), ..published() }
}

/// The last moment at which the holder of [`intent`] may be at work: a lease and two skews.
const LIVE_UNTIL: u64 = 30 * MINUTE + 24 * SECOND;

fn ask_at(now: Moment, record: &Record, generation: u64, asker: Asker) -> Ask {
    let (rules, me) = (exclusive(), holder("b"));
    ask_renewal(Context { rules: &rules, me: &me, now, fresh: op(77) }, record, generation, asker)
}

fn ask(ms: u64, record: &Record, asker: Asker) -> Ask {
    ask_at(at(ms), record, 7, asker)
}

#[track_caller]
fn written(ask: Ask) -> (Record, u64) {
    match ask {
        Ask::Write { record, wait_ms } => (*record, wait_ms),
        other => panic!("{other:?}"),
    }
}

const BOTH: [Asker; 2] = [Asker::Report, Asker::Operator];

#[test]
fn a_wish_about_a_generation_that_is_not_the_newest_is_stale() {
    for asker in BOTH {
        for generation in [0, 6, 8, u64::MAX] {
            assert_eq!(ask_at(at(HOUR), &published(), generation, asker), Ask::Stale, "{generation}");
        }
        let with_next = Record { next: Some(credential(8, 30 * MINUTE)), ..published() };
        assert_eq!(ask_at(at(HOUR), &with_next, 7, asker), Ask::Stale, "its successor is there already");
        assert!(matches!(ask_at(at(HOUR), &with_next, 8, asker), Ask::Write { .. }));
    }
}

#[test]
fn a_report_about_a_credential_that_was_never_published_writes_nothing() {
    let empty = Record::following(None, op(1), at(0));
    assert_eq!(ask(HOUR, &empty, Asker::Report), Ask::Stale);
    let failing = Record { failure: backing_off().failure, ..empty };
    let (next, _) = written(ask(HOUR, &failing, Asker::Operator));
    assert_eq!((next.failure, next.renew), (None, None), "an operator lifts the back-off of the first mint too");
}

#[test]
fn a_wish_while_a_holder_is_at_work_leaves_its_intent_alone() {
    for asker in BOTH {
        assert_eq!(ask(30 * MINUTE, &renewing(), asker), Ask::Renewing);
        assert_eq!(ask(LIVE_UNTIL - 1, &renewing(), asker), Ask::Renewing);
        assert_eq!(ask(LIVE_UNTIL, &renewing(), asker), Ask::InDoubt);
        assert_eq!(ask(30 * MINUTE, &in_doubt(), asker), Ask::InDoubt, "the holder itself says so");
    }
}

#[test]
fn a_clock_that_is_ahead_does_not_end_a_holders_work() {
    let ahead = Moment { raw: wall(2 * HOUR), ..at(LIVE_UNTIL - 1) };
    assert_eq!(ask_at(ahead, &renewing(), 7, Asker::Operator), Ask::Renewing);
    let behind = Moment { raw: wall(0), ..at(2 * HOUR) };
    assert_eq!(ask_at(behind, &renewing(), 7, Asker::Operator), Ask::Renewing);
}

/// When the upstream certainly allows the next mint: after the last one and `min_interval`.
const ALLOWED: u64 = 20 * MINUTE + 2 * SECOND;

#[test]
fn an_operators_wish_below_the_floor_is_refused_with_the_wait() {
    assert_eq!(ask(5 * MINUTE, &published(), Asker::Operator), Ask::TooSoon { wait_ms: ALLOWED - 5 * MINUTE });
    assert_eq!(ask(ALLOWED - 1, &published(), Asker::Operator), Ask::TooSoon { wait_ms: 1 });
    let (next, wait_ms) = written(ask(ALLOWED, &published(), Asker::Operator));
    assert_eq!((next.renew, wait_ms), (Some(7), 0));
}

#[test]
fn a_report_below_the_floor_is_kept_once() {
    let (kept, wait_ms) = written(ask(5 * MINUTE, &published(), Asker::Report));
    assert_eq!((kept.renew, wait_ms), (Some(7), ALLOWED - 5 * MINUTE));
    // A thousand callers report the same refusal: one write.
    assert_eq!(ask(6 * MINUTE, &kept, Asker::Report), Ask::TooSoon { wait_ms: ALLOWED - 6 * MINUTE });
    assert_eq!(ask(ALLOWED, &kept, Asker::Report), Ask::Renewing);
    assert_eq!(ask(ALLOWED, &kept, Asker::Operator), Ask::Renewing);
}

#[test]
fn a_report_does_not_lift_a_back_off_and_an_operator_does() {
    let (reported, wait_ms) = written(ask(31 * MINUTE, &backing_off(), Asker::Report));
    assert_eq!(wait_ms, 3 * MINUTE, "four minutes since minute 30");
    assert_eq!(reported.failure, backing_off().failure);
    assert_eq!(reported.renew, Some(7));
    // A thousand callers report the same refusal: one write.
    assert_eq!(ask(32 * MINUTE, &reported, Asker::Report), Ask::TooSoon { wait_ms: 2 * MINUTE });
    assert_eq!(ask(34 * MINUTE, &reported, Asker::Report), Ask::Renewing);
    let (lifted, wait_ms) = written(ask(32 * MINUTE, &reported, Asker::Operator));
    assert_eq!((lifted.failure, lifted.renew, wait_ms), (None, Some(7), 0));
}

#[test]
fn a_kept_wish_changes_nothing_but_the_wish_and_is_in_the_history() {
    for (asker, detail) in
        [(Asker::Report, "reported as refused upstream"), (Asker::Operator, "asked for by an operator")]
    {
        let (mut next, _) = written(ask(HOUR, &published(), asker));
        assert_eq!((next.op, next.rev, next.written_at), (op(77), 2, wall(HOUR)));
        let entry = next.history.pop().unwrap();
        assert_eq!((entry.kind, entry.generation, entry.node.as_str()), (HistoryKind::RenewalAsked, 7, "b"));
        assert_eq!(entry.detail, detail);
        let base = published();
        assert_eq!(Record { op: base.op, rev: base.rev, written_at: base.written_at, renew: None, ..next }, base);
    }
}

fn resolved(ms: u64, record: &Record, verdict: Verdict) -> Result<Record, ResolveError> {
    let (rules, me) = (exclusive(), holder("b"));
    resolve(Context { rules: &rules, me: &me, now: at(ms), fresh: op(77) }, record, verdict, "alice")
}

const VERDICTS: [Verdict; 3] = [Verdict::Adopt, Verdict::Discard, Verdict::Reauthorize];

#[test]
fn a_verdict_takes_the_intent_out_lifts_the_back_off_and_is_in_the_history() {
    let doubted = Record { failure: backing_off().failure, ..in_doubt() };
    for verdict in VERDICTS {
        let next = resolved(31 * MINUTE, &doubted, verdict).unwrap();
        assert_eq!((next.intent.as_ref(), next.failure.as_ref()), (None, None));
        assert_eq!((next.current.as_ref(), next.generation), (doubted.current.as_ref(), 8), "attempted once, for ever");
        let entry = next.history.last().unwrap();
        assert_eq!((entry.kind, entry.generation, entry.node.as_str()), (HistoryKind::Resolved, 8, "b"));
        assert_eq!(entry.detail, format!("{} by alice", verdict.as_str()));
    }
}

#[test]
fn an_adopted_mint_counts_and_a_discarded_one_does_not() {
    let adopted = resolved(31 * MINUTE, &in_doubt(), Verdict::Adopt).unwrap();
    // The skew, five seconds to send and ten to be answered after it was announced.
    let at_most = wall(30 * MINUTE + 17 * SECOND);
    assert_eq!(adopted.last, Some(LastMint { generation: 8, at_most }));
    for verdict in [Verdict::Discard, Verdict::Reauthorize] {
        assert_eq!(resolved(31 * MINUTE, &in_doubt(), verdict).unwrap().last, published().last);
    }
}

#[test]
fn a_mint_that_happened_has_used_up_what_it_used_and_one_that_did_not_has_not() {
    let (used, before) = (OneUse([8; 32]), OneUse([7; 32]));
    let doubted = Record { intent: Some(Intent { uses: Some(used), ..intent() }), ..renewing() };
    let spent = |verdict, record: &Record| resolved(HOUR, record, verdict).unwrap().spent;
    assert_eq!(spent(Verdict::Discard, &doubted), None);
    for verdict in [Verdict::Adopt, Verdict::Reauthorize] {
        assert_eq!(spent(verdict, &doubted), Some(vec![used]));
        let again = Record { spent: Some(vec![before]), ..doubted.clone() };
        assert_eq!(spent(verdict, &again), Some(vec![before, used]), "until something is published");
    }
    // An intent that says nothing of it: one of a source that uses nothing up, or of an older keyreeve.
    assert_eq!(spent(Verdict::Adopt, &in_doubt()), None);
    assert_eq!(spent(Verdict::Reauthorize, &in_doubt()), Some(Vec::new()), "start over");
}

#[test]
fn there_is_nothing_to_resolve_without_an_intent_or_while_its_holder_is_at_work() {
    for verdict in VERDICTS {
        assert_eq!(resolved(HOUR, &published(), verdict), Err(ResolveError::NotInDoubt));
        assert_eq!(resolved(LIVE_UNTIL - 1, &renewing(), verdict), Err(ResolveError::NotInDoubt));
        assert!(resolved(LIVE_UNTIL, &renewing(), verdict).is_ok(), "a holder that went silent");
    }
    for verdict in [Verdict::Discard, Verdict::Reauthorize] {
        assert!(resolved(30 * MINUTE, &in_doubt(), verdict).is_ok());
    }
    assert_eq!(ResolveError::NotInDoubt.to_string(), "no mint is in doubt");
}

#[test]
fn a_mint_is_not_counted_before_it_lies_behind_by_every_clock() {
    // Fifteen seconds to send and be answered, and the skew twice: of the holder's clock and of this one.
    let over = 30 * MINUTE + 19 * SECOND;
    let early = resolved(over - 1, &in_doubt(), Verdict::Adopt);
    assert_eq!(early, Err(ResolveError::TooSoon { wait_ms: 1 }));
    assert_eq!(early.unwrap_err().to_string(), "the mint in doubt may still be on its way for 1ms");
    assert!(resolved(over, &in_doubt(), Verdict::Adopt).is_ok());
}

#[test]
fn secrets_are_sealed_anew_in_place_and_not_beside_an_open_intent() {
    let (rules, me) = (exclusive(), holder("b"));
    let ctx = Context { rules: &rules, me: &me, now: at(HOUR), fresh: op(77) };
    for record in [renewing(), in_doubt()] {
        assert_eq!(resealed(ctx, &record, Some(vec![1]), None), None);
    }
    let both = Record { next: Some(credential(8, 30 * MINUTE)), ..published() };
    let next = resealed(ctx, &both, Some(b"new 7".to_vec()), Some(b"new 8".to_vec())).unwrap();
    assert_eq!(next.current.as_ref().unwrap().sealed, b"new 7");
    assert_eq!(next.next.as_ref().unwrap().sealed, b"new 8");
    assert_eq!((next.op, next.rev), (op(77), 2), "a write of its own, so that a swap can be compared with it");
    let entry = next.history.last().unwrap();
    assert_eq!((entry.kind, entry.generation), (HistoryKind::Resealed, 8));
    // Nothing else changed, and what was not handed over keeps its seal.
    let one = resealed(ctx, &both, None, Some(b"new 8".to_vec())).unwrap();
    assert_eq!(one.current, both.current);
    let none = resealed(ctx, &published(), None, Some(b"new 8".to_vec())).unwrap();
    assert_eq!((none.current, none.next), (published().current, None));
}

#[test]
fn a_status_says_where_a_credential_stands() {
    let rules = exclusive();
    let told = |record: Option<&Record>, ms| status(&rules, record, at(ms));
    assert_eq!(told(None, 0), Status::Empty);
    assert_eq!(told(Some(&Record::following(None, op(1), at(0))), 0), Status::Empty);
    assert_eq!(told(Some(&published()), 0), Status::Ready);
    assert_eq!(told(Some(&published()), 10 * HOUR), Status::Ready);
    assert_eq!(told(Some(&renewing()), LIVE_UNTIL - 1), Status::Renewing);
    assert_eq!(told(Some(&renewing()), LIVE_UNTIL), Status::InDoubt);
    assert_eq!(told(Some(&in_doubt()), 30 * MINUTE), Status::InDoubt);
    assert_eq!(told(Some(&backing_off()), 30 * MINUTE), Status::BackingOff);
    let both = Record { failure: backing_off().failure, ..in_doubt() };
    assert_eq!(told(Some(&both), 30 * MINUTE), Status::InDoubt, "what needs attention comes first");
    let asks = Rules { on_doubt: OnDoubt::Reauthorize, ..lease() };
    assert_eq!(status(&asks, Some(&in_doubt()), at(30 * MINUTE)), Status::NeedsReauth);
    assert_eq!(status(&asks, Some(&renewing()), at(LIVE_UNTIL - 1)), Status::Renewing);
}

#[test]
fn every_status_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = Status::ALL.into_iter().map(Status::as_str).collect();
    assert_eq!(names.len(), Status::ALL.len());
    assert!(names.contains("needs-reauth") && names.contains("in-doubt"));
}
