//! The module that the platform calls, written around the exports of the generated glue.
//!
//! Only what is meant to be called from outside becomes callable: `fetch`, the platform's events, functions named
//! `rpc_..`, and Durable Objects, which are the classes with a method `fetch`.

use std::fmt::Write;

const SHIM: &str = include_str!("shim.js");
/// Answers what needs no waiting, where the Worker has such a function.
const NOW: &str = "answer_now";
const EVENTS: &[&str] = &["scheduled", "queue", "email"];

/// The text of `index.js` for this `glue.js`.
///
/// # Errors
/// When the glue exports no `fetch`: then it is not a Worker's, or wasm-bindgen writes exports in another way.
pub(crate) fn of(glue: &str) -> Result<String, String> {
    let mut text = SHIM.to_owned();
    let functions: Vec<&str> = exported(glue, "function ").map(|(name, _)| name).collect();
    if !functions.contains(&"fetch") {
        return Err("the glue exports no function `fetch`".into());
    }
    let now = if functions.contains(&NOW) { ", glue.answer_now" } else { "" };
    for name in functions {
        // Writing to a String does not fail.
        let _ = match name.strip_prefix("rpc_") {
            _ if name == "fetch" => writeln!(text, "serve(glue.fetch{now});"),
            _ if EVENTS.contains(&name) => writeln!(text, "handle(\"{name}\", glue.{name});"),
            Some(method) => writeln!(text, "offer(\"{method}\", glue.{name});"),
            None => Ok(()),
        };
    }
    for (name, body) in exported(glue, "class ") {
        if body.contains("\n    fetch(") {
            let _ = writeln!(text, "export const {name} = object(glue.{name});");
        }
    }
    Ok(text)
}

/// Names of what is exported as `kind`, each with its text.
fn exported<'a>(glue: &'a str, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    glue.split("\nexport ").skip(1).filter_map(move |text| {
        let declaration = text.strip_prefix(kind)?;
        let name = declaration.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').next()?;
        // The body ends where a brace stands at the start of a line.
        let body = declaration.split("\n}").next()?;
        Some((name, body))
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    const GLUE: &str = r"import source wasmModule from './glue_bg.wasm';

export class Keyreeve {
    free() {
    }
    /**
     * @param {Request} req
     */
    fetch(req) {
    }
}

export class R2Range {
    get length() {
    }
}
class Hidden {
    fetch(req) {
    }
}

export function __worker_init_state() {
}

export function fetch(req, env, ctx) {
}
export function rpc_token(env, ctx, name) {
}
export function scheduled(event, env, ctx) {
}
export function secret_of(name) {
}
";

    #[test]
    fn only_what_is_meant_for_outside_is_callable() {
        let text = of(GLUE).unwrap();
        let lines: Vec<&str> = text.lines().skip_while(|line| *line != "serve(glue.fetch);").collect();
        assert_eq!(
            lines,
            [
                "serve(glue.fetch);",
                r#"offer("token", glue.rpc_token);"#,
                r#"handle("scheduled", glue.scheduled);"#,
                "export const Keyreeve = object(glue.Keyreeve);",
            ]
        );
    }

    #[test]
    fn what_can_be_answered_at_once_is_asked_for_first() {
        let text = of(&format!("{GLUE}export function answer_now(ctx, url) {{\n}}\n")).unwrap();
        assert!(text.contains("\nserve(glue.fetch, glue.answer_now);\n"));
        assert!(!text.contains("\"answer_now\""), "nobody outside calls it");
    }

    #[test]
    fn a_glue_without_fetch_is_refused() {
        assert!(of("export function scheduled(event, env, ctx) {\n}\n").unwrap_err().contains("`fetch`"));
    }
}
