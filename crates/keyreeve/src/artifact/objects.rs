//! A folder or a bucket, opened by its settings: `object_store` over this crate's HTTP client.
//!
//! Nothing is tried twice in here: whoever asks knows what a second request would cost, and whom else to ask. Nothing here has a
//! deadline either, except that a connection has to be made, and a body has to go on, in the time that the client allows.
//!
//! That an object is not there is believed of few: of a bucket that says so in its service's own words, since a proxy without a
//! route, another server and a bucket that is not there answer 404 too; and of a folder in which there is anything, since a disk
//! that is not mounted is an empty folder.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use keyreeve_core::secret::Secret;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientOptions, GetOptions, GetResult, ObjectStore, RetryConfig};

use crate::config::{ObjectsConfig, ObjectsPlace};
use crate::port::Secrets;
use crate::system::fetch::{Fetch, failed};

/// What a service says about an error is read up to here, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// So much of an answer that is not understood is told, in characters.
const TOLD_MAX: usize = 200;

/// A folder or a bucket. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    /// What is in it, below the prefix of its settings.
    pub store: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    prefix: Path,
    place: Arc<str>,
    /// The folder, where it is one.
    folder: Option<Arc<Folder>>,
}

impl Objects {
    /// Objects in a store that is open already, such as one in memory.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, place: &str) -> Self {
        Self { store, signer: None, prefix: Path::default(), place: place.into(), folder: None }
    }

    /// The same, whose URLs this one signs.
    #[cfg(test)]
    pub(super) fn signed_by(self, signer: Arc<dyn Signer>) -> Self {
        Self { signer: Some(signer), ..self }
    }

    /// One read. Where it says that there is no such object, that can be believed.
    pub(super) async fn read(&self, name: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let is_head = options.head;
        let error = match self.store.get_opts(name, options).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // A 404 to `HEAD` has no body to say what is not there: the object, its bucket, or the route to both.
        if is_head && self.folder.is_none() && matches!(error, object_store::Error::NotFound { .. }) {
            let options = GetOptions { range: Some((0..1).into()), ..GetOptions::default() };
            return self.store.get_opts(name, options).await;
        }
        Err(self.judged(error).await)
    }

    /// What a failure of the store means: that an object is not there is believed of a folder only while there is something in it.
    pub(super) async fn judged(&self, error: object_store::Error) -> object_store::Error {
        match error {
            object_store::Error::NotFound { .. } => self.is_there().await.err().unwrap_or(error),
            error => error,
        }
    }

    /// Whether names are listed in their order: services do, a folder does not.
    pub(super) const fn is_sorted(&self) -> bool {
        self.signer.is_some()
    }

    /// Whether the place itself is there. That of a bucket says every answer of it.
    ///
    /// # Errors
    /// It is a folder that is not there, or is empty.
    pub(super) async fn is_there(&self) -> object_store::Result<()> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        // An unmounted disk waits where waiting harms nobody.
        let is_filled = tokio::task::spawn_blocking(move || folder.is_filled()).await;
        if is_filled.unwrap_or_default() { Ok(()) } else { Err(self.unmounted()) }
    }

    /// Makes ready for a write of `name`: a folder that has always been empty gets its first entry, so that what is not in it is
    /// absent from now on.
    ///
    /// # Errors
    /// It is a folder that is not there, or is empty and was not: the write would go to what the disk was mounted on.
    pub(super) async fn make_ready(&self, name: &Path) -> object_store::Result<()> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let first = name.parts().next().map(|part| part.as_ref().to_owned()).unwrap_or_default();
        let is_ready = tokio::task::spawn_blocking(move || {
            folder.is_filled() || (!folder.was_filled() && std::fs::create_dir(folder.path.join(first)).is_ok())
        });
        if is_ready.await.unwrap_or_default() { Ok(()) } else { Err(self.unmounted()) }
    }

    fn unmounted(&self) -> object_store::Error {
        let text = format!("the folder `{}` is not there, or is empty: is it mounted?", self.place);
        object_store::Error::Generic { store: "folder", source: text.into() }
    }

    /// Where they are, as people call it: `s3://artifacts at https://storage.example.org`. Two that are called the same hold the
    /// same.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// A URL by which whoever has it can read one object for `life_ms` milliseconds.
    ///
    /// # Errors
    /// A sentence: a folder has no URLs; the key that would sign cannot.
    pub async fn signed_url(&self, name: &Path, life_ms: u64) -> Result<Secret<String>, String> {
        let signer = self.signer.as_ref().ok_or("a folder has no URLs")?;
        let whole: Path = self.prefix.parts().chain(name.parts()).collect();
        let life = std::time::Duration::from_millis(life_ms);
        let url = signer.signed_url(Method::GET, &whole, life).await.map_err(|error| error.to_string())?;
        Ok(Secret::new(url.into()))
    }
}

/// A folder of this machine.
struct Folder {
    path: std::path::PathBuf,
    /// Whether this process has seen anything in it.
    was_filled: AtomicBool,
}

