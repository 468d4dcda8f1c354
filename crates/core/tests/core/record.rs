//! The stored record: what is written can be read, now and later, and nothing else is taken for a record.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use keyreeve_core::id::{Holder, NodeId, WriteId};
use keyreeve_core::record::{
    Credential, DETAIL_BYTES_MAX, Failure, FaultClass, HISTORY_MAX, HistoryEntry, HistoryKind, Intent, LastMint,
    OneUse, RECORD_BYTES_MAX, Record, RecordError, SPENT_MAX, bounded,
};
use keyreeve_core::seal::PLAIN_BYTES_MAX;
use keyreeve_core::time::Timestamp;

use crate::given::{at, bytes_of, credential, hex_of, holder, op, record};

fn moments() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

fn write_ids() -> impl Strategy<Value = WriteId> {
    any::<[u8; 16]>().prop_map(WriteId)
}

fn nodes() -> impl Strategy<Value = NodeId> {
    "[!-~]{1,64}".prop_map(|name| NodeId::parse(&name).unwrap())
}

fn holders() -> impl Strategy<Value = Holder> {
    (nodes(), any::<u64>()).prop_map(|(node, boot)| Holder { node, boot })
}

fn digests() -> impl Strategy<Value = OneUse> {
    any::<[u8; 32]>().prop_map(OneUse)
}

prop_compose! {
    fn credentials()(generation: u64, sealed in vec(any::<u8>(), 0..200), issued_at in moments(),
        expires_at in moments(), refresh_at in moments(), use_from in moments()) -> Credential {
        Credential { generation, sealed, issued_at, expires_at, refresh_at, use_from }
    }
}

prop_compose! {
    fn intents()(generation: u64, op in write_ids(), holder in holders(), started_at in moments(), is_replay: bool,
        issued_at in moments(), expires_at in moments(), doubt in option::of(".{0,40}"), is_spent: bool,
        uses in option::of(digests())) -> Intent {
        Intent { generation, op, holder, started_at, is_replay, issued_at, expires_at, doubt, is_spent, uses }
    }
}

const CLASSES: [FaultClass; 4] =
    [FaultClass::Transient, FaultClass::Throttled, FaultClass::Terminal, FaultClass::Misconfigured];

prop_compose! {
    fn failures()(count: u32, class in proptest::sample::select(&CLASSES[..]), hold_ms: u64, at in moments(),
        message in ".{0,40}") -> Failure {
        Failure { count, class, hold_ms, at, message }
    }
}

const KINDS: [HistoryKind; 7] = [
    HistoryKind::Minted,
    HistoryKind::Failed,
    HistoryKind::InDoubt,
    HistoryKind::TakenOver,
    HistoryKind::Resolved,
    HistoryKind::RenewalAsked,
    HistoryKind::Resealed,
];

prop_compose! {
    fn entries()(at in moments(), kind in proptest::sample::select(&KINDS[..]), generation: u64, epoch: u64,
        node in nodes(), detail in ".{0,40}") -> HistoryEntry {
        HistoryEntry { at, kind, generation, epoch, node, detail }
    }
}

prop_compose! {
    fn last_mints()(generation: u64, at_most in moments()) -> LastMint {
        LastMint { generation, at_most }
    }
}

prop_compose! {
    fn records()(
        (op, rev, written_at, generation, epoch) in
            (write_ids(), any::<u64>(), moments(), any::<u64>(), any::<u64>()),
        (current, next, intent) in
            (option::of(credentials()), option::of(credentials()), option::of(intents())),
        (last, failure, renew, holder, history, spent) in (
            option::of(last_mints()),
            option::of(failures()),
            option::of(any::<u64>()),
            option::of(holders()),
            vec(entries(), 0..6),
            option::of(vec(digests(), 0..3)),
        ),
    ) -> Record {
        Record {
            op, rev, written_at, generation, epoch, current, next, intent, last, failure, renew, holder, history,
            spent,
        }
    }
}

