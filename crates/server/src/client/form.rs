//! The forms in which `credential get` prints a secret.

use jiff::{SignedDuration, Timestamp};
use keyreeve::core::secret::Secret;
use serde_json::{Map, Value, json};

use crate::cli::GetForm;
use crate::exit::{Code, Failure};

/// Writes what the API answered in the form that was asked for.
///
/// # Errors
/// A credential that has no such form: named fields are no single token, and only AWS keys fit AWS's document.
pub(crate) fn write(form: GetForm, name: &str, answer: &Value) -> Result<String, Failure> {
    match form {
        GetForm::Json => Ok(answer.to_string()),
        GetForm::Raw => token(name, answer).map(str::to_owned),
        GetForm::Header => header(name, answer),
        GetForm::Env => Ok(environment(name, answer)),
        GetForm::Aws => aws(name, answer),
        GetForm::K8sExec => k8s(name, answer, std::env::var("KUBERNETES_EXEC_INFO").ok().as_deref()),
    }
}

/// The token.
///
/// # Errors
/// A credential with named fields.
pub(crate) fn token<'a>(name: &str, answer: &'a Value) -> Result<&'a str, Failure> {
    answer.get("token").and_then(Value::as_str).ok_or_else(|| {
        Failure::new(Code::Usage, format!("`{name}` is not a single token but has named fields"))
            .hint("use `-o json` or `-o env`")
    })
}

fn header(name: &str, answer: &Value) -> Result<String, Failure> {
    let headers = answer.get("header").and_then(Value::as_object);
    let (header, value) = headers
        .and_then(|headers| headers.iter().next())
        .and_then(|(header, value)| Some((header, value.as_str()?)))
        .ok_or_else(|| Failure::new(Code::Usage, format!("`{name}` is no bearer token")).hint("use `-o json`"))?;
    Ok(format!("{header}: {value}"))
}

/// `APNS_PROD_TOKEN='..'`; the names of AWS for AWS's fields.
fn environment(name: &str, answer: &Value) -> String {
    let lines = variables(name, answer);
    lines.iter().map(|(variable, value)| line(variable, value.expose())).collect::<Vec<_>>().join("\n")
}

/// The variables of a credential, with their values.
pub(crate) fn variables(name: &str, answer: &Value) -> Vec<(String, Secret<String>)> {
    let prefix = variable(name);
    let mut all = Vec::new();
    let mut set = |variable: String, value: &str| all.push((variable, Secret::new(value.to_owned())));
    if let Some(token) = answer.get("token").and_then(Value::as_str) {
        set(format!("{prefix}_TOKEN"), token);
    }
    for (field, value) in fields(answer).into_iter().flatten() {
        let known = match field.as_str() {
            "AccessKeyId" => "AWS_ACCESS_KEY_ID".to_owned(),
            "SecretAccessKey" => "AWS_SECRET_ACCESS_KEY".to_owned(),
            "SessionToken" => "AWS_SESSION_TOKEN".to_owned(),
            other => format!("{prefix}_{}", variable(other)),
        };
        set(known, value.as_str().unwrap_or_default());
    }
    let expires_at = answer.get("expires_at").and_then(Value::as_str).unwrap_or_default();
    set(format!("{prefix}_EXPIRES_AT"), expires_at);
    all
}

fn fields(answer: &Value) -> Option<&Map<String, Value>> {
    answer.get("fields").and_then(Value::as_object)
}

fn variable(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let letters: String = letters.collect();
    // A variable's name must not begin with a digit (POSIX 3.216).
    if letters.starts_with(|c: char| c.is_ascii_digit()) { format!("_{letters}") } else { letters }
}

/// Quoted for a POSIX shell: nothing in single quotes means anything but a single quote.
fn line(variable: &str, value: &str) -> String {
    format!("{variable}='{}'", value.replace('\'', r"'\''"))
}

/// The document of AWS's `credential_process`, version 1.
fn aws(name: &str, answer: &Value) -> Result<String, Failure> {
    let field = |field: &str| fields(answer).and_then(|fields| fields.get(field)).and_then(Value::as_str);
    let (Some(id), Some(secret)) = (field("AccessKeyId"), field("SecretAccessKey")) else {
        let text = format!("`{name}` has no fields `AccessKeyId` and `SecretAccessKey`");
        return Err(Failure::new(Code::Usage, text).hint("use `-o json`"));
    };
    let mut document = json!({ "Version": 1, "AccessKeyId": id, "SecretAccessKey": secret });
    if let Some(members) = document.as_object_mut() {
        if let Some(session) = field("SessionToken") {
            members.insert("SessionToken".into(), session.into());
        }
        if let Some(expires_at) = answer.get("expires_at") {
            members.insert("Expiration".into(), expires_at.clone());
        }
    }
    Ok(document.to_string())
}

