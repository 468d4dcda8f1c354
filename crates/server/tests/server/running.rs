//! A node's life: sockets, reloads, a clean end, the service supervisor.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use keyreeve_picky::upstream::{self, Faults};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::node::{Place, http_credential, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_finishes_the_mint_and_the_answer_it_is_at() {
    let faults = Faults::slow(Duration::from_millis(400));
    let issuer = upstream::start(upstream::Config { faults, ..Default::default() }).await.unwrap();
    let place = Place::new();
    let config = place.config(&http_credential(&issuer.mint_url(), ""));
    let mut node = place.node(&config, "one", &[]);
    let asked = tokio::spawn(crate::node::answer(node.request(http::Method::GET, "/v1/credentials/up/token")));
    until("the mint is under way", async || (issuer.score().in_flight_max == 1).then_some(())).await;
    node.signal("TERM");
    let (status, body) = asked.await.unwrap();
    assert_eq!((status, body["token"].as_str()), (200, Some("t-1")), "{body}");
    assert!(node.ended().await.success());
    assert!(node.log_text().contains("stopped"));

    let next = place.node(&config, "two", &[]);
    assert_eq!(next.token_text("up").await, "t-1", "and it was published");
    assert_eq!(issuer.score().calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_over_what_is_good_and_keeps_the_old_where_it_is_not() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let place = Place::new();
    let one = http_credential(&issuer.mint_url(), "");
    let config = place.config(&one);
    let node = place.node(&config, "one", &[]);
    assert_eq!(node.token_text("up").await, "t-1");

    let two = one.replace("credential.up", "credential.also");
    place.config(&(one.clone() + &two));
    node.signal("HUP");
    until("the new credential is there", async || (node.token("also").await.0 == 200).then_some(())).await;
    assert_eq!(node.token_text("up").await, "t-1", "what was held is held");
    assert_eq!(issuer.score().calls, 2);

    place.config(&(one + "[credential.broken]\nsource = \"apsn\"\n"));
    node.signal("HUP");
    until("the log says why", async || {
        let log = node.log_text();
        (log.contains("the new configuration is not used, the old one stays") && log.contains("apsn")).then_some(())
    })
    .await;
    assert_eq!(node.token_text("also").await, "t-2", "as if nothing had been asked");
}