proptest! {
    #[test]
    fn every_record_reads_back_as_it_was_written(record in records()) {
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn a_damaged_record_is_refused_or_read_but_never_a_panic(
        record in records(), at in any::<prop::sample::Index>(), bits in 1..=u8::MAX,
    ) {
        let mut bytes = record.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        if let Err(RecordError::Newer(layout)) = Record::decode(&bytes) {
            prop_assert_eq!((at, layout), (0, 1 ^ bits));
        }
    }

    #[test]
    fn garbage_is_refused(mut bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(Record::decode(&bytes).is_err());
        bytes.insert(0, 1);
        prop_assert!(matches!(Record::decode(&bytes), Err(RecordError::Corrupt(_))));
    }

    #[test]
    fn a_text_is_cut_to_the_limit_between_two_characters(text in "[aé日🦀]{100,600}") {
        let cut = bounded(&text);
        prop_assert!(text.starts_with(&cut));
        prop_assert!(cut.len() <= DETAIL_BYTES_MAX);
        let next = text.strip_prefix(&cut).unwrap().chars().next();
        prop_assert!(next.is_none_or(|c| cut.len() + c.len_utf8() > DETAIL_BYTES_MAX), "cut too early");
    }
}

/// One record with every field in use; what `tests/data/record-v1.hex` holds.
fn golden() -> Record {
    let me = Holder { node: NodeId::parse("pod-7.eu-west").unwrap(), boot: 0xfeed_beef_cafe_f00d };
    let mut record = record(credential(41, 0));
    record.op = op(900);
    record.rev = 120;
    record.generation = 43;
    record.epoch = 9;
    record.next = Some(credential(42, 3_000_000));
    record.intent = Some(Intent {
        generation: 43,
        op: op(899),
        holder: me.clone(),
        started_at: Timestamp(1_800_004_000_000),
        is_replay: true,
        issued_at: Timestamp(1_800_004_000_000),
        expires_at: Timestamp(1_800_007_600_000),
        doubt: Some("no answer within 10s".into()),
        is_spent: false,
        uses: None,
    });
    record.last = Some(LastMint { generation: 42, at_most: Timestamp(1_800_003_002_000) });
    record.failure = Some(Failure {
        count: 3,
        class: FaultClass::Throttled,
        hold_ms: 8000,
        at: Timestamp(1_800_004_010_000),
        message: "429 `TooManyProviderTokenUpdates`".into(),
    });
    record.renew = Some(42);
    for (n, kind) in KINDS.into_iter().enumerate() {
        record.note(20, kind, n as u64, &me.node, "grüße");
    }
    record.holder = Some(me);
    record
}

#[test]
fn a_record_of_layout_1_still_reads() {
    let bytes = bytes_of(include_str!("../data/record-v1.hex"));
    // What this keyreeve writes is what that file says, but for fields added since, which are left out where they say
    // nothing; a change of layout needs a new number and a new file.
    assert_eq!(hex_of(&golden().encode()), hex_of(&bytes));
    assert_eq!(Record::decode(&bytes), Ok(golden()));
}

#[test]
fn a_spent_intent_is_stored_and_read_back() {
    let mut record = golden();
    record.intent.as_mut().unwrap().is_spent = true;
    assert_eq!(Record::decode(&record.encode()), Ok(record));
}

#[test]
fn what_is_used_up_is_stored_and_read_back_and_the_newest_of_it_is_kept() {
    let mut record = golden();
    record.intent.as_mut().unwrap().uses = Some(OneUse([7; 32]));
    record.use_up(None);
    assert_eq!(record.spent, Some(Vec::new()), "what the newest generation has left, and no more");
    assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record));
    for number in [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9] {
        record.use_up(Some(OneUse([number; 32])));
    }
    assert_eq!(record.spent, Some((2..=9).map(|number| OneUse([number; 32])).collect()));
    assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record));
    let mut bytes = record.encode();
    let at = bytes.windows(34).position(|bytes| bytes[..2] == [0x58, 32] && bytes[2..] == [9; 32]).unwrap();
    bytes.remove(at + 2);
    bytes[at + 1] = 31;
    assert!(matches!(Record::decode(&bytes), Err(RecordError::Corrupt(_))), "a digest of 31 bytes");
}

