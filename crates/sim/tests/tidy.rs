//! The rules that no compiler checks, read off the manifests and the sources of the whole repository.
//!
//! Nothing but `std`: `scripts/test` compiles this one file by itself and has the verdict before the first crate builds.
//! Each rule is a function from text to complaints, and has a test below that shows it a text it must complain about.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our own packages each package may name, in its manifest and in its code. Arrows point one way only.
const ARROWS: &[(&str, &[&str])] = &[
    ("keyreeve-core", &[]),
    ("keyreeve-picky", &[]),
    ("keyreeve-bindgen", &[]),
    // Its tests turn on its features by naming it.
    ("keyreeve", &["keyreeve", "keyreeve-core"]),
    ("keyreeve-server", &["keyreeve", "keyreeve-core", "keyreeve-picky"]),
    ("keyreeve-sim", &["keyreeve", "keyreeve-core"]),
    // The suite that checks its engines runs inside of it, in builds for tests only.
    ("keyreeve-worker", &["keyreeve", "keyreeve-core", "keyreeve-sim"]),
    ("keyreeve-example-axum-jwt", &["keyreeve"]),
    ("keyreeve-example-rust-worker", &[]),
];
/// The core decides, so it needs little. A longer list is a decision to be written down, not a convenience.
const CORE_MAY_USE: &[&str] = &["base64", "minicbor", "subtle", "thiserror", "zeroize"];
/// Its tests judge the seal with a real cipher, and read the cases that other languages share.
const CORE_MAY_USE_IN_TESTS: &[&str] = &["chacha20poly1305", "hmac", "p256", "proptest", "serde", "serde_json", "sha2"];
/// What would give the core a clock, a runtime, chance, a log or the world.
const CORE_NEVER_SAYS: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::io",
    "std::os",
    "SystemTime",
    "Instant::now",
    "async fn",
    "async move",
    ".await",
    "tokio",
    "futures",
    "getrandom",
    "tracing::",
    "println!",
    "eprintln!",
    "static mut",
    "OnceLock",
    "thread_local!",
    "RandomState",
    "HashMap::new",
    "HashSet::new",
];
const LINES_MAX: usize = 800;
/// Written in two parts, so that this file does not break its own rules.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
const BANNED_WORDS: &[&str] = &["manager", "helper", "helpers", "util", "utils"];
const BANNED_CODE: &[(&str, &str)] = &[
    ("fn get_", "a getter is named after what it returns"),
    ("#[ignore", "a test that does not run proves nothing"),
    (", ignore)]", "a test that does not run proves nothing"),
    ("todo!", "unfinished code does not land"),
    ("unimplemented!", "unfinished code does not land"),
];
const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("deb.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
];

// --- the repository ---------------------------------------------------------------------------------------------

#[test]
fn dependencies_point_one_way() {
    let mut complaints = Vec::new();
    for manifest in files().iter().filter(|path| is_package_of_ours(path)) {
        let text = read(manifest);
        complaints.extend(about(manifest, manifest_complaints(&text)));
        let package = package_name(&text);
        for source in rust_below(manifest.parent().unwrap()) {
            complaints.extend(about(&source, arrow_complaints(&package, &code_only(&read(&source)))));
        }
    }
    none(complaints);
}

#[test]
fn the_core_names_nothing_that_could_wait_look_or_roll_dice() {
    let sources = rust_below(&root().join("crates/core/src"));
    assert!(!sources.is_empty());
    none(sources.iter().flat_map(|path| about(path, core_complaints(&code_only(&read(path))))).collect());
}

#[test]
fn every_rust_file_is_short_and_says_things_by_their_names() {
    let mut complaints = Vec::new();
    for path in rust_below(&root()) {
        let text = read(&path);
        complaints.extend(about(&path, length_complaints(&text)));
        complaints.extend(about(&path, name_complaints(&code_only(&text))));
        complaints.extend(about(&path, file_name_complaints(&path)));
        complaints.extend(about(&path, doc_test_complaints(&text)));
    }
    none(complaints);
}

#[test]
fn nothing_unfinished_no_registry_and_no_secret_is_committed() {
    let mut complaints = Vec::new();
    for path in files() {
        // A lock file is written by its tool, and cargo's names the index it read.
        if path.file_name().is_some_and(|name| name == "Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let is_prose = path.extension().is_some_and(|ending| ending == "md");
        complaints.extend(about(&path, if is_prose { Vec::new() } else { unfinished_complaints(&text) }));
        complaints.extend(about(&path, registry_complaints(&text)));
        let is_test_material =
            path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "vectors");
        complaints.extend(about(&path, if is_test_material { Vec::new() } else { secret_complaints(&text) }));
    }
    none(complaints);
}

