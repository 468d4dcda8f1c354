//! Runs programs, as the [`Programs`] port: in a process group of their own, which ends as a whole.
//!
//! A program sees the given environment and nothing else of ours, except the working directory. When it ends, whatever
//! it started and left behind in its group is killed too; only a process that made a session of its own (`setsid`)
//! gets away.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Mono;
use keyreeve::port::{Host, Program, ProgramError, ProgramOutput, Programs};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};

/// Standard error beyond this many bytes is read and dropped.
pub const COMPLAINT_BYTES_MAX: usize = 4096;
/// How long to wait for the pipes, and for the system to hand over a killed process, in real time.
const GRACE: Duration = Duration::from_secs(1);
const CHUNK_BYTES: usize = 4096;

/// Programs of this machine.
pub struct OsPrograms {
    host: Arc<dyn Host>,
}

impl OsPrograms {
    /// Deadlines are measured by `host`.
    #[must_use]
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }
}

#[async_trait]
impl Programs for OsPrograms {
    /// Dropping the future kills the group.
    async fn run(&self, program: Program, deadline: Mono) -> Result<ProgramOutput, ProgramError> {
        if self.host.now().mono >= deadline {
            return Err(ProgramError::NotStarted("the deadline was over".into()));
        }
        let mut child = start(&program)?;
        let Some(mut group) = child.id().and_then(Group::of) else {
            return Err(ProgramError::NotStarted("it has no process id".into()));
        };
        let mut pipes = Pipes::of(&mut child, program.output_bytes_max);
        let input = program.input;
        let feeding = feed(child.stdin.take(), input);
        let ended = tokio::select! {
            ended = pipes.follow(&mut child, &mut group, feeding) => ended,
            () = self.host.sleep_until(deadline) => Ended::Deadline,
        };
        drop(group);
        let error = match ended {
            Ended::Itself(status) => {
                return Ok(ProgramOutput {
                    code: status.code(),
                    output: Secret::new(std::mem::take(&mut pipes.output)),
                    complaint: pipes.complaint(),
                });
            }
            Ended::TooMuch => ProgramError::TooLarge(program.output_bytes_max),
            Ended::Deadline => ProgramError::Deadline(pipes.complaint()),
            Ended::Lost(cause) => {
                tracing::warn!(%cause, "a program was lost sight of, and killed");
                ProgramError::Deadline(pipes.complaint())
            }
        };
        // Killed by now: this only takes it off the system's table.
        drop(tokio::time::timeout(GRACE, child.wait()).await);
        Err(error)
    }
}

enum Ended {
    Itself(ExitStatus),
    TooMuch,
    Deadline,
    Lost(std::io::Error),
}

fn start(program: &Program) -> Result<Child, ProgramError> {
    let not_started = |cause: String| ProgramError::NotStarted(cause);
    let (name, arguments) = program.argv.split_first().ok_or_else(|| not_started("no program is named".into()))?;
    Command::new(name)
        .args(arguments)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value.expose())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|cause| not_started(cause.to_string()))
}

/// Writes the input and closes the pipe. A program that does not read it is no failure.
async fn feed(stdin: Option<ChildStdin>, input: Secret<Vec<u8>>) {
    if let Some(mut stdin) = stdin {
        drop(stdin.write_all(input.expose()).await);
    }
}

/// A process group that is killed when this is dropped, however that comes about.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: u32) -> Option<Self> {
        i32::try_from(leader).ok().and_then(Pid::from_raw).map(|leader| Self(Some(leader)))
    }

    /// SIGKILL, which nobody can ignore. A group without members is no failure. Only once: by the second time the
    /// number may be somebody else's.
    fn kill(&mut self) {
        if let Some(leader) = self.0.take() {
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a program has printed so far.
struct Pipes<O, E> {
    stdout: Option<O>,
    stderr: Option<E>,
    output: Vec<u8>,
    output_bytes_max: usize,
    complained: Vec<u8>,
}

impl Pipes<tokio::process::ChildStdout, tokio::process::ChildStderr> {
    fn of(child: &mut Child, output_bytes_max: usize) -> Self {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Self { stdout, stderr, output: Vec::new(), output_bytes_max, complained: Vec::new() }
    }
}

impl<O: AsyncRead + Unpin, E: AsyncRead + Unpin> Pipes<O, E> {
    /// Reads both pipes until the program is over and they are closed.
    async fn follow(&mut self, child: &mut Child, group: &mut Group, feeding: impl Future<Output = ()>) -> Ended {
        let mut feeding = std::pin::pin!(feeding);
        let mut is_fed = false;
        let mut status = None;
        let mut grace = std::pin::pin!(tokio::time::sleep(GRACE));
        let (mut out, mut err) = ([0; CHUNK_BYTES], [0; CHUNK_BYTES]);
        loop {
            if let (Some(status), None, None) = (status, &self.stdout, &self.stderr) {
                return Ended::Itself(status);
            }
            tokio::select! {
                count = next(&mut self.stdout, &mut out) => {
                    self.output.extend_from_slice(out.get(..count).unwrap_or_default());
                    if self.output.len() > self.output_bytes_max {
                        return Ended::TooMuch;
                    }
                }
                count = next(&mut self.stderr, &mut err) => {
                    let room = COMPLAINT_BYTES_MAX.saturating_sub(self.complained.len());
                    self.complained.extend_from_slice(err.get(..count.min(room)).unwrap_or_default());
                }
                () = &mut feeding, if !is_fed => is_fed = true,
                ended = child.wait(), if status.is_none() => match ended {
                    Ok(ended) => {
                        status = Some(ended);
                        // Children that it left behind would hold the pipes open.
                        group.kill();
                        grace.as_mut().reset(tokio::time::Instant::now() + GRACE);
                    }
                    Err(cause) => return Ended::Lost(cause),
                },
                () = &mut grace, if status.is_some() => {
                    // Somebody outside the group has the pipes.
                    self.stdout = None;
                    self.stderr = None;
                }
            }
        }
    }
}

impl<O, E> Pipes<O, E> {
    fn complaint(&self) -> Secret<String> {
        Secret::new(String::from_utf8_lossy(&self.complained).into_owned())
    }
}

impl<O, E> Drop for Pipes<O, E> {
    fn drop(&mut self) {
        // Both may hold secrets.
        drop(Secret::new(std::mem::take(&mut self.output)));
        drop(Secret::new(std::mem::take(&mut self.complained)));
    }
}

/// The next bytes of a pipe; takes the pipe away at its end. Waits for ever where there is none.
async fn next<R: AsyncRead + Unpin>(pipe: &mut Option<R>, chunk: &mut [u8]) -> usize {
    let Some(open) = pipe else { return std::future::pending().await };
    let count = open.read(chunk).await.unwrap_or(0);
    if count == 0 {
        *pipe = None;
    }
    count
}
