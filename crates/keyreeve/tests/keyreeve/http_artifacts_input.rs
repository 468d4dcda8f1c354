//! Bad input to gates of artifacts, in both ways: whatever a path or a header says, nothing of another target is read, and nothing
//! at all before a token was found good.

use std::sync::LazyLock;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Request};
use keyreeve::artifact::name::is_part;
use keyreeve::config::Compat;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::http_artifacts::{Gate, T};

const SDL: &str = "type Query { ok: Boolean }";

/// One gate of each kind, for all cases of a property.
struct Gates {
    clock: Runtime,
    gates: [(Compat, Gate); 2],
}

static GATES: LazyLock<Gates> = LazyLock::new(|| {
    let clock = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let gate = |compat| clock.block_on(Gate::new(compat));
    let gates = [(Compat::Own, gate(Compat::Own)), (Compat::Hive, gate(Compat::Hive))];
    Gates { clock, gates }
});

/// What a gate answers: its kind, the status, the body, and the names of the objects that it asked its buckets for.
type Told = (Compat, u16, String, Vec<String>);

impl Gates {
    /// What each gate answers; nothing where the path is none of HTTP.
    fn ask(&self, path: &str, headers: &[(HeaderName, HeaderValue)]) -> Option<Vec<Told>> {
        let mut answers = Vec::new();
        for (compat, gate) in &self.gates {
            let mut request = Request::get(path).body(Body::empty()).ok()?;
            for (name, value) in headers {
                request.headers_mut().append(name, value.clone());
            }
            let names =
                || [&gate.primary, &gate.mirror].map(|bucket| std::mem::take(&mut *bucket.names.lock().unwrap()));
            names();
            let answer = self.clock.block_on(gate.answer(request));
            answers.push((*compat, answer.status.as_u16(), answer.body, names().concat()));
        }
        Some(answers)
    }
}

/// Whether a name stays below a target that is a part of the path.
fn is_of(path: &str, name: &str) -> bool {
    let mut parts = name.split('/');
    let (word, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    ["artifact", "app", "app-v2", "apps-enabled"].contains(&word)
        && path.split('/').any(|part| part == target)
        && std::iter::once(target).chain(parts).all(is_part)
}

/// A token, or something like one.
fn token() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => Just(b"good".to_vec()),
        1 => prop::sample::select(vec!["Bearer good", "bearer good", "Bearer  good", "Bearer good,good", "Basic good", "good good", " good", "good ", "good,good", "GOOD", "good\t", "go\"od", "Bearer", "Bearer ", ""]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(prop_oneof![Just(b'\t'), 0x20_u8..0x7f, 0x80_u8..=0xff], 0..40),
        1 => (500_usize..9000).prop_map(|count| b"good".repeat(count / 4)),
    ]
}

fn header() -> impl Strategy<Value = (HeaderName, Vec<u8>)> {
    let names = [
        "x-hive-cdn-key",
        "x-hive-cdn-key",
        "authorization",
        "authorization",
        "cookie",
        "x-hive-cdn-key-",
        "proxy-authorization",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-forwarded-for",
        "forwarded",
    ];
    (prop::sample::select(names.to_vec()).prop_map(HeaderName::from_static), token())
}

/// Whether these headers have one token, in the one place for it, and it is the one that is good.
fn is_good(compat: Compat, headers: &[(HeaderName, HeaderValue)]) -> bool {
    let all = |wanted: &str| -> Vec<&[u8]> {
        headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_bytes()).collect()
    };
    let (keys, bearers) = (all("x-hive-cdn-key"), all("authorization"));
    match (compat, keys.as_slice(), bearers.as_slice()) {
        (Compat::Hive, [b"good"], _) | (Compat::Own, [b"good"], []) => true,
        (Compat::Own, [], [bearer]) => bearer
            .split_at_checked(7)
            .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case(b"bearer ") && token == b"good"),
        _ => false,
    }
}

proptest! {
    #[test]
    fn no_path_leads_out_of_its_target(
        start in prop::sample::select(vec![format!("/artifacts/v1/{T}"), format!("/{T}"), "/artifacts/v1".into(), "/artifacts".into(), String::new(), "/_health".into()]),
        below in prop::collection::vec(prop::sample::select(vec!["/sdl", "/services", "/..", "/.", "/%2e%2e", "/%2E.", "//", "/%2f", "%2f", "%5c", "\\", "%00", "%", "%0", "%ff", "/version", "/11111111-2222-4333-8444-555555555555", "/contracts", "/apps", "/web", "/1.0", "/.git", "?x=/..", ";a=b", "/a:b", "/~", "+", "/artifact", "/cdn-keys", "/00000000-7dec-11d0-a765-00a0c91e6bf6"]), 0..6),
    ) {
        let path = format!("{start}{}", below.concat());
        let good = [(HeaderName::from_static("x-hive-cdn-key"), HeaderValue::from_static("good"))];
        let Some(answers) = GATES.ask(&path, &good) else { return Ok(()) };
        let bare = path.split_once('?').map_or(path.as_str(), |(bare, _)| bare);
        let is_trick = bare.contains(['%', '\\', ';', '+', '~']) || bare.split('/').any(|part| part.starts_with('.')) || bare.trim_end_matches('/').contains("//");
        for (compat, status, body, names) in answers {
            prop_assert!(status < 500 || status == 501, "{:?} {}: {}", compat, path, status);
            prop_assert!(names.iter().all(|name| is_of(bare, name)), "{:?} {}: {:?}", compat, path, names);
            if is_trick {
                prop_assert!(names.is_empty() && status >= 400, "{:?} {}: {} {:?}", compat, path, status, names);
                prop_assert!(!body.contains(SDL), "{:?} {}", compat, path);
            }
        }
    }

    #[test]
    fn no_header_but_one_good_token_lets_anything_be_read(headers in prop::collection::vec(header(), 0..4)) {
        let headers: Vec<_> = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name, HeaderValue::from_bytes(&value).ok()?)))
            .collect();
        for path in [format!("/artifacts/v1/{T}/sdl"), format!("/artifacts/v1/{T}/supergraph")] {
            for (compat, status, body, names) in GATES.ask(&path, &headers).expect("the path is one") {
                if is_good(compat, &headers) {
                    prop_assert!(status == if path.ends_with("sdl") { 200 } else { 404 }, "{:?} {}", compat, status);
                } else {
                    prop_assert!([400, 401, 403, 431].contains(&status), "{:?} {} {:?}", compat, status, headers);
                    prop_assert!(names.is_empty() && !body.contains(SDL), "{:?} {:?}", compat, names);
                }
            }
        }
    }
}