impl Folder {
    /// Whether there is anything in it. Waits for the disk.
    fn is_filled(&self) -> bool {
        let is_filled = std::fs::read_dir(&self.path).is_ok_and(|mut entries| matches!(entries.next(), Some(Ok(_))));
        if is_filled {
            self.was_filled.store(true, Ordering::Relaxed);
        }
        is_filled
    }

    fn was_filled(&self) -> bool {
        self.was_filled.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Objects({})", self.place)
    }
}

/// Opens a folder or a bucket. A bucket is not asked yet.
///
/// # Errors
/// A sentence without any secret: a folder that is not there, a key or a certificate that cannot be read.
pub fn open(config: &ObjectsConfig, fetch: &Fetch, secrets: &dyn Secrets) -> Result<Objects, String> {
    let key = match &config.key {
        None => None,
        Some(reference) => {
            let key = secrets.read(reference).map_err(|cause| format!("`key`: {cause}"))?;
            let text = String::from_utf8(key.expose().clone()).map_err(|_| "`key`: it is not text")?;
            Some(Secret::new(text))
        }
    };
    let client = fetch.client(config.via.as_ref())?;
    let mut folder = None;
    let (store, signer) = match &config.place {
        ObjectsPlace::Folder(path) => {
            let store = LocalFileSystem::new_with_prefix(path);
            let store = store.map_err(|_| format!("`url`: the folder `{}` cannot be opened", path.display()))?;
            let found = Folder { path: path.clone(), was_filled: AtomicBool::new(false) };
            // So that it is known from the start whether it was ever empty.
            found.is_filled();
            folder = Some(Arc::new(found));
            (Arc::new(store.with_fsync(true)) as Arc<dyn ObjectStore>, None)
        }
        ObjectsPlace::S3(bucket) => s3(config, bucket, key.as_ref(), Connector(client, Dialect::S3))?,
        ObjectsPlace::Gcs(bucket) => gcs(config, bucket, key.as_ref(), Connector(client, Dialect::Gcs))?,
        ObjectsPlace::Azure(container) => azure(config, container, key.as_ref(), Connector(client, Dialect::Azure))?,
    };
    let prefix = Path::from(config.prefix.as_str());
    let store = if config.prefix.is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix.clone())) };
    Ok(Objects { store, signer, prefix, place: place(config).into(), folder })
}

fn place(config: &ObjectsConfig) -> String {
    let bucket = match &config.place {
        ObjectsPlace::Folder(path) => path.display().to_string(),
        ObjectsPlace::S3(bucket) | ObjectsPlace::Gcs(bucket) | ObjectsPlace::Azure(bucket) => bucket.clone(),
    };
    let slash = if config.prefix.is_empty() { "" } else { "/" };
    let mut place = format!("{}{bucket}{slash}{}", config.place.scheme(), config.prefix);
    // Names of containers are those of an account.
    if let (ObjectsPlace::Azure(_), Some(account)) = (&config.place, &config.account) {
        place.push_str(&format!(" of {account}"));
    }
    if let Some(endpoint) = &config.endpoint {
        place.push_str(&format!(" at {endpoint}"));
    }
    place
}

type Opened = (Arc<dyn ObjectStore>, Option<Arc<dyn Signer>>);

/// A store that can sign URLs too.
fn opened(store: impl ObjectStore + Signer) -> Opened {
    let store = Arc::new(store);
    (Arc::clone(&store) as _, Some(store as _))
}

fn s3(config: &ObjectsConfig, bucket: &str, key: Option<&Secret<String>>, http: Connector) -> Result<Opened, String> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&config.region)
        .with_allow_http(true)
        .with_retry(never_again())
        .with_http_connector(http);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let (Some(account), Some(key)) = (&config.account, key) {
        builder = builder.with_access_key_id(account).with_secret_access_key(key.expose());
    }
    builder.build().map(opened).map_err(|error| error.to_string())
}

fn gcs(config: &ObjectsConfig, bucket: &str, key: Option<&Secret<String>>, http: Connector) -> Result<Opened, String> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_retry(never_again())
        .with_http_connector(http)
        .with_client_options(ClientOptions::new().with_allow_http(true));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(key) = key {
        builder = builder.with_service_account_key(key.expose());
    }
    // What it says may repeat the key.
    builder.build().map(opened).map_err(|_| "`key` is no service account of Google in JSON".to_owned())
}

fn azure(
    config: &ObjectsConfig,
    container: &str,
    key: Option<&Secret<String>>,
    http: Connector,
) -> Result<Opened, String> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_account(config.account.clone().unwrap_or_default())
        .with_allow_http(true)
        .with_retry(never_again())
        .with_http_connector(http);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(key) = key {
        builder = builder.with_access_key(key.expose());
    }
    builder.build().map(opened).map_err(|_| "`key` is no key of a storage account, which is base64".to_owned())
}

