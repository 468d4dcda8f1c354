//! The `exec` source with real scripts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyreeve::config::SecretRef;
use keyreeve::core::id::CredentialName;
use keyreeve::core::record::FaultClass;
use keyreeve::core::secret::Secret;
use keyreeve::port::Host as _;
use keyreeve::source::exec::{Exec, ExecSettings};
use keyreeve::source::{MintError, Minting, Nature, Source as _};
use keyreeve_server::command::OsPrograms;
use keyreeve_server::host::{Clock, OsHost};
use keyreeve_server::secrets::OsSecrets;

use crate::support::{host, order, token, until};

/// A folder with one script.
struct Script {
    folder: tempfile::TempDir,
    host: Arc<OsHost>,
    secrets: BTreeMap<String, SecretRef>,
    pass: Vec<String>,
}

impl Script {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mint.sh"), text).unwrap();
        Self { folder, host: host(), secrets: BTreeMap::new(), pass: vec!["PATH".into()] }
    }

    fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.into(), SecretRef::Literal(Secret::new(value.into())));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn source(&self) -> Exec {
        let script = self.path("mint.sh").display().to_string();
        let folder = self.folder.path().display().to_string();
        let argv = ["/bin/sh".to_owned(), script, folder, "$(id); *".to_owned()];
        self.source_of(&argv).unwrap()
    }

    fn source_of(&self, argv: &[String]) -> Result<Exec, String> {
        let settings = ExecSettings { argv, pass: &self.pass, references: &self.secrets, output_bytes_max: 16 * 1024 };
        let programs = Arc::new(OsPrograms::new(self.host.clone()));
        let name = CredentialName::parse("acme/lake").unwrap();
        Exec::new(&name, settings, &OsSecrets, self.host.clone(), programs)
    }

    async fn mint_within(&self, answer_ms: u64) -> Result<Minting, MintError> {
        self.source().mint(&order(&self.host, answer_ms), "acme/lake/9").await
    }

    async fn mint(&self) -> Result<Minting, MintError> {
        self.mint_within(20_000).await
    }
}

async fn failed(script: &str) -> MintError {
    Script::new(script).mint().await.unwrap_err()
}

