//! Client certificates and authorities of one's own, against a server that demands both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyreeve::config::{Config, ReadOptions};
use keyreeve::core::id::CredentialName;
use keyreeve::core::record::FaultClass;
use keyreeve::crypto::{LocalCrypto, check};
use keyreeve::inbound::{Parts, Trusted, verifiers};
use keyreeve::port::Host as _;
use keyreeve::source::build;
use keyreeve_picky::issuers::oauth::{self, Client, Server};
use keyreeve_server::secrets::OsSecrets;

use crate::issuers::{Asking, config, tools};
use crate::node::until;
use crate::support::{host, token};

struct World {
    server: Server,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        // A client that shows nothing but its certificate (RFC 8705 2.1).
        let clients = vec![Client { id: "bank".into(), secret: None, keys: Vec::new() }];
        let server = oauth::start(oauth::Config { clients, is_mutual: true, ..Default::default() }).await.unwrap();
        let world = Self { server, folder: tempfile::tempdir().unwrap() };
        world.write("ca.pem", world.server.authority_pem().unwrap(), 0o644);
        world.certify();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }

    /// Puts a new certificate in the place of the old one.
    fn certify(&self) {
        self.write("client.pem", &self.server.client_certificate().unwrap(), 0o600);
    }

    /// A credential with these lines, where `@` is the folder.
    fn text(&self, lines: &str) -> String {
        let lines = lines.replace('@', &self.folder.path().display().to_string());
        let url = self.server.token_url();
        format!(
            "[credential.c]\nsource = \"oauth2-client\"\n{lines}[credential.c.params]\ntoken_url = \"{url}\"\nclient_id = \"bank\"\n"
        )
    }
}

impl World {
    /// A verifier with these lines, whose keys are at the server.
    fn verifier(&self, lines: &str) -> Result<Vec<Trusted>, Vec<String>> {
        let lines = lines.replace('@', &self.folder.path().display().to_string());
        let url = self.server.token_url();
        let text = format!(
            "[verifier.bank]\nissuer = \"https://bank.example\"\naudience = \"us\"\njwks_url = \"{url}\"\ncooldown = \"1s\"\n{lines}"
        );
        let read = Config::read(&text, "test.toml", &BTreeMap::new(), ReadOptions::default());
        let config = read.unwrap_or_else(|error| panic!("{error}")).config;
        let host = host();
        let http = tools(&host).http;
        let parts = Parts { host, http, crypto: Arc::new(LocalCrypto), make: check };
        verifiers(&config.verifiers, &OsSecrets, &parts, &mut BTreeMap::new())
    }
}

/// The same for whoever reads files: what is wrong with the lines, and how it is said of the setting.
const BROKEN: [(&str, &str); 6] = [
    ("via = \"file:@/absent.pem\"\nca = \"file:@/ca.pem\"\n", "`via`: cannot read "),
    ("via = \"file:@/open.pem\"\nca = \"file:@/ca.pem\"\n", "`via`: everybody on this machine may read"),
    ("via = \"file:@/words.pem\"\nca = \"file:@/ca.pem\"\n", "`via`: the file has to hold a certificate"),
    ("via = \"file:@/keyless.pem\"\nca = \"file:@/ca.pem\"\n", "`via`: the file has to hold a certificate"),
    ("via = \"file:@/client.pem\"\nca = \"file:@/absent.pem\"\n", "`ca`: cannot read "),
    ("via = \"file:@/client.pem\"\nca = \"file:@/words.pem\"\n", "`ca`: there is no certificate"),
];

const VIA: &str = "via = \"file:@/client.pem\"\n";
const CA: &str = "ca = \"file:@/ca.pem\"\n";

