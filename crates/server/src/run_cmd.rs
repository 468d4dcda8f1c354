//! `keyreeve run --credential NAME -- CMD`: a program that gets a credential by its environment or in a file, and hears of
//! renewals.
//!
//! Signals are passed on to the program, and its exit code is ours. The API key is not for it: that variable is removed.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use keyreeve::core::secret::Secret;
use keyreeve_server::written::write_whole;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::NodeArgs;
use crate::client::{KEY_VARIABLE, Node, form, token_path};
use crate::exit::{Code, Failure, tell};

/// How often a node is asked whether there is a new generation: no more often, and no less.
const LOOK_MIN: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(2);
/// How long a program that is started anew may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// `keyreeve run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The credential.
    #[arg(long, value_name = "NAME")]
    pub(crate) credential: String,
    /// The variable for the token; without it NAME_TOKEN, and for AWS keys the variables of AWS.
    #[arg(long, value_name = "VARIABLE", conflicts_with = "file")]
    pub(crate) env: Option<String>,
    /// Keep the token in this file, mode 0600, instead of the environment; it is replaced as a whole.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// What the program is told of a renewal.
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub(crate) on_renewal: OnRenewal,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

/// What a program is told of a renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnRenewal {
    /// Nothing: it reads the file again by itself, or ends before the credential does.
    #[default]
    Nothing,
    /// SIGHUP.
    Hup,
    /// It is ended, by SIGTERM and after 10 s by SIGKILL, and started anew.
    Restart,
}

/// What the program is given.
struct Given {
    refresh_at: Option<Timestamp>,
    secret: Way,
}

/// How a program is given a credential.
#[derive(PartialEq, Eq)]
enum Way {
    Environment(Vec<(String, Secret<String>)>),
    File(PathBuf, Secret<Vec<u8>>),
}

impl Way {
    fn write(&self) -> Result<(), Failure> {
        match self {
            Self::Environment(_) => Ok(()),
            Self::File(path, token) => write_whole(path, token).map_err(|error| Failure::new(Code::Unavailable, error)),
        }
    }
}

/// Runs the program to its end. Returns its exit code, 128 and the number of the signal where one ended it.
pub(crate) async fn run(args: RunArgs) -> Result<u8, Failure> {
    let mut heard = signals()?;
    let node = Node::new(&args.node.url, args.node.api_key_file.as_deref(), Duration::from_secs(args.node.timeout))?;
    let mut given = take(&node, &args).await?;
    given.secret.write()?;
    let mut child = start(&args, &given)?;
    loop {
        let look = tokio::time::sleep(until_look(&given));
        tokio::select! {
            ended = child.wait() => return ended.map(code_of).map_err(|error| lost(&error)),
            Some(signal) = heard.recv() => send(&child, signal),
            () = look => {
                // A node that does not answer keeps neither signals nor the end of the program waiting.
                let next = {
                    let mut looking = std::pin::pin!(renewed(&node, &args, &given));
                    loop {
                        tokio::select! {
                            next = &mut looking => break next,
                            ended = child.wait() => return ended.map(code_of).map_err(|error| lost(&error)),
                            Some(signal) = heard.recv() => send(&child, signal),
                        }
                    }
                };
                let Some(next) = next else { continue };
                given = next;
                match args.on_renewal {
                    OnRenewal::Nothing => {}
                    OnRenewal::Hup => send(&child, Signal::HUP),
                    OnRenewal::Restart => {
                        if let Some(status) = end(&mut child).await? {
                            return Ok(code_of(status));
                        }
                        child = start(&args, &given)?;
                    }
                }
            }
        }
    }
}

/// Every signal that asks for something; those of the system itself are not ours to pass on.
fn signals() -> Result<mpsc::Receiver<Signal>, Failure> {
    let passed = [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::quit(), Signal::QUIT),
        (SignalKind::user_defined1(), Signal::USR1),
        (SignalKind::user_defined2(), Signal::USR2),
    ];
    let (send, receive) = mpsc::channel(16);
    for (kind, number) in passed {
        let mut arrived =
            signal(kind).map_err(|error| Failure::new(Code::Unavailable, format!("no signals: {error}")))?;
        let send = send.clone();
        tokio::spawn(async move { while arrived.recv().await.is_some() && send.send(number).await.is_ok() {} });
    }
    Ok(receive)
}

/// Takes the credential.
async fn take(node: &Node, args: &RunArgs) -> Result<Given, Failure> {
    let answer = node.get(&token_path(&args.credential)?).await?;
    let secret = match (&args.file, &args.env) {
        (Some(path), _) => {
            let token = form::token(&args.credential, &answer)?.to_owned();
            Way::File(path.clone(), Secret::new(token.into_bytes()))
        }
        (None, Some(variable)) => {
            let token = form::token(&args.credential, &answer)?;
            Way::Environment(vec![(variable.clone(), Secret::new(token.to_owned()))])
        }
        (None, None) => Way::Environment(form::variables(&args.credential, &answer)),
    };
    let refresh_at = answer.get("refresh_at").and_then(Value::as_str).and_then(|at| at.parse().ok());
    Ok(Given { refresh_at, secret })
}

/// What there is now, if it is something else, and in its file already. A node that is away is asked again: the program
/// runs on.
async fn renewed(node: &Node, args: &RunArgs, given: &Given) -> Option<Given> {
    let taken = async {
        let next = take(node, args).await?;
        let is_new = next.secret != given.secret;
        if is_new {
            next.secret.write()?;
        }
        Ok::<_, Failure>((next, is_new))
    };
    match taken.await {
        Ok((next, is_new)) => is_new.then_some(next),
        Err(failure) => {
            tell(&format!("warning: `{}` was not looked for again: {}", args.credential, failure.message));
            None
        }
    }
}

fn until_look(given: &Given) -> Duration {
    let left = given
        .refresh_at
        .map_or(LOOK_MAX, |at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
    left.clamp(LOOK_MIN, LOOK_MAX)
}

fn start(args: &RunArgs, given: &Given) -> Result<Child, Failure> {
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::new(Code::Usage, "no program is named"));
    };
    let variables: &[(String, Secret<String>)] = match &given.secret {
        Way::Environment(variables) => variables,
        Way::File(..) => &[],
    };
    Command::new(program)
        .args(arguments)
        .env_remove(KEY_VARIABLE)
        .envs(variables.iter().map(|(name, value)| (name, value.expose())))
        .spawn()
        .map_err(|error| {
            Failure::new(Code::Usage, format!("`{}` cannot be started: {error}", program.to_string_lossy()))
        })
}

fn send(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        // It may have ended at this moment.
        let _ = kill_process(id, signal);
    }
}

/// Ends the program to start it anew; `Some` where it had ended by itself just before.
async fn end(child: &mut Child) -> Result<Option<ExitStatus>, Failure> {
    if let Some(status) = child.try_wait().map_err(|error| lost(&error))? {
        return Ok(Some(status));
    }
    send(child, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        send(child, Signal::KILL);
        child.wait().await.map_err(|error| lost(&error))?;
    }
    Ok(None)
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(Code::Unavailable, format!("the program was lost sight of: {error}"))
}

fn code_of(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;

    let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