/// Whether a process runs; one that has ended and waits to be taken off the table does not.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn a_script_is_told_what_to_mint_and_sees_nothing_else_of_ours() {
    let script = Script::new(
        r#"cat; env > "$1/env"; printf '%s' "$2" > "$1/argument"
        echo '{"token":"abc","expires_in":600}'"#,
    )
    .secret("API_KEY", "s3cr3t-value");
    let source = script.source();
    assert_eq!((source.kind(), source.nature()), ("exec", Nature::Opaque));
    let asked_at = script.host.now().wall;
    let minting = script.mint().await.unwrap();
    assert_eq!(token(&minting), "abc");
    assert!(minting.expires_at.since(asked_at) >= 600_000);
    assert!(minting.expires_at.since(asked_at) < 620_000);
    assert_eq!(read(&script.path("argument")), "$(id); *", "no shell reads the arguments");

    let environment: BTreeMap<_, _> = read(&script.path("env"))
        .lines()
        .filter_map(|l| l.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())))
        .collect();
    assert_eq!(environment["API_KEY"], "s3cr3t-value");
    assert_eq!(environment["KEYREEVE_CREDENTIAL"], "acme/lake");
    assert_eq!(environment["KEYREEVE_GENERATION"], "7");
    assert_eq!(environment["KEYREEVE_IDEMPOTENCY_KEY"], "acme/lake/9");
    assert!(environment["KEYREEVE_EXPIRES_AT"].ends_with('Z'));
    let left_ms: u64 = environment["KEYREEVE_DEADLINE_MS"].parse().unwrap();
    assert!((10_000..=19_500).contains(&left_ms), "less than its caller waits: {left_ms}");
    let others: Vec<_> = environment
        .keys()
        // A shell sets these by itself.
        .filter(|name| !["PATH", "PWD", "OLDPWD", "SHLVL", "_", "API_KEY"].contains(&name.as_str()))
        .filter(|name| !name.starts_with("KEYREEVE_"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn a_credential_process_is_understood() {
    let script = Script::new(
        r#"echo "{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"SessionToken\":\"T\",\"Expiration\":\"$KEYREEVE_EXPIRES_AT\"}""#,
    );
    let minting = script.mint().await.unwrap();
    assert_eq!(minting.material.aws().unwrap().secret_access_key.expose(), "S");
    let error = failed(r#"echo '{"Version":2,"AccessKeyId":"A"}'"#).await;
    assert_eq!(error.message, "`sh` printed an answer in which `Version` is not 1, the only one there is");
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Misconfigured, true));
}

#[tokio::test]
async fn an_exit_code_says_that_nothing_was_minted_and_what_helps() {
    for (code, class) in [
        (1, FaultClass::Transient),
        (64, FaultClass::Misconfigured),
        (75, FaultClass::Transient),
        (77, FaultClass::Terminal),
        (78, FaultClass::Misconfigured),
        (127, FaultClass::Misconfigured),
        (255, FaultClass::Transient),
    ] {
        let error = failed(&format!(r#"echo '{{"token":"a","expires_in":60}}'; echo no luck >&2; exit {code}"#)).await;
        assert_eq!((error.class, error.may_have_minted), (class, false), "{code}");
        assert_eq!(error.message, format!("`sh` ended with exit code {code}: no luck"));
    }
}

#[tokio::test]
async fn a_script_killed_by_a_signal_may_have_minted() {
    let error = failed("kill -KILL $$").await;
    assert_eq!(error.message, "`sh` was killed by a signal");
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, true));
}

#[tokio::test]
async fn useless_output_may_have_been_minted() {
    for (script, message, class) in [
        (
            "echo done; echo odd >&2",
            "`sh` printed 5 bytes that are not JSON (line 1, column 1): odd",
            FaultClass::Transient,
        ),
        ("exit 0", "`sh` printed nothing", FaultClass::Transient),
        (r"printf '\377\376{}'", "`sh` printed 4 bytes that are not JSON (line 1, column 1)", FaultClass::Transient),
        (
            r#"echo '{"token":"a","expires_in":0}'"#,
            "`sh` printed an answer in which `expires_in` is zero",
            FaultClass::Transient,
        ),
        ("exec yes", "`sh` printed more than 16384 bytes and was killed", FaultClass::Misconfigured),
    ] {
        let error = failed(script).await;
        assert_eq!(error.message, message);
        assert_eq!((error.class, error.may_have_minted), (class, true), "{script}");
    }
}

#[tokio::test]
async fn output_may_be_as_large_as_the_limit() {
    // 16,384 bytes with the line break.
    let spaces = r#"printf '%16352s' ''; echo '{"token":"a","expires_in":600 }'"#;
    assert_eq!(token(&Script::new(spaces).mint().await.unwrap()), "a");
    let error = failed(&spaces.replace("16352", "16353")).await;
    assert!(error.message.ends_with("more than 16384 bytes and was killed"), "{}", error.message);
}

#[tokio::test]
async fn a_complaint_is_bounded_and_holds_no_secret() {
    let error = Script::new(
        r#"head -c 1000000 /dev/zero | tr '\0' 'x' >/dev/null
        echo "key $API_KEY, token eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UifQ.c2ln, password=hunter2 refused" >&2; exit 1"#,
    )
    .secret("API_KEY", "s3cr3t-value")
    .mint()
    .await
    .unwrap_err();
    assert_eq!(error.message, "`sh` ended with exit code 1: key ***, token ***, password=*** refused");

    let flood = Script::new(
        r#"i=0; while [ $i -lt 20000 ]; do echo "line $i of many"; i=$((i+1)); done >&2; echo '{"token":"a","expires_in":600}'"#,
    );
    assert_eq!(token(&flood.mint().await.unwrap()), "a", "a full pipe blocks nobody");
    let error = failed(r#"i=0; while [ $i -lt 2000 ]; do echo "line $i"; i=$((i+1)); done >&2; exit 1"#).await;
    assert!(
        error.message.len() < 400 && error.message.starts_with("`sh` ended with exit code 1: ..."),
        "{}",
        error.message
    );
}

/// Both ignore SIGTERM, and the child holds the pipes open.
#[tokio::test]
async fn a_script_that_hangs_is_killed_with_its_children_at_the_deadline() {
    let script = Script::new(
        r#"trap '' TERM
        (trap '' TERM; while :; do sleep 1; done) &
        echo $! > "$1/child"; echo $$ > "$1/parent"; echo waiting >&2
        while :; do sleep 1; done"#,
    );
    let started = Instant::now();
    let error = script.mint_within(1500).await.unwrap_err();
    assert_eq!(error.message, "`sh` was still running at its deadline and was killed: waiting");
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, true));
    assert!(started.elapsed() >= Duration::from_millis(1300));
    for name in ["parent", "child"] {
        let pid = read(&script.path(name));
        assert!(!pid.is_empty(), "{name} had started");
        until(&format!("{name} has ended"), || !is_running(&pid)).await;
    }
}

