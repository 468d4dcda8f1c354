//! The parameters of a request (RFC 6749 3.2): what is unknown is ignored, what is empty is not there, what is there twice is
//! refused, but for the two that may be.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use keyreeve_core::secret::Secret;

use super::Refusal;
use crate::http::input::unescaped;

/// RFC 8693 2.1, RFC 8707 2.
const SEVERAL: [&str; 2] = ["audience", "resource"];
/// The most parameters.
const PARAMETERS_MAX: usize = 64;

/// The parameters. They hold secrets and tokens: never log one whole.
pub(super) struct Form {
    parameters: Vec<(String, Secret<String>)>,
}

impl Form {
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::invalid_request("the body must be `application/x-www-form-urlencoded`"));
        }
        let broken = || Refusal::invalid_request("the body is not form-encoded text");
        let text = std::str::from_utf8(body).map_err(|_| broken())?;
        let mut parameters: Vec<(String, Secret<String>)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name).ok_or_else(broken)?, decoded(value).ok_or_else(broken)?);
            if parameters.len() >= PARAMETERS_MAX {
                return Err(Refusal::invalid_request(format!("more than {PARAMETERS_MAX} parameters")));
            }
            let is_known = parameters.iter().any(|(known, _)| *known == name);
            if is_known && !SEVERAL.contains(&name.as_str()) {
                return Err(Refusal::invalid_request("a parameter is there twice"));
            }
            if !value.is_empty() {
                parameters.push((name, Secret::new(value)));
            }
        }
        Ok(Self { parameters })
    }

    /// The value of a parameter.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.expose().as_str())
    }

    /// The values of all parameters with one of these names.
    pub(super) fn several(&self) -> impl Iterator<Item = &str> {
        let named = self.parameters.iter().filter(|(name, _)| SEVERAL.contains(&name.as_str()));
        named.map(|(_, value)| value.expose().as_str())
    }

    pub(super) fn secret(&self) -> Option<&Secret<String>> {
        self.parameters.iter().find(|(name, _)| name == "client_secret").map(|(_, value)| value)
    }

    /// A parameter that has to be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.one(name).ok_or_else(|| Refusal::invalid_request(format!("`{name}` is missing")))
    }
}

/// Text with its form encoding undone.
pub(super) fn decoded(text: &str) -> Option<String> {
    unescaped(&text.replace('+', " ")).map(std::borrow::Cow::into_owned)
}
