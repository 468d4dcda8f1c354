//! Which object the path of a request stands for.
//!
//! INVARIANT: the name of an object begins with one of four words and the target of the request, and has no part that is empty or
//! begins with a dot. Whatever else a path says (`%`, `..`, `//`, NUL, a backslash) is no name, and nothing is read for it.

/// The longest part of a path, in bytes.
const PART_BYTES_MAX: usize = 128;
/// The most parts below a target.
const PARTS_MAX: usize = 16;
/// The longest name of an object, in bytes: S3 takes 1024 with the prefix of the bucket.
const NAME_BYTES_MAX: usize = 768;
/// The longest name of an object that others may have given it, in bytes.
const LISTED_BYTES_MAX: usize = 1024;
/// What artifacts are below, in paths.
const V1: &str = "/artifacts/v1/";

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked<'p> {
    /// Whose artifact it is.
    pub target: &'p str,
    /// The artifact below its target, beginning with a slash.
    pub path: String,
    /// Which kind of artifact: the last part of the path.
    pub kind: &'p str,
    /// The object.
    pub object: String,
    /// Where the same bytes are if they are not there: Hive has stored them in two ways.
    pub or: Option<String>,
    /// An object that must exist too, or this one is not there.
    pub needs: Option<String>,
    /// Whether it never changes.
    pub is_fixed: bool,
    /// Whether it is asked for in the old way, in which the artifact is the whole path.
    pub is_v0: bool,
}

/// What a path means to a gate that answers as the CDN of Hive does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hive<'p> {
    /// Whether the gate lives.
    Health,
    /// An artifact.
    Artifact(Asked<'p>),
    /// An artifact that has moved: to the same path with `services` for `schema`.
    Moved,
    /// Nothing.
    Nothing,
    /// The old way, without a target.
    NoTarget,
    /// The old way, with a type that is none.
    BadType(&'p str),
    /// The old way, with a type that this gate does not make.
    NotMade(&'p str),
}

/// Whether a text may be part of the name of an object.
#[must_use]
pub fn is_part(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    (1..=PART_BYTES_MAX).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_letter)
}

/// What a path means in keyreeve's own way: `/artifacts/v1/TARGET/PATH`. `None` is nothing.
#[must_use]
pub fn own(path: &str) -> Option<Asked<'_>> {
    let (target, below) = path.strip_prefix(V1)?.split_once('/')?;
    stored(target, below)
}

/// An artifact of a target, by its path without a slash at the start. `None` where that is no name.
#[must_use]
pub fn stored<'p>(target: &'p str, below: &'p str) -> Option<Asked<'p>> {
    let mut kind = below;
    let mut count = 0_usize;
    for part in below.split('/') {
        count = count.saturating_add(1);
        if count > PARTS_MAX || !is_part(part) {
            return None;
        }
        kind = part;
    }
    let is_fixed = below.strip_prefix("version/").is_some_and(|rest| rest.contains('/'));
    let asked = Asked {
        target,
        path: format!("/{below}"),
        kind,
        object: format!("artifact/{target}/{below}"),
        or: None,
        needs: None,
        is_fixed,
        is_v0: false,
    };
    (is_part(target) && asked.object.len() <= NAME_BYTES_MAX).then_some(asked)
}

/// Whether a list may go on after this: a name below a target, though perhaps of no artifact.
#[must_use]
pub fn is_listable(below: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    below.len() <= LISTED_BYTES_MAX && below.split('/').all(is_part)
}

/// What a path means to the CDN of Hive.
#[must_use]
pub fn hive(path: &str) -> Hive<'_> {
    if path.trim_end_matches('/') == "/_health" {
        return Hive::Health;
    }
    let bare = path.strip_suffix('/').unwrap_or(path);
    if let Some(rest) = bare.strip_prefix(V1) {
        return v1(rest).unwrap_or(Hive::Nothing);
    }
    if bare.starts_with("/artifacts") {
        return Hive::Nothing;
    }
    v0(bare.strip_prefix('/').unwrap_or(bare))
}

/// The object that a type is stored as, with the type as it is asked for; `None` for `schema`, which has moved.
fn object_of(kind: &str) -> Option<&str> {
    match kind {
        "sdl.graphql" | "sdl.graphqls" => Some("sdl"),
        "metadata" | "sdl" | "services" | "supergraph" => Some(kind),
        _ => None,
    }
}

fn v1(rest: &str) -> Option<Hive<'_>> {
    let (target, below) = rest.split_once('/')?;
    // The longest has five; on every request, so not worth an allocation.
    let mut parts = [""; 5];
    let mut count = 0_usize;
    for part in below.split('/') {
        *parts.get_mut(count)? = is_part(part).then_some(part)?;
        count += 1;
    }
    let parts = parts.get(..count).filter(|_| is_part(target))?;
    if let ["apps", app, version, hash] = parts {
        let needs = Some(format!("apps-enabled/{target}/{app}/{version}"));
        // A hash is the same in every version: first as newer Hives store it, then as older ones have.
        let object = format!("app-v2/{target}/{app}/{hash}");
        let or = Some(format!("app/{target}/{app}/{version}/{hash}"));
        let path = format!("/{below}");
        return Some(Hive::Artifact(Asked {
            target,
            path,
            kind: "apps",
            object,
            or,
            needs,
            is_fixed: false,
            is_v0: false,
        }));
    }
    let (kind, is_fixed) = match parts {
        [kind] | ["contracts", _, kind] => (*kind, false),
        ["version", version, kind] | ["version", version, "contracts", _, kind] if is_uuid(version) => (*kind, true),
        _ => return None,
    };
    let Some(object) = object_of(kind) else {
        return (kind == "schema" && !is_fixed).then_some(Hive::Moved);
    };
    let before = below.strip_suffix(kind)?;
    let asked = Asked {
        target,
        path: format!("/{before}{object}"),
        kind: object,
        object: format!("artifact/{target}/{before}{object}"),
        or: None,
        needs: None,
        is_fixed,
        is_v0: false,
    };
    Some(Hive::Artifact(asked))
}