/// A hidden second try would be taken for a conflict with somebody else, and would outlive every deadline.
fn never_again() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: std::time::Duration::ZERO }
}

/// A service has less of an object than the range that was asked for.
#[derive(Debug)]
struct BeyondItsEnd;

impl fmt::Display for BeyondItsEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("416: the object ends before the range begins")
    }
}

impl std::error::Error for BeyondItsEnd {}

/// Whether an object is not the version that was asked for: its store says so, or has less of it than that version had.
pub(super) fn is_changed(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = match error {
        object_store::Error::Precondition { .. } => return true,
        object_store::Error::Generic { source, .. } => Some(source.as_ref()),
        _ => None,
    };
    while let Some(inner) = cause {
        if inner.is::<BeyondItsEnd>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// The protocol of a service.
#[derive(Clone, Copy, Debug)]
enum Dialect {
    S3,
    Gcs,
    Azure,
}

impl Dialect {
    /// What it says of an object that is not there.
    const fn absent(self) -> &'static str {
        match self {
            Self::S3 | Self::Gcs => "NoSuchKey",
            Self::Azure => "BlobNotFound",
        }
    }

    /// Whether the body of a 404 says that the object is not there, in the service's own words.
    fn is_absent(self, body: &str) -> bool {
        let code = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        if let Some((code, _)) = code {
            return code.trim() == self.absent();
        }
        // Google's JSON has one reason for objects and buckets, and tells them apart in its message.
        let json: Option<serde_json::Value> = serde_json::from_str(body).ok().filter(|_| matches!(self, Self::Gcs));
        let message = json.as_ref().and_then(|json| json.pointer("/error/message")?.as_str());
        message.is_some_and(|message| message.starts_with("No such object"))
    }
}

/// This crate's HTTP client, as `object_store` wants one.
#[derive(Debug)]
struct Connector(reqwest::Client, Dialect);

#[derive(Debug)]
struct Service(reqwest::Client, Dialect);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone(), self.1)))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url = reqwest::Url::parse(&head.uri.to_string())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let is_head = head.method == Method::HEAD;
        let mut sent = reqwest::Request::new(head.method, url);
        *sent.headers_mut() = head.headers;
        if body.content_length() > 0 {
            *sent.body_mut() = Some(reqwest::Body::wrap(body));
        }
        let answer = self.0.execute(sent).await.map_err(|error| broken(&error))?;
        let answer: http::Response<reqwest::Body> = answer.into();
        let (head, body) = answer.into_parts();
        if head.status.is_success() {
            let body = HttpResponseBody::new(body.map_err(|error| broken(&error)));
            return Ok(HttpResponse::from_parts(head, body));
        }
        if head.status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(HttpError::new(HttpErrorKind::Unknown, BeyondItsEnd));
        }
        let told = |error| HttpError::new_boxed(HttpErrorKind::Interrupted, error);
        let body = Limited::new(body, ERROR_BYTES_MAX);
        if head.status != StatusCode::NOT_FOUND || is_head {
            return Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body.map_err(told))));
        }
        let body = body.collect().await.map_err(told)?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        if !self.1.is_absent(&text) {
            let begin: String = text.chars().filter(|letter| !letter.is_control()).take(TOLD_MAX).collect();
            let text = format!("404 without `{}` (are `url` and `endpoint` right?): {begin}", self.1.absent());
            return Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(text)));
        }
        let body = Full::new(body).map_err(|never| match never {});
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

/// Without the URL, which may be signed.
fn broken(error: &reqwest::Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, std::io::Error::other(failed(error).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_services_own_words_say_that_an_object_is_not_there() {
        let xml =
            |code: &str| format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>..</Message></Error>");
        let json = |message: &str| format!("{{\"error\":{{\"code\":404,\"message\":\"{message}\",\"errors\":[]}}}}");
        for (dialect, body, is_absent) in [
            (Dialect::S3, xml("NoSuchKey"), true),
            (Dialect::S3, xml("NoSuchBucket"), false),
            (Dialect::S3, xml("NoSuchUpload"), false),
            (Dialect::S3, "<html><h1>404 Not Found</h1><p>NoSuchKey</html>".into(), false),
            (Dialect::S3, String::new(), false),
            (Dialect::S3, json("No such object: a/b"), false),
            (Dialect::Gcs, xml("NoSuchKey"), true),
            (Dialect::Gcs, json("No such object: artifacts/sdl"), true),
            (Dialect::Gcs, json("The specified bucket does not exist."), false),
            (Dialect::Gcs, "Not Found".into(), false),
            (Dialect::Azure, xml("BlobNotFound"), true),
            (Dialect::Azure, xml("ContainerNotFound"), false),
            (Dialect::Azure, xml("ResourceNotFound"), false),
            (Dialect::Azure, xml("NoSuchKey"), false),
        ] {
            assert_eq!(dialect.is_absent(&body), is_absent, "{dialect:?}: {body}");
        }
    }
}
