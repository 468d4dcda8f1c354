//! The little XML that AWS answers with: texts by the path of their elements, without namespaces and attributes.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::Event;
use zeroize::Zeroize as _;

/// How deep elements may be nested.
const DEPTH_MAX: usize = 16;
/// How many elements with text a document may have.
const TEXTS_MAX: usize = 256;

/// The texts of a document; they may be secrets, and are wiped.
pub(super) struct Document(BTreeMap<String, String>);

impl Drop for Document {
    fn drop(&mut self) {
        self.0.values_mut().for_each(zeroize::Zeroize::zeroize);
    }
}

impl Document {
    /// The text of the first element whose path ends with `path`: `Error/Code`.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        let is_it =
            |found: &str| found.strip_suffix(path).is_some_and(|before| before.is_empty() || before.ends_with('/'));
        self.0.iter().find(|(found, _)| is_it(found)).map(|(_, text)| text.as_str())
    }
}

/// Reads a document. No entity but the five of XML itself and numbers is known, and a document type is refused.
///
/// The reason of a failure holds nothing of the content.
pub(super) fn texts(bytes: &[u8]) -> Result<Document, &'static str> {
    const NOT: &str = "not XML";
    let text = std::str::from_utf8(bytes).map_err(|_| NOT)?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut document = Document(BTreeMap::new());
    let mut path: Vec<String> = Vec::new();
    let mut current = String::new();
    let mut has_root = false;
    loop {
        match reader.read_event().map_err(|_| NOT)? {
            Event::Start(start) => {
                if path.len() >= DEPTH_MAX || (path.is_empty() && has_root) {
                    return Err(NOT);
                }
                has_root = true;
                path.push(String::from_utf8_lossy(start.local_name().as_ref()).into_owned());
                current.zeroize();
            }
            Event::End(_) => {
                let is_kept = !current.trim().is_empty() && document.0.len() < TEXTS_MAX;
                if is_kept {
                    document.0.entry(path.join("/")).or_insert_with(|| current.trim().to_owned());
                }
                current.zeroize();
                path.pop();
            }
            Event::Text(part) => current.push_str(&part.decode().map_err(|_| NOT)?),
            Event::CData(part) => current.push_str(&part.decode().map_err(|_| NOT)?),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().map_err(|_| NOT)? {
                Some(character) => current.push(character),
                None => current.push(match &*reference {
                    b"amp" => '&',
                    b"lt" => '<',
                    b"gt" => '>',
                    b"quot" => '"',
                    b"apos" => '\'',
                    _ => return Err(NOT),
                }),
            },
            Event::DocType(_) => return Err(NOT),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::Empty(_) => {}
            Event::Eof => break,
        }
    }
    if has_root && path.is_empty() { Ok(document) } else { Err(NOT) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_found_by_their_path() {
        let xml = br#"<?xml version="1.0"?><ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
            <Error><Type>Sender</Type><Code>AccessDenied</Code><Message>a &lt;b&gt; &#38; <![CDATA[<c>]]></Message></Error>
            <RequestId/></ErrorResponse>"#;
        let document = texts(xml).unwrap();
        assert_eq!(document.text("Error/Code"), Some("AccessDenied"));
        assert_eq!(document.text("Error/Message"), Some("a <b> & <c>"));
        assert_eq!(document.text("RequestId"), None);
        assert_eq!(document.text("ode"), None);
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(17), "</a>".repeat(17));
        for not in [
            "",
            "Service Unavailable",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
            "<a>&b;</a>",
            deep.as_str(),
        ] {
            assert!(texts(not.as_bytes()).is_err(), "{not}");
        }
        assert!(texts(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = texts(&bytes);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[<>/&;a-c!\\[\\]\"'= ?-]{0,60}") {
            let _ = texts(text.as_bytes());
        }
    }
}