#[test]
fn every_dependency_has_its_reason_written_down() {
    let manifest = read(&root().join("Cargo.toml"));
    let reasons = read(&root().join("docs/decisions/dependencies.md"));
    none(reason_complaints(&manifest, &reasons));
}

// --- the rules --------------------------------------------------------------------------------------------------

/// One entry of a dependency table.
#[derive(Debug, PartialEq)]
struct Dependency {
    name: String,
    is_dev: bool,
    /// What is written after the name.
    rest: String,
}

/// The dependencies of a manifest. Reads the subset of TOML that our manifests use: one entry a line, or one table each.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut table = String::new();
    for line in manifest.lines().map(|line| line.split('#').next().unwrap().trim()) {
        if line.starts_with('[') {
            table = line.trim_matches(|c| c == '[' || c == ']').to_owned();
            if let Some((kind, name)) = table.rsplit_once("dependencies.") {
                let is_dev = kind.ends_with("dev-");
                found.push(Dependency { name: unquoted(name), is_dev, rest: "table".into() });
            }
        } else if table.ends_with("dependencies")
            && let Some((key, rest)) = line.split_once('=')
        {
            let name = unquoted(key.split('.').next().unwrap());
            let rest = format!("{} {}", key.trim().trim_start_matches(&name), rest.trim());
            found.push(Dependency { name, is_dev: table.contains("dev-"), rest });
        }
    }
    found
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches(|c| c == '"' || c == '\'').to_owned()
}

fn package_name(manifest: &str) -> String {
    let line = manifest.lines().find(|line| line.starts_with("name")).expect("a manifest names its package");
    unquoted(line.split_once('=').unwrap().1)
}

fn is_ours(package: &str) -> bool {
    package == "keyreeve" || package.starts_with("keyreeve-")
}

fn manifest_complaints(manifest: &str) -> Vec<String> {
    let package = package_name(manifest);
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package) else {
        return vec![format!("`{package}` has no line in ARROWS: say what it may depend on")];
    };
    let mut complaints = Vec::new();
    for dependency in dependencies(manifest) {
        let name = dependency.name.as_str();
        if is_ours(name) && !allowed.contains(&name) {
            complaints.push(format!("`{package}` may not depend on `{name}`"));
        }
        let in_core = package == "keyreeve-core";
        let core_allows = CORE_MAY_USE.contains(&name) || dependency.is_dev && CORE_MAY_USE_IN_TESTS.contains(&name);
        if in_core && !core_allows {
            complaints.push(format!("the core may not use `{name}`"));
        }
        if !dependency.rest.contains("workspace") {
            complaints.push(format!("`{name}` states its own version: use the workspace's"));
        }
    }
    if !manifest.contains("[lints]\nworkspace = true") {
        complaints.push(format!("`{package}` does not take the workspace's lints"));
    }
    complaints
}

/// Paths into our own packages, which must be ones that the manifest may name.
fn arrow_complaints(package: &str, code: &str) -> Vec<String> {
    let allowed = ARROWS.iter().find(|(name, _)| *name == package).map_or(&[] as &[&str], |(_, allowed)| allowed);
    let mut complaints = Vec::new();
    for (number, line) in numbered(code) {
        for (name, _) in ARROWS {
            let is_named = words(line).any(|(word, after)| word == name.replace('-', "_") && after.starts_with("::"));
            if is_named && *name != package && !allowed.contains(name) {
                complaints.push(format!("{number}: `{package}` may not use `{name}`"));
            }
        }
    }
    complaints
}

fn core_complaints(code: &str) -> Vec<String> {
    let said = |line: &str| CORE_NEVER_SAYS.iter().find(|words| line.contains(**words));
    numbered(code)
        .filter_map(|(number, line)| said(line).map(|words| format!("{number}: the core never says `{words}`")))
        .collect()
}

fn length_complaints(text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        vec![format!("{lines} lines: more than {LINES_MAX}, so more than one subject")]
    } else {
        vec![]
    }
}

fn name_complaints(code: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in numbered(code) {
        for (text, why) in BANNED_CODE {
            if line.contains(text) {
                complaints.push(format!("{number}: `{text}`: {why}"));
            }
        }
        for (word, _) in words(line) {
            if let Some(part) = banned_part(word) {
                complaints.push(format!("{number}: `{word}`: `{part}` says nothing about what it does"));
            }
        }
    }
    complaints
}

