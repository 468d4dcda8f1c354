//! The control listener: how a script reads the score and switches faults. For tests only, on loopback only.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpStream;

use super::Faults;
use super::server::Shared;
use crate::serve::{self, Reply, refusal};

const BODY_BYTES_MAX: usize = 16 * 1024;

pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    serve::http1(stream, |request| handle(Arc::clone(&shared), request)).await;
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Reply {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/livez") => Reply::Answer(serve::answer(StatusCode::OK, "text/plain", "ok\n")),
        (&Method::GET, "/score") => Reply::Answer(serve::json(StatusCode::OK, &shared.score())),
        (&Method::GET, "/ca.pem") => {
            let pem = shared.ca_pem.clone();
            Reply::Answer(serve::answer(StatusCode::OK, "application/x-pem-file", pem))
        }
        (&Method::GET, "/clock") => {
            let clock = &shared.clock;
            let (now_ms, epoch_unix_ms, scale) = (clock.now_ms(), clock.epoch_unix_ms(), clock.scale());
            let body = json!({ "now_ms": now_ms, "epoch_unix_ms": epoch_unix_ms, "scale": scale });
            Reply::Answer(serve::json(StatusCode::OK, &body))
        }
        (&Method::PUT, "/faults") => put_faults(&shared, request).await,
        (_, "/livez" | "/score" | "/ca.pem" | "/clock" | "/faults") => {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
        }
        _ => refusal(StatusCode::NOT_FOUND, "no such path: try `/score`, `/faults`, `/clock`, `/ca.pem` or `/livez`"),
    }
}

async fn put_faults(shared: &Shared, request: Request<Incoming>) -> Reply {
    let Ok(body) = serve::body(request.into_body(), BODY_BYTES_MAX).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 16 KiB");
    };
    match serve::object::<Faults>(&body).and_then(|faults| shared.set_faults(faults)) {
        Ok(()) => Reply::Answer(serve::answer(StatusCode::NO_CONTENT, "application/json", "")),
        Err(error) => refusal(StatusCode::BAD_REQUEST, &error),
    }
}
