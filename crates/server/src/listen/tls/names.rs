//! The names in a certificate that was verified, in the spelling of `certificate_name`.

use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The short names of RFC 4514 3, and `serialNumber`, by the DER of their object identifiers.
const TYPES: [(&[u8], &str); 10] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// UTF8String, PrintableString, IA5String: those whose bytes are UTF-8.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// Its alternative names, and its subject where that can be written down.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    let mut names: Vec<String> = parsed.valid_dns_names().map(|name| format!("dns:{name}")).collect();
    names.extend(parsed.valid_uri_names().map(|name| format!("uri:{name}")));
    names.extend(distinguished(parsed.subject()).map(|name| format!("subject:{name}")));
    names
}

/// The text of a distinguished name (RFC 4514 2): the last part first. `None` where a part has no short name, or a value is
/// no text: what cannot be written down unmistakably is nobody's name.
fn distinguished(mut parts: &[u8]) -> Option<String> {
    let mut written = Vec::new();
    while !parts.is_empty() {
        let (mut several, rest) = value(parts, SET)?;
        parts = rest;
        let mut text = String::new();
        while !several.is_empty() {
            let (one, rest) = value(several, SEQUENCE)?;
            several = rest;
            let (kind, content) = value(one, OBJECT_IDENTIFIER)?;
            let (_, kind) = TYPES.iter().find(|(identifier, _)| *identifier == kind)?;
            let (content, after) = TEXTS.iter().find_map(|tag| value(content, *tag))?;
            if !text.is_empty() {
                text.push('+');
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "{kind}=");
            escape(std::str::from_utf8(content).ok()?, &mut text);
            after.is_empty().then_some(())?;
        }
        written.push(text);
    }
    written.reverse();
    (!written.is_empty()).then(|| written.join(","))
}

/// RFC 4514 2.4.
fn escape(text: &str, out: &mut String) {
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        let is_outer = (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ');
        if c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "\\{byte:02X}");
            }
            continue;
        }
        if is_outer || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
}

/// The content of the value at the front (X.690 8.1), which has to have this tag, and what follows it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk::<2>().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    (*first == tag).then_some(())?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate with these parts of a subject, and these other names.
    fn certificate(parts: &[(rcgen::DnType, &str)], names: Vec<rcgen::SanType>) -> CertificateDer<'static> {
        let mut wanted = rcgen::CertificateParams::default();
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in parts {
            wanted.distinguished_name.push(kind.clone(), *text);
        }
        wanted.subject_alt_names = names;
        wanted.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn each_name_is_written_as_the_configuration_has_it() {
        use rcgen::DnType::{CommonName, CountryName, CustomDnType, OrganizationName};
        let names = vec![
            rcgen::SanType::DnsName("orders.internal".try_into().unwrap()),
            rcgen::SanType::URI("spiffe://example.org/orders".try_into().unwrap()),
        ];
        let parts = [(CountryName, "DE"), (OrganizationName, "Example, Inc. "), (CommonName, "#orders=1")];
        assert_eq!(
            of(&certificate(&parts, names)),
            [
                "dns:orders.internal",
                "uri:spiffe://example.org/orders",
                "subject:CN=\\#orders\\=1,O=Example\\, Inc.\\ ,C=DE"
            ]
        );
        // A part that cannot be written down: the others alone would be somebody else's name.
        let strange = [(CommonName, "orders"), (CustomDnType(vec![1, 2, 3, 4]), "x")];
        assert_eq!(of(&certificate(&strange, Vec::new())), Vec::<String>::new());
        assert_eq!(of(&certificate(&[], Vec::new())), Vec::<String>::new());
        assert_eq!(of(&CertificateDer::from(vec![1, 2, 3])), Vec::<String>::new());
    }

    #[test]
    fn no_bytes_make_it_fall() {
        let good = [0x31, 11, 0x30, 9, 0x06, 3, 0x55, 4, 3, 0x0c, 2, b'a', b'b'];
        assert_eq!(distinguished(&good).as_deref(), Some("CN=ab"));
        for at in 0..good.len() {
            assert_eq!(distinguished(good.get(..at).unwrap()).filter(|_| at > 0), None, "{at}");
            for byte in 0..=255 {
                let mut broken = good;
                if let Some(place) = broken.get_mut(at) {
                    *place = byte;
                }
                let _ = distinguished(&broken);
            }
        }
    }
}
