//! `keyreeve doctor`: looks at everything a node rests on, changes nothing, and says what is wrong and what helps.

mod look;
mod tokens;

use std::path::Path;

use keyreeve::config::{Config, ConfigRead, Home};
use serde_json::json;

use crate::cli::{DoctorArgs, LogForm};
use crate::exit::{Code, Failure, say};
use crate::load::{self, Ground};
use crate::logs;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// What was looked at, and what was seen.
struct Finding {
    level: Level,
    subject: String,
    said: String,
    hint: String,
}

/// Everything that was found so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, subject: &str, said: impl Into<String>) {
        self.add(Level::Ok, subject, said.into(), "");
    }

    fn warn(&mut self, subject: &str, said: impl Into<String>, hint: &str) {
        self.add(Level::Warn, subject, said.into(), hint);
    }

    fn fail(&mut self, subject: &str, said: impl Into<String>, hint: &str) {
        self.add(Level::Fail, subject, said.into(), hint);
    }

    /// A hint may come with the sentence, after a line break.
    fn add(&mut self, level: Level, subject: &str, said: String, hint: &str) {
        let (said, own) = match said.split_once("\nhint: ") {
            Some((said, own)) => (said.to_owned(), own.to_owned()),
            None => (said, String::new()),
        };
        let hint = if own.is_empty() { hint.to_owned() } else { own };
        self.0.push(Finding { level, subject: subject.to_owned(), said, hint });
    }

    fn print(&self, is_json: bool) {
        if is_json {
            let findings = self.0.iter().map(|finding| {
                json!({
                    "level": finding.level.as_str(), "subject": finding.subject, "message": finding.said,
                    "hint": Some(&finding.hint).filter(|hint| !hint.is_empty()),
                })
            });
            say(&json!({ "ok": self.worst() != Level::Fail, "findings": findings.collect::<Vec<_>>() }).to_string());
            return;
        }
        for finding in &self.0 {
            say(&format!("{:<5} {}: {}", finding.level.as_str(), finding.subject, finding.said));
            if !finding.hint.is_empty() {
                say(&format!("      hint: {}", finding.hint));
            }
        }
        let count = |level| self.0.iter().filter(|finding| finding.level == level).count();
        say(&format!(
            "{} in order, {} to know, {} to put right",
            count(Level::Ok),
            count(Level::Warn),
            count(Level::Fail)
        ));
    }

    fn worst(&self) -> Level {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

/// Looks, prints, and fails where something has to be put right.
pub(crate) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    logs::start(LogForm::Text, "error");
    let mut findings = Findings::default();
    if let Some(config) = configuration(&args.config, &mut findings)? {
        let ground = Ground::new()?;
        look::at(&config, &ground, &args, &mut findings).await;
    }
    findings.print(args.json);
    if findings.worst() == Level::Fail { Err(Failure::quiet(Code::CheckFailed)) } else { Ok(()) }
}

fn configuration(path: &Path, findings: &mut Findings) -> Result<Option<Config>, Failure> {
    let subject = path.display().to_string();
    match load::problems(path, Home::Native)? {
        Ok(ConfigRead { config, warnings, .. }) => {
            for warning in &warnings {
                findings.warn(&format!("{subject} ({})", warning.origin), warning.message.clone(), &warning.hint);
            }
            findings.ok(&subject, format!("{} credentials", config.credentials.len()));
            if config.callers.is_empty() {
                findings.warn(&subject, "nobody may call", "`keyreeve config new-key NAME` makes a key and its stanza");
            }
            Ok(Some(config))
        }
        Err(problems) => {
            for problem in &problems {
                findings.fail(&format!("{subject} ({})", problem.origin), problem.message.clone(), &problem.hint);
            }
            Ok(None)
        }
    }
}
