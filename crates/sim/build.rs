//! Makes the machines that the walk drives out of the shipped source: once as it is, and once for each seeded bug.
//!
//! A seeded bug is a handful of textual replacements. Each must match exactly once, so that a change of the shipped
//! source which a bug no longer fits stops the build instead of leaving the bug unseeded.

use std::fmt::Write as _;
use std::path::Path;

/// One seeded bug: the module it makes, the file it is seeded into, and what is replaced by what.
struct Bug {
    name: &'static str,
    file: &'static str,
    edits: &'static [(&'static str, &'static str)],
}

const LIFECYCLE: &str = "lifecycle";
const VIEW: &str = "view";

const BUGS: &[Bug] = &[
    Bug {
        name: "bug_01_publication_is_forced_through_after_a_conflict",
        file: LIFECYCLE,
        edits: &[
            ("            (Phase::Settling { .. }, Event::SwapLost) => Step::Read,\n", ""),
            (
                "(settling @ Phase::Settling { .. }, Event::SwapUnknown) => {",
                "(settling @ Phase::Settling { .. }, Event::SwapLost | Event::SwapUnknown) => {",
            ),
            (
                "let is_unchanged = found.map(|record| record.op) == base;",
                "let base = found.map(|record| record.op);\n        let is_unchanged = found.is_none_or(|record| record.op != sent.op);",
            ),
        ],
    },
    Bug {
        name: "bug_02_intent_is_a_lease_only",
        file: LIFECYCLE,
        edits: &[
            ("let spacing_left = if can_replay || rules.mode == Mode::Lease {", "let spacing_left = if true {"),
            (
                "            if !same {\n                record.last =",
                "            if false && !same {\n                record.last =",
            ),
        ],
    },
    Bug {
        name: "bug_03_lease_expires_by_the_wall_clock_without_margin",
        file: LIFECYCLE,
        edits: &[(
            "observed.min(walled_left(ctx, intent.started_at.plus(rules.skew_ms).plus(rules.lease_ms)))",
            "observed.min(intent.started_at.plus(rules.lease_ms).since(ctx.now.wall))",
        )],
    },
    Bug {
        name: "bug_04_lease_is_measured_from_the_answer",
        file: LIFECYCLE,
        edits: &[(
            "(Phase::Acquiring { asked_at, record }, Event::Swapped) => self.begin_mint(ctx, asked_at, record),",
            "(Phase::Acquiring { record, .. }, Event::Swapped) => self.begin_mint(ctx, ctx.now.mono, record),",
        )],
    },
    Bug {
        name: "bug_05_lost_answer_is_taken_for_success",
        file: LIFECYCLE,
        edits: &[(
            "(Phase::Acquiring { asked_at, record }, Event::Swapped) =>",
            "(Phase::Acquiring { asked_at, record }, Event::Swapped | Event::SwapUnknown) =>",
        )],
    },
    Bug {
        name: "bug_06_holder_has_no_boot_number",
        file: LIFECYCLE,
        edits: &[("if intent.holder == *ctx.me &&", "if intent.holder.node == ctx.me.node &&")],
    },
    Bug {
        name: "bug_07_reader_has_no_margin",
        file: VIEW,
        edits: &[("by_wall.min(by_mono).saturating_sub(skew_ms)", "by_wall.min(by_mono)")],
    },
    Bug {
        name: "bug_08_timed_out_mint_is_retried_at_once",
        file: LIFECYCLE,
        edits: &[(
            "let outcome = doubted(ctx, &record, &fault);",
            "self.sent = None;\n                let outcome = doubted(ctx, &record, &fault);",
        )],
    },
    Bug {
        name: "bug_09_mint_leaves_after_its_deadline",
        file: LIFECYCLE,
        edits: &[(
            "let send_by = asked_at.plus(rules.send_ms);",
            "let send_by = asked_at.plus(rules.send_ms).max(ctx.now.mono);",
        )],
    },
    Bug {
        name: "bug_10_spacing_is_counted_from_the_intent",
        file: LIFECYCLE,
        edits: &[(
            "let window_ms = rules.mint_window_ms().saturating_add(rules.min_interval_ms);",
            "let window_ms = rules.min_interval_ms;",
        )],
    },
    Bug {
        name: "bug_11_reader_takes_any_generation",
        file: VIEW,
        edits: &[
            ("if newest <= self.newest_generation() {", "if newest == self.newest_generation() {"),
            (".filter(|held| held.generation >= self.serving_generation(now))", ""),
        ],
    },
    Bug {
        name: "bug_12_failed_replay_is_recorded_as_never_minted",
        file: LIFECYCLE,
        edits: &[("intent.filter(|intent| intent.is_replay)", "intent.filter(|_| false)")],
    },
    Bug {
        name: "bug_14_no_rate_floor",
        file: LIFECYCLE,
        edits: &[("let for_ms = self.interval_left(ctx, record);", "let for_ms = 0;")],
    },
];

/// What the walk needs to see of a machine; added to each copy, because the product has no use for it.
const GLUE: [(&str, &str); 2] = [(LIFECYCLE, "lifecycle.in"), (VIEW, "view.in")];

fn main() -> Result<(), String> {
    if std::env::var_os("CARGO_FEATURE_FLEETS").is_none() {
        return Ok(());
    }
    let mut out = String::new();
    for (file, glue) in GLUE {
        let source_path = format!("../core/src/{file}.rs");
        let glue_path = format!("src/walk/{glue}");
        println!("cargo:rerun-if-changed={source_path}\ncargo:rerun-if-changed={glue_path}");
        let source = ours(&read(&source_path)?);
        let glue = read(&glue_path)?;
        module(&mut out, &format!("shipped_{file}"), &source, &glue);
        for bug in BUGS.iter().filter(|bug| bug.file == file) {
            module(&mut out, bug.name, &seeded(bug, &source)?, &glue);
        }
    }
    let dir = std::env::var("OUT_DIR").map_err(|e| format!("OUT_DIR: {e}"))?;
    std::fs::write(Path::new(&dir).join("machines.rs"), out).map_err(|e| format!("cannot write machines.rs: {e}"))
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))
}

/// The source without its module comment and tests, and with the core's names seen from outside.
fn ours(source: &str) -> String {
    let body = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = body.lines().filter(|line| !line.starts_with("//!"));
    let mut text = lines.collect::<Vec<_>>().join("\n");
    text.push('\n');
    text.replace("crate::", "keyreeve_core::")
}

fn seeded(bug: &Bug, source: &str) -> Result<String, String> {
    let mut text = source.to_owned();
    for (old, new) in bug.edits {
        let found = text.matches(old).count();
        if found != 1 {
            return Err(format!(
                "{}: this text is {found} times in {}.rs, not once; fit the bug to the source again: {old}",
                bug.name, bug.file
            ));
        }
        text = text.replace(old, new);
    }
    Ok(text)
}

fn module(out: &mut String, name: &str, source: &str, glue: &str) {
    let _ = writeln!(out, "#[allow(warnings, clippy::all, missing_docs)]\npub mod {name} {{\n{source}\n{glue}\n}}\n");
}
