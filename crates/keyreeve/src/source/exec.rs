//! The user's own script: started without a shell, told what to mint by its environment, heard on standard output.
//!
//! It is given the variables named in the configuration and these:
//!
//! | variable | value |
//! |---|---|
//! | `KEYREEVE_CREDENTIAL` | the credential's name |
//! | `KEYREEVE_GENERATION` | the generation to mint |
//! | `KEYREEVE_IDEMPOTENCY_KEY` | the same for every attempt at this generation that may be a repetition |
//! | `KEYREEVE_EXPIRES_AT` | the end to ask for, RFC 3339 |
//! | `KEYREEVE_DEADLINE_MS` | how many milliseconds it has before it is killed with all its children |
//!
//! It prints one JSON object, `{"token": "..", "expires_at": ".."}`, with `fields` (an object of texts) in place of
//! `token` and `expires_in` (seconds) in place of `expires_at` where that fits better, `issued_at` if it knows; or the
//! document of AWS's `credential_process`, version 1.
//!
//! Any other exit code than 0 says that nothing was minted: 75 (`EX_TEMPFAIL`) try again; 78 (`EX_CONFIG`), 64
//! (`EX_USAGE`), 126 and 127 set up wrongly; 77 (`EX_NOPERM`) refused for good; all others try again. A script that is
//! killed by a signal, prints something else, too much or nothing, or is still running at its deadline may have minted.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use keyreeve_core::id::CredentialName;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Mono;
use serde_json::{Map, Value};

use super::build::{check_send_by, cut_off};
use super::life::{self, LifeError, Window};
use super::redact::Redactor;
use super::{Fields, Material, MintError, Minting, Nature, Source, answer};
use crate::config::SecretRef;
use crate::port::{Host, Program, ProgramError, ProgramOutput, Programs, Secrets};

/// How much of what a script complains about goes into a message, in bytes.
const COMPLAINT_BYTES_MAX: usize = 320;
const OURS: &str = "KEYREEVE_";

/// The settings of an `exec` source.
#[derive(Clone, Copy, Debug)]
pub struct ExecSettings<'a> {
    /// Program and arguments.
    pub argv: &'a [String],
    /// Variables passed on from keyreeve's own environment; absent ones are left out.
    pub pass: &'a [String],
    /// Variables set to secrets.
    pub references: &'a BTreeMap<String, SecretRef>,
    /// The most it may print, in bytes.
    pub output_bytes_max: usize,
}

/// Mints by running a program.
pub struct Exec {
    name: CredentialName,
    argv: Vec<String>,
    environment: BTreeMap<String, Secret<String>>,
    output_bytes_max: usize,
    redactor: Redactor,
    host: Arc<dyn Host>,
    programs: Arc<dyn Programs>,
}