/// The part of `LeaseManager` or `time_utils` that is no name.
fn banned_part(word: &str) -> Option<&'static str> {
    // An underscore before each capital that begins a part makes both spellings alike.
    let letters: Vec<char> = word.chars().collect();
    let is_small = |at: Option<usize>| at.and_then(|at| letters.get(at)).is_some_and(|c| c.is_lowercase());
    let mut parts = String::new();
    for (at, c) in letters.iter().enumerate() {
        if c.is_uppercase() && (is_small(at.checked_sub(1)) || is_small(Some(at + 1))) {
            parts.push('_');
        }
        parts.extend(c.to_lowercase());
    }
    // Other people's names, such as `hyper_util`, are theirs.
    if matches!(word, "hyper_util" | "http_body_util") {
        return None;
    }
    BANNED_WORDS.iter().find(|banned| parts.split('_').any(|part| part == **banned)).copied()
}

fn file_name_complaints(path: &Path) -> Vec<String> {
    let stem = path.file_stem().unwrap().to_string_lossy();
    banned_part(&stem)
        .map(|part| format!("a file named `{part}`: one subject a file, named by its noun"))
        .into_iter()
        .collect()
}

fn doc_test_complaints(text: &str) -> Vec<String> {
    let is_ignored = |line: &str| line.trim_start().starts_with("//") && line.contains("```ignore");
    numbered(text)
        .filter(|(_, line)| is_ignored(line))
        .map(|(number, _)| format!("{number}: an example that is not compiled"))
        .collect()
}

fn unfinished_complaints(text: &str) -> Vec<String> {
    let is_mark = |line: &str| words(line).find(|(word, _)| UNFINISHED.contains(word)).map(|(word, _)| word.to_owned());
    numbered(text).filter_map(|(number, line)| is_mark(line).map(|mark| format!("{number}: `{mark}`"))).collect()
}

fn registry_complaints(text: &str) -> Vec<String> {
    let host = |line: &str| REGISTRIES.iter().find(|host| line.contains(**host));
    numbered(text)
        .filter_map(|(number, line)| host(line).map(|host| format!("{number}: names the registry host `{host}`")))
        .collect()
}

/// Private keys and the tokens of services, by the shapes their makers gave them.
fn secret_complaints(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, _) in text.match_indices("PRIVATE KEY-----") {
        // The marker alone is what a parser looks for; what follows makes it a key. `\n` may be two characters in a literal.
        let after = text[at + "PRIVATE KEY-----".len()..]
            .trim_start_matches(|c: char| c.is_whitespace() || "\\nr\"'".contains(c));
        let body = after.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"+/=\n\\ ".contains(b)).count();
        if body >= 40 {
            complaints.push(format!("{}: a private key", text[..at].lines().count()));
        }
    }
    for (number, line) in numbered(text) {
        for (word, _) in words(line) {
            let shapes = [("AKIA", 20), ("ASIA", 20), ("ghp_", 40), ("ghs_", 40), ("sk_live_", 24), ("xoxb", 40)];
            let is_secret = shapes.iter().any(|(start, length)| word.starts_with(start) && word.len() >= *length);
            if is_secret && !word.ends_with("EXAMPLE") {
                complaints.push(format!("{number}: looks like a secret of a service"));
            }
        }
    }
    complaints
}

/// Each outside dependency of the workspace is in the table of reasons, and the table has no others.
fn reason_complaints(manifest: &str, reasons: &str) -> Vec<String> {
    let used: BTreeSet<String> =
        dependencies(manifest).into_iter().map(|d| d.name).filter(|name| !is_ours(name)).collect();
    let row =
        |line: &str| line.strip_prefix("| `").and_then(|rest| rest.split_once('`')).map(|(name, _)| name.to_owned());
    let explained: BTreeSet<String> = reasons.lines().filter_map(row).collect();
    let missing =
        used.difference(&explained).map(|name| format!("`{name}` has no line in docs/decisions/dependencies.md"));
    let left = explained.difference(&used).map(|name| format!("`{name}` is explained but no longer used"));
    missing.chain(left).collect()
}

// --- reading ----------------------------------------------------------------------------------------------------

