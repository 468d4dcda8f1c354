//! Where objects are, and gates that hand them to whoever has a token.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::access::FamilyConfig;
use super::parse;
use super::problem::{Fault, Origin, nearest, shown};
use super::read::{listened, tls};
use super::scope::Scope;
use super::sheet::Sheet;
use super::types::{Bind, Home, SecretRef, TlsConfig};
use super::verifier::check_name;
use super::via;
use crate::port::Via;

/// The most tables of objects.
const OBJECTS_MAX: usize = 64;

/// Where objects are: a folder, or a bucket of a cloud, and what opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectsConfig {
    /// The folder or the bucket.
    pub place: ObjectsPlace,
    /// Below which name, without slashes around it; empty for the whole bucket.
    pub prefix: String,
    /// The service to ask, where it is not that of the cloud.
    pub endpoint: Option<String>,
    /// The region of S3.
    pub region: String,
    /// The access key id of S3, or the storage account of Azure.
    pub account: Option<String>,
    /// The secret access key of S3, a service account of Google in JSON, or the key of an Azure storage account.
    pub key: Option<SecretRef>,
    /// How requests leave, where that is not the usual way: a client certificate, authorities of one's own.
    pub via: Option<Via>,
}

/// A folder, or a bucket of a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectsPlace {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket of S3, or of something that speaks as it does.
    S3(String),
    /// A bucket of Google Cloud Storage.
    Gcs(String),
    /// A container of Azure Blob Storage.
    Azure(String),
}

/// How a gate answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// keyreeve's own way: problem documents, HEAD, ranges.
    #[default]
    Own,
    /// As the CDN of GraphQL Hive does.
    Hive,
}

/// How an artifact gets to whoever asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deliver {
    /// Through this node.
    #[default]
    Stream,
    /// From the bucket, by a URL that is good for a minute.
    Redirect,
}

/// A gate that hands artifacts to whoever has a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactConfig {
    /// Where it listens.
    pub bind: Bind,
    /// What it proves itself with; without it, it speaks no TLS.
    pub tls: Option<TlsConfig>,
    /// How it answers.
    pub compat: Compat,
    /// The name under `[token.NAME]` of the tokens that are good here.
    pub tokens: String,
    /// Names under `[objects.NAME]`: the primary, then its mirrors.
    pub origins: Vec<String>,
    /// After so long without an answer the next origin is asked too, in milliseconds.
    pub hedge_ms: u64,
    /// How long all origins together may take to begin an answer, in milliseconds.
    pub deadline_ms: u64,
    /// How artifacts get to whoever asked.
    pub deliver: Deliver,
    /// How long what was read may be answered without asking an origin, in milliseconds.
    pub fresh_ms: u64,
    /// How long after an origin vouched for it an artifact is answered while no origin does, in milliseconds; 0 for never.
    pub stale_ms: u64,
    /// Where artifacts are kept for that, besides memory.
    pub cache: Option<PathBuf>,
    /// How much of the disk that may take, in bytes.
    pub cache_bytes_max: u64,
    /// How much memory kept artifacts may take, in bytes.
    pub memory_bytes_max: usize,
    /// The largest artifact that is kept, in bytes; larger ones are streamed each time.
    pub kept_bytes_max: usize,
    /// The largest artifact that can be published through this node, in bytes.
    pub publish_bytes_max: usize,
    /// The most requests at once that wait for origins.
    pub requests_max: usize,
    /// The web pages whose scripts may read answers, by origin.
    pub cors: Vec<String>,
}

/// Reads all places of objects.
pub(super) fn objects(sheet: &mut Sheet) -> BTreeMap<String, ObjectsConfig> {
    let named = sheet.named("objects.*");
    if sheet.home == Home::Worker {
        return BTreeMap::new();
    }
    if named.len() > OBJECTS_MAX {
        let fault = Fault::new(format!("has {} entries, the most is {OBJECTS_MAX}", named.len()), "remove some");
        sheet.fault("objects", sheet.place("objects"), &fault, None);
        return BTreeMap::new();
    }
    let mut all = BTreeMap::new();
    for named in named {
        check_name(sheet, &named, "table of objects");
        let mut scope = Scope::of(sheet, &named, "objects.*");
        if let Some(objects) = place(&mut scope) {
            all.insert(named.key, objects);
        }
    }
    all
}