#[tokio::test]
async fn a_certificate_is_shown_and_the_next_one_without_a_restart() {
    let world = World::new().await;
    let asking = Asking::new(&world.text(&format!("{VIA}{CA}")));
    assert_eq!(token(&asking.mint().await.unwrap()), "t-1");
    asking.mint().await.unwrap();
    assert_eq!(world.server.certificates(), 1);
    world.certify();
    assert_eq!(token(&asking.mint().await.unwrap()), "t-3");
    assert_eq!(world.server.certificates(), 2, "the file was replaced, and nobody was told");
    // The file is half written, or gone: nothing is sent, and it says which file.
    world.write("client.pem", "-----BEGIN CERTIFICATE-----\n", 0o600);
    let error = asking.mint().await.unwrap_err();
    assert_eq!((error.class, error.may_have_minted), (FaultClass::Transient, false));
    assert!(error.message.contains("`via`: the file has to hold a certificate"), "{}", error.message);
    assert_eq!(world.server.score().calls, 3);
    world.certify();
    asking.mint().await.unwrap();
}

#[tokio::test]
async fn without_the_right_certificate_nothing_is_minted_and_that_is_certain() {
    let world = World::new().await;
    let secret = |lines: &str| {
        let secret = "client_secret = \"never-used\"\n";
        format!("{}{secret}", world.text(lines))
    };
    // None at all; one of another authority; a server whose authority is not believed.
    let other = World::new().await;
    world.write("other.pem", &other.server.client_certificate().unwrap(), 0o600);
    for lines in [CA.to_owned(), format!("via = \"file:@/other.pem\"\n{CA}"), VIA.to_owned()] {
        let error = Asking::new(&secret(&lines)).mint().await.unwrap_err();
        let said = (error.class, error.may_have_minted);
        assert_eq!(said, (FaultClass::Transient, false), "{lines}: {}", error.message);
        assert!(error.message.starts_with("the token endpoint was not reached: "), "{}", error.message);
    }
    assert_eq!((world.server.score().calls, world.server.certificates()), (0, 0));
}

#[tokio::test]
async fn files_that_are_no_certificates_are_refused_at_start_by_their_setting() {
    let world = World::new().await;
    world.write("open.pem", &world.server.client_certificate().unwrap(), 0o644);
    world.write("words.pem", "hunter2", 0o600);
    let authority = world.server.authority_pem().unwrap();
    world.write("keyless.pem", authority, 0o600);
    for (lines, said) in BROKEN {
        let name = CredentialName::parse("c").unwrap();
        let config = config(&world.text(lines));
        let error = build(&config, &name, &OsSecrets, &tools(&host())).err().unwrap_or_else(|| panic!("{lines}"));
        assert!(error.starts_with(&format!("credential `c`: {said}")) && !error.contains("hunter2"), "{error}");
        let problems = world.verifier(lines).err().unwrap_or_else(|| panic!("{lines}")).join("; ");
        let expected = format!("`verifier.bank`: {said}");
        assert!(problems.starts_with(&expected) && !problems.contains("hunter2"), "{problems}");
    }
    assert!(world.verifier(&format!("{VIA}{CA}")).is_ok());
}

#[tokio::test]
async fn keys_are_fetched_with_the_files_as_they_are_without_a_reload() {
    let (world, other) = (World::new().await, World::new().await);
    let trusted = world.verifier(&format!("{VIA}{CA}")).unwrap();
    // Somebody's token, so that there is a reason to fetch.
    let encoded = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let token = format!("{}.{}.c2ln", encoded(r#"{"alg":"ES256","kid":"k"}"#), encoded("{}"));
    // The server has no keys: what it says is enough to know that it was reached.
    let meets = async |what: &str| {
        until(what, async || {
            let refused = trusted[0].verifier.verify(&token, host().now().wall).await.unwrap_err().to_string();
            refused.contains(what).then_some(())
        })
        .await;
    };
    meets("it answered 4").await;
    assert_eq!(world.server.certificates(), 1);
    world.write("ca.pem", other.server.authority_pem().unwrap(), 0o644);
    meets("it was not reached: ").await;
    world.write("ca.pem", world.server.authority_pem().unwrap(), 0o644);
    world.certify();
    meets("it answered 4").await;
    assert_eq!(world.server.certificates(), 2);
}
