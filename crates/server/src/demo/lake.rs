//! `keyreeve demo lake`: many cold clients want one role at AWS, of several nodes at once, and there is one STS.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use futures::future::join_all;
use keyreeve_picky::issuers::sts::{self, Sts};
use keyreeve_picky::issuers::{Call, Fault, Faults, Key};
use p256::SecretKey;
use p256::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use serde_json::{Value, json};

use super::args::LakeArgs;
use super::frame::{Print, conclude, printer, unavailable, until_stopped};
use super::processes::Processes;
use crate::exit::Failure;

/// How long STS takes when it answers.
const STS_MS: u64 = 300;
/// What a client of AWS's own libraries waits for an answer, at the most: real milliseconds.
const ANSWER_MS_MAX: u128 = 1800;
/// The first hold after a failure; it doubles.
const HOLD_MS: u64 = 1000;
/// When a call to STS is cut off: `timeout` of [`CONFIG`].
const CUT_OFF: Duration = Duration::from_secs(10);
/// How long STS stays away.
const AWAY: Duration = Duration::from_secs(8);
const ROLE: &str = "arn:aws:iam::123456789012:role/lake";
const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

const CONFIG: &str = r#"# Written by `keyreeve demo lake`.
seal.keys = ["file:@FOLDER@/seal.key"]

[store]
url = "sqlite:@FOLDER@/state.db"

[caller.clients]
uid = @UID@
can = ["list", "token"]
credentials = ["*"]

[credential.identity]
source = "jwt"
key = "file:@FOLDER@/issuer.pem"
params = { alg = "ES256", claims = { iss = "https://issuer.example.org", sub = "keyreeve:lake", aud = "sts.amazonaws.com", iat = "{iat}", exp = "{exp}" } }
"#;

/// One credential for each act, so that each begins cold.
const CREDENTIAL: &str = r#"
[credential.@NAME@]
source = "aws-web-identity"
wait = "1300ms"
params = { role_arn = "@ROLE@", region = "eu-central-1", endpoint = "@URL@", session_name = "@NAME@", assertion = "credential:identity" }
life = { send = "2s", timeout = "10s", lease = "12s", takeover = "15s", poll = "100ms", hold = "1s" }
"#;

const ACTS: [&str; 3] = ["lake-cold", "lake-down", "lake-hangs"];

/// Runs the demonstration. An error with code 1 where the promise was not held.
pub(crate) async fn run(args: LakeArgs) -> Result<(), Failure> {
    until_stopped(run_all(&args)).await
}

async fn run_all(args: &LakeArgs) -> Result<(), Failure> {
    let print = printer(args.json);
    let (private, trusted) = new_key().map_err(unavailable)?;
    let config = sts::Config { trusted, faults: slow(), roles: vec![ROLE.into()], ..Default::default() };
    let sts = sts::start(config).await.map_err(unavailable)?;
    let processes = Processes::new(args.nodes, WITHIN, args.keep).map_err(unavailable)?;
    write(&processes, &sts, &private).map_err(unavailable)?;
    if args.keep {
        print(&format!("everything is in `{}`", processes.folder().display()));
    }
    processes.wait_for_all().await?;
    print(&format!("{} clients, {} nodes, one STS that takes {STS_MS} ms", args.clients, args.nodes));
    let mut lake = Lake { args, processes: &processes, sts: &sts, print, rows: Vec::new(), complaints: Vec::new() };
    lake.cold().await;
    lake.down().await.map_err(unavailable)?;
    lake.hangs().await.map_err(unavailable)?;
    lake.report()
}

fn slow() -> Faults {
    Faults::slow(Duration::from_millis(STS_MS))
}

fn new_key() -> io::Result<(String, Vec<Key>)> {
    // One draw in 2^32 is not a key of the curve.
    for _ in 0..4 {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        if let Ok(key) = SecretKey::from_slice(&bytes) {
            let private = key.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?.to_string();
            let public = key.public_key().to_public_key_pem(LineEnding::LF).map_err(io::Error::other)?;
            return Ok((private, Key::all(&public).map_err(|error| io::Error::other(error.to_string()))?));
        }
    }
    Err(io::Error::other("the system's random numbers are no keys"))
}

