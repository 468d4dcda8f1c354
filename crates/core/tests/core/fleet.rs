//! A fleet in a test's hand: nodes that run the protocol, a register that compares and swaps, and a clock that moves when
//! the test says so. Every step is taken at a time given in milliseconds after the start.

use std::sync::Arc;

use keyreeve_core::id::{Holder, WriteId};
use keyreeve_core::lifecycle::{Context, Event, Fault, Minted, Order, Renewer, Step, Why};
use keyreeve_core::record::{FaultClass, Record};
use keyreeve_core::rules::Rules;
use keyreeve_core::time::{Moment, Mono, Timestamp};

use crate::given::{BOOTED, START, credential, holder, op, record};

/// A register: one record, compared by its write id. Also counts what it is asked.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) record: Option<Arc<Record>>,
    pub(crate) swaps: u32,
}

impl Store {
    /// A register that holds this credential alone, and when it was minted.
    pub(crate) fn holding(record: Record) -> Self {
        Self { record: Some(Arc::new(record)), swaps: 0 }
    }

    pub(crate) fn read(&self) -> Event {
        Event::Read(self.record.clone())
    }

    /// Makes the swap of `step` if it still fits.
    #[track_caller]
    pub(crate) fn swap(&mut self, step: &Step) -> Event {
        let Step::Swap { expected, record } = step else { panic!("not a swap: {step:?}") };
        self.swaps += 1;
        if self.op() != *expected {
            return Event::SwapLost;
        }
        self.record = Some(Arc::clone(record));
        Event::Swapped
    }

    pub(crate) fn op(&self) -> Option<WriteId> {
        self.record.as_ref().map(|record| record.op)
    }

    #[track_caller]
    pub(crate) fn now(&self) -> &Record {
        self.record.as_ref().unwrap()
    }

    /// The generation that is published.
    #[track_caller]
    pub(crate) fn generation(&self) -> u64 {
        self.now().newest().unwrap().generation
    }
}

/// One node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) rules: Rules,
    pub(crate) me: Holder,
    pub(crate) renewer: Renewer,
    /// How far its wall clock is ahead.
    wall_ahead_ms: i64,
    writes: u64,
}

impl Node {
    pub(crate) fn new(name: &str, rules: Rules) -> Self {
        // Ids of different nodes must not meet.
        let writes = name.bytes().fold(0, |seed, byte| seed * 256 + u64::from(byte)) << 20;
        Self { rules, me: holder(name), renewer: Renewer::default(), wall_ahead_ms: 0, writes }
    }

    /// The same node after a crash: it remembers nothing, and it is somebody else.
    pub(crate) fn restarted(self) -> Self {
        let me = Holder { boot: self.me.boot + 1, node: self.me.node };
        Self { me, renewer: Renewer::default(), writes: self.writes + 1000, ..self }
    }

    /// The same node, its wall clock set this much ahead of the right time.
    pub(crate) fn ahead(self, wall_ahead_ms: i64) -> Self {
        Self { wall_ahead_ms, ..self }
    }

    pub(crate) fn clock(&self, ms: u64) -> Moment {
        let wall = Timestamp(START.plus(ms).0.checked_add_signed(self.wall_ahead_ms).unwrap());
        Moment::new(wall, Mono(BOOTED + ms))
    }

    pub(crate) fn step(&mut self, ms: u64, event: Event) -> Step {
        self.writes += 1;
        let ctx = Context { rules: &self.rules, me: &self.me, now: self.clock(ms), fresh: op(self.writes) };
        self.renewer.step(ctx, event)
    }

    /// Reads and is told to wait.
    #[track_caller]
    pub(crate) fn rest(&mut self, ms: u64, store: &Store) -> (u64, Why) {
        rested(self.step(ms, store.read()))
    }

    /// Reads, takes the lease, and is told to mint.
    #[track_caller]
    pub(crate) fn acquire(&mut self, ms: u64, store: &mut Store) -> Order {
        let step = self.step(ms, store.read());
        let answer = store.swap(&step);
        assert_eq!(answer, Event::Swapped);
        match self.step(ms, answer) {
            Step::Mint(order) => order,
            other => panic!("{other:?}"),
        }
    }

    /// Writes down the outcome of a mint, and looks again.
    #[track_caller]
    pub(crate) fn settle(&mut self, ms: u64, store: &mut Store, outcome: Event) -> (u64, Why) {
        let step = self.step(ms, outcome);
        let answer = store.swap(&step);
        assert_eq!(answer, Event::Swapped);
        rested(self.step(ms, answer))
    }

    /// A whole renewal in which nothing goes wrong, in no time.
    #[track_caller]
    pub(crate) fn renew(&mut self, ms: u64, store: &mut Store) -> Order {
        let order = self.acquire(ms, store);
        let (_, why) = self.settle(ms, store, minted(&order));
        assert_eq!(why, Why::Fresh);
        order
    }
}

#[track_caller]
pub(crate) fn rested(step: Step) -> (u64, Why) {
    match step {
        Step::Rest { for_ms, why } => (for_ms, why),
        other => panic!("{other:?}"),
    }
}

/// The credential that `order` asks for.
pub(crate) fn minted(order: &Order) -> Event {
    let sealed = format!("sealed {}", order.generation).into_bytes();
    Event::Minted(Minted { sealed, issued_at: order.issued_at, expires_at: order.expires_at })
}

pub(crate) fn fault(class: FaultClass) -> Fault {
    Fault { class, retry_after_ms: None, message: "503 from the upstream".into() }
}

/// Generation 1 of the example rules, used since the start, last held by `node`; imported, so that no mint is known to
/// have happened and no floor applies.
pub(crate) fn first(node: &str) -> Store {
    let mut record = record(credential(1, 0));
    record.holder = Some(holder(node));
    record.epoch = 1;
    Store::holding(record)
}
