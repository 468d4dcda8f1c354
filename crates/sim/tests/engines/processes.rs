//! One SQLite file, several real processes, and what is left when they are killed.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyreeve::engine::sqlite::{Options, Sqlite};
use keyreeve::port::{Entry, Key, Register, StoreError, Swap};
use keyreeve_core::id::WriteId;

/// What a process started by these tests has to do: `FILE COUNT`, and `-` for ever.
const TASK: &str = "KEYREEVE_SIM_WRITER";
const PATIENT: Options =
    Options { open_ms: 20_000, busy_ms: 20_000, answer_ms: 30_000, queue_max: 64, file_bytes_max: 1 << 30 };
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn counter() -> Key {
    Key::new("counter").unwrap()
}

pub(crate) fn count_in(entry: Option<&Entry>) -> u64 {
    entry.map_or(0, |entry| std::str::from_utf8(&entry.bytes).unwrap().parse().unwrap())
}

pub(crate) fn fresh_op() -> WriteId {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    WriteId(bytes)
}

/// Counts up by one, for certain: an unknown outcome is settled by reading.
async fn increment(register: &Sqlite) {
    loop {
        let Ok(found) = register.read(&counter()).await else { continue };
        let op = fresh_op();
        let bytes = Bytes::from((count_in(found.as_ref()) + 1).to_string());
        match register.swap(&counter(), found.map(|entry| entry.op), Entry { op, bytes }).await {
            Ok(Swap::Done) => return,
            Ok(Swap::Lost) | Err(StoreError::Refused(_)) => {}
            Err(e) => panic!("this test does not expect `{e}`"),
        }
    }
}

/// The other half of the tests below: with the variable set, this process is one of their writers.
#[tokio::test]
async fn a_writer_counts_only_when_it_is_told_to() {
    let Ok(task) = std::env::var(TASK) else { return };
    let (path, count) = task.rsplit_once(' ').unwrap();
    let register = Sqlite::open(Path::new(path), PATIENT).unwrap();
    let count = count.parse().unwrap_or(u64::MAX);
    let mut out = std::io::stdout();
    for done in 1..=count {
        increment(&register).await;
        // One line for each acknowledged increment, so that whoever kills this process knows what must be there.
        writeln!(out, "acknowledged {done}").unwrap();
        out.flush().unwrap();
    }
}

fn start(path: &Path, count: &str) -> Child {
    let name = "processes::a_writer_counts_only_when_it_is_told_to";
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(TASK, format!("{} {count}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until `child` has said that it made `count` increments; fewer if it ended before.
pub(crate) fn acknowledged(lines: &mut impl BufRead, count: u64) -> u64 {
    let mut seen = 0;
    let mut line = String::new();
    while seen < count {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            break;
        }
        // The test harness writes its own words in front of the first one.
        seen += u64::from(line.contains("acknowledged "));
    }
    seen
}

async fn count_of(path: &Path) -> u64 {
    let register = Sqlite::open(path, PATIENT).unwrap();
    count_in(register.read(&counter()).await.unwrap().as_ref())
}

#[tokio::test]
async fn eight_processes_on_one_file_lose_no_increment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.db");
    let children: Vec<_> = (0..8).map(|_| start(&path, "25")).collect();
    for mut child in children {
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(acknowledged(&mut lines, 25), 25);
        assert_eq!(acknowledged(&mut lines, u64::MAX), 0, "nothing more is said");
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(count_of(&path).await, 200);
}

#[tokio::test]
async fn a_writer_killed_in_mid_write_leaves_every_acknowledged_increment_and_at_most_one_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.db");
    let mut sure = 0;
    for round in 1..=6 {
        // In even rounds a second process is there, so that the log is not taken over by an empty machine.
        let mut bystander = (round % 2 == 0).then(|| start(&path, "10"));
        let mut victim = start(&path, "-");
        let mut lines = BufReader::new(victim.stdout.take().unwrap());
        assert_eq!(acknowledged(&mut lines, 5 + round * 3), 5 + round * 3);
        victim.kill().unwrap();
        victim.wait().unwrap();
        let victims = 5 + round * 3 + acknowledged(&mut lines, u64::MAX);
        if let Some(bystander) = &mut bystander {
            let mut lines = BufReader::new(bystander.stdout.take().unwrap());
            assert_eq!(acknowledged(&mut lines, u64::MAX), 10);
            assert!(bystander.wait().unwrap().success());
            sure += 10;
        }
        sure += victims;
        let count = count_of(&path).await;
        assert!((sure..=sure + 1).contains(&count), "round {round}: {sure} were acknowledged, {count} are there");
        // What was written without an acknowledgement stays from now on.
        sure = count;
    }
}

/// A store that keyreeve may not write to is named at start, not at the first renewal.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_may_only_be_read_is_refused_at_open() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    const READ_ONLY: &str = "KEYREEVE_SIM_READ_ONLY";
    const NOBODY: u32 = 65_534;

    if let Ok(path) = std::env::var(READ_ONLY) {
        let text = Sqlite::open(Path::new(&path), PATIENT).err().unwrap().to_string();
        let hint = "keyreeve needs to write to the file and its folder";
        assert_eq!(text, format!("`{path}` cannot be used as a store: it can only be read\nhint: {hint}"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.db");
    drop(Sqlite::open(&path, PATIENT).unwrap());
    let until = Instant::now() + DEADLINE;
    while path.with_extension("db-wal").exists() {
        assert!(Instant::now() < until);
        tokio::task::yield_now().await;
    }
    // Root may write everywhere, so the question is asked by somebody else, with a copy of this program.
    let program = folder.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for (file, mode) in [(folder.path(), 0o755), (&program, 0o755), (&path, 0o444)] {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = Command::new(&program);
    command.args(["--exact", "processes::a_file_that_may_only_be_read_is_refused_at_open"]);
    command.env(READ_ONLY, &path).current_dir(folder.path());
    if std::fs::OpenOptions::new().append(true).open(&path).is_ok() {
        command.uid(NOBODY);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
