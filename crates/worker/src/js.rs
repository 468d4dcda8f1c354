//! What the leaves do with JavaScript values: look up bindings, put errors into words, read streams to their end.

use worker::js_sys::{self, Reflect, Uint8Array};
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::wasm_bindgen_futures::JsFuture;
use worker::{Env, Fetcher};

/// The longest text of a JavaScript error that is passed on, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// Whatever is bound to `name`; nothing where there is no such binding.
pub(crate) fn binding(env: &Env, name: &str) -> Option<JsValue> {
    let value = Reflect::get(env, &JsValue::from_str(name)).ok()?;
    (!value.is_undefined() && !value.is_null()).then_some(value)
}

/// A binding that has the method `method`, or a sentence that names it and says what it should have been.
pub(crate) fn binding_with(env: &Env, name: &str, method: &str, kind: &str) -> Result<JsValue, String> {
    let value = binding(env, name)
        .ok_or_else(|| format!("the binding `{name}` is missing\nhint: bind a {kind} under this name"))?;
    let is_right = Reflect::get(&value, &JsValue::from_str(method)).is_ok_and(|found| found.is_function());
    if is_right { Ok(value) } else { Err(format!("the binding `{name}` is not a {kind}")) }
}

/// Another Worker, or a client certificate, under the name of its binding.
pub(crate) fn fetcher(env: &Env, name: &str) -> Result<Fetcher, String> {
    binding_with(env, name, "fetch", "service").map(Fetcher::unchecked_from_js)
}

/// What a JavaScript error says, in one bounded line. One that quotes a URL, which may hold a secret, says nothing.
pub(crate) fn reason(error: &JsValue) -> String {
    let text = match error.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => error.as_string().unwrap_or_default(),
    };
    line(&text)
}

pub(crate) fn line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() || line.contains("://") {
        return "the platform refused".to_owned();
    }
    line.get(..line.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().to_owned()
}

/// Why a stream could not be read to its end.
pub(crate) enum Unread {
    TooLarge,
    Broken(String),
}

/// Reads a stream to its end, or cancels it where it has more than `bytes_max` bytes.
pub(crate) async fn read(stream: &web_sys::ReadableStream, bytes_max: usize) -> Result<Vec<u8>, Unread> {
    let broken = |error: JsValue| Unread::Broken(reason(&error));
    let reader: web_sys::ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    let (mut chunks, mut length) = (Vec::new(), 0_usize);
    loop {
        let step = JsFuture::from(reader.read()).await.map_err(broken)?;
        if Reflect::get(&step, &JsValue::from_str("done")).map_err(broken)?.is_truthy() {
            break;
        }
        let chunk = Reflect::get(&step, &JsValue::from_str("value")).map_err(broken)?;
        let chunk: Uint8Array = chunk.dyn_into().map_err(|_| Unread::Broken("the stream holds no bytes".to_owned()))?;
        length = length.saturating_add(usize::try_from(chunk.length()).unwrap_or(usize::MAX));
        if length > bytes_max {
            // What comes of it is of no interest, but a promise that fails unheard is a warning in the log.
            let _cancelled = JsFuture::from(reader.cancel()).await;
            return Err(Unread::TooLarge);
        }
        chunks.push(chunk);
    }
    // One buffer of the right size: a vector that grows leaves copies of a secret behind.
    let mut bytes = vec![0; length];
    let mut rest = bytes.as_mut_slice();
    for chunk in chunks {
        if let Some(place) = rest.split_off_mut(..usize::try_from(chunk.length()).unwrap_or(usize::MAX)) {
            chunk.copy_to(place);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn an_error_is_one_short_line_without_a_url() {
        assert_eq!(line("Network connection lost.\n  at fetch"), "Network connection lost.");
        assert_eq!(line("Invalid URL: https://a.example/?token=hunter2"), "the platform refused");
        assert_eq!(line(""), "the platform refused");
        assert_eq!(line(&"ü".repeat(500)).len(), super::REASON_BYTES_MAX);
    }
}
