//! The keyreeve binary.
//!
//! - `cli`, `exit`: the command line, and how a command ends
//! - `serve`, `load`, `listen`, `signal`, `notify`, `logs`: a running node
//! - `hand_out`: what a node listens for besides its API
//! - `dev`: a node with seeded data
//! - `demo`: fleets that are broken on purpose
//! - `client`: commands that talk to a running node
//! - `build_worker`: the Worker as a folder that wrangler deploys
//! - `run_cmd`: a program with a credential
//! - `artifacts`: gates of artifacts, and the buckets behind them
//! - `jwt_cmd`: keys and tokens without a node
//! - `config_cmd`, `policy_cmd`, `doctor`, `picky_cmd`, `picky_issuers`: the rest
//! - `host`, `secrets`, `fetch`, `command`: the ports of the operating system
//! - `faults`: switches for tests with real processes

mod artifacts;
mod build_worker;
mod cli;
mod client;
mod config_cmd;
mod demo;
mod dev;
mod doctor;
mod exit;
mod faults;
mod hand_out;
mod hive;
mod import_cmd;
mod issuing;
mod jwt_cmd;
mod listen;
mod load;
mod logs;
mod new_key;
mod notify;
mod picky_cmd;
mod picky_issuers;
mod policy_cmd;
mod run_cmd;
mod serve;
mod signal;
mod timekeeping;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tokio::runtime;

use cli::{BuildCommand, Cli, Command, ConfigCommand, ImportCommand, KeysCommand, PickyCommand, PolicyCommand};
use exit::{Code, Failure, say};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are answers, not errors; clap knows where each goes.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Code::Usage as u8 } else { 0 });
        }
    };
    // A program that is run has an exit code of its own.
    let ended = match cli.command {
        Command::Run(args) => on_one_core(run_cmd::run(args)),
        command => run(command).map(|()| 0),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => on_all_cores(dev::run(args)),
        Command::Serve(args) => on_all_cores(serve::run(args)),
        Command::Credential(args) => on_one_core(client::run(args)),
        Command::Artifact(command) => on_one_core(client::run_artifact(command)),
        Command::Token(command) => on_one_core(client::run_token(command)),
        Command::Run(args) => on_one_core(run_cmd::run(args)).map(drop),
        Command::AwsCredentialProcess(args) => on_one_core(client::run_aws_process(args)),
        Command::GitCredential(args) => on_one_core(client::run_git(args)),
        Command::Keys(KeysCommand::OfIssuer(command)) => on_one_core(client::run_keys(command)),
        Command::Revoke(args) => on_one_core(client::run_revoke(args)),
        Command::Config(ConfigCommand::Check(args)) => config_cmd::check(&args),
        Command::Config(ConfigCommand::Explain(args)) => config_cmd::explain(&args),
        Command::Config(ConfigCommand::Schema) => config_cmd::schema(),
        Command::Config(ConfigCommand::NewKey { name, json }) => new_key::api_key(&name, json),
        Command::Config(ConfigCommand::NewClient { name, json }) => new_key::client(&name, json),
        Command::Config(ConfigCommand::NewSealKey { json }) => new_key::seal_key(json),
        Command::Policy(PolicyCommand::Check(args)) => policy_cmd::check(&args),
        Command::Policy(PolicyCommand::Test(args)) => policy_cmd::test(&args),
        Command::Policy(PolicyCommand::Explain(args)) => policy_cmd::explain(&args),
        Command::Build(BuildCommand::Worker(args)) => build_worker::run(&args),
        Command::Keys(KeysCommand::New(command)) => jwt_cmd::keys(command),
        Command::Jwt(command) => on_one_core(jwt_cmd::run(command)),
        Command::Picky(PickyCommand::Apns(args)) => on_all_cores(picky_cmd::apns(args)),
        Command::Picky(PickyCommand::Oauth(args)) => on_all_cores(picky_issuers::oauth(args)),
        Command::Picky(PickyCommand::Sts(args)) => on_all_cores(picky_issuers::sts(args)),
        Command::Picky(PickyCommand::Github(args)) => on_all_cores(picky_issuers::github(args)),
        Command::Picky(PickyCommand::Google(args)) => on_all_cores(picky_issuers::google(args)),
        Command::Picky(PickyCommand::Oidc(args)) => on_all_cores(picky_cmd::oidc(args)),
        Command::Demo(command) => on_all_cores(demo::run(command)),
        Command::Import(ImportCommand::Hive(args)) => on_one_core(import_cmd::hive(args)),
        Command::Doctor(args) => on_one_core(doctor::run(args)),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "keyreeve", &mut std::io::stdout());
            Ok(())
        }
        Command::Version { json } => {
            version(json);
            Ok(())
        }
    }
}

fn version(is_json: bool) {
    let version = env!("CARGO_PKG_VERSION");
    if is_json {
        say(&serde_json::json!({ "name": "keyreeve", "version": version }).to_string());
    } else {
        say(&format!("keyreeve {version}"));
    }
}

/// Runs a server: one worker thread per core.
fn on_all_cores(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    start(runtime::Builder::new_multi_thread(), work)
}

/// Runs a short command, which has nothing to share among threads.
fn on_one_core<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    start(runtime::Builder::new_current_thread(), work)
}

fn start<T>(mut builder: runtime::Builder, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // Everybody who speaks TLS here means this provider; a second call changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Unavailable, format!("the process cannot start its threads: {error}")))?;
    let result = runtime.block_on(work);
    // What still runs has been asked to end, or is a program that nobody waits for any more.
    runtime.shutdown_background();
    result
}
