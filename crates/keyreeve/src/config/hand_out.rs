//! What is handed out without being asked by name: metadata services, and files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keyreeve_core::id::CredentialName;

use super::parse;
use super::problem::{Fault, nearest, shown};
use super::scope::Scope;
use super::sheet::{Named, Sheet};
use super::types::{Bind, CredentialConfig, Home};
use super::verifier::check_name;

/// The most metadata services, and the most files.
const EACH_MAX: usize = 64;
/// What a service account may do where nobody says what.
const USUAL_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A stand-in for the metadata service of a cloud. Whoever can connect to it is handed the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataConfig {
    /// Where it listens: an address that only this machine can reach, or a Unix socket.
    pub bind: Bind,
    /// Whose, and what it hands out.
    pub kind: MetadataKind,
}

/// Whose metadata service, and what it hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataKind {
    /// AWS, version 2.
    Aws {
        /// AWS keys.
        credential: CredentialName,
        /// What the role is called.
        role: String,
    },
    /// Google.
    Gce {
        /// The access token of the service account.
        credential: CredentialName,
        /// The id of the project.
        project: Option<String>,
        /// The service account.
        email: String,
        /// What it may do.
        scopes: Vec<String>,
        /// Identity tokens by audience.
        audiences: BTreeMap<String, CredentialName>,
    },
    /// Azure, as a virtual machine and as App Service.
    Azure {
        /// Access tokens by resource, without a slash at its end.
        resources: BTreeMap<String, CredentialName>,
    },
}

/// A file that always holds a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// Which.
    pub credential: CredentialName,
    /// Where.
    pub path: PathBuf,
    /// In which form.
    pub form: FileForm,
}

/// The form of a credential in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileForm {
    /// The token, and nothing after it.
    Raw,
    /// What the API says.
    Json,
    /// A profile of AWS's `credentials` file.
    Aws,
}

type Credentials = BTreeMap<CredentialName, CredentialConfig>;

/// Reads all metadata services.
pub(super) fn metadata(
    sheet: &mut Sheet,
    taken: &[Bind],
    credentials: &Credentials,
) -> BTreeMap<String, MetadataConfig> {
    let mut taken = taken.to_vec();
    let mut all = BTreeMap::new();
    for named in few(sheet, "metadata.*", "metadata") {
        check_name(sheet, &named, "metadata service");
        let mut scope = Scope::of(sheet, &named, "metadata.*");
        let bind = local_bind(&mut scope, &taken);
        taken.extend(bind.clone());
        if let (Some(bind), Some(kind)) = (bind, kind(&mut scope, credentials)) {
            all.insert(named.key, MetadataConfig { bind, kind });
        }
    }
    all
}

/// The tables under `parent`, unless there are too many.
fn few(sheet: &mut Sheet, parent: &'static str, table: &str) -> Vec<Named> {
    let named = sheet.named(parent);
    if sheet.home == Home::Worker {
        return Vec::new();
    }
    if named.len() > EACH_MAX {
        let fault = Fault::new(format!("has {} entries, the most is {EACH_MAX}", named.len()), "remove some");
        sheet.fault(table, sheet.place(table), &fault, None);
        return Vec::new();
    }
    named
}

/// An address of its own that no other machine can reach.
pub(super) fn local_bind(scope: &mut Scope<'_>, taken: &[Bind]) -> Option<Bind> {
    let bind = scope.parsed("bind", parse::bind, |bind| match bind {
        Bind::Tcp(address) => address.to_string(),
        Bind::Unix(path) => format!("unix:{}", path.display()),
    })?;
    if let Bind::Tcp(address) = &bind
        && !parse::is_local_address(address.ip())
    {
        let must = format!("can be reached from other machines: `{address}`");
        let hint = "whoever connects is handed the credential: bind to `127.0.0.1`, `[::1]` or a link-local address";
        scope.fault("bind", &Fault::new(must, hint));
        return None;
    }
    let is_free = matches!(&bind, Bind::Tcp(address) if address.port() == 0);
    if !is_free && taken.contains(&bind) {
        scope.fault("bind", &Fault::new("is the address of another listener", "give it an address of its own"));
    }
    Some(bind)
}

/// Which settings belong to which kind.
const OF_KINDS: [(&str, &[&str]); 7] = [
    ("credential", &["aws", "gce"]),
    ("role", &["aws"]),
    ("project", &["gce"]),
    ("email", &["gce"]),
    ("scopes", &["gce"]),
    ("audiences", &["gce"]),
    ("resources", &["azure"]),
];

