//! Text with `{placeholders}`, checked once and filled many times.
//!
//! Only `{` lower-case letters and `_` `}` is a placeholder; all other braces are text, so that JSON needs no escapes.

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// As they are.
    None,
    /// As the inside of a JSON string.
    Json,
    /// Percent-encoded (RFC 3986 2.1), all but unreserved characters.
    Url,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(&'static str),
}

/// A checked template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

impl Template {
    /// Takes a text that uses no other placeholders than `known`.
    pub(super) fn parse(text: &str, known: &[&'static str]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            let name = after.split_once('}').map(|(name, _)| name).filter(|name| is_name(name));
            if let Some(name) = name {
                let Some(known) = known.iter().find(|known| **known == name) else {
                    let known: Vec<_> = known.iter().map(|name| format!("`{{{name}}}`")).collect();
                    return Err(format!("no such placeholder: `{{{name}}}`\nhint: there are {}", known.join(", ")));
                };
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Value(known));
                rest = after.split_once('}').map_or("", |(_, rest)| rest);
            } else {
                plain.push('{');
                rest = after;
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// Writes the text with each placeholder replaced by what `value_of` gives for it.
    pub(super) fn fill(&self, escape: Escape, value_of: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value(name) => escaped(&mut text, escape, &value_of(name)),
            }
        }
        text
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

fn escaped(text: &mut String, escape: Escape, value: &str) {
    match escape {
        Escape::None => text.push_str(value),
        Escape::Json => {
            let quoted = serde_json::Value::from(value).to_string();
            text.push_str(quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default());
        }
        Escape::Url => {
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    text.push(char::from(byte));
                } else {
                    text.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(text: &str, escape: Escape) -> String {
        Template::parse(text, &["a", "b_c"]).unwrap().fill(escape, |name| format!("<{name}\">"))
    }

    #[test]
    fn placeholders_are_filled_and_other_braces_stay() {
        assert_eq!(fill("{a} and {b_c}", Escape::None), "<a\"> and <b_c\">");
        assert_eq!(fill(r#"{"x": {"y": "{a}"}}"#, Escape::Json), r#"{"x": {"y": "<a\">"}}"#);
        assert_eq!(fill("https://h/{a}?x={}", Escape::Url), "https://h/%3Ca%22%3E?x={}");
        assert_eq!(fill("{{a}}{", Escape::None), "{<a\">}{");
    }

    #[test]
    fn an_unknown_placeholder_is_refused_by_name() {
        let error = Template::parse("{generaton}", &["generation"]).unwrap_err();
        assert_eq!(error, "no such placeholder: `{generaton}`\nhint: there are `{generation}`");
    }

    proptest! {
        #[test]
        fn a_text_without_placeholders_is_left_alone(text in "[^{]*|[{A-Z0-9 \"]*") {
            let template = Template::parse(&text, &["a"]).unwrap();
            prop_assert_eq!(template.fill(Escape::None, |_| String::new()), text);
        }
    }
}