fn v0(rest: &str) -> Hive<'_> {
    let (target, kind) = rest.split_once('/').unwrap_or((rest, "schema"));
    if target.is_empty() {
        return Hive::NoTarget;
    }
    if !is_part(target) || kind.contains('/') {
        return Hive::Nothing;
    }
    let object = match kind {
        "schema" => "services",
        "sdl" | "supergraph" | "metadata" => kind,
        "introspection" => return Hive::NotMade(target),
        kind => return Hive::BadType(kind),
    };
    Hive::Artifact(Asked {
        target,
        path: format!("/{object}"),
        kind: object,
        object: format!("artifact/{target}/{object}"),
        or: None,
        needs: None,
        is_fixed: false,
        is_v0: true,
    })
}

/// Whether a text is a UUID in the usual form, of either case.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TARGET: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
    const VERSION: &str = "0f1b7f2e-7dec-11d0-a765-00a0c91e6bf6";

    fn object(path: &str) -> Option<String> {
        match hive(path) {
            Hive::Artifact(asked) => Some(asked.object),
            _ => None,
        }
    }

    #[test]
    fn each_route_of_hive_is_its_object() {
        let t = TARGET;
        for (path, wanted) in [
            (format!("/artifacts/v1/{t}/sdl"), format!("artifact/{t}/sdl")),
            (format!("/artifacts/v1/{t}/sdl/"), format!("artifact/{t}/sdl")),
            (format!("/artifacts/v1/{t}/sdl.graphqls"), format!("artifact/{t}/sdl")),
            (
                format!("/artifacts/v1/{t}/contracts/mobile/supergraph"),
                format!("artifact/{t}/contracts/mobile/supergraph"),
            ),
            (format!("/artifacts/v1/{t}/version/{VERSION}/sdl"), format!("artifact/{t}/version/{VERSION}/sdl")),
            (
                format!("/artifacts/v1/{t}/version/{VERSION}/contracts/m/services"),
                format!("artifact/{t}/version/{VERSION}/contracts/m/services"),
            ),
            (format!("/artifacts/v1/{t}/apps/web/1.0/sha256:ab"), format!("app-v2/{t}/web/sha256:ab")),
            (format!("/{t}"), format!("artifact/{t}/services")),
            (format!("/{t}/sdl"), format!("artifact/{t}/sdl")),
        ] {
            assert_eq!(object(&path), Some(wanted), "{path}");
        }
        assert_eq!(hive(&format!("/artifacts/v1/{t}/schema")), Hive::Moved);
        assert_eq!(hive("/"), Hive::NoTarget);
        assert_eq!(hive("/t/nothing"), Hive::BadType("nothing"));
        for path in ["/_health", "/_health/", "/_health//"] {
            assert_eq!(hive(path), Hive::Health, "{path}");
        }
        for path in ["/artifacts/v1/t/sdl2", "/artifacts/v1/t", "/artifacts/v1/t/version/1/sdl", "/artifacts/v2/t/sdl"]
        {
            assert_eq!(hive(path), Hive::Nothing, "{path}");
        }
    }

    #[test]
    fn tricks_are_no_names() {
        for below in [
            "..",
            ".",
            "../t2/sdl",
            "sdl/../../t2/sdl",
            "%2e%2e/sdl",
            "sdl%00",
            "a//b",
            "/sdl",
            "a/",
            "a\\b",
            "a b",
            "",
            ".git",
            "a\0b",
            "a\u{ff0e}b",
            "sdl?x",
            "sdl#x",
            "a+b",
        ] {
            assert_eq!(own(&format!("/artifacts/v1/{TARGET}/{below}")), None, "{below}");
            assert_eq!(object(&format!("/artifacts/v1/{TARGET}/{below}")), None, "{below}");
        }
        for target in ["..", "%2e%2e", "", ".", "a b"] {
            assert_eq!(own(&format!("/artifacts/v1/{target}/sdl")), None, "{target}");
        }
        assert_eq!(own(&format!("/artifacts/v1/t/{}", "a/".repeat(16) + "a")), None);
        assert!(own(&format!("/artifacts/v1/t/{}", "a/".repeat(15) + "a")).is_some());
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_target(path in "(/artifacts/v1)?(/(\\.{1,3}|sdl|version|apps|[a-z.%/\\\\:0-9-]|%2[eEfF]|\\PC){0,12}){0,7}") {
            let found = match hive(&path) {
                Hive::Artifact(asked) => Some(asked),
                _ => None,
            };
            for asked in found.into_iter().chain(own(&path)) {
                let below = ["artifact", "app-v2"].iter().find_map(|word| asked.object.strip_prefix(&format!("{word}/{}/", asked.target)));
                let below = below.expect("it begins with its target");
                prop_assert!(below.split('/').all(is_part), "{}", asked.object);
                prop_assert!(is_part(asked.target));
                // As the library understands it too.
                let parsed = object_store::path::Path::parse(&asked.object).expect("it is a path");
                prop_assert_eq!(parsed.as_ref(), asked.object.as_str());
                for (word, other) in [("apps-enabled", asked.needs), ("app", asked.or)] {
                    let Some(other) = other else { continue };
                    let below = other.strip_prefix(&format!("{word}/{}/", asked.target)).expect("it begins with its target");
                    prop_assert!(below.split('/').all(is_part), "{}", other);
                }
            }
        }
    }
}