fn write(processes: &Processes, sts: &Sts, private: &str) -> io::Result<()> {
    processes.write_private("issuer.pem", private.as_bytes())?;
    let mut config = processes.config(CONFIG, &[])?;
    for name in ACTS {
        config += &CREDENTIAL.replace("@NAME@", name).replace("@ROLE@", ROLE).replace("@URL@", &sts.url());
    }
    processes.start(&config, &["api"])
}

/// What all clients were told at one time.
struct Heard {
    /// By what it comes to: keys by their id, errors by status and type.
    answers: BTreeMap<String, usize>,
    slowest_ms: u128,
}

impl Heard {
    fn is_one(&self, what: &str) -> bool {
        self.answers.len() == 1 && self.answers.keys().all(|answer| answer.starts_with(what))
    }

    fn told(&self) -> String {
        let answers: Vec<String> = self.answers.iter().map(|(answer, count)| format!("{count} x {answer}")).collect();
        format!("{}; the slowest after {} ms", answers.join(", "), self.slowest_ms)
    }
}

struct Lake<'a> {
    args: &'a LakeArgs,
    processes: &'a Processes,
    sts: &'a Sts,
    print: Print,
    rows: Vec<Value>,
    complaints: Vec<String>,
}

impl Lake<'_> {
    /// All clients ask at once, each its node.
    async fn ask(&self, name: &str) -> Heard {
        let path = format!("/v1/credentials/{name}/token");
        let asked = (0..self.args.clients).map(|client| {
            let (ends, path) = (self.processes.ends(), path.as_str());
            async move {
                let started = Instant::now();
                let answer = match ends.get(client % ends.len().max(1)) {
                    Some(end) => end.get(path).await,
                    None => None,
                };
                (described(answer), started.elapsed().as_millis())
            }
        });
        let mut heard = Heard { answers: BTreeMap::new(), slowest_ms: 0 };
        for (answer, ms) in join_all(asked).await {
            *heard.answers.entry(answer).or_default() += 1;
            heard.slowest_ms = heard.slowest_ms.max(ms);
        }
        heard
    }

    fn calls(&self) -> usize {
        self.sts.score().call_list.len()
    }

    fn calls_since(&self, before: usize) -> Vec<Call> {
        self.sts.score().call_list.into_iter().skip(before).collect()
    }

    fn must(&mut self, is_held: bool, what: String) {
        if !is_held {
            self.complaints.push(what);
        }
    }

    fn note(&mut self, act: &str, calls: usize, heard: &Heard) {
        (self.print)(&format!("{act:<28} {calls} calls of STS; {}", heard.told()));
        self.rows.push(json!({ "act": act, "calls": calls, "answers": heard.answers, "slowest_ms": heard.slowest_ms }));
    }

    async fn cold(&mut self) {
        let before = self.calls();
        let heard = self.ask(ACTS[0]).await;
        let calls = self.calls_since(before).len();
        self.note("cold", calls, &heard);
        self.must(calls == 1, format!("STS was asked {calls} times by cold clients"));
        self.must(heard.is_one("200 ASIA"), format!("cold clients were told: {}", heard.told()));
    }

    /// STS answers 503 as a proxy does, and then is back.
    async fn down(&mut self) -> io::Result<()> {
        self.sts.set_faults(Faults::always(Fault::Plain { status: 503 })).map_err(io::Error::other)?;
        let (before, started) = (self.calls(), Instant::now());
        let mut said = BTreeSet::new();
        while started.elapsed() < AWAY {
            let heard = self.ask(ACTS[1]).await;
            if said.is_empty() {
                self.note("STS is down: at first", self.calls_since(before).len(), &heard);
            }
            said.extend(heard.answers.keys().cloned());
            let in_time = heard.slowest_ms <= ANSWER_MS_MAX;
            self.must(in_time, format!("a client waited {} ms while STS was down", heard.slowest_ms));
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let calls = self.calls_since(before);
        self.must(
            said.len() == 1 && said.iter().all(|one| one.starts_with("503 ")),
            format!("clients were told: {said:?}"),
        );
        (self.print)(&format!(
            "{:<28} {} calls of STS by all nodes in {} s: {}",
            "STS is down",
            calls.len(),
            AWAY.as_secs(),
            pauses(&calls)
        ));
        self.must(is_held_back(&calls), format!("the fleet did not hold back: {}", pauses(&calls)));
        self.sts.set_faults(slow()).map_err(io::Error::other)?;
        let before = self.calls();
        let heard = self.until_keys(ACTS[1]).await;
        let calls = self.calls_since(before).len();
        self.note("STS is back", calls, &heard);
        self.must(
            calls == 1 && heard.is_one("200 ASIA"),
            format!("STS was asked {calls} times when it was back: {}", heard.told()),
        );
        Ok(())
    }

    /// STS takes the call and says nothing.
    async fn hangs(&mut self) -> io::Result<()> {
        self.sts.set_faults(Faults::always(Fault::Hang { issued: false })).map_err(io::Error::other)?;
        let (before, started) = (self.calls(), Instant::now());
        let heard = self.ask(ACTS[2]).await;
        self.note("STS hangs", self.calls_since(before).len(), &heard);
        self.must(heard.slowest_ms <= ANSWER_MS_MAX, format!("a client waited {} ms while STS hung", heard.slowest_ms));
        self.must(heard.is_one("503 "), format!("clients were told: {}", heard.told()));
        tokio::time::sleep((CUT_OFF - Duration::from_secs(1)).saturating_sub(started.elapsed())).await;
        let calls = self.calls_since(before).len();
        self.must(calls == 1, format!("STS was asked {calls} times while it hung"));
        self.sts.set_faults(slow()).map_err(io::Error::other)?;
        let heard = self.until_keys(ACTS[2]).await;
        let calls = self.calls_since(before).len();
        self.note("STS answers again", calls, &heard);
        let what = format!("{:>28} {:.1} s after the first call", "", started.elapsed().as_secs_f64());
        (self.print)(&what);
        self.must(
            calls == 2 && heard.is_one("200 ASIA"),
            format!("STS was asked {calls} times in all: {}", heard.told()),
        );
        Ok(())
    }

    /// All clients ask again and again until the first of them has keys, and then once more.
    async fn until_keys(&self, name: &str) -> Heard {
        let until = Instant::now() + WITHIN;
        loop {
            let heard = self.ask(name).await;
            if heard.is_one("200 ") || Instant::now() > until {
                return heard;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn report(self) -> Result<(), Failure> {
        (self.print)("");
        let result =
            json!({ "demo": "lake", "nodes": self.args.nodes, "clients": self.args.clients, "acts": self.rows });
        let held = "one call where one is enough, one answer for all, and in time";
        conclude(&self.print, &self.complaints, held, self.args.json.then_some(result))
    }
}

/// `200 ASIA..`, or a status with the type of the problem, which every client can read.
fn described(answer: Option<(u16, Value)>) -> String {
    let Some((status, body)) = answer else { return "no answer".to_owned() };
    let key = body.pointer("/fields/AccessKeyId").or_else(|| body.get("type")).and_then(Value::as_str);
    format!("{status} {}", key.unwrap_or("and nothing that could be read"))
}

/// The milliseconds between the calls.
fn pauses(calls: &[Call]) -> String {
    let pauses = calls.windows(2).filter_map(|pair| match pair {
        [one, next] => Some(format!("{} ms", next.real_ms.saturating_sub(one.real_ms))),
        _ => None,
    });
    pauses.collect::<Vec<_>>().join(", ")
}

/// Whether each pause is at least the hold of its step, which doubles.
fn is_held_back(calls: &[Call]) -> bool {
    let mut hold_ms = HOLD_MS;
    calls.len() >= 2
        && calls.windows(2).all(|pair| {
            let [one, next] = pair else { return false };
            // The hold counts from when the failure was written down, and the call was heard a little before.
            let is_held = next.real_ms.saturating_sub(one.real_ms) >= hold_ms;
            hold_ms = hold_ms.saturating_mul(2);
            is_held
        })
}
