//! PostgreSQL: a real server that is killed, hung and shut out, several instances, several processes.

use std::io::{BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use keyreeve::config::{PostgresUrl, Reach, SecretRef};
use keyreeve::engine::postgres::{OpenError, Postgres, Settings};
use keyreeve::port::{Entry, Key, Register, StoreError, Swap};
use keyreeve::system::host::OsHost;
use keyreeve::system::secrets::OsSecrets;
use keyreeve_core::id::WriteId;
use keyreeve_core::secret::Secret;
use keyreeve_sim::conformance::check;

use crate::private::Private;
use crate::processes::{acknowledged, count_in, counter, fresh_op};

/// What a process started by these tests has to do: the JSON of [`Private`].
const TASK: &str = "KEYREEVE_SIM_POSTGRES_WRITER";
const DEADLINE: Duration = Duration::from_secs(60);
/// Patience with a machine that compiles meanwhile.
const PATIENT_MS: u64 = 30_000;

fn server(arguments: &[&str]) -> Private {
    Private::start("postgres.py", arguments)
}

fn socket_of(said: &serde_json::Value) -> PostgresUrl {
    let port = u16::try_from(said["port"].as_u64().unwrap()).unwrap();
    let reach = Reach::Socket(said["sockets"].as_str().unwrap().into(), port);
    PostgresUrl { user: "keyreeve".into(), reach, database: "keyreeve".into() }
}

fn settings(url: PostgresUrl, answer_ms: u64) -> Settings {
    Settings { url, password: None, authorities: None, answer_ms }
}

fn open(settings: Settings) -> Postgres {
    Postgres::new(settings, Arc::new(OsSecrets), Arc::new(OsHost::new())).unwrap()
}

fn node(server: &Private, answer_ms: u64) -> Postgres {
    open(settings(socket_of(&server.said), answer_ms))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn entry(op: u8, bytes: &'static str) -> Entry {
    Entry { op: WriteId([op; 16]), bytes: Bytes::from_static(bytes.as_bytes()) }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Refused(said)) => said,
        other => panic!("not refused: {other:?}"),
    }
}

