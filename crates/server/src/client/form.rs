//! The forms in which `credential get` prints a secret.

use serde_json::{Map, Value, json};

use crate::cli::GetForm;
use crate::exit::{Code, Failure};

/// Writes what the API answered in the form that was asked for.
///
/// # Errors
/// A credential that has no such form: named fields are no single token, and only AWS keys fit AWS's document.
pub(super) fn write(form: GetForm, name: &str, answer: &Value) -> Result<String, Failure> {
    match form {
        GetForm::Json => Ok(answer.to_string()),
        GetForm::Raw => token(name, answer).map(str::to_owned),
        GetForm::Header => header(name, answer),
        GetForm::Env => Ok(environment(name, answer)),
        GetForm::Aws => aws(name, answer),
    }
}

fn token<'a>(name: &str, answer: &'a Value) -> Result<&'a str, Failure> {
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
    let prefix = variable(name);
    let mut lines = Vec::new();
    match (answer.get("token").and_then(Value::as_str), fields(answer)) {
        (Some(token), _) => lines.push(line(&format!("{prefix}_TOKEN"), token)),
        (None, Some(fields)) => {
            for (field, value) in fields {
                let value = value.as_str().unwrap_or_default();
                let known = match field.as_str() {
                    "AccessKeyId" => "AWS_ACCESS_KEY_ID".to_owned(),
                    "SecretAccessKey" => "AWS_SECRET_ACCESS_KEY".to_owned(),
                    "SessionToken" => "AWS_SESSION_TOKEN".to_owned(),
                    other => format!("{prefix}_{}", variable(other)),
                };
                lines.push(line(&known, value));
            }
        }
        (None, None) => {}
    }
    let expires_at = answer.get("expires_at").and_then(Value::as_str).unwrap_or_default();
    lines.push(line(&format!("{prefix}_EXPIRES_AT"), expires_at));
    lines.join("\n")
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
    fn a_variable_does_not_begin_with_a_digit() {
        assert_eq!(variable("1st"), "_1ST");
    }
}
