//! The command line: names, arguments and their help.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use keyreeve::config::Home;

/// One token for the whole fleet. Never two. Revoked everywhere in under a second.
#[derive(Debug, Parser)]
#[command(name = "keyreeve", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node with seeded data and no configuration, to try things out.
    Dev(DevArgs),
    /// Run a node.
    Serve(ServeArgs),
    /// Work with the credentials of a running node.
    Credential(CredentialArgs),
    /// Make access tokens, look at them, take them back, on a running node.
    #[command(subcommand)]
    Token(crate::client::TokenCommand),
    /// Publish artifacts of a gate, read and list them, on a running node.
    #[command(subcommand)]
    Artifact(crate::client::ArtifactCommand),
    /// Run a program with a credential, and tell it of renewals.
    Run(crate::run_cmd::RunArgs),
    /// Print AWS keys for the `credential_process` of a profile.
    AwsCredentialProcess(AwsProcessArgs),
    /// Be a credential helper of git.
    GitCredential(crate::client::GitArgs),
    /// Check and explain a configuration, make keys for it.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check, test and explain the rules that say who may do what.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Build keyreeve for another home than this machine.
    #[command(subcommand)]
    Build(BuildCommand),
    /// Make keys and secrets; look at, rotate and retire the signing keys of a running node.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Have tokens refused from now on, on every node.
    Revoke(crate::client::RevokeArgs),
    /// Sign, verify and look into tokens, without a node.
    #[command(subcommand)]
    Jwt(JwtCommand),
    /// Run a fake upstream that enforces the real rules and keeps score.
    #[command(subcommand)]
    Picky(PickyCommand),
    /// Break a fleet of real processes on purpose, and keep score.
    #[command(subcommand)]
    Demo(crate::demo::DemoCommand),
    /// Take over what another program has.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Look at configuration, secrets and store, and say what is wrong and what helps.
    Doctor(DoctorArgs),
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How the process writes its log, on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `keyreeve dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Where to listen; without it the first free port from 7070 on.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) bind: Option<SocketAddr>,
    /// Where to keep keys and state; without it a fresh temporary folder. A second node may share it.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How to write the log.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) log: LogForm,
}

/// `keyreeve serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// This node's name in records and logs; without it host name and process id. No two nodes may share it.
    #[arg(long, env = "KEYREEVE_NODE", value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Listen here for API and metrics, instead of where the configuration says.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) bind: Option<SocketAddr>,
    /// How to write the log.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) log: LogForm,
}

/// Which node to ask, and how.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node to ask: `http://HOST:PORT`, `https://HOST` or `unix:PATH`.
    #[arg(long, env = "KEYREEVE_URL", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub(crate) url: String,
    /// A file with the API key; without it the variable KEYREEVE_API_KEY.
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Give up after this many seconds; in the middle of a download, after this many without a byte.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,
}

/// `keyreeve aws-credential-process`.
#[derive(Debug, Args)]
pub(crate) struct AwsProcessArgs {
    /// The credential.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// `keyreeve keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Without a node.
    #[command(flatten)]
    New(NewKeysCommand),
    /// Of a running node.
    #[command(flatten)]
    OfIssuer(IssuerKeysCommand),
}

