//! Nodes on a PostgreSQL of their own, over TLS with a password, and what becomes of them when it is killed.

use std::process::Command;

use keyreeve_picky::upstream;

use crate::mtls::Authority;
use crate::node::{PROGRAM, Place, http_credential, until};
use crate::private::Private;

/// A server with a certificate for `localhost`, and a configuration that uses it.
struct World {
    server: Private,
    place: Place,
    store: String,
}

fn world() -> World {
    let (authority, other) = (Authority::new(), Authority::new());
    let certificate = authority.sign(&rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap());
    let place = Place::new();
    for (name, text) in [
        ("db.pem", &certificate.pem),
        ("db.key", &certificate.key),
        ("ca.pem", &authority.pem),
        ("other-ca.pem", &other.pem),
    ] {
        place.secret(name, text);
    }
    let (pem, key) = (place.path("db.pem"), place.path("db.key"));
    let (pem, key) = (pem.to_str().unwrap(), key.to_str().unwrap());
    let server = Private::start("postgres.py", &["--tcp", "--certificate", pem, "--key", key, "--only-tls"]);
    place.secret("db.password", server.text("password"));
    let port = &server.said["port"];
    let (password, ca) = (place.path("db.password"), place.path("ca.pem"));
    let store = format!(
        "postgres://keyreeve@localhost:{port}/keyreeve\"\nstore.password = \"file:{}\"\nstore.timeout = \"5s\"\n\
         store.ca = \"file:{}",
        password.display(),
        ca.display()
    );
    World { server, place, store }
}

impl World {
    fn doctor(&self, store: &str) -> String {
        let seal = format!("[\"file:{}\"]", self.place.path("seal.key").display());
        let config = self.place.config_with(store, &seal, &http_credential("http://127.0.0.1:9/mint", ""));
        let output = Command::new(PROGRAM).args(["doctor", "-c"]).arg(config).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_postgres_over_tls_and_one_starts_while_it_is_down() {
    let world = world();
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let seal = format!("[\"file:{}\"]", world.place.path("seal.key").display());
    let credential = http_credential(&issuer.mint_url(), "keep = \"always\"\nlife = { poll = \"100ms\" }");
    let config = world.place.config_with(&world.store, &seal, &credential);
    let (one, two) = (world.place.node(&config, "one", &[]), world.place.node(&config, "two", &[]));
    let first = one.token_text("up").await;
    assert_eq!(two.token_text("up").await, first);

    world.server.tell("kill");
    assert_eq!(one.token_text("up").await, first, "what is held is served");
    let three = world.place.node(&config, "three", &[]);
    assert_eq!(three.get("/v1/credentials/up/token?min_ttl=1s").await.0, 503);
    world.server.tell("start");
    until("the third has it too", async || (three.token("up").await.0 == 200).then_some(())).await;
    assert_eq!(three.token_text("up").await, first);
    assert_eq!(issuer.score().mints, 1, "one token for the whole fleet");
}

#[test]
fn doctor_looks_at_a_postgres_and_says_what_it_would_forget() {
    let world = world();
    let said = world.doctor(&world.store);
    assert!(said.contains("OK    store: `postgres://keyreeve@localhost:"), "{said}");
    assert!(said.contains("answers, may be written to, and has a schema that this version knows"), "{said}");
    assert!(said.contains("OK    up: nothing is stored yet"), "{said}");

    let said = world.doctor(&world.store.replace("/ca.pem", "/other-ca.pem"));
    assert!(said.contains("FAIL  store: ") && said.contains("certificate"), "{said}");
    let password = world.place.secret("wrong.password", "hunter2");
    let said = world.doctor(&world.store.replace("/db.password", "/wrong.password"));
    assert!(said.contains("look at `store.password`") && !said.contains("hunter2"), "{password:?} {said}");

    world.server.tell("sql ALTER SYSTEM SET fsync = off");
    world.server.tell("sql SELECT pg_reload_conf()");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !world.doctor(&world.store).contains("FAIL  store: it has `fsync = off`") {
        assert!(std::time::Instant::now() < until, "doctor does not see it");
    }
    world.server.tell("stop");
    let said = world.doctor(&world.store);
    assert!(said.contains("FAIL  store: ") && said.contains("see that the server runs"), "{said}");
}