impl Exec {
    /// Reads the secrets and takes the settings.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn new(
        name: &CredentialName,
        settings: ExecSettings<'_>,
        secrets: &dyn Secrets,
        host: Arc<dyn Host>,
        programs: Arc<dyn Programs>,
    ) -> Result<Self, String> {
        if settings.argv.first().is_none_or(String::is_empty) {
            return Err("`argv` must name a program".into());
        }
        if settings.argv.iter().any(|part| part.contains('\0')) {
            return Err("`argv` must not hold NUL characters".into());
        }
        let mut environment = BTreeMap::new();
        let mut hidden = Vec::new();
        for variable in settings.pass {
            check_variable("pass", variable)?;
            let Ok(value) = secrets.read(&SecretRef::Env(variable.clone())) else { continue };
            let value = text(variable, &value)?;
            if is_secret_name(variable) {
                hidden.push(value.clone());
            }
            environment.insert(variable.clone(), value);
        }
        for (variable, reference) in settings.references {
            check_variable("secrets", variable)?;
            let value = text(variable, &secrets.read(reference)?)?;
            hidden.push(value.clone());
            environment.insert(variable.clone(), value);
        }
        Ok(Self {
            name: name.clone(),
            argv: settings.argv.to_vec(),
            environment,
            output_bytes_max: settings.output_bytes_max,
            redactor: Redactor::new(hidden.iter().map(|secret| secret.expose().as_str())),
            host,
            programs,
        })
    }

    fn program(&self, order: &Order, idempotency_key: &str, deadline: Mono) -> Program {
        let left_ms = deadline.since(self.host.now().mono);
        let mut environment = self.environment.clone();
        let expires_at = rfc3339(order.expires_at);
        let ours = [
            ("CREDENTIAL", self.name.as_str().to_owned()),
            ("GENERATION", order.generation.to_string()),
            ("IDEMPOTENCY_KEY", idempotency_key.to_owned()),
            ("EXPIRES_AT", expires_at),
            ("DEADLINE_MS", left_ms.to_string()),
        ];
        environment.extend(ours.into_iter().map(|(name, value)| (format!("{OURS}{name}"), Secret::new(value))));
        Program {
            argv: self.argv.clone(),
            environment,
            input: Secret::new(Vec::new()),
            output_bytes_max: self.output_bytes_max,
        }
    }

    /// `: ` and what the script complained about, if it did.
    fn complaint(&self, complaint: &Secret<String>) -> String {
        let clean = self.redactor.end(complaint.expose(), COMPLAINT_BYTES_MAX);
        if clean.is_empty() { clean } else { format!(": {clean}") }
    }

    /// The program as an operator knows it; its arguments may be nobody's business.
    fn who(&self) -> &str {
        self.argv.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default()
    }

    fn failed(&self, error: &ProgramError) -> MintError {
        let who = self.who();
        match error {
            ProgramError::NotStarted(cause) => {
                let cause = self.redactor.start(cause, COMPLAINT_BYTES_MAX);
                MintError::nothing_minted(FaultClass::Misconfigured, format!("`{who}` was not started: {cause}"))
            }
            ProgramError::Deadline(complaint) => answer::unusable(format!(
                "`{who}` was still running at its deadline and was killed{}",
                self.complaint(complaint)
            )),
            ProgramError::TooLarge(limit) => {
                answer::wrong(format!("`{who}` printed more than {limit} bytes and was killed"))
            }
        }
    }

    fn ended(&self, output: &ProgramOutput) -> Result<(), MintError> {
        let who = self.who();
        let complaint = self.complaint(&output.complaint);
        let class = match output.code {
            Some(0) => return Ok(()),
            None => return Err(answer::unusable(format!("`{who}` was killed by a signal{complaint}"))),
            Some(64 | 78 | 126 | 127) => FaultClass::Misconfigured,
            Some(77) => FaultClass::Terminal,
            Some(_) => FaultClass::Transient,
        };
        let code = output.code.unwrap_or_default();
        Err(MintError::nothing_minted(class, format!("`{who}` ended with exit code {code}{complaint}")))
    }
}

#[async_trait]
impl Source for Exec {
    fn kind(&self) -> &'static str {
        "exec"
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        check_send_by(self.host.as_ref(), order)?;
        let asked_at = self.host.now().wall;
        let deadline = cut_off(self.host.as_ref(), order);
        let program = self.program(order, idempotency_key, deadline);
        let output = self.programs.run(program, deadline).await.map_err(|error| self.failed(&error))?;
        self.ended(&output)?;
        let window =
            Window { asked_at, now: self.host.now().wall, life_ms_max: order.expires_at.since(order.issued_at) };
        read(output.output.expose(), window).map_err(|error| {
            let complaint = self.complaint(&output.complaint);
            MintError { message: format!("`{}` printed {}{complaint}", self.who(), error.message), ..error }
        })
    }
}