fn place(scope: &mut Scope<'_>) -> Option<ObjectsConfig> {
    let url = scope.parsed("url", url, |(place, prefix)| match (place, prefix.is_empty()) {
        (ObjectsPlace::Folder(path), _) => format!("file:{}", path.display()),
        (place, true) => format!("{}{}", place.scheme(), place.bucket()),
        (place, false) => format!("{}{}/{prefix}", place.scheme(), place.bucket()),
    });
    let endpoint = scope.parsed("endpoint", endpoint, Clone::clone);
    let region = scope.text_or("region", "us-east-1");
    let account = scope.text("account");
    let key = scope.secret("key");
    let via = via::read(scope);
    let (place, prefix) = url?;
    for (name, kinds) in
        [("endpoint", "sga"), ("region", "s"), ("account", "sa"), ("key", "sga"), ("via", "sga"), ("ca", "sga")]
    {
        if scope.is_written(name) && !kinds.starts_with(place.letter()) && !kinds.contains(place.letter()) {
            let must = format!("is not for `{}`", place.scheme());
            scope.fault(name, &Fault::new(must, "remove it, or change `url`"));
        }
    }
    let is_s3 = matches!(place, ObjectsPlace::S3(_));
    if is_s3 && account.is_some() != key.is_some() && !scope.is_broken("key") {
        let missing = if key.is_none() { "key" } else { "account" };
        scope.fault(missing, &Fault::new("is missing beside the other half", "S3 knows `account` by its `key`"));
    }
    if matches!(place, ObjectsPlace::Azure(_)) && account.is_none() {
        scope.missing("account");
    }
    Some(ObjectsConfig { place, prefix, endpoint, region, account, key, via })
}

impl ObjectsPlace {
    /// What its URL begins with.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self {
            Self::Folder(_) => "file:",
            Self::S3(_) => "s3://",
            Self::Gcs(_) => "gs://",
            Self::Azure(_) => "az://",
        }
    }

    fn bucket(&self) -> &str {
        match self {
            Self::Folder(_) => "",
            Self::S3(bucket) | Self::Gcs(bucket) | Self::Azure(bucket) => bucket,
        }
    }

    const fn letter(&self) -> char {
        match self {
            Self::Folder(_) => 'f',
            Self::S3(_) => 's',
            Self::Gcs(_) => 'g',
            Self::Azure(_) => 'a',
        }
    }
}

impl ObjectsConfig {
    /// Reads a place by its URL alone, as the command line has it.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn of_url(text: &str) -> Result<Self, String> {
        let (place, prefix) = url(text).map_err(|fault| format!("the URL of objects {}", fault.must))?;
        Ok(Self { place, prefix, endpoint: None, region: "us-east-1".into(), account: None, key: None, via: None })
    }
}

fn url(text: &str) -> Result<(ObjectsPlace, String), Fault> {
    const EXAMPLE: &str = "for example `url = \"s3://artifacts\"`, or `url = \"file:/var/lib/keyreeve/artifacts\"`";
    if let Some(path) = text.strip_prefix("file:") {
        let path = PathBuf::from(path);
        return if path.is_absolute() && !text.contains('\0') {
            Ok((ObjectsPlace::Folder(path), String::new()))
        } else {
            Err(Fault::new(format!("must be an absolute path after `file:`, not {}", shown(text)), EXAMPLE))
        };
    }
    let refuse =
        || Fault::new(format!("must be `file:PATH`, `s3://`, `gs://` or `az://`, not {}", shown(text)), EXAMPLE);
    let (scheme, rest) = text.split_once("://").ok_or_else(refuse)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(is_letter);
    if !is_part(bucket) || !(prefix.is_empty() || prefix.split('/').all(is_part)) {
        return Err(Fault::new(format!("must name a bucket, and names below it, not {}", shown(text)), EXAMPLE));
    }
    let place = match scheme {
        "s3" => ObjectsPlace::S3(bucket.into()),
        "gs" => ObjectsPlace::Gcs(bucket.into()),
        "az" => ObjectsPlace::Azure(bucket.into()),
        _ => return Err(refuse()),
    };
    Ok((place, prefix.to_owned()))
}

fn endpoint(text: &str) -> Result<String, Fault> {
    const EXAMPLE: &str = "for example `endpoint = \"https://storage.example.org\"`";
    const SECRET: &str = "the key is `key`";
    let url = parse::absolute(text, text, "would send what is signed in clear to", EXAMPLE, SECRET)?;
    Ok(url.trim_end_matches('/').to_owned())
}

