//! Bytes as hexadecimal digits, for names and headers; not for secrets, which would leave traces of their digits in time.

/// Two lower-case digits a byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |number: u8| DIGITS.get(usize::from(number & 15)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// Exactly `N` bytes, from digits of either case; `None` for anything else.
#[must_use]
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let pairs = text.as_bytes().as_chunks::<2>();
    if !pairs.1.is_empty() || pairs.0.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs.0) {
        let number = |digit: u8| char::from(digit).to_digit(16).and_then(|number| u8::try_from(number).ok());
        *byte = number(*high)? << 4 | number(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_through_and_what_is_none_is_refused() {
        let bytes = *b"\x00\x01\x7f\x80\xff9a";
        assert_eq!(encode(&bytes), "00017f80ff3961");
        assert_eq!(decode(&encode(&bytes)), Some(bytes));
        assert_eq!(decode("AbFF"), Some([0xab, 0xff]));
        for bad in ["", "0", "000", "00000", "zz00", "+100", "é00", "0 00"] {
            assert_eq!(decode::<2>(bad), None, "{bad}");
        }
    }
}
