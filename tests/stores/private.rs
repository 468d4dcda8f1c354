//! Servers that a test has to itself: programs of this folder that end when nobody writes to them any more. For `#[path]`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// A running server; it ends with this value, or with this process.
pub(crate) struct Private {
    child: Child,
    lines: Option<Mutex<(ChildStdin, BufReader<ChildStdout>)>>,
    /// What it said about itself, as JSON.
    pub(crate) said: serde_json::Value,
}

impl Private {
    /// Starts `tests/stores/PROGRAM` and waits until it says where it is. A server that is not installed fails the test.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/stores").join(program);
        let interpreter = if program.ends_with(".py") { "python3" } else { "node" };
        let mut command = Command::new(interpreter);
        command.arg(path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Not in the group that a test runner ends: it has to see the end of its input, and clean up.
        let mut child = command.process_group(0).spawn().expect("the interpreter is missing: run scripts/setup");
        let (input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let Ok(said) = serde_json::from_str(&line) else {
            let output = child.wait_with_output().unwrap();
            panic!("{program} does not start: {}", String::from_utf8_lossy(&output.stderr));
        };
        Self { child, lines: Some(Mutex::new((input, output))), said }
    }

    /// Something that it said about itself.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.said[name].as_str().unwrap_or_else(|| panic!("it did not say `{name}`: {}", self.said))
    }

    /// Tells it to do something, and waits until that is done.
    pub(crate) fn tell(&self, order: &str) {
        assert_eq!(self.ask(order), "ok", "{order}");
    }

    /// As [`Private::tell`], where the answer is something else than `ok`.
    pub(crate) fn ask(&self, order: &str) -> String {
        let mut lines = self.lines.as_ref().unwrap().lock().unwrap();
        writeln!(lines.0, "{order}").unwrap();
        let mut line = String::new();
        lines.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        drop(self.lines.take());
        let _ = self.child.wait();
    }
}
