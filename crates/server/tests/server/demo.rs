//! `keyreeve demo fleet`: eight real processes, broken on purpose, in a short form.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No wait here is longer; it ends a test that would hang, it is never waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `demo fleet`; its exit code, its result, and its timeline.
fn demo(args: &[&str]) -> (i32, Value, String) {
    ran("fleet", args)
}

/// Runs a demonstration; its exit code, its result, and its timeline.
fn ran(name: &str, args: &[&str]) -> (i32, Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_keyreeve")).args(["demo", name, "--json"]).args(args).output();
    let output = output.unwrap();
    let timeline = String::from_utf8(output.stderr).unwrap();
    let result = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{timeline}"));
    (output.status.code().unwrap(), result, timeline)
}

#[test]
fn demo_fleet_one_seed_never_two() {
    let args = ["--strategy", "ours", "--seed", "1", "--renewals", "2", "--clients", "32", "--rest", "200"];
    let (code, result, timeline) = demo(&args);
    let ours = &result["outcomes"][0];
    assert_eq!(ours["problems"], serde_json::json!([]), "{timeline}");
    assert_eq!(code, 0, "{timeline}");
    assert_eq!(ours["most_valid_at_once"], 1);
    assert_eq!((&ours["minted"], &ours["allowed"]), (&3.into(), &3.into()));
    assert!(ours["in_use"].as_u64().unwrap() >= 3, "{}", ours["in_use"]);
    assert_eq!(ours["clients"]["failed"], 0);
    assert!(ours["clients"]["pushes"].as_u64().unwrap() > 1000, "{timeline}");
    let faults = ours["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 3);
    assert!(faults.iter().all(|fault| fault["node"].is_string()), "every fault struck: {faults:?}");
    // Somebody else finished what the killed and the frozen node had begun, in a later epoch.
    assert!(timeline.matches(" took over generation ").count() >= 2, "{timeline}");
    assert!(timeline.contains("its late publish was refused by the store"), "{timeline}");
}

#[test]
fn a_process_that_signs_for_itself_fails_the_same_demonstration() {
    let args = ["--strategy", "naive", "--renewals", "1", "--scale", "180", "--clients", "16", "--rest", "200"];
    let (code, result, timeline) = demo(&args);
    assert_eq!(code, 1, "{timeline}");
    let naive = &result["outcomes"][0];
    assert_eq!(naive["is_clean"], false);
    assert!(naive["most_valid_at_once"].as_u64().unwrap() >= 4, "several processes, each with its token: {timeline}");
    assert!(naive["refused_429"].as_u64().unwrap() > 0);
    assert!(naive["clients"]["failed"].as_u64().unwrap() > 0);
}

#[test]
fn an_interrupted_demonstration_leaves_no_process_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_keyreeve"))
        .args(["demo", "fleet", "--strategy", "ours", "--clients", "1"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("all 8 nodes hand out a token")));
    assert_eq!(processes_of(folder.path()), 8);

    let id = Pid::from_raw(demo.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    let until = Instant::now() + PATIENCE;
    while processes_of(folder.path()) > 0 {
        assert!(Instant::now() < until, "nodes were left behind");
        std::thread::yield_now();
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// How many processes have been told about a folder on their command line.
fn processes_of(folder: &Path) -> usize {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let command_lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    command_lines.filter(|line| String::from_utf8_lossy(line).contains(folder)).count()
}

#[test]
fn demo_rotate_fails_no_valid_token_and_accepts_no_retired_key() {
    let output = Command::new(env!("CARGO_BIN_EXE_keyreeve"))
        .args(["demo", "rotate", "--json", "--seconds", "24", "--seed", "1"])
        .output()
        .unwrap();
    let timeline = String::from_utf8(output.stderr).unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{timeline}"));
    assert_eq!(result["problems"], serde_json::json!([]), "{timeline}");
    assert_eq!(output.status.code(), Some(0), "{timeline}");
    assert_eq!((&result["failed"], &result["accepted_late"]), (&0.into(), &0.into()));
    // The run was about something.
    let counted = |name: &str| result[name].as_u64().unwrap();
    assert!(counted("signed") > 200 && counted("verified") > 200 && counted("verified_outside") > 200, "{timeline}");
    assert!(counted("keys") >= 4 && counted("refused_retired") > 0, "{timeline}");
    assert!(timeline.matches(" is told to rotate, and killed ").count() == 2, "{timeline}");
}

#[test]
fn demo_revoke_refuses_everywhere_in_time_and_says_where_it_cannot_tell() {
    let (code, result, timeline) = ran("revoke", &["--nodes", "8", "--rounds", "2"]);
    assert_eq!(result["problems"], serde_json::json!([]), "{timeline}");
    assert_eq!(code, 0, "{timeline}");
    let counted = |name: &str| result[name].as_u64().unwrap();
    assert_eq!((counted("turned_away"), counted("accepted_after_receipt")), (0, 0), "{timeline}");
    // The run was about something: good tokens all the time, revoked ones refused, a node without news that said 503.
    assert!(counted("accepted") > 100 && counted("refused") > 20 && counted("stale") > 0, "{timeline}");
    let acts = result["acts"].as_array().unwrap();
    let names: Vec<_> = acts.iter().map(|act| act["act"].as_str().unwrap()).collect();
    assert_eq!(names, ["in order", "not told of changes", "two without the store"]);
    for act in &acts[..2] {
        for node in act["nodes"].as_array().unwrap() {
            assert_eq!(node["state"], "applied", "{act}");
            assert!(node["receipt_ms"].as_u64().is_some_and(|ms| ms <= 1000), "{act}");
        }
    }
    assert_eq!(timeline.matches(" says so: degraded, without news").count(), 2, "{timeline}");
}

#[test]
fn demo_agents_spends_no_refresh_token_twice_and_revokes_no_family() {
    let (code, result, timeline) = ran("agents", &["--processes", "8", "--windows", "0"]);
    assert_eq!(result["problems"], serde_json::json!([]), "{timeline}");
    assert_eq!(code, 0, "{timeline}");
    // The first, one after the reports, and two for each of the two that were lost.
    assert_eq!((&result["refreshes"], &result["windows"]), (&6.into(), &6.into()), "{timeline}");
    assert_eq!((&result["reuses"], &result["families_revoked"], &result["failed"]), (&0.into(), &0.into(), &0.into()));
    assert!(result["calls"].as_u64().unwrap() > 100, "{timeline}");
    assert!(timeline.contains(" is killed between the answer and the commit"), "{timeline}");
    assert_eq!(timeline.matches(" says `needs-reauth`").count(), 2, "{timeline}");
}

#[test]
fn demo_lake_asks_sts_once_for_all_and_tells_all_the_same_in_time() {
    let (code, result, timeline) = ran("lake", &[]);
    assert_eq!(result["problems"], serde_json::json!([]), "{timeline}");
    assert_eq!(code, 0, "{timeline}");
    let acts = result["acts"].as_array().unwrap();
    let calls: Vec<_> = acts.iter().map(|act| (act["act"].as_str().unwrap(), act["calls"].as_u64().unwrap())).collect();
    let expected =
        [("cold", 1), ("STS is down: at first", 1), ("STS is back", 1), ("STS hangs", 1), ("STS answers again", 2)];
    assert_eq!(calls, expected, "{timeline}");
}

#[test]
fn demo_gate_answers_what_it_can_and_refuses_only_what_was_taken_back() {
    let (code, result, timeline) = ran("gate", &["--seconds", "18"]);
    assert_eq!(result["problems"], serde_json::json!([]), "{timeline}");
    assert_eq!(code, 0, "{timeline}");
    let acts: BTreeMap<_, _> =
        result["acts"].as_array().unwrap().iter().map(|act| (act["act"].as_str().unwrap(), act)).collect();
    let sum = |act: &str, what: &str| -> u64 {
        let nodes = acts[act]["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 8);
        nodes.iter().map(|node| node[what].as_u64().unwrap()).sum()
    };
    for act in acts.keys() {
        assert_eq!((sum(act, "denied"), sum(act, "other")), (0, 0), "{act}: {timeline}");
    }
    for act in ["in order", "a new version", "the primary hangs", "both are back"] {
        assert!(sum(act, "whole") > 100 && sum(act, "same") > 100, "{act}: {timeline}");
    }
    for act in ["both hang", "both say 403", "tokens revoked", "a target dropped"] {
        assert!(sum(act, "stale") > 50, "{act}: {timeline}");
    }
    // Whoever got nothing waited for the deadline where nobody answered, and for nothing where everybody said no.
    let worst = |act: &str, what: &str| {
        acts[act]["nodes"].as_array().unwrap().iter().map(|node| node[what].as_u64().unwrap()).max().unwrap()
    };
    assert!((2000..=2250).contains(&worst("both hang", "worst_away_ms")), "{timeline}");
    assert!(worst("both say 403", "worst_away_ms") < 1000, "{timeline}");
    assert!((150..=400).contains(&worst("the primary hangs", "worst_ms")), "{timeline}");
}

#[test]
fn the_demonstration_of_the_worker_says_what_it_needs() {
    let nowhere = tempfile::tempdir().unwrap();
    let demo = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_keyreeve")).args(["demo", "edge"]).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = demo(&["--checkout", nowhere.path().to_str().unwrap()]);
    assert_eq!(code, Some(5), "{told}");
    assert!(told.starts_with("error: `tests/worker/demo-edge.mjs` was not found"), "{told}");
    assert!(told.contains("in a checkout of keyreeve, with node 20 or newer, after `scripts/build-worker`"), "{told}");
    assert_eq!(demo(&["--seed", "much"]).0, Some(2));
}
