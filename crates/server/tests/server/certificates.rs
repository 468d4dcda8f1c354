//! Client certificates and authorities of one's own, against a server that demands both.

use std::path::PathBuf;

use keyreeve::core::id::CredentialName;
use keyreeve::core::record::FaultClass;
use keyreeve::source::build;
use keyreeve_picky::issuers::oauth::{self, Client, Server};
use keyreeve_server::secrets::OsSecrets;

use crate::issuers::{Asking, config, tools};
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
    for (lines, said) in [
        (format!("via = \"file:@/absent.pem\"\n{CA}"), "credential `c`: `via`: cannot read "),
        (format!("via = \"file:@/open.pem\"\n{CA}"), "credential `c`: `via`: everybody on this machine may read"),
        (format!("via = \"file:@/words.pem\"\n{CA}"), "credential `c`: `via`: the file has to hold a certificate"),
        (format!("via = \"file:@/keyless.pem\"\n{CA}"), "credential `c`: `via`: the file has to hold a certificate"),
        (format!("{VIA}ca = \"file:@/absent.pem\"\n"), "credential `c`: `ca`: cannot read "),
        (format!("{VIA}ca = \"file:@/words.pem\"\n"), "credential `c`: `ca`: there is no certificate"),
    ] {
        let name = CredentialName::parse("c").unwrap();
        let config = config(&world.text(&lines));
        let error = build(&config, &name, &OsSecrets, &tools(&host())).err().unwrap_or_else(|| panic!("{lines}"));
        assert!(error.starts_with(said) && !error.contains("hunter2"), "{error}");
    }
}