/// Reads one gate whose `kind` is `artifact`.
pub(super) fn one(
    scope: &mut Scope<'_>,
    taken: &[Bind],
    objects: &BTreeMap<String, ObjectsConfig>,
    families: &BTreeMap<String, FamilyConfig>,
) -> Option<ArtifactConfig> {
    const COMPATS: [(&str, Compat); 2] = [("none", Compat::Own), ("hive", Compat::Hive)];
    const DELIVERS: [(&str, Deliver); 2] = [("stream", Deliver::Stream), ("redirect", Deliver::Redirect)];
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let bind = own_bind(scope, taken);
    let tls = if scope.is_written("tls") { tls(scope, bind.as_ref()) } else { None };
    let compat = scope.choice_or("compat", &COMPATS, Compat::Own);
    let tokens = tokens(scope, families);
    let origins = origins(scope, objects);
    let hedge_ms = scope.number("hedge_after");
    let deadline_ms = scope.number("deadline");
    let deliver = scope.choice_or("deliver", &DELIVERS, Deliver::Stream);
    let fresh_ms = scope.number("fresh");
    let stale_ms = scope.number("stale_if_error");
    let cache = scope.parsed("cache", folder, |path| path.display().to_string());
    let cache_bytes_max = scope.number("cache_size");
    let memory_bytes_max = size(scope.number("memory"));
    let kept_bytes_max = size(scope.number("kept"));
    let publish_bytes_max = size(scope.number("publish"));
    let requests_max = size(scope.number_or("requests", 1024));
    let cors = scope.texts("cors").map_or_else(Vec::new, |texts| texts.into_iter().map(|(text, _)| text).collect());
    if hedge_ms >= deadline_ms {
        let must = format!("must be shorter than `deadline`: {hedge_ms} ms is not shorter than {deadline_ms} ms");
        scope.fault("hedge_after", &Fault::plain(must));
    }
    if compat == Compat::Hive && !cors.is_empty() {
        scope.warn("cors", "has no effect: the CDN of Hive lets every page read its answers", "remove it");
    }
    let origins = origins?;
    let is_folder =
        |name: &&String| objects.get(*name).is_some_and(|objects| matches!(objects.place, ObjectsPlace::Folder(_)));
    if let Some(name) = origins.iter().find(is_folder)
        && deliver == Deliver::Redirect
    {
        let must = format!("cannot be `redirect`: `{name}` is a folder, which has no URLs");
        scope.fault("deliver", &Fault::new(must, "use `stream`"));
    }
    Some(ArtifactConfig {
        bind: bind?,
        tls,
        compat,
        tokens: tokens?,
        origins,
        hedge_ms,
        deadline_ms,
        deliver,
        fresh_ms,
        stale_ms,
        cache,
        cache_bytes_max,
        memory_bytes_max,
        kept_bytes_max,
        publish_bytes_max,
        requests_max,
        cors,
    })
}

/// An address that nothing else listens on, by the rules of listeners.
fn own_bind(scope: &mut Scope<'_>, taken: &[Bind]) -> Option<Bind> {
    if !scope.is_written("bind") {
        scope.missing("bind");
        return None;
    }
    let bind = listened(scope)?;
    let is_free = matches!(&bind, Bind::Tcp(address) if address.port() == 0);
    if !is_free && taken.contains(&bind) {
        scope.fault("bind", &Fault::new("is the address of another listener", "give it an address of its own"));
    }
    Some(bind)
}

/// The family whose tokens are good here: the only one there is, where nobody says which.
fn tokens(scope: &mut Scope<'_>, families: &BTreeMap<String, FamilyConfig>) -> Option<String> {
    if scope.is_written("tokens") {
        return scope.parsed(
            "tokens",
            |text| match nearest(text, families.keys().map(String::as_str)) {
                _ if families.contains_key(text) => Ok(text.to_owned()),
                Some(near) => Err(Fault::new(
                    format!("names {}, which is not there", shown(text)),
                    format!("did you mean `{near}`?"),
                )),
                None => Err(Fault::new(
                    format!("names {}, which is not there", shown(text)),
                    "families have the names under `[token.NAME]`",
                )),
            },
            Clone::clone,
        );
    }
    let mut names = families.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => {
            scope.explain("tokens", only.clone(), Origin::Default);
            Some(only.clone())
        }
        _ => {
            scope.missing("tokens");
            None
        }
    }
}

fn origins(scope: &mut Scope<'_>, objects: &BTreeMap<String, ObjectsConfig>) -> Option<Vec<String>> {
    if !scope.is_written("origins") {
        scope.missing("origins");
        return None;
    }
    let texts = scope.texts("origins")?;
    let (count, mut all) = (texts.len(), Vec::with_capacity(texts.len()));
    for (text, _) in texts {
        if all.contains(&text) {
            scope.fault("origins", &Fault::new(format!("has {} twice", shown(&text)), "remove one"));
        } else if objects.contains_key(&text) {
            all.push(text);
        } else {
            let hint = match nearest(&text, objects.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "origins have the names under `[objects.NAME]`".to_owned(),
            };
            scope.fault("origins", &Fault::new(format!("names {}, which is not there", shown(&text)), hint));
        }
    }
    (all.len() == count).then_some(all)
}

fn folder(text: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(text);
    if path.is_absolute() && path.file_name().is_some() && !text.contains('\0') {
        return Ok(path);
    }
    let hint = "for example `cache = \"/var/cache/keyreeve\"`, a folder of its own";
    Err(Fault::new(format!("must be the absolute path of a folder, not {}", shown(text)), hint))
}
