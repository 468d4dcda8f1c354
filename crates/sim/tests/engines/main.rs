//! Every engine passes one suite, and the suite is hard enough to fail engines that are wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod broken;
mod postgres;
#[path = "../../../../tests/stores/private.rs"]
mod private;
mod processes;
mod remote;

use std::sync::Arc;

use keyreeve::engine::memory::Memory;
use keyreeve::engine::sqlite::{Options, Sqlite};
use keyreeve::port::{Key, Register};
use keyreeve_sim::chance::Chance;
use keyreeve_sim::conformance::{check, random_history};
use keyreeve_sim::history::is_linearizable;

#[tokio::test]
async fn memory_conforms() {
    let register: Arc<dyn Register> = Arc::new(Memory::new());
    for run in 1..=3 {
        check(|| Arc::clone(&register), 4, run).await.unwrap();
    }
}

#[tokio::test]
async fn sqlite_conforms_with_one_instance_on_a_file() {
    let folder = tempfile::tempdir().unwrap();
    check(|| Arc::new(Sqlite::open(&folder.path().join("k.db"), Options::default()).unwrap()), 1, 1).await.unwrap();
}

#[tokio::test]
async fn sqlite_conforms_with_several_instances_on_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let patient = Options { busy_ms: 20_000, answer_ms: 30_000, ..Options::default() };
    let path = folder.path().join("k.db");
    for run in 1..=3 {
        check(|| Arc::new(Sqlite::open(&path, patient).unwrap()), 4, run).await.unwrap();
    }
}

/// Real threads, because futures of one task never run at the same time.
#[test]
fn memory_is_linearizable_under_threads() {
    use keyreeve_sim::conformance::{Actor, Recorder};
    let register = Memory::new();
    for round in 0..200 {
        let key = Key::new(format!("k{round}")).unwrap();
        let recorder = Recorder::default();
        std::thread::scope(|scope| {
            for number in 1..=4 {
                let chance = Chance::new(round * 10 + number);
                let actor = Actor { number, register: &register, recorder: &recorder, seen: None, chance };
                let key = &key;
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(actor.act(key)).unwrap();
                });
            }
        });
        assert_eq!(is_linearizable(&recorder.into_calls()), Ok(true), "round {round}");
    }
}

#[tokio::test]
async fn the_suite_fails_engines_that_are_wrong() {
    for (wrong, expected_case) in broken::ALL {
        let store = Arc::new(broken::Store::default());
        let outcome = check(|| Arc::new(broken::Broken::new(wrong, Arc::clone(&store))), 4, 1).await;
        let Err(text) = outcome else { panic!("{wrong:?} passed") };
        assert!(text.contains(expected_case), "{wrong:?} failed elsewhere: {:.300}", text);
    }
}

#[tokio::test]
async fn the_history_checker_alone_finds_engines_that_are_wrong() {
    for (wrong, _) in broken::ALL {
        let store = Arc::new(broken::Store::default());
        let engines: Vec<_> = (0..5).map(|_| broken::Broken::new(wrong, Arc::clone(&store))).collect();
        let instances: Vec<&dyn Register> = engines.iter().map(|engine| engine as &dyn Register).collect();
        let mut found = false;
        for round in 0..100 {
            let key = Key::new(format!("k{round}")).unwrap();
            let calls = random_history(&instances, &key, &mut Chance::new(round)).await.unwrap();
            found |= is_linearizable(&calls) == Ok(false);
        }
        assert!(found, "{wrong:?} was not found out in 100 histories");
    }
}