/// Reads what a script printed.
///
/// # Errors
/// [`MintError`] with a message that continues "it printed ..".
pub fn read(output: &[u8], window: Window) -> Result<Minting, MintError> {
    let document = answer::object(output).map_err(answer::unusable)?;
    let Value::Object(members) = &document.0 else { return Err(answer::unusable("JSON that is not an object")) };
    let blame = |error: MintError| MintError { message: format!("an answer in which {}", error.message), ..error };
    let is_aws = members.contains_key("Version") || members.contains_key("AccessKeyId");
    if is_aws { aws(members, window) } else { ours(members, window) }.map_err(blame)
}

fn ours(members: &Map<String, Value>, window: Window) -> Result<Minting, MintError> {
    let material = match (members.get("token"), members.get("fields")) {
        (Some(_), Some(_)) => return Err(answer::wrong("there are both `token` and `fields`")),
        (None, Some(Value::Object(fields))) => answer::fields("fields", fields)?,
        (None, Some(_)) => return Err(answer::wrong("`fields` is not an object")),
        (token, None) => answer::token("token", token)?,
    };
    let expires_at = match (members.get("expires_at"), members.get("expires_in")) {
        (Some(_), Some(_)) => return Err(answer::wrong("there are both `expires_at` and `expires_in`")),
        (None, Some(seconds)) => window.expires_in("expires_in", Some(seconds))?,
        (at, None) => window.expires_at("expires_at", at)?,
    };
    let issued_at =
        members.get("issued_at").map(|value| life::issued_at("issued_at", value, window.now)).transpose()?;
    Ok(Minting { material, issued_at, expires_at })
}

/// The document of AWS's `credential_process`.
fn aws(members: &Map<String, Value>, window: Window) -> Result<Minting, MintError> {
    const NAMES: [(&str, bool); 4] =
        [("AccessKeyId", true), ("SecretAccessKey", true), ("SessionToken", false), ("AccountId", false)];
    match members.get("Version") {
        Some(version) if version == 1 => {}
        Some(_) => return Err(answer::wrong("`Version` is not 1, the only one there is")),
        None => return Err(answer::wrong("`Version` is missing, it has to be 1")),
    }
    let mut named = BTreeMap::new();
    for (name, is_required) in NAMES {
        if is_required || members.get(name).is_some_and(|value| !value.is_null()) {
            named.insert(name.to_owned(), Secret::new(answer::text(name, members.get(name))?.to_owned()));
        }
    }
    let material = answer::bounded(Material { secret: Fields::Named(named), kind: Material::AWS.into() })?;
    let expires_at = match members.get("Expiration") {
        // AWS writes text only; a number here would be something else.
        Some(Value::Number(_)) => {
            return Err(LifeError::NotATime { field: "Expiration".into(), expected: "RFC 3339 text" }.into());
        }
        end => window.expires_at("Expiration", end)?,
    };
    Ok(Minting { material, issued_at: None, expires_at })
}

pub(super) fn rfc3339(at: keyreeve_core::time::Timestamp) -> String {
    let ms = i64::try_from(at.floor_to_second().0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

fn check_variable(setting: &str, name: &str) -> Result<(), String> {
    let is_name =
        name.bytes().enumerate().all(|(at, b)| b.is_ascii_alphabetic() || b == b'_' || (at > 0 && b.is_ascii_digit()));
    if name.is_empty() || !is_name {
        return Err(format!("`{setting}` has `{name}`, which is no name of a variable"));
    }
    if name.starts_with(OURS) {
        return Err(format!("`{setting}` has `{name}`: names with `{OURS}` are keyreeve's own"));
    }
    Ok(())
}

fn is_secret_name(variable: &str) -> bool {
    let variable = variable.to_ascii_uppercase();
    ["KEY", "TOKEN", "SECRET", "PASS", "PWD", "CRED", "AUTH"].iter().any(|part| variable.contains(part))
}

/// An environment variable is text without NUL.
pub(super) fn text(setting: &str, secret: &Secret<Vec<u8>>) -> Result<Secret<String>, String> {
    match std::str::from_utf8(secret.expose()) {
        Ok(text) if !text.contains('\0') => Ok(Secret::new(text.to_owned())),
        _ => Err(format!("`{setting}` is not text")),
    }
}