/// The commands on the keys of the issuers of a running node.
#[derive(Debug, Subcommand)]
pub(crate) enum IssuerKeysCommand {
    /// List the keys of an issuer, or of all, with their phases.
    Ls {
        /// The issuer.
        issuer: Option<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Publish the next key now; it signs when every verifier can know it.
    Rotate {
        /// The issuer.
        issuer: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Take a key out at once, because it leaked: its tokens are refused from now on.
    Retire {
        /// The issuer.
        issuer: String,
        /// The key id.
        kid: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Print the public keys of an issuer, as verifiers read them.
    Jwks {
        /// The issuer.
        issuer: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

/// `keyreeve credential`.
#[derive(Debug, Args)]
pub(crate) struct CredentialArgs {
    /// The node to ask: `http://HOST:PORT`, `https://HOST` or `unix:PATH`.
    #[arg(long, global = true, env = "KEYREEVE_URL", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub(crate) url: String,
    /// A file with the API key; without it the variable KEYREEVE_API_KEY.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Give up after this many seconds.
    #[arg(long, global = true, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: CredentialCommand,
}

/// The commands on credentials.
#[derive(Debug, Subcommand)]
pub(crate) enum CredentialCommand {
    /// List the credentials with their states.
    Ls,
    /// Show one credential without its secret.
    Show {
        /// Its name.
        name: String,
    },
    /// Print the secret.
    Get {
        /// Its name.
        name: String,
        /// In which form.
        #[arg(short, long, value_enum, value_name = "FORM")]
        output: Option<GetForm>,
        /// Take it only with at least this many seconds of life.
        #[arg(long, value_name = "SECONDS")]
        min_ttl: Option<u64>,
    },
    /// Ask for a renewal before its time.
    Renew {
        /// Its name.
        name: String,
    },
    /// Decide what to believe about a mint in doubt.
    Resolve {
        /// Its name.
        name: String,
        /// What to believe.
        decision: Decision,
    },
    /// Show generations, epochs and upstream calls.
    History {
        /// Its name.
        name: String,
    },
    /// Report that a generation was refused upstream.
    Report {
        /// Its name.
        name: String,
        /// The refused generation.
        #[arg(long)]
        generation: u64,
        /// The status that the upstream answered with, 401 or 403.
        #[arg(long, value_name = "STATUS")]
        upstream_status: u16,
        /// The reason it gave.
        #[arg(long)]
        reason: Option<String>,
    },
}

/// The forms of `credential get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetForm {
    /// The token alone.
    Raw,
    /// Everything the API says.
    Json,
    /// `NAME=value` lines for a shell.
    Env,
    /// `name: value`, as an HTTP header.
    Header,
    /// What AWS SDKs read from a `credential_process`.
    Aws,
    /// What Kubernetes clients read from an exec plug-in.
    K8sExec,
}

/// What an operator may believe about a mint in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Decision {
    /// It happened, and its result is lost.
    Adopt,
    /// It did not happen.
    Discard,
    /// What it may have spent has been replaced: start over.
    Reauthorize,
}

impl Decision {
    /// The name used in the API.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Discard => "discard",
            Self::Reauthorize => "reauthorize",
        }
    }
}

/// `keyreeve config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check what start-up checks, and print every problem.
    Check(ConfigFile),
    /// Print each effective value and where it came from.
    Explain(ConfigFile),
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Make an API key for a caller; it is printed once.
    NewKey {
        /// The caller's name.
        name: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a secret for a client of an issuer; it is printed once.
    NewClient {
        /// The client's name, its `client_id`.
        name: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a seal key.
    NewSealKey {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A configuration to look at.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// For where it is: a Worker has other stores, and its secrets are bindings.
    #[arg(long, value_enum, default_value_t, value_name = "HOME")]
    pub(crate) home: HomeName,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a configuration is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HomeName {
    /// This program.
    #[default]
    Native,
    /// A Cloudflare Worker.
    Worker,
}

impl From<HomeName> for Home {
    fn from(name: HomeName) -> Self {
        match name {
            HomeName::Native => Self::Native,
            HomeName::Worker => Self::Worker,
        }
    }
}

/// `keyreeve build`.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildCommand {
    /// Write a Cloudflare Worker with this configuration; `wrangler deploy` in its folder deploys it.
    Worker(BuildWorkerArgs),
}

/// `keyreeve build worker`.
#[derive(Debug, Args)]
pub(crate) struct BuildWorkerArgs {
    /// The configuration of the Worker.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The folder to write; what an earlier build wrote there is replaced.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The Worker's code, as `scripts/build-worker` leaves it.
    #[arg(long, default_value = "target/worker", value_name = "DIR")]
    pub(crate) script: PathBuf,
    /// The Worker's name at Cloudflare.
    #[arg(long, default_value = "keyreeve", value_name = "NAME")]
    pub(crate) name: String,
    /// What stands behind a binding, `NAME=VALUE`: the id of a KV namespace or of a client certificate, the name of a
    /// bucket or of another Worker, `STORE_ID/SECRET_NAME` for a secret in the Secrets Store. Without one `wrangler
    /// deploy` makes namespace and bucket itself, and secrets are put one by one.
    #[arg(long = "bind", value_name = "NAME=VALUE")]
    pub(crate) bind: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `keyreeve keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum NewKeysCommand {
    /// Make a key pair; print both halves as JWK.
    Generate {
        /// The algorithm: EdDSA, ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384 or PS512.
        #[arg(long, default_value = "EdDSA", value_name = "ALG")]
        alg: String,
        /// The id of the key; without it algorithm and time.
        #[arg(long, value_name = "ID")]
        kid: Option<String>,
        /// As lines for an environment file.
        #[arg(long)]
        dotenv: bool,
    },
    /// Make a secret for HS512; print it as base64url.
    Secret {
        /// Its length in bytes.
        #[arg(long, default_value_t = 64, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(32..=1024))]
        len: u16,
        /// As a line for an environment file.
        #[arg(long, conflicts_with = "json")]
        dotenv: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `keyreeve jwt`. What is not given comes from the environment: `JWT_ISS`, `JWT_AUD`, `JWT_SECRET` and the others of the guide.
#[derive(Debug, Subcommand)]
pub(crate) enum JwtCommand {
    /// Sign claims, a JSON object on standard input, and print the token.
    Sign {
        /// A file with the private JWK, or what `keys generate` printed.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The life of the token, in seconds.
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
        /// Issuer and audience.
        #[command(flatten)]
        who: JwtWho,
    },
    /// Verify a token on standard input: print its claims, or say why not and end with 1.
    Verify {
        /// A file with the public JWK, a JWKS, or what `keys generate` printed.
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
        /// Issuer and audience.
        #[command(flatten)]
        who: JwtWho,
    },
    /// Print what a token on standard input says. Nothing is verified.
    Decode,
}

/// From whom and for whom.
#[derive(Debug, Args)]
pub(crate) struct JwtWho {
    /// The issuer.
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,
    /// The audience; several with commas.
    #[arg(long, value_name = "NAME")]
    pub(crate) audience: Option<String>,
}

/// `keyreeve import`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Tokens of GraphQL Hive's CDN, from its database and its bucket, both of which stay as they are.
    Hive(HiveArgs),
}

/// `keyreeve import hive`.
#[derive(Debug, Args)]
pub(crate) struct HiveArgs {
    /// The configuration. Its `[token.NAME]` says by `hashes` which bucket Hive has.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The family that takes the tokens; not needed where there is one.
    #[arg(long, value_name = "NAME")]
    pub(crate) family: Option<String>,
    /// Hive's database: `postgres://USER@HOST/DATABASE`. It is only read.
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: String,
    /// The role's password: `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) password: Option<String>,
    /// Certificates in PEM to believe about the database instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The secret that legacy tokens are made with, `env:NAME` or `file:PATH`, if not that of the configuration. Some hashes are
    /// compared with what it gives.
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) legacy_secret: Option<String>,
    /// How many legacy hashes are compared.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) sample: u16,
    /// Count and compare, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `keyreeve doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// GraphQL Hive's database, to hold against the hashes of its tokens: `postgres://USER@HOST/DATABASE`. It is only read.
    #[arg(long, value_name = "URL")]
    pub(crate) hive_postgres: Option<String>,
    /// The password of its role: `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "REFERENCE", requires = "hive_postgres")]
    pub(crate) hive_password: Option<String>,
    /// Certificates in PEM to believe about it instead of the system's.
    #[arg(long, value_name = "FILE", requires = "hive_postgres")]
    pub(crate) hive_ca: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `keyreeve policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Read the rules of a configuration and list them with their numbers.
    Check(ConfigFile),
    /// Decide the cases of a file, and compare: for CI.
    Test(PolicyTestArgs),
    /// Say whether claims allow a request: by which rule, or what came nearest. Exits with 4 where they do not.
    Explain(PolicyExplainArgs),
}

/// `keyreeve policy test`.
#[derive(Debug, Args)]
pub(crate) struct PolicyTestArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// A JSON list of cases, each with `name`, `as`, `claims`, `on`, `request`, `expect` (`allow` or `deny`), and perhaps `rule`.
    #[arg(value_name = "CASES")]
    pub(crate) cases: PathBuf,
}

/// `keyreeve policy explain`.
#[derive(Debug, Args)]
pub(crate) struct PolicyExplainArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Where: `gate:NAME`.
    #[arg(long, value_name = "PLACE")]
    pub(crate) on: String,
    /// Who vouches for the claims: `issuer:NAME` or `verifier:NAME`.
    #[arg(long = "as", value_name = "SOURCE")]
    pub(crate) source: String,
    /// The claims: a JSON object, a file that holds one, or `-` for standard input. Nothing is verified.
    #[arg(long, value_name = "JSON|FILE")]
    pub(crate) claims: String,
    /// The method.
    pub(crate) method: String,
    /// The path, perhaps with a query.
    pub(crate) path: String,
}

/// `keyreeve picky`.
#[derive(Debug, Subcommand)]
pub(crate) enum PickyCommand {
    /// A fake Apple Push Notification service.
    Apns(PickyApnsArgs),
    /// A fake OAuth authorization server whose refresh tokens are good for one use.
    Oauth(crate::picky_issuers::PickyOauthArgs),
    /// A fake AWS STS that verifies web identities.
    Sts(crate::picky_issuers::PickyStsArgs),
    /// A fake GitHub that issues installation tokens.
    Github(crate::picky_issuers::PickyGithubArgs),
    /// A fake Google: the STS of workload identity federation, and service accounts to act as.
    Google(crate::picky_issuers::PickyGoogleArgs),
    /// A fake OpenID Connect issuer, which counts who asks for its keys.
    Oidc(PickyOidcArgs),
}

/// `keyreeve picky oidc`.
#[derive(Debug, Args)]
pub(crate) struct PickyOidcArgs {
    /// Where to listen, over plain HTTP; loopback only. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub(crate) bind: SocketAddr,
    /// The `max-age` of the keys; without it they have none.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_age: Option<u64>,
    /// Simulated seconds per real second.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// What goes wrong, as JSON: `{"fault":{"kind":"hang-body"},"next":5}`.
    #[arg(long = "fault", value_name = "JSON")]
    pub(crate) fault: Option<String>,
    /// Print address and score as JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `keyreeve picky apns`.
#[derive(Debug, Args)]
pub(crate) struct PickyApnsArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub(crate) bind: SocketAddr,
    /// Where to listen for `GET /score` and `PUT /faults` over plain HTTP; loopback only.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) control: Option<SocketAddr>,
    /// A registered key: team, key id and the file with the public key. May be given several times.
    #[arg(long = "key", value_name = "TEAM:KEYID:PEMFILE", required = true)]
    pub(crate) keys: Vec<String>,
    /// Where token changes are remembered.
    #[arg(long, value_enum, default_value_t, value_name = "SCOPE")]
    pub(crate) scope: PickyScope,
    /// Simulated seconds per real second.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// Simulated seconds after a switch in which a use of the replaced token is counted as a straggler instead of as a second
    /// token in use. It changes the score, never an answer.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) handover: u64,
    /// What goes wrong, as JSON: `{"fault":{"kind":"status","status":503},"probability":0.1}`.
    #[arg(long = "fault", value_name = "JSON")]
    pub(crate) fault: Option<String>,
    /// Write the certificate authority to this file; without it a temporary one.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Print addresses and score as JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the fake Apple remembers token changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PickyScope {
    /// Per team, as Apple documents it.
    #[default]
    Team,
    /// Per connection, as its servers seem to do it.
    Connection,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_misspelt_command_is_answered_with_the_right_one() {
        let error = Cli::try_parse_from(["keyreeve", "credental"]).unwrap_err().to_string();
        assert!(error.contains("'credential'"), "{error}");
    }
}
