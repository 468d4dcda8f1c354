//! One suite that every register engine passes: the contract of [`Register`], from outside.
//!
//! Add an engine: write it, then call [`check`] in a test with a function that opens one more instance on the same,
//! empty store. Runs on any executor; uses keys of its own, so that one store may be checked several times.

mod alone;
mod together;

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use keyreeve::port::{Entry, Key, Register};
use keyreeve_core::id::WriteId;

use crate::chance::Chance;

pub use together::{Actor, Recorder, random_history};

/// What one case works with: instances on one store, and keys that no other case uses.
pub struct Bench {
    instances: Vec<Arc<dyn Register>>,
    prefix: String,
    seed: u64,
}

/// What was promised and did not happen.
pub type Broken = String;

/// Checks one engine. `open` opens another instance on the same store; `count` of them work side by side. `run` names
/// this run: it seeds what is random, and keeps its keys apart from those of other runs.
///
/// # Errors
/// The case, the run, and what did not hold.
pub async fn check(open: impl Fn() -> Arc<dyn Register>, count: usize, run: u64) -> Result<(), Broken> {
    let instances: Vec<_> = (0..count.max(1)).map(|_| open()).collect();
    macro_rules! cases {
        ($($case:path),+ $(,)?) => {$(
            let name = stringify!($case);
            let prefix = format!("{run}/{name}/");
            let bench = Bench { instances: instances.clone(), prefix, seed: run };
            $case(&bench).await.map_err(|broken| format!("{name}, run {run}: {broken}"))?;
        )+};
    }
    cases![
        alone::an_absent_key_reads_as_nothing,
        alone::a_created_entry_reads_back_and_cannot_be_created_twice,
        alone::a_swap_needs_the_write_it_names,
        alone::the_write_counts_and_not_the_bytes,
        alone::a_swap_on_an_absent_key_is_lost,
        alone::empty_and_large_values_come_back_whole,
        alone::a_value_above_the_limit_is_refused,
        alone::keys_are_kept_apart,
        alone::a_list_is_in_order_and_in_pages,
        together::what_one_instance_wrote_the_others_read,
        together::of_racing_swaps_exactly_one_wins,
        together::every_acknowledged_increment_counts,
        together::a_caller_that_leaves_breaks_nothing,
        together::random_histories_are_linearizable,
    ];
    Ok(())
}

impl Bench {
    fn register(&self) -> Result<&dyn Register, Broken> {
        self.instances.first().map(AsRef::as_ref).ok_or_else(|| "there is no instance".into())
    }

    fn key(&self, name: impl Display) -> Result<Key, Broken> {
        Key::new(format!("{}{name}", self.prefix)).ok_or_else(|| "a key of the suite is not a key".into())
    }

    fn chance(&self, salt: u64) -> Chance {
        Chance::new(self.seed ^ salt.rotate_left(48))
    }
}

/// A write id that says what it is for.
const fn op(number: u64) -> WriteId {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    WriteId([0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h])
}

fn entry(number: u64, bytes: impl AsRef<[u8]>) -> Entry {
    Entry { op: op(number), bytes: Bytes::copy_from_slice(bytes.as_ref()) }
}

/// Fails a case unless `found` is what was promised.
fn same<T: PartialEq + std::fmt::Debug>(what: impl Display, found: &T, promised: &T) -> Result<(), Broken> {
    if found == promised {
        return Ok(());
    }
    Err(format!("{what}: {found:?} instead of {promised:?}"))
}