#[tokio::test]
async fn what_a_script_leaves_behind_ends_with_it() {
    let script = Script::new(
        r#"(while :; do sleep 1; done) & echo $! > "$1/child"
        echo '{"token":"abc","expires_in":600}'"#,
    );
    let started = Instant::now();
    assert_eq!(token(&script.mint().await.unwrap()), "abc");
    assert!(started.elapsed() < Duration::from_secs(10), "the open pipe was not waited for");
    let pid = read(&script.path("child"));
    until("the child has ended", || !is_running(&pid)).await;
}

#[tokio::test]
async fn a_mint_that_is_dropped_kills_its_script() {
    let script = Script::new(r#"echo $$ > "$1/parent"; exec sleep 600"#);
    let source = script.source();
    let order = order(&script.host, 600_000);
    let task = tokio::spawn(async move { source.mint(&order, "k").await.is_ok() });
    let path = script.path("parent");
    until("the script runs", || is_running(&read(&path)) && !read(&path).is_empty()).await;
    let pid = read(&path);
    task.abort();
    until("the script has ended", || !is_running(&pid)).await;
}

#[tokio::test]
async fn a_deadline_follows_a_simulated_clock() {
    let mut script = Script::new("exec sleep 600");
    let clock = Clock { epoch_unix_ms: 1_700_000_000_000, scale: 60.0, offset_ms: 0 };
    script.host = Arc::new(OsHost::with_clock(clock));
    let started = Instant::now();
    let error = script.mint_within(60_000).await.unwrap_err();
    assert!(error.message.starts_with("`sh` was still running at its deadline"), "{}", error.message);
    assert!(started.elapsed() < Duration::from_secs(30), "a simulated minute is a real second");
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_misconfigured() {
    let script = Script::new("");
    let missing = script.path("absent").display().to_string();
    let error = script.source_of(&[missing]).unwrap().mint(&order(&script.host, 5000), "k").await.unwrap_err();
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Misconfigured, false));
    assert!(error.message.starts_with("`absent` was not started: No such file"), "{}", error.message);
    let plain = script.path("mint.sh").display().to_string();
    let error = script.source_of(&[plain]).unwrap().mint(&order(&script.host, 5000), "k").await.unwrap_err();
    assert!(error.message.starts_with("`mint.sh` was not started: Permission denied"), "{}", error.message);
}

#[tokio::test]
async fn nothing_is_started_after_the_lease_was_over() {
    let script = Script::new(r#"touch "$1/ran""#);
    let mut late = order(&script.host, 5000);
    late.send_by = keyreeve::core::time::Mono(0);
    until("the clock has moved", || script.host.now().mono.0 > 0).await;
    let error = script.source().mint(&late, "k").await.unwrap_err();
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, false));
    assert!(error.message.starts_with("not sent: the lease was over for "), "{}", error.message);
    assert!(!script.path("ran").exists());
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let error = |script: Script, argv: &[&str]| {
        let argv: Vec<_> = argv.iter().map(|part| (*part).to_owned()).collect();
        script.source_of(&argv).err().unwrap()
    };
    assert_eq!(error(Script::new(""), &[]), "`argv` must name a program");
    let script = Script::new("").secret("KEYREEVE_CREDENTIAL", "x");
    assert_eq!(error(script, &["a"]), "`secrets` has `KEYREEVE_CREDENTIAL`: names with `KEYREEVE_` are keyreeve's own");
    assert_eq!(
        error(Script::new("").secret("A B", "x"), &["a"]),
        "`secrets` has `A B`, which is no name of a variable"
    );
    let mut script = Script::new("");
    script.secrets.insert("A".into(), SecretRef::Env("KEYREEVE_TEST_UNSET".into()));
    assert_eq!(error(script, &["a"]), "the environment variable `KEYREEVE_TEST_UNSET` is not set");
}