fn kind(scope: &mut Scope<'_>, credentials: &Credentials) -> Option<MetadataKind> {
    let kind = scope.text("kind")?;
    for (name, kinds) in OF_KINDS {
        if scope.is_written(name) && !kinds.contains(&kind.as_str()) {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            let must = format!("is not for kind `{kind}` but for {}", kinds.join(" and "));
            scope.fault(name, &Fault::new(must, "remove it, or change `kind`"));
        }
    }
    if kind == "azure" {
        return resources(scope, credentials);
    }
    if !scope.is_written("credential") {
        scope.missing("credential");
    }
    let credential = credential(scope, "credential", credentials)?;
    if kind == "aws" {
        let own = credential.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let role = scope.text_or("role", &own);
        return Some(MetadataKind::Aws { credential, role });
    }
    let project = scope.text("project");
    let email = scope.text_or("email", "default");
    let scopes = match scope.texts("scopes") {
        Some(texts) => texts.into_iter().map(|(text, _)| text).collect(),
        None => {
            scope.explain("scopes", format!("[{USUAL_SCOPE}]"), super::problem::Origin::Default);
            vec![USUAL_SCOPE.to_owned()]
        }
    };
    let audiences = map(scope, "audiences", credentials, |audience| Some(audience.to_owned()))?;
    Some(MetadataKind::Gce { credential, project, email, scopes, audiences })
}

fn resources(scope: &mut Scope<'_>, credentials: &Credentials) -> Option<MetadataKind> {
    if !scope.is_written("resources") {
        scope.missing("resources");
        return None;
    }
    let bare = |text: &str| Some(bare_resource(text)).filter(|text| !text.is_empty()).map(str::to_owned);
    let resources = map(scope, "resources", credentials, bare)?;
    if resources.is_empty() {
        scope.fault("resources", &Fault::plain("must not be empty"));
    }
    Some(MetadataKind::Azure { resources })
}

/// A resource of Azure's without what scopes add to it.
pub(crate) fn bare_resource(text: &str) -> &str {
    text.strip_suffix("/.default").unwrap_or(text).trim_end_matches('/')
}

fn map(
    scope: &mut Scope<'_>,
    name: &str,
    credentials: &Credentials,
    key: impl Fn(&str) -> Option<String>,
) -> Option<BTreeMap<String, CredentialName>> {
    let items = scope.text_map(name);
    let count = items.len();
    let mut all = BTreeMap::new();
    for (text, credential) in items {
        match (key(&text), known(&credential, credentials)) {
            (Some(key), Ok(credential)) if !all.contains_key(&key) => {
                all.insert(key, credential);
            }
            (_, Err(fault)) => scope.fault(name, &fault),
            _ => {
                let must = format!("has {} twice, or without a name", shown(&text));
                scope.fault(name, &Fault::new(must, "slashes at the end make no difference: remove one"));
            }
        }
    }
    (all.len() == count && !scope.is_broken(name)).then_some(all)
}

/// A credential of this configuration, by name.
pub(super) fn credential(scope: &mut Scope<'_>, name: &str, credentials: &Credentials) -> Option<CredentialName> {
    scope.parsed(name, |text| known(text, credentials), |name| name.as_str().to_owned())
}

/// A name that is written under `[credential.NAME]`. One whose own table is wrong is not there either, which is said once.
fn known(text: &str, credentials: &Credentials) -> Result<CredentialName, Fault> {
    let name = CredentialName::parse(text)
        .map_err(|error| Fault::plain(format!("must be the name of a credential, not {}: {error}", shown(text))))?;
    if credentials.contains_key(&name) {
        return Ok(name);
    }
    let hint = match nearest(text, credentials.keys().map(CredentialName::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "credentials have the names under `[credential.NAME]`".to_owned(),
    };
    Err(Fault::new(format!("names {}, which is not there", shown(text)), hint))
}

/// Reads all files.
pub(super) fn files(sheet: &mut Sheet, credentials: &Credentials) -> BTreeMap<String, FileConfig> {
    const FORMS: [(&str, FileForm); 3] = [("raw", FileForm::Raw), ("json", FileForm::Json), ("aws", FileForm::Aws)];
    let mut all: BTreeMap<String, FileConfig> = BTreeMap::new();
    for named in few(sheet, "file.*", "file") {
        check_name(sheet, &named, "file");
        let mut scope = Scope::of(sheet, &named, "file.*");
        let credential = credential(&mut scope, "credential", credentials);
        let path = scope.parsed("path", absolute_path, |path| path.display().to_string());
        let form = scope.choice_or("form", &FORMS, FileForm::Raw);
        let (Some(credential), Some(path)) = (credential, path) else { continue };
        if all.values().any(|other| other.path == path) {
            scope.fault("path", &Fault::new("is that of another file", "two credentials need two files"));
        }
        all.insert(named.key, FileConfig { credential, path, form });
    }
    all
}

fn absolute_path(text: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(text);
    if path.is_absolute() && path.file_name().is_some() && !text.ends_with('/') && !text.contains('\0') {
        return Ok(path);
    }
    let hint = "for example `path = \"/run/keyreeve/lake.token\"`, in a folder of its own";
    Err(Fault::new(format!("must be the absolute path of a file, not {}", shown(text)), hint))
}
