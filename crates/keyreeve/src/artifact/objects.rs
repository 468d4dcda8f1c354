//! A folder or a bucket, opened by its settings: `object_store` over this crate's HTTP client.
//!
//! Nothing is tried twice in here: whoever asks knows what a second request would cost, and whom else to ask. Nothing here has a
//! deadline either, except that a connection has to be made, and a body has to go on, in the time that the client allows.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Limited};
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
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::config::{ObjectsConfig, ObjectsPlace};
use crate::port::Secrets;
use crate::system::fetch::{Fetch, failed};

/// What a service says about an error is read up to here, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// A folder or a bucket. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    /// What is in it, below the prefix of its settings.
    pub store: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    prefix: Path,
    place: Arc<str>,
    /// The folder, where it is one.
    folder: Option<Arc<std::path::Path>>,
}

impl Objects {
    /// Objects in a store that is open already, such as one in memory.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, place: &str) -> Self {
        Self { store, signer: None, prefix: Path::default(), place: place.into(), folder: None }
    }

    /// What a failure of the store means: that an object is not there is believed of a folder only while the folder is.
    pub(super) async fn judged(&self, error: object_store::Error) -> object_store::Error {
        let Some(folder) = self.folder.clone().filter(|_| matches!(error, object_store::Error::NotFound { .. })) else {
            return error;
        };
        // An unmounted disk waits where waiting harms nobody.
        let is_there = tokio::task::spawn_blocking(move || folder.is_dir()).await;
        if is_there.unwrap_or_default() {
            return error;
        }
        object_store::Error::Generic { store: "folder", source: "the folder itself is not there".into() }
    }

    /// Where they are, as people call it: `s3://artifacts`.
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
        let url = signer.signed_url(http::Method::GET, &whole, life).await.map_err(|error| error.to_string())?;
        Ok(Secret::new(url.into()))
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
    let connector = Connector(fetch.client(config.via.as_ref())?);
    let (store, signer) = match &config.place {
        ObjectsPlace::Folder(path) => {
            let store = LocalFileSystem::new_with_prefix(path);
            let store = store.map_err(|_| format!("`url`: the folder `{}` cannot be opened", path.display()))?;
            (Arc::new(store.with_fsync(true)) as Arc<dyn ObjectStore>, None)
        }
        ObjectsPlace::S3(bucket) => s3(config, bucket, key.as_ref(), connector)?,
        ObjectsPlace::Gcs(bucket) => gcs(config, bucket, key.as_ref(), connector)?,
        ObjectsPlace::Azure(container) => azure(config, container, key.as_ref(), connector)?,
    };
    let prefix = Path::from(config.prefix.as_str());
    let store = if config.prefix.is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix.clone())) };
    let folder = match &config.place {
        ObjectsPlace::Folder(path) => Some(Arc::from(path.as_path())),
        _ => None,
    };
    Ok(Objects { store, signer, prefix, place: place(config).into(), folder })
}

fn place(config: &ObjectsConfig) -> String {
    let bucket = match &config.place {
        ObjectsPlace::Folder(path) => path.display().to_string(),
        ObjectsPlace::S3(bucket) | ObjectsPlace::Gcs(bucket) | ObjectsPlace::Azure(bucket) => bucket.clone(),
    };
    let slash = if config.prefix.is_empty() { "" } else { "/" };
    format!("{}{bucket}{slash}{}", config.place.scheme(), config.prefix)
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

/// This crate's HTTP client, as `object_store` wants one.
#[derive(Debug)]
struct Connector(reqwest::Client);

#[derive(Debug)]
struct Service(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url = reqwest::Url::parse(&head.uri.to_string())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let mut sent = reqwest::Request::new(head.method, url);
        *sent.headers_mut() = head.headers;
        if body.content_length() > 0 {
            *sent.body_mut() = Some(reqwest::Body::wrap(body));
        }
        let answer = self.0.execute(sent).await.map_err(|error| broken(&error))?;
        let answer: http::Response<reqwest::Body> = answer.into();
        let (head, body) = answer.into_parts();
        let body = if head.status.is_success() {
            HttpResponseBody::new(body.map_err(|error| broken(&error)))
        } else {
            let told = |error| HttpError::new_boxed(HttpErrorKind::Interrupted, error);
            HttpResponseBody::new(Limited::new(body, ERROR_BYTES_MAX).map_err(told))
        };
        Ok(HttpResponse::from_parts(head, body))
    }
}

/// Without the URL, which may be signed.
fn broken(error: &reqwest::Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, std::io::Error::other(failed(error).to_string()))
}
