//! Steering the fake Apple from a script.

use std::net::SocketAddr;

use serde_json::json;

use keyreeve_picky::apns::{self, Config, Score};

use crate::client::*;

fn any() -> Option<SocketAddr> {
    Some("127.0.0.1:0".parse().unwrap())
}

#[tokio::test]
async fn a_script_reads_the_score_the_time_and_the_authority_and_switches_faults() {
    let (apple, _clock) = apple(|config| config.control = any()).await;
    let control = apple.control_addr().unwrap();
    let client = Client::connect(&apple).await;
    let token = token(START_S);
    let live = plain(control, "GET", "/livez", &[], "").await.unwrap();
    assert_eq!((live.status.as_u16(), &live.body[..]), (200, &b"ok\n"[..]));
    assert_eq!(plain(control, "GET", "/ca.pem", &[], "").await.unwrap().body, apple.ca_pem());
    assert_eq!(plain(control, "GET", "/clock", &[], "").await.unwrap().json()["now_ms"], json!(START_MS));

    let faults = r#"{"fault":{"kind":"status","status":503},"next":1}"#;
    assert_eq!(plain(control, "PUT", "/faults", &[], faults).await.unwrap().status, 204);
    assert_eq!(client.push(&token).await, no(503, "ServiceUnavailable"));
    assert_eq!(client.push(&token).await, ok());
    let score = plain(control, "GET", "/score", &[], "").await.unwrap();
    assert_eq!(serde_json::from_slice::<Score>(&score.body).unwrap(), apple.score());

    assert_eq!(plain(control, "PUT", "/faults", &[], r#"{"fault":{"kind":"drop"}}"#).await.unwrap().status, 204);
    assert!(client.send(notification(&token)).await.is_err());
    assert_eq!(plain(control, "PUT", "/faults", &[], "{}").await.unwrap().status, 204);
    assert_eq!(Client::connect(&apple).await.push(&token).await, ok());
}

#[tokio::test]
async fn a_script_is_told_what_it_did_wrong() {
    let (apple, _clock) = apple(|config| config.control = any()).await;
    let control = apple.control_addr().unwrap();
    let huge = format!("{{\"seed\":{}1}}", " ".repeat(17 * 1024));
    let bad = [
        ("GET", "/nothing", "", 404),
        ("GET", "/faults", "", 405),
        ("PUT", "/score", "", 405),
        ("PUT", "/faults", "not json", 400),
        ("PUT", "/faults", r#"{"fault":{"kind":"explode"}}"#, 400),
        ("PUT", "/faults", r#"{"falt":null}"#, 400),
        ("PUT", "/faults", r#"{"probability":2}"#, 400),
        ("PUT", "/faults", r#"{"fault":{"kind":"status","status":200}}"#, 400),
        ("PUT", "/faults", &huge, 413),
    ];
    for (method, path, body, status) in bad {
        let answer = plain(control, method, path, &[], body.to_owned()).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        assert!(answer.json()["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
    assert_eq!(Client::connect(&apple).await.push(&token(START_S)).await, ok(), "and nothing was changed by it");
}

#[tokio::test]
async fn the_control_listener_is_refused_outside_loopback() {
    let config = Config { control: Some("0.0.0.0:0".parse().unwrap()), ..Config::default() };
    let error = apns::start(config).await.err().unwrap();
    assert_eq!(error.to_string(), "the control address must be loopback: `0.0.0.0:0`");
}

#[tokio::test]
async fn after_a_shutdown_nobody_is_answered() {
    let (apple, _clock) = apple(|config| config.control = any()).await;
    let (addr, control) = (apple.addr(), apple.control_addr().unwrap());
    let client = Client::connect(&apple).await;
    assert_eq!(client.push(&token(START_S)).await, ok());
    apple.shutdown().await;
    assert!(client.send(notification(&token(START_S))).await.is_err());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    assert!(tokio::net::TcpStream::connect(control).await.is_err());
}