/// How much sooner a token is to be taken as expired: kubectl and its kin ask again only then, and have a request to send.
const AHEAD: SignedDuration = SignedDuration::from_secs(60);
/// The only other version that there is.
const BETA: &str = "client.authentication.k8s.io/v1beta1";

/// An `ExecCredential` of Kubernetes, in the version that `info`, the variable of the client, asks for.
fn k8s(name: &str, answer: &Value, info: Option<&str>) -> Result<String, Failure> {
    let field = |field: &str| fields(answer).and_then(|fields| fields.get(field)).and_then(Value::as_str);
    let mut status = match (field("clientCertificateData"), field("clientKeyData")) {
        (Some(certificate), Some(key)) => json!({ "clientCertificateData": certificate, "clientKeyData": key }),
        _ => json!({ "token": token(name, answer)? }),
    };
    let expires_at = answer.get("expires_at").and_then(Value::as_str).and_then(|at| at.parse::<Timestamp>().ok());
    if let (Some(at), Some(members)) = (expires_at.and_then(|at| at.checked_sub(AHEAD).ok()), status.as_object_mut()) {
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        members.insert("expirationTimestamp".into(), at.to_string().into());
    }
    let asked: Option<Value> = info.and_then(|info| serde_json::from_str(info).ok());
    let is_beta = asked.as_ref().and_then(|info| info.get("apiVersion")).is_some_and(|version| version == BETA);
    let version = if is_beta { BETA } else { "client.authentication.k8s.io/v1" };
    Ok(json!({ "apiVersion": version, "kind": "ExecCredential", "status": status }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer() -> Value {
        json!({
            "name": "a-b/c", "token": "t'1", "header": { "authorization": "bearer t'1" },
            "expires_at": "2026-01-01T00:00:00Z",
        })
    }

    fn keys() -> Value {
        let fields = json!({ "AccessKeyId": "AKIA", "SecretAccessKey": "s", "SessionToken": "x" });
        json!({ "name": "lake", "fields": fields, "expires_at": "2026-01-01T00:00:00Z" })
    }

    #[test]
    fn a_token_has_every_form_but_that_of_aws() {
        let written = |form| write(form, "a-b/c", &bearer());
        assert_eq!(written(GetForm::Raw).unwrap(), "t'1");
        assert_eq!(written(GetForm::Header).unwrap(), "authorization: bearer t'1");
        let environment = "A_B_C_TOKEN='t'\\''1'\nA_B_C_EXPIRES_AT='2026-01-01T00:00:00Z'";
        assert_eq!(written(GetForm::Env).unwrap(), environment);
        assert_eq!(written(GetForm::Aws).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn aws_keys_have_the_forms_that_aws_tools_read() {
        let written = |form| write(form, "lake", &keys());
        let document: Value = serde_json::from_str(&written(GetForm::Aws).unwrap()).unwrap();
        let expected = json!({
            "Version": 1, "AccessKeyId": "AKIA", "SecretAccessKey": "s", "SessionToken": "x",
            "Expiration": "2026-01-01T00:00:00Z",
        });
        assert_eq!(document, expected);
        assert!(written(GetForm::Env).unwrap().starts_with("AWS_ACCESS_KEY_ID='AKIA'\n"));
        assert_eq!(written(GetForm::Raw).unwrap_err().code, Code::Usage);
        assert_eq!(written(GetForm::Header).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn kubernetes_is_told_to_come_back_a_minute_early_in_its_own_version() {
        let document =
            |info: Option<&str>| -> Value { serde_json::from_str(&k8s("a", &bearer(), info).unwrap()).unwrap() };
        let expected = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": { "token": "t'1", "expirationTimestamp": "2025-12-31T23:59:00Z" },
        });
        assert_eq!(document(None), expected);
        assert_eq!(document(Some("nonsense")), expected);
        let beta = format!("{{\"apiVersion\":\"{BETA}\"}}");
        assert_eq!(document(Some(&beta))["apiVersion"], BETA);
        assert_eq!(k8s("lake", &keys(), None).unwrap_err().code, Code::Usage);
        let certificate = json!({ "fields": { "clientCertificateData": "c", "clientKeyData": "k" } });
        let document: Value = serde_json::from_str(&k8s("a", &certificate, None).unwrap()).unwrap();
        assert_eq!(document["status"], certificate["fields"]);
    }

    #[test]
    fn a_variable_does_not_begin_with_a_digit() {
        assert_eq!(variable("1st"), "_1ST");
    }
}