/// The code without comments and without what stands in strings, line by line as it was.
fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = match (text[at], text.get(at + 1)) {
            ('/', Some('/')) => position(&text, at, |i| text[i] == '\n'),
            ('/', Some('*')) => end_of_block(&text, at),
            ('r', Some('"' | '#')) if raw_string(&text, at).is_some() => raw_string(&text, at).unwrap(),
            ('"', _) => end_of_quoted(&text, at, '"'),
            // A character, not a lifetime: something and a closing quote, or an escape.
            ('\'', Some('\\')) => end_of_quoted(&text, at, '\''),
            ('\'', Some(_)) if text.get(at + 2) == Some(&'\'') => at + 3,
            _ => {
                out.push(text[at]);
                at += 1;
                continue;
            }
        };
        out.extend(text[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

fn position(text: &[char], from: usize, is_end: impl Fn(usize) -> bool) -> usize {
    (from..text.len()).find(|at| is_end(*at)).unwrap_or(text.len())
}

fn end_of_block(text: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_u32);
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn end_of_quoted(text: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// Where the raw string that starts here ends, if one starts here.
fn raw_string(text: &[char], start: usize) -> Option<usize> {
    let is_inside_a_word =
        start > 0 && (text[start - 1].is_alphanumeric() && text[start - 1] != 'b' || text[start - 1] == '_');
    let open = position(text, start + 1, |i| text[i] != '#');
    if is_inside_a_word || text.get(open) != Some(&'"') {
        return None;
    }
    let hashes = open - start - 1;
    let closes = |at: usize| text[at] == '"' && text[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    Some((position(text, open + 1, closes) + 1 + hashes).min(text.len()))
}

/// The identifiers of a line, each with what follows it.
fn words(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.find(is_part)?;
        let end = rest[start..].find(|c| !is_part(c)).map_or(rest.len(), |length| start + length);
        let (word, after) = (&rest[start..end], &rest[end..]);
        rest = after;
        Some((word, after))
    })
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file of the checkout that could be committed.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_made =
                name == ".git" || name == "node_modules" || name == "sim-failures" || name.starts_with("target");
            if entry.file_type().unwrap().is_dir() {
                folders.extend((!is_made && name != "__pycache__").then(|| entry.path()));
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    assert!(found.iter().any(|path| path.ends_with("crates/core/src/lib.rs")), "this is not the repository");
    found
}

fn rust_below(folder: &Path) -> Vec<PathBuf> {
    let is_rust = |path: &PathBuf| path.starts_with(folder) && path.extension().is_some_and(|ending| ending == "rs");
    files().into_iter().filter(is_rust).collect()
}

/// The manifests of the workspace's members: not the root's, and not those of `bench` and `fuzz`, each a workspace of its own.
fn is_package_of_ours(path: &Path) -> bool {
    path.ends_with("Cargo.toml")
        && path.parent() != Some(&root())
        && !["bench", "fuzz", "tests"].iter().any(|other| path.starts_with(root().join(other)))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
}

fn about(path: &Path, complaints: Vec<String>) -> Vec<String> {
    let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    complaints.into_iter().map(|complaint| format!("{name}: {complaint}")).collect()
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// --- the rules can fail -----------------------------------------------------------------------------------------

const LINTS: &str = "[lints]\nworkspace = true\n";

#[test]
fn an_arrow_that_points_up_is_seen_in_a_manifest() {
    let core = |table: &str, line: &str| format!("name = \"keyreeve-core\"\n[{table}]\n{line}\n{LINTS}");
    assert_eq!(manifest_complaints(&core("dependencies", "minicbor.workspace = true")), Vec::<String>::new());
    assert_eq!(manifest_complaints(&core("dev-dependencies", "proptest.workspace = true")), Vec::<String>::new());
    for (table, line) in [
        ("dependencies", "tokio.workspace = true"),
        ("dependencies", "proptest.workspace = true"),
        ("dependencies", "keyreeve = { workspace = true }"),
        ("dev-dependencies", "tokio = { workspace = true, features = [\"rt\"] }"),
        ("build-dependencies", "serde.workspace = true"),
        ("target.'cfg(unix)'.dependencies", "libc.workspace = true"),
        ("dependencies.tokio", "workspace = true"),
        ("dependencies", "zeroize = \"1\""),
    ] {
        assert!(!manifest_complaints(&core(table, line)).is_empty(), "[{table}] {line}");
    }
    let picky = format!("name = \"keyreeve-picky\"\n[dependencies]\nkeyreeve-core.workspace = true\n{LINTS}");
    assert_eq!(manifest_complaints(&picky), ["`keyreeve-picky` may not depend on `keyreeve-core`"]);
    assert_eq!(manifest_complaints("name = \"keyreeve-new\"\n").len(), 1);
    assert_eq!(manifest_complaints("name = \"keyreeve-picky\"\n").len(), 1, "no lints");
}

#[test]
fn an_arrow_that_points_up_is_seen_in_code() {
    assert_eq!(arrow_complaints("keyreeve", "use keyreeve_core::Record;\n"), Vec::<String>::new());
    assert_eq!(
        arrow_complaints("keyreeve", "\nuse keyreeve_sim::World;\n"),
        ["2: `keyreeve` may not use `keyreeve-sim`"]
    );
    assert_eq!(arrow_complaints("keyreeve-picky", "let a = keyreeve::port::Host;").len(), 1);
    assert_eq!(
        arrow_complaints("keyreeve-core", &code_only("/// see keyreeve::port\nfn a() {}")),
        Vec::<String>::new()
    );
}

#[test]
fn a_core_that_looks_at_the_world_is_seen() {
    for line in ["use std::fs;", "let now = SystemTime::now();", "async fn a() {}", "a().await;", "tokio::spawn(a);"] {
        assert_eq!(core_complaints(line).len(), 1, "{line}");
    }
    assert_eq!(core_complaints(&code_only("// it is not async fn a() {}\nlet a = \".await\";")), Vec::<String>::new());
}

#[test]
fn a_long_file_is_seen() {
    assert!(length_complaints(&"\n".repeat(LINES_MAX)).is_empty());
    assert_eq!(length_complaints(&"\n".repeat(LINES_MAX + 1)).len(), 1);
}

#[test]
fn an_empty_name_is_seen() {
    let bad = [
        "struct LeaseManager;",
        "mod utils;",
        "fn get_token() {}",
        "struct HTTPHelper;",
        "fn parse_util() {}",
        "#[ignore]",
    ];
    for line in bad {
        assert_eq!(name_complaints(line).len(), 1, "{line}");
    }
    let good =
        ["struct Utilization;", "map.get(key)", "use hyper_util::rt;", "fn target_get() {}", "fn managers_of() {}"];
    for line in good {
        assert_eq!(name_complaints(line), Vec::<String>::new(), "{line}");
    }
    assert_eq!(file_name_complaints(Path::new("src/helpers.rs")).len(), 1);
    assert_eq!(file_name_complaints(Path::new("src/lease.rs")).len(), 0);
    assert_eq!(doc_test_complaints("/// ```ignore\n/// a()\n/// ```").len(), 1);
}

#[test]
fn unfinished_work_is_seen() {
    for mark in UNFINISHED {
        assert_eq!(unfinished_complaints(&format!("// {mark}: later")), [format!("1: `{mark}`")]);
        assert_eq!(unfinished_complaints(&format!("{mark}S")), Vec::<String>::new());
    }
}

#[test]
fn a_registry_host_is_seen() {
    for host in REGISTRIES {
        assert_eq!(registry_complaints(&format!("\nfetch https://static.{host}/a\n")).len(), 1, "{host}");
    }
}

#[test]
fn a_secret_is_seen() {
    let marker = concat!("-----BEGIN EC PRIV", "ATE KEY-----");
    let key = format!("{marker}\nMHcCAQEEIABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrst\n");
    assert_eq!(secret_complaints(&key).len(), 1);
    assert_eq!(secret_complaints(&key.replace('\n', "\\n")).len(), 1, "in a literal");
    assert_eq!(
        secret_complaints(&format!("text.starts_with(\"{marker}\") && text.ends_with(other)")),
        Vec::<String>::new()
    );
    assert_eq!(secret_complaints(&format!("key = \"AKIA{}\"", "A1B2".repeat(4))).len(), 1);
    assert_eq!(secret_complaints(&format!("token = \"ghp_{}\"", "a1B2".repeat(9))).len(), 1);
    assert_eq!(secret_complaints("key = \"AKIAIOSFODNN7EXAMPLE\""), Vec::<String>::new());
}

#[test]
fn a_dependency_without_a_reason_and_a_reason_without_a_dependency_are_seen() {
    let manifest = "[workspace.dependencies]\nkeyreeve = { path = \"a\" }\nbytes = \"1\"\nhttp = \"1\"\n[profile.dev]\ndebug = false\n";
    assert_eq!(reason_complaints(manifest, "| `bytes` | why |\n| `http` | why |\n"), Vec::<String>::new());
    let complaints = reason_complaints(manifest, "| `bytes` | why |\n| `hyper` | why |\n");
    assert_eq!(
        complaints,
        ["`http` has no line in docs/decisions/dependencies.md", "`hyper` is explained but no longer used"]
    );
}

#[test]
fn comments_and_strings_are_not_code() {
    let source = "a /* b /* c */ d */ e // f\n\"g \\\" h\" 'i' '\\'' 'life r#\"j \" k\"# l br\"m\" for n";
    let code = code_only(source);
    assert_eq!(code.lines().count(), 2);
    assert_eq!(words(&code).map(|(word, _)| word).collect::<Vec<_>>(), ["a", "e", "life", "l", "b", "for", "n"]);
}
