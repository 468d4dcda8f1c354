//! `keyreeve config`: what a configuration means, and what is wrong with it.

use keyreeve::config::{Config, ConfigRead, Home, Severity};
use keyreeve_server::secrets::OsSecrets;
use serde_json::{Value, json};

use crate::cli::ConfigFile;
use crate::exit::{Code, Failure, say, tell};
use crate::load;

/// Checks what start-up checks, short of the secrets: every problem at once.
pub(crate) fn check(args: &ConfigFile) -> Result<(), Failure> {
    let file = args.config.display();
    let home = Home::from(args.home);
    match load::problems(&args.config, home)? {
        Ok(ConfigRead { config, warnings, .. }) => {
            let unreadable = unreadable_secrets(&config, home);
            if args.json {
                let warnings: Vec<Value> = warnings.iter().map(load::problem_json).collect();
                let secrets: Vec<Value> = unreadable.iter().map(|text| text.clone().into()).collect();
                say(&json!({ "ok": true, "problems": warnings, "unreadable_secrets": secrets }).to_string());
            } else {
                warnings.iter().for_each(|warning| tell(&warning.to_string()));
                unreadable.iter().for_each(|text| tell(&format!("warning: on this machine, {text}")));
                let count = config.credentials.len();
                say(&format!("{file} is in order: {count} credentials, {} callers", config.callers.len()));
            }
            Ok(())
        }
        Err(problems) => {
            if args.json {
                let problems: Vec<Value> = problems.iter().map(load::problem_json).collect();
                say(&json!({ "ok": false, "problems": problems }).to_string());
            } else {
                tell(&problems.to_string());
                let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
                tell(&format!("{file}: {errors} to put right"));
            }
            Err(Failure::quiet(Code::CheckFailed))
        }
    }
}

/// Secrets are often not there where a configuration is checked, so what is missing is no failure here.
fn unreadable_secrets(config: &Config, home: Home) -> Vec<String> {
    if home == Home::Worker {
        return Vec::new();
    }
    keyreeve::seal::seal_keys(&config.seal_keys, &OsSecrets).err().unwrap_or_default()
}

/// Prints each effective value and where it came from.
pub(crate) fn explain(args: &ConfigFile) -> Result<(), Failure> {
    let read = load::read(&args.config, args.home.into())?;
    if args.json {
        let values: Vec<Value> = read
            .explained
            .iter()
            .map(|one| {
                json!({
                    "setting": one.path, "value": one.value, "origin": one.origin.to_string(), "meaning": one.doc,
                })
            })
            .collect();
        say(&Value::from(values).to_string());
        return Ok(());
    }
    let left: Vec<String> = read.explained.iter().map(|one| format!("{} = {}", one.path, one.value)).collect();
    // One long value should not push every origin off the screen.
    let width = left.iter().map(|line| line.chars().count()).filter(|width| *width <= 100).max().unwrap_or(0);
    for (line, one) in left.iter().zip(&read.explained) {
        say(&format!("{line:<width$}  # {}", one.origin));
    }
    read.warnings.iter().for_each(|warning| tell(&warning.to_string()));
    Ok(())
}

/// Prints the JSON Schema of the configuration.
pub(crate) fn schema() -> Result<(), Failure> {
    say(&format!("{:#}", keyreeve::config::schema()));
    Ok(())
}