/// Asks again until the server is there.
async fn wait_for(register: &Postgres) {
    let until = Instant::now() + DEADLINE;
    while register.read(&key("any")).await.is_err() {
        assert!(Instant::now() < until, "the server does not come back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms_with_one_instance_and_with_several() {
    let server = server(&[]);
    check(|| Arc::new(node(&server, PATIENT_MS)), 1, 1).await.unwrap();
    for run in 2..=4 {
        check(|| Arc::new(node(&server, PATIENT_MS)), 4, run).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_together_create_the_schema_once_and_a_newer_one_is_refused() {
    let server = server(&[]);
    let nodes: Vec<_> = (0..8).map(|_| node(&server, PATIENT_MS)).collect();
    for outcome in futures::future::join_all(nodes.iter().map(Postgres::check)).await {
        outcome.unwrap();
    }
    let register = node(&server, PATIENT_MS);
    assert_eq!(register.swap(&key("a"), None, entry(1, "kept")).await, Ok(Swap::Done));

    server.tell("in keyreeve INSERT INTO keyreeve.version (number) VALUES (7)");
    let error = node(&server, PATIENT_MS).check().await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 7, known: 1, .. }), "{error}");
    let said = refusal(node(&server, PATIENT_MS).read(&key("a")).await);
    assert_eq!(said, "the schema has version 7, this keyreeve knows versions up to 1\nhint: upgrade this node");
    // Whoever was connected before goes on; the table is as it was.
    assert_eq!(register.read(&key("a")).await, Ok(Some(entry(1, "kept"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_the_deadline_and_a_swap_is_then_unknown() {
    const ANSWER_MS: u64 = 400;
    let server = server(&[]);
    let register = node(&server, ANSWER_MS);
    wait_for(&register).await;
    assert_eq!(register.swap(&key("a"), None, entry(1, "1")).await, Ok(Swap::Done));
    server.tell("hang");
    let began = Instant::now();
    let swap = register.swap(&key("a"), Some(WriteId([1; 16])), entry(2, "2")).await;
    assert!(
        matches!(&swap, Err(StoreError::Unknown(said)) if said.contains("did not answer within 400ms")),
        "{swap:?}"
    );
    // The one connection was given up with that call, so this one never gets as far as asking.
    let said = refusal(register.swap(&key("b"), None, entry(1, "1")).await);
    assert!(said.contains("no connection was made"), "{said}");
    assert!(register.list("", None, 10).await.is_err());
    assert!(matches!(node(&server, ANSWER_MS).check().await, Err(OpenError::Away { .. })));
    assert!(began.elapsed() < Duration::from_millis(ANSWER_MS * 4 + 4000), "{:?}", began.elapsed());
    server.tell("go");
    wait_for(&register).await;
    // It was sent, and so may have been made meanwhile; what was refused was not.
    let found = register.read(&key("a")).await.unwrap().unwrap();
    assert!(found == entry(1, "1") || found == entry(2, "2"), "{found:?}");
    assert_eq!(register.read(&key("b")).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_somebody_else_refuses_before_the_deadline_and_a_session_that_is_ended_is_unknown() {
    let server = server(&[]);
    let register = node(&server, 2000);
    wait_for(&register).await;
    assert_eq!(register.swap(&key("a"), None, entry(1, "1")).await, Ok(Swap::Done));
    // A transaction left open by somebody: a prepared one needs nobody to stay connected.
    server.tell("in keyreeve BEGIN; LOCK TABLE keyreeve.register IN EXCLUSIVE MODE; PREPARE TRANSACTION 'held'");
    let said = refusal(register.swap(&key("a"), Some(WriteId([1; 16])), entry(2, "2")).await);
    assert!(said.contains("somebody holds a lock"), "{said}");
    assert_eq!(register.read(&key("a")).await, Ok(Some(entry(1, "1"))), "reads go on");

    let a = key("a");
    let swap = register.swap(&a, Some(WriteId([1; 16])), entry(3, "3"));
    let end = async {
        // Not before it waits.
        server.tell(
            "in keyreeve DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'keyreeve' AND \
             wait_event_type = 'Lock') LOOP PERFORM pg_sleep(0.01); PERFORM pg_stat_clear_snapshot(); END LOOP; \
             PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keyreeve'; END $$",
        );
    };
    let (swap, ()) = futures::join!(swap, end);
    assert!(matches!(&swap, Err(StoreError::Unknown(said)) if said.contains("57P01")), "{swap:?}");
    server.tell("in keyreeve ROLLBACK PREPARED 'held'");
    assert_eq!(register.swap(&key("a"), Some(WriteId([1; 16])), entry(4, "4")).await, Ok(Swap::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_no_to_is_told_with_what_helps() {
    let server = server(&[]);
    let at = |user: &str, database: &str| {
        let mut url = socket_of(&server.said);
        (url.user, url.database) = (user.into(), database.into());
        open(settings(url, PATIENT_MS))
    };
    let unusable = async |register: Postgres| match register.check().await {
        Err(OpenError::Unusable { cause, .. }) => cause,
        other => panic!("not unusable: {other:?}"),
    };
    let said = unusable(at("keyreeve", "nothing")).await;
    assert!(said.contains("createdb --owner"), "{said}");
    let said = unusable(at("stranger", "keyreeve")).await;
    assert!(said.contains("`store.url`"), "{said}");
    server.tell("sql CREATE ROLE guest LOGIN");
    let said = unusable(at("guest", "keyreeve")).await;
    assert!(said.contains("CREATE SCHEMA keyreeve AUTHORIZATION"), "{said}");
    // With a schema of its own it needs no right to make one.
    server.tell("in keyreeve CREATE SCHEMA keyreeve AUTHORIZATION guest");
    at("guest", "keyreeve").check().await.unwrap();

    let register = at("guest", "keyreeve");
    wait_for(&register).await;
    server.tell(
        "in keyreeve INSERT INTO keyreeve.register VALUES ('short-op', '\\x0102', '\\x00'), \
         ('large', decode(repeat('00', 16), 'hex'), decode(repeat('00', 200000), 'hex'))",
    );
    for planted in ["short-op", "large"] {
        let said = refusal(register.read(&key(planted)).await);
        assert!(said.contains("was not written by keyreeve"), "{said}");
    }
    server.tell("sql ALTER DATABASE keyreeve SET default_transaction_read_only = on");
    let said = unusable(at("guest", "keyreeve")).await;
    assert!(said.contains("only reads") && said.contains("name the primary"), "{said}");

    let mut nowhere = socket_of(&server.said);
    nowhere.reach = Reach::Socket("/nowhere".into(), 5432);
    assert!(matches!(open(settings(nowhere, PATIENT_MS)).check().await, Err(OpenError::Away { .. })));
    let mut with_password = settings(socket_of(&server.said), PATIENT_MS);
    with_password.password = Some(SecretRef::Env("KEYREEVE_SIM_NO_SUCH_VARIABLE".into()));
    assert!(unusable(open(with_password)).await.contains("`store.password`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_over_tcp_and_of_two_servers_the_one_that_writes_is_used() {
    let server = server(&["--tcp", "--standby"]);
    let port = |name: &str| u16::try_from(server.said[name].as_u64().unwrap()).unwrap();
    let within = |answer_ms: u64, ports: &[u16], password: &str| {
        let hosts = ports.iter().map(|port| ("127.0.0.1".to_owned(), *port)).collect();
        let url = PostgresUrl { user: "keyreeve".into(), reach: Reach::Hosts(hosts), database: "keyreeve".into() };
        let password = Some(SecretRef::Literal(Secret::new(password.to_owned())));
        open(Settings { url, password, authorities: None, answer_ms })
    };
    let at = |ports: &[u16], password: &str| within(PATIENT_MS, ports, password);
    let (primary, standby, password) = (port("port"), port("standby_port"), server.text("password"));
    at(&[primary], password).check().await.unwrap();
    let wrong = at(&[primary], "hunter2").check().await.unwrap_err().to_string();
    assert!(wrong.contains("`store.password`") && !wrong.contains("hunter2"), "{wrong}");
    let alone = at(&[standby], password).check().await.unwrap_err().to_string();
    assert!(alone.contains("only reads"), "{alone}");
    let register = at(&[standby, primary], password);
    assert_eq!(register.swap(&key("a"), None, entry(1, "1")).await, Ok(Swap::Done));
    // A host that takes connections and says nothing leaves time for the next one.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    within(4000, &[silent.local_addr().unwrap().port(), primary], password).check().await.unwrap();

    // Somebody streams from it and is not waited for.
    assert!(register.capabilities().forgets_on_failover && register.capabilities().is_durable);
    server.tell("sql ALTER SYSTEM SET synchronous_standby_names = '*'");
    server.tell("sql SELECT pg_reload_conf()");
    let until = Instant::now() + DEADLINE;
    loop {
        let fresh = at(&[primary], password);
        fresh.check().await.unwrap();
        if !fresh.capabilities().forgets_on_failover {
            break;
        }
        assert!(Instant::now() < until, "it still says that a failover forgets");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_to_who_follows_and_again_after_a_restart() {
    let server = server(&[]);
    let (writer, reader) = (node(&server, PATIENT_MS), node(&server, PATIENT_MS));
    assert_eq!(writer.swap(&key("rl/all"), None, entry(1, "1")).await, Ok(Swap::Done));
    let mut changes = reader.changes().unwrap();
    let mut next = async || tokio::time::timeout(DEADLINE, changes.next()).await.expect("nothing was told").unwrap();
    assert_eq!(next().await, key("rl/all"), "what is there is told at the beginning");
    assert_eq!(writer.swap(&key("cr/other"), None, entry(1, "1")).await, Ok(Swap::Done));
    assert_eq!(writer.swap(&key("rl/all"), Some(WriteId([9; 16])), entry(2, "2")).await, Ok(Swap::Lost));
    assert_eq!(writer.swap(&key("rl/more"), None, entry(2, "2")).await, Ok(Swap::Done));
    assert_eq!(next().await, key("rl/more"), "neither other keys nor what was lost is told");
    assert_eq!(writer.swap(&key("rl/all"), Some(WriteId([1; 16])), entry(2, "2")).await, Ok(Swap::Done));
    assert_eq!(next().await, key("rl/all"));

    server.tell("kill");
    server.tell("start");
    wait_for(&writer).await;
    assert_eq!((next().await, next().await), (key("rl/all"), key("rl/more")), "what may have been missed");
}

/// Whoever ends the wait for a synchronous standby leaves a commit that a failover would forget, and it is answered like any
/// other but for a warning.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_standby_was_not_waited_for_is_unknown() {
    let server = server(&[]);
    let register = node(&server, PATIENT_MS);
    wait_for(&register).await;
    assert_eq!(register.swap(&key("a"), None, entry(1, "1")).await, Ok(Swap::Done));
    server.tell("sql ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.tell("sql SELECT pg_reload_conf()");
    let mut op = 1;
    // The first ones may come before the server has read its settings again.
    let said = loop {
        // One for which nobody waits takes a second.
        assert!(op < 60, "it is never in doubt");
        let next = entry(op + 1, "x");
        let a = key("a");
        let swap = register.swap(&a, Some(WriteId([op; 16])), next);
        let end = async {
            server.tell(
                "in keyreeve DO $$ BEGIN FOR n IN 1..100 LOOP PERFORM pg_stat_clear_snapshot(); \
                 EXIT WHEN (SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE usename = 'keyreeve' AND \
                 wait_event = 'SyncRep') > 0; PERFORM pg_sleep(0.01); END LOOP; END $$",
            );
        };
        match futures::join!(swap, end).0 {
            Ok(Swap::Done) => op += 1,
            Err(StoreError::Unknown(said)) => break said,
            other => panic!("{other:?}"),
        }
    };
    assert!(said.contains("committed a write and warned") && said.contains("01000"), "{said}");
    server.tell("sql ALTER SYSTEM RESET synchronous_standby_names");
    server.tell("sql SELECT pg_reload_conf()");
    // It is there; the connection goes on, and what is warned of once is not warned of for ever.
    assert_eq!(register.read(&key("a")).await.unwrap().unwrap().op, WriteId([op + 1; 16]));
    assert_eq!(register.swap(&key("a"), Some(WriteId([op + 1; 16])), entry(99, "99")).await, Ok(Swap::Done));
}

/// A way to the server on which connections can be cut without a word: both ends still think that they have one.
async fn cuttable(to: u16) -> (u16, tokio::sync::watch::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, cut) = (listener.local_addr().unwrap().port(), tokio::sync::watch::Sender::new(()));
    let cuts = cut.subscribe();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut cuts = cuts.clone();
            cuts.mark_unchanged();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cuts.changed() => std::future::pending().await,
                }
            });
        }
    });
    (port, cut)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_although_the_connection_that_listened_was_cut_without_a_word() {
    let server = server(&["--tcp"]);
    let (port, cut) = cuttable(u16::try_from(server.said["port"].as_u64().unwrap()).unwrap()).await;
    let (user, database) = ("keyreeve".into(), "keyreeve".into());
    let url = PostgresUrl { user, reach: Reach::Hosts(vec![("127.0.0.1".into(), port)]), database };
    let password = Some(SecretRef::Literal(Secret::new(server.text("password").to_owned())));
    let reader = open(Settings { url, password, authorities: None, answer_ms: 3000 });
    let writer = node(&server, PATIENT_MS);
    assert_eq!(writer.swap(&key("rl/all"), None, entry(1, "1")).await, Ok(Swap::Done));
    let mut changes = reader.changes().unwrap();
    let mut next = async || tokio::time::timeout(DEADLINE, changes.next()).await.expect("nothing was told").unwrap();
    assert_eq!(next().await, key("rl/all"));
    cut.send_replace(());
    assert_eq!(writer.swap(&key("rl/all"), Some(WriteId([1; 16])), entry(2, "2")).await, Ok(Swap::Done));
    assert_eq!(next().await, key("rl/all"));
}

/// The other half of the test below: with the variable set, this process counts until it is ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_counts_in_postgres_only_when_it_is_told_to() {
    let Ok(task) = std::env::var(TASK) else { return };
    let register = open(settings(socket_of(&serde_json::from_str(&task).unwrap()), 3000));
    let mut out = std::io::stdout();
    let mut heard = Instant::now();
    loop {
        assert!(heard.elapsed() < DEADLINE, "no swap is made any more");
        let Ok(found) = register.read(&counter()).await else { continue };
        let bytes = Bytes::from((count_in(found.as_ref()) + 1).to_string());
        let next = Entry { op: fresh_op(), bytes };
        let word = match register.swap(&counter(), found.map(|entry| entry.op), next).await {
            Ok(Swap::Done) => {
                heard = Instant::now();
                "acknowledged"
            }
            Err(StoreError::Unknown(_)) => "unknown",
            _ => continue,
        };
        writeln!(out, "{word} !").unwrap();
        out.flush().unwrap();
    }
}

fn start_writer(server: &Private) -> Child {
    let name = "postgres::a_writer_counts_in_postgres_only_when_it_is_told_to";
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(TASK, server.said.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_lose_no_increment_while_the_server_is_killed_under_them() {
    let server = server(&[]);
    let mut writers: Vec<_> = (0..4)
        .map(|_| {
            let mut child = start_writer(&server);
            let lines = BufReader::new(child.stdout.take().unwrap());
            (child, lines, 0)
        })
        .collect();
    for _ in 0..3 {
        for (_, lines, sure) in &mut writers {
            assert_eq!(acknowledged(lines, 10), 10);
            *sure += 10;
        }
        server.tell("kill");
        server.tell("start");
    }
    let (mut sure, mut unknown) = (0, 0);
    for (mut child, lines, counted) in writers {
        child.kill().unwrap();
        child.wait().unwrap();
        let rest: Vec<_> = std::io::BufRead::lines(lines).map_while(Result::ok).collect();
        sure += counted + rest.iter().filter(|line| line.contains("acknowledged !")).count() as u64;
        // One more, because it was killed itself.
        unknown += 1 + rest.iter().filter(|line| line.contains("unknown !")).count() as u64;
    }
    let register = node(&server, PATIENT_MS);
    wait_for(&register).await;
    let count = count_in(register.read(&counter()).await.unwrap().as_ref());
    // Those of which the answer was lost before the last round are not counted above: at most one each and kill.
    let most = sure + unknown + 4 * 3;
    assert!((sure..=most).contains(&count), "{sure} were acknowledged, {most} at the most, {count} are there");
}