/// The store goes away between a mint and its commit, and then comes a reload.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_minted_without_the_store_is_committed_after_a_reload_and_named_where_the_end_comes_first() {
    for is_back in [true, false] {
        let faults = Faults::slow(Duration::from_millis(400));
        let issuer = upstream::start(upstream::Config { faults, ..Default::default() }).await.unwrap();
        let place = Place::new();
        let switches = place.switches("switches");
        let config = place.config(&http_credential(&issuer.mint_url(), "life = { poll = \"100ms\" }"));
        let mut node = place.node(&config, "one", &[("KEYREEVE_TEST_FAULTS", switches.to_str().unwrap())]);
        let asked = tokio::spawn(crate::node::answer(node.request(http::Method::GET, "/v1/credentials/up/token")));
        until("the mint is under way", async || (issuer.score().in_flight_max == 1).then_some(())).await;
        fs::write(switches.join("store-cut"), "").unwrap();
        assert_eq!(asked.await.unwrap().0, 503);
        node.signal("HUP");
        until("the reload", async || node.log_text().contains("was read again").then_some(())).await;
        if is_back {
            fs::remove_file(switches.join("store-cut")).unwrap();
            until("it is committed", async || (node.token("up").await.1["token"] == "t-1").then_some(())).await;
        }
        node.signal("TERM");
        assert!(node.ended().await.success());
        let (said, log) = ("generation 1 of `up` was minted, and is lost", node.log_text());
        assert_eq!(log.contains(said), !is_back, "{log}");
        assert!(!log.contains("t-1") && issuer.score().calls == 1, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_to_another_store_serves_on_and_counts_on() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let place = Place::new();
    let one = http_credential(&issuer.mint_url(), "");
    let node = place.node(&place.config(&one), "one", &[]);
    assert_eq!(node.token("up").await.1["generation"], 1);
    let folder = place.path("");
    let folder = folder.display();
    place.config_with(&format!("sqlite:{folder}/other.db"), &format!("[\"file:{folder}/seal.key\"]"), &one);
    node.signal("HUP");
    let taken = until("the new store has one", async || {
        let (status, body) = node.token("up").await;
        assert_eq!(status, 200, "no gap: {body}");
        (body["generation"] != 1 && body["generation"] != 0).then_some(body)
    })
    .await;
    assert_eq!((&taken["generation"], &taken["token"]), (&2.into(), &"t-2".into()));
    assert!(node.log_text().contains("other.db"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_for_its_group_and_goes_with_its_node() {
    let place = Place::new();
    let socket = place.path("keyreeve.sock");
    let extra = format!("[[listener]]\nbind = \"unix:{}\"\nserve = [\"api\"]\n", socket.display());
    let config = place.config(&extra);
    // What a killed node left behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut node = place.node(&config, "one", &[]);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let client =
        reqwest::Client::builder().no_proxy().tls_certs_only([]).unix_socket(socket.as_path()).build().unwrap();
    assert_eq!(client.get("http://localhost/livez").send().await.unwrap().status(), 200);
    let strange = client.get("http://localhost/v1/credentials").send().await.unwrap();
    assert_eq!(strange.status(), 401, "a uid that is not configured is nobody");
    let elsewhere = client.get("http://localhost/metrics").bearer_auth(&place.api_key).send().await.unwrap();
    assert_eq!(elsewhere.status(), 404, "this socket serves the API only");
    node.signal("INT");
    assert!(node.ended().await.success());
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_supervisor_hears_of_the_start_the_reload_and_the_end() {
    let place = Place::new();
    let path = place.path("notify.sock");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(crate::node::PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let size = supervisor.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..size]).lines().next().unwrap().to_owned()
    };
    let config = place.config("");
    let mut node = place.node(&config, "one", &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(hear(), "READY=1");
    node.signal("HUP");
    assert_eq!((hear(), hear()), ("RELOADING=1".into(), "READY=1".into()));
    node.signal("TERM");
    assert_eq!(hear(), "STOPPING=1");
    assert!(node.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_does_not_hold_up_the_end() {
    let place = Place::new();
    let config = place.config("");
    let mut node = place.node(&config, "one", &[]);
    let stream = node.request(http::Method::GET, "/v1/events").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let told = std::time::Instant::now();
    node.signal("TERM");
    assert!(node.ended().await.success());
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_holds_as_many_connections_as_it_may_and_answers_the_others_later() {
    let place = Place::new();
    let config = place.config("[limits]\nconnections = 2\n");
    let node = place.node(&config, "one", &[]);
    let address = node.url().strip_prefix("http://").unwrap().to_owned();
    let request = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    // Two that say nothing take both places; the third one's request waits in the socket.
    let silent = [connect(&address).await, connect(&address).await];
    let mut third = connect(&address).await;
    third.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let early = tokio::time::timeout(Duration::from_millis(300), third.read_to_end(&mut answer)).await;
    assert!(early.is_err(), "{}", String::from_utf8_lossy(&answer));
    drop(silent);
    tokio::time::timeout(crate::node::PATIENCE, third.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
}

async fn connect(address: &str) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(address).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_and_addresses_that_are_taken_are_refused() {
    let place = Place::new();
    let config = place.config("");
    let node = place.node(&config, "one", &[]);
    let address = node.url().strip_prefix("http://").unwrap().to_owned();
    let mut stream = connect(&address).await;
    let _ =
        stream.write_all(format!("GET /livez HTTP/1.1\r\nhost: x\r\nlong: {}", "a".repeat(200_000)).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(crate::node::PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));

    let second = std::process::Command::new(crate::node::PROGRAM)
        .args(["serve", "-c", config.to_str().unwrap(), "--bind", &address])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(5));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("cannot listen on `{address}`")) && said.contains("hint: "), "{said}");
}
