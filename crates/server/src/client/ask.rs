//! One request to a running node, with a deadline and a bound on the answer; a download has a deadline for each silence instead.

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Span;
use serde_json::Value;

use crate::exit::{Code, Failure};

/// The largest answer that is read, in bytes: a list of 100,000 credentials is about a third of it.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest API key file, in bytes.
const KEY_BYTES_MAX: u64 = 4096;
/// The variable with the API key.
pub(crate) const KEY_VARIABLE: &str = "KEYREEVE_API_KEY";
/// What helps whoever has sent no key.
const NO_KEY: &str =
    "`export KEYREEVE_API_KEY=..`, or name a file with `--api-key-file`, or use the node's Unix socket";
/// What helps whoever has sent a wrong one.
const WRONG_KEY: &str = "the node does not know the key in KEYREEVE_API_KEY or `--api-key-file`: is it this node's?";

/// A running node.
pub(crate) struct Node {
    client: reqwest::Client,
    base: String,
    shown: String,
    api_key: Option<Secret<String>>,
    timeout: Duration,
}

impl Node {
    /// Takes the address of a node, and the API key from `key_file` or the environment.
    ///
    /// # Errors
    /// An address that is none; a key file that cannot be read.
    pub(crate) fn new(url: &str, key_file: Option<&Path>, timeout: Duration) -> Result<Self, Failure> {
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .user_agent(concat!("keyreeve/", env!("CARGO_PKG_VERSION")));
        let (builder, base) = match (url.strip_prefix("unix:"), url.starts_with("https://")) {
            (Some(path), _) => (builder.tls_certs_only([]).unix_socket(Path::new(path)), "http://localhost".to_owned()),
            // Nobody needs the system's certificates to talk to a plain socket, and reading them takes its time.
            (None, false) => (builder.tls_certs_only([]), url.trim_end_matches('/').to_owned()),
            (None, true) => (builder, url.trim_end_matches('/').to_owned()),
        };
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(Failure::new(Code::Usage, format!("`{url}` is no address of a node"))
                .hint("use `http://HOST:PORT`, `https://HOST` or `unix:PATH`, with `--url` or in KEYREEVE_URL"));
        }
        let client = builder
            .build()
            .map_err(|error| Failure::new(Code::Unavailable, format!("no HTTP client: {}", causes(&error))))?;
        Ok(Self { client, base, shown: url.to_owned(), api_key: api_key(key_file)?, timeout })
    }

    /// Asks for what `path` has.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// Posts `body`, or nothing.
    pub(crate) async fn post(&self, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key.expose());
        }
        if let Some(body) = body {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        self.answered(request).await
    }

    /// Puts bytes there.
    pub(crate) async fn put(
        &self,
        path: &str,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    ) -> Result<Value, Failure> {
        let mut request = self.client.put(format!("{}{path}", self.base)).body(body);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key.expose());
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.answered(request).await
    }

    /// Takes what is there, piece by piece. How long it takes is not bounded, only how long nothing comes.
    pub(crate) async fn download(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut request = self.client.get(format!("{}{path}", self.base));
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key.expose());
        }
        let mut response = self.soon(request.send()).await?;
        if !response.status().is_success() {
            let (status, bytes) = self.read(response).await?;
            return Err(problem(status, serde_json::from_slice(&bytes).ok().as_ref(), self.api_key.is_some()));
        }
        while let Some(chunk) = self.soon(response.chunk()).await? {
            take(&chunk)?;
        }
        Ok(())
    }

    /// What comes, if it comes in time.
    async fn soon<T>(&self, asked: impl Future<Output = reqwest::Result<T>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(came) => came.map_err(|error| self.no_answer(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<(StatusCode, Vec<u8>), Failure> {
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = self.soon(response.chunk()).await? {
            if bytes.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                let text = format!("the answer of `{}` is larger than {ANSWER_BYTES_MAX} bytes", self.shown);
                return Err(Failure::new(Code::Unavailable, text));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((status, bytes))
    }

    async fn answered(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let response = request.timeout(self.timeout).send().await.map_err(|error| self.no_answer(&error))?;
        let (status, bytes) = self.read(response).await?;
        let body: Option<Value> = serde_json::from_slice(&bytes).ok();
        if !status.is_success() {
            return Err(problem(status, body.as_ref(), self.api_key.is_some()));
        }
        match body {
            Some(body) => Ok(body),
            None if bytes.is_empty() => Ok(Value::Null),
            None => Err(Failure::new(Code::Unavailable, format!("`{}` does not answer in JSON", self.shown))
                .hint("is that a keyreeve node? `--url` and KEYREEVE_URL say where to look")),
        }
    }

    fn silent(&self) -> Failure {
        let text = format!("`{}` said nothing for {} s", self.shown, self.timeout.as_secs());
        Failure::new(Code::Unavailable, text)
            .hint("is a node running there? `--url` and KEYREEVE_URL say where to look, `--timeout` how long to wait")
    }

    fn no_answer(&self, error: &reqwest::Error) -> Failure {
        // The address was typed by whoever reads this; the causes name no header and no body.
        if error.is_timeout() {
            return self.silent();
        }
        let text = format!("`{}` does not answer: {}", self.shown, causes(error));
        let hint = if error.is_builder() {
            "`--url` is `http://HOST:PORT`, `https://HOST` or `unix:PATH`"
        } else {
            "is a node running there? `--url` and KEYREEVE_URL say where to look"
        };
        Failure::new(if error.is_builder() { Code::Usage } else { Code::Unavailable }, text).hint(hint)
    }
}

/// The innermost causes of an error in one line, without the URL that reqwest puts in front.
fn causes(error: &reqwest::Error) -> String {
    let mut text = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push(inner.to_string());
        cause = inner.source();
    }
    text.pop().unwrap_or_else(|| "no cause was given".to_owned())
}

fn api_key(file: Option<&Path>) -> Result<Option<Secret<String>>, Failure> {
    let Some(file) = file else {
        return Ok(std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty()).map(Secret::new));
    };
    let refuse = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Usage, format!("cannot read the API key file `{}`: {error}", file.display()))
    };
    let size = std::fs::metadata(file).map_err(|error| refuse(&error))?.len();
    if size > KEY_BYTES_MAX {
        return Err(refuse(&format!("{size} bytes are no API key")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| refuse(&error))?;
    Ok(Some(Secret::new(text.trim().to_owned())))
}

/// What a problem document (RFC 9457) means for this process.
fn problem(status: StatusCode, body: Option<&Value>, has_key: bool) -> Failure {
    let field = |name: &str| body.and_then(|body| body.get(name)).and_then(Value::as_str);
    let code = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Code::Denied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Code::Conflict,
        status if status.is_server_error() => Code::Unavailable,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Code::Unavailable,
        _ => Code::Usage,
    };
    let sentence = field("detail").or_else(|| field("title"));
    let mut message = sentence.map_or_else(|| format!("the node answered {status}"), str::to_owned);
    // The node's own hint is about HTTP, which is not what whoever typed a command has to do with.
    let hint = match (status, has_key) {
        (StatusCode::UNAUTHORIZED, false) => Some(NO_KEY),
        (StatusCode::UNAUTHORIZED, true) => Some(WRONG_KEY),
        _ => field("hint"),
    };
    if let Some(hint) = hint {
        message.push_str("\nhint: ");
        message.push_str(hint);
    }
    let retry_after_ms = body.and_then(|body| body.get("retry_after_ms")).and_then(Value::as_u64);
    if let Some(ms) = retry_after_ms {
        // Below a second nobody waits by hand.
        message.push_str(&format!("\nretry: in {}", Span(ms.div_ceil(1000).saturating_mul(1000))));
    }
    if let Some(id) = field("request_id") {
        message.push_str("\nrequest: ");
        message.push_str(id);
    }
    Failure::new(code, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_becomes_its_sentence_its_hint_its_request_and_an_exit_code() {
        let body = json!({"title": "Too soon", "detail": "`a` was minted too recently", "hint": "wait", "request_id": "r1", "retry_after_ms": 60_001});
        let failure = problem(StatusCode::CONFLICT, Some(&body), true);
        assert_eq!(failure.code, Code::Conflict);
        assert_eq!(failure.message, "`a` was minted too recently\nhint: wait\nretry: in 1m 1s\nrequest: r1");
    }

    #[test]
    fn without_a_key_the_hint_says_how_to_give_one() {
        let body = json!({"detail": "this needs an API key", "hint": "send `Authorization: Bearer <api key>`"});
        let told = |has_key| problem(StatusCode::UNAUTHORIZED, Some(&body), has_key).message;
        assert!(
            told(false).starts_with("this needs an API key\nhint: `export KEYREEVE_API_KEY=..`"),
            "{}",
            told(false)
        );
        assert!(told(true).contains("the node does not know the key"), "{}", told(true));
        assert!(!told(false).contains("Bearer") && !told(true).contains("Bearer"));
    }

    #[test]
    fn each_status_has_its_exit_code() {
        for (status, code) in [
            (400, Code::Usage),
            (401, Code::Denied),
            (403, Code::Denied),
            (404, Code::NotFound),
            (409, Code::Conflict),
            (412, Code::Conflict),
            (413, Code::Usage),
            (429, Code::Unavailable),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(problem(status, None, true).code, code, "{status}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_the_forms_that_are() {
        let failure = Node::new("127.0.0.1:7070", None, Duration::from_secs(1)).err().unwrap();
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.message.contains("http://HOST:PORT"), "{}", failure.message);
    }
}