#[test]
fn a_record_of_a_newer_layout_is_refused_as_newer_whatever_follows() {
    for layout in [2, 3, 255] {
        let mut bytes = golden().encode();
        bytes[0] = layout;
        assert_eq!(Record::decode(&bytes), Err(RecordError::Newer(layout)));
        assert_eq!(Record::decode(&[layout]), Err(RecordError::Newer(layout)));
    }
    assert_eq!(
        RecordError::Newer(2).to_string(),
        "the stored record has layout 2, this keyreeve reads layout 1\nhint: upgrade this node; the record was left as \
         it is"
    );
}

#[test]
fn a_record_cut_off_at_any_byte_or_followed_by_any_is_refused() {
    let bytes = golden().encode();
    assert_eq!(Record::decode(&[]), Err(RecordError::Corrupt("it is empty".into())));
    for end in 1..bytes.len() {
        assert!(matches!(Record::decode(&bytes[..end]), Err(RecordError::Corrupt(_))), "{end} of {}", bytes.len());
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Record::decode(&longer), Err(RecordError::Corrupt("there are bytes after its end".into())));
    assert_eq!(Record::decode(&[0, 0xa0]), Err(RecordError::Corrupt("no layout has the number 0".into())));
}

#[test]
fn a_record_of_the_largest_size_is_looked_at_and_one_byte_more_is_not() {
    let bytes = vec![1; RECORD_BYTES_MAX];
    assert!(matches!(Record::decode(&bytes), Err(RecordError::Corrupt(text)) if !text.contains("limit")));
    let refusal = Record::decode(&vec![1; RECORD_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the stored record cannot be read: 131073 bytes are more than the limit of 131072\nhint: the record was left as \
         it is; restore it from a backup, or remove it to start anew"
    );
}

#[test]
fn the_largest_record_that_can_be_written_can_be_read() {
    let text = "x".repeat(2 * DETAIL_BYTES_MAX);
    let node = NodeId::parse(&"n".repeat(64)).unwrap();
    let me = Holder { node: node.clone(), boot: u64::MAX };
    let most = Timestamp(u64::MAX);
    let mut record = golden();
    (record.rev, record.generation, record.epoch, record.written_at) = (u64::MAX, u64::MAX, u64::MAX, most);
    for credential in [&mut record.current, &mut record.next].into_iter().flatten() {
        credential.sealed = vec![0; PLAIN_BYTES_MAX + 50];
        credential.generation = u64::MAX;
        (credential.issued_at, credential.expires_at) = (most, most);
        (credential.refresh_at, credential.use_from) = (most, most);
    }
    let intent = record.intent.as_mut().unwrap();
    intent.doubt = Some(bounded(&text));
    intent.holder = me.clone();
    intent.uses = Some(OneUse([255; 32]));
    (0..=SPENT_MAX).for_each(|number| record.use_up(Some(OneUse([u8::try_from(number).unwrap(); 32]))));
    record.failure.as_mut().unwrap().message = bounded(&text);
    record.holder = Some(me);
    for _ in 0..2000 {
        record.note(usize::MAX, HistoryKind::Failed, u64::MAX, &node, &text);
    }
    assert_eq!(record.history.len(), HISTORY_MAX, "bounded whatever was asked for");
    let bytes = record.encode();
    assert!(bytes.len() <= RECORD_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(Record::decode(&bytes), Ok(record));
}

/// A CBOR map of the golden record with `count` more keys than it has, as a later keyreeve of the same layout would
/// write it.
fn with_more_keys(count: u8, more: &[u8]) -> Vec<u8> {
    let mut bytes = golden().encode();
    assert_eq!(bytes[1], 0xa0 | 13, "a map of 13 keys");
    bytes[1] = 0xa0 | (13 + count);
    bytes.extend_from_slice(more);
    bytes
}

#[test]
fn keys_that_a_later_keyreeve_added_are_skipped() {
    let plain = with_more_keys(1, &[14, 0xf5]);
    assert_eq!(Record::decode(&plain), Ok(golden()));
    let nested = with_more_keys(2, &[20, 0x82, 0x61, b'x', 0xa1, 0x01, 0x9f, 0x01, 0xff, 0x18, 200, 0xf6]);
    assert_eq!(Record::decode(&nested), Ok(golden()));
}

#[test]
fn a_key_that_is_not_a_number_or_a_value_of_another_type_is_refused() {
    assert!(matches!(Record::decode(&with_more_keys(1, &[0x61, b'x', 0x01])), Err(RecordError::Corrupt(_))));
    let refused = |at: usize, to: u8| {
        let mut bytes = golden().encode();
        bytes[at] = to;
        matches!(Record::decode(&bytes), Err(RecordError::Corrupt(_)))
    };
    // Byte 3 says that the write id is a string of 16 bytes.
    assert_eq!(golden().encode()[3], 0x50);
    assert!(refused(3, 0x4f), "15 bytes");
    assert!(refused(3, 0x70), "text");
    assert!(refused(2, 0x01), "revision twice, write id never");
}

#[test]
fn a_node_name_that_could_not_have_been_written_is_not_read() {
    let mut bytes = golden().encode();
    let at = bytes.windows(5).position(|bytes| bytes == b"pod-7").unwrap();
    bytes[at] = b'\n';
    assert!(matches!(Record::decode(&bytes), Err(RecordError::Corrupt(_))));
}

#[test]
fn lengths_that_promise_more_than_there_is_cost_nothing() {
    // Key 12, the history: an array of 2^64 - 1 entries; key 1, a string of as many bytes; both of the end of memory.
    let array = [&[1, 0xa1, 12, 0x9b][..], &[0xff; 8]].concat();
    assert!(matches!(Record::decode(&array), Err(RecordError::Corrupt(_))));
    let bytes = [&[1, 0xa1, 0, 0x5b][..], &[0xff; 8]].concat();
    assert!(matches!(Record::decode(&bytes), Err(RecordError::Corrupt(_))));
    // A hundred thousand arrays, one inside the other, under a key that is to be skipped.
    for open in [0x81, 0x9f] {
        let mut deep = with_more_keys(1, &[20]);
        deep.resize(100_000, open);
        assert!(matches!(Record::decode(&deep), Err(RecordError::Corrupt(_))));
    }
}

#[test]
fn the_history_keeps_the_newest_entries() {
    let node = holder("a").node;
    let mut record = record(credential(1, 0));
    for generation in 1..=25 {
        record.note(10, HistoryKind::Minted, generation, &node, "");
    }
    let kept: Vec<u64> = record.history.iter().map(|entry| entry.generation).collect();
    assert_eq!(kept, (16..=25).collect::<Vec<_>>());
    // A limit that was lowered takes effect with the next entry.
    record.note(3, HistoryKind::Failed, 26, &node, "");
    let kept: Vec<u64> = record.history.iter().map(|entry| entry.generation).collect();
    assert_eq!(kept, [24, 25, 26]);
    record.note(0, HistoryKind::Failed, 27, &node, "");
    assert_eq!(record.history.len(), 3, "a limit of none writes none");
}

#[test]
fn a_history_entry_says_when_in_which_epoch_and_not_more_than_fits() {
    let mut record = record(credential(1, 0));
    record.epoch = 7;
    record.note(5, HistoryKind::Failed, 2, &holder("a").node, &"é".repeat(400));
    let entry = record.history.last().unwrap();
    assert_eq!((entry.at, entry.epoch, entry.generation), (record.written_at, 7, 2));
    assert_eq!(entry.detail, "é".repeat(256));
}

#[test]
fn a_following_record_is_later_than_the_one_before_it_whatever_the_clock_says() {
    let first = Record::following(None, op(1), at(5000));
    assert_eq!((first.rev, first.written_at), (1, at(5000).wall));
    let second = Record::following(Some(&first), op(2), at(4000));
    assert_eq!((second.rev, second.written_at), (2, at(5001).wall), "the clock went back, the record did not");
    let third = Record::following(Some(&second), op(3), at(9000));
    assert_eq!(third.written_at, at(9000).wall);
    assert_eq!(Record { op: first.op, rev: 1, written_at: first.written_at, ..third }, first, "nothing else changed");
}
