//! Texts that are no tokens: refused before anything is read or compared.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use keyreeve::core::token::TokenId;
use keyreeve::core::token::text::{hv2, native};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::access_world::{Node, World};

const PRIVATE: &str = "0123456789abcdef0123456789abcdef";
const ID: TokenId = TokenId([0xab; 16]);

struct Places {
    clock: Runtime,
    world: World,
    node: Node,
}

static PLACES: LazyLock<Places> = LazyLock::new(|| {
    let clock = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let (world, node) = clock.block_on(async {
        let world = World::new();
        let node = world.node("one").await;
        (world, node)
    });
    Places { clock, world, node }
});

/// What is said of a text, and what that cost: reads of the register, and of the hashes of others.
fn said(text: &str) -> (&'static str, u64, u64) {
    let Places { clock, world, node } = &*PLACES;
    let cost = || (world.reads(), world.elsewhere.asked.load(Ordering::SeqCst) + world.compared());
    let before = cost();
    let said = clock.block_on(node.says("acme", text));
    let after = cost();
    (said, after.0 - before.0, after.1 - before.1)
}

fn encode(plain: &str) -> String {
    format!("hv2{}", base64::engine::general_purpose::STANDARD.encode(plain))
}

/// What a key of Hive has in it that is none: an id that is not canonical, or a private key that no Hive has made.
fn other_key() -> impl Strategy<Value = String> {
    let uuid = ID.to_string();
    let ids = vec![
        uuid.to_uppercase(),
        uuid.replace('-', ""),
        format!("{{{uuid}}}"),
        format!("urn:uuid:{uuid}"),
        format!(" {uuid}"),
        format!("{uuid}\0"),
        format!("../{uuid}"),
        uuid.replacen('-', "/", 1),
        uuid.get(1..).unwrap_or_default().to_owned(),
        format!("{uuid}0"),
        String::new(),
    ];
    prop_oneof![
        prop::sample::select(ids).prop_map(|id| format!("{id}:{PRIVATE}")),
        "[0-9a-f]{0,9}|[0-9a-f]{41,60}|[G-Zg-z:/. ]{10,40}".prop_map(|key| format!("{ID}:{key}")),
        "[0-9a-f-]{0,60}",
    ]
}

proptest! {
    #[test]
    fn what_cannot_be_a_token_costs_no_read(
        junk in "\\PC{0,60}",
        plain in other_key(),
        at in 0_usize..200,
        letter in prop::sample::select(vec![" ", "\t", "\r\n", "\0", "=", "%20", "-", "_", ".", "é", "\u{202e}"]),
        count in 400_usize..2000,
    ) {
        let is_legacy = |text: &str| text.len() == 44 && base64::engine::general_purpose::STANDARD.decode(text).is_ok();
        let (own, theirs) = (native(ID, &[9; 32]), hv2(ID, PRIVATE));
        let put_in = |text: &str| {
            let (before, after) = text.split_at(at % (text.len() + 1));
            format!("{before}{letter}{after}")
        };
        let cut = |text: &str| text.get(..at % text.len()).unwrap_or_default().to_owned();
        for text in [
            junk.clone(),
            format!("hv2{junk}"),
            format!("krt_{junk}"),
            encode(&plain),
            put_in(own.expose()),
            put_in(theirs.expose()),
            cut(own.expose()),
            cut(theirs.expose()),
            format!("{}{}", own.expose(), "0".repeat(count)),
            encode(&format!("{ID}:{}", "0".repeat(count))),
        ] {
            // What was cut between two groups of base64 is a key that is shorter.
            if is_legacy(&text) || (theirs.expose().starts_with(&text) && (text.len() + 1) % 4 == 0) {
                continue;
            }
            prop_assert_eq!(said(&text), ("malformed", 0, 0), "{:?}", text);
        }
    }
}
