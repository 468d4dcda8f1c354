//! Times and sizes with their units, as text.

use keyreeve_core::time::Span;

use super::problem::Fault;

const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// What to write instead of a number without a unit, from the units with which it is within the limits.
pub(super) fn with_units(
    number: &str,
    (least, most): (u64, u64),
    parse: fn(&str) -> Result<u64, Fault>,
) -> Vec<String> {
    let units = TIME_UNITS.iter().rev().chain(SIZE_UNITS.iter().rev());
    let texts = units.map(|(unit, _)| format!("{number}{unit}"));
    texts.filter(|text| parse(text).is_ok_and(|value| (least..=most).contains(&value))).collect()
}

/// Reads a duration such as `20m`, `1h 5m`, `250ms` or `1.5s`, in milliseconds.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence, and what to do.
pub(super) fn duration_ms(text: &str) -> Result<u64, Fault> {
    amount(text, &TIME_UNITS, "20m", "the units are `ms`, `s`, `m`, `h` and `d`: `90s`, `20m`, `1h 30m`")
}

/// As [`duration_ms`], for whoever has words of its own for what is wrong.
pub(crate) fn duration(text: &str) -> Option<u64> {
    duration_ms(text).ok()
}

/// Reads a size such as `64KiB`, in bytes.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence, and what to do.
pub(super) fn size_bytes(text: &str) -> Result<u64, Fault> {
    amount(text, &SIZE_UNITS, "64KiB", "the units are `B`, `KiB`, `MiB` and `GiB`: `512B`, `64KiB`, `10MiB`")
}

fn amount(text: &str, units: &[(&str, u64)], example: &str, hint: &str) -> Result<u64, Fault> {
    let shown = super::problem::shown(text);
    let malformed = || Fault::new(format!("must be a number with its unit, such as `{example}`, not {shown}"), hint);
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut total = 0u64;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits).ok_or_else(malformed)?;
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (name, after) = after.split_at_checked(letters).ok_or_else(malformed)?;
        let (_, size) = units.iter().find(|(unit, _)| *unit == name).ok_or_else(malformed)?;
        if *size >= last {
            return Err(malformed());
        }
        last = *size;
        let part = scaled(number, *size).ok_or_else(malformed)?;
        total = total.checked_add(part).ok_or_else(malformed)?;
        rest = after.trim_start();
    }
    Ok(total)
}

/// `number` with up to three decimals, times `unit`; none where that is not a whole number.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let mut total = whole.checked_mul(unit)?;
    if number.contains('.') {
        if decimals.is_empty() || decimals.len() > 3 {
            return None;
        }
        let shift = 10u64.checked_pow(u32::try_from(decimals.len()).ok()?)?;
        let part = decimals.parse::<u64>().ok()?.checked_mul(unit)?;
        if part % shift != 0 {
            return None;
        }
        total = total.checked_add(part / shift)?;
    }
    Some(total)
}

/// A duration as it would be written.
pub(super) fn show_duration(ms: u64) -> String {
    Span(ms).to_string()
}

/// A size as it would be written.
pub(super) fn show_size(bytes: u64) -> String {
    for (name, unit) in SIZE_UNITS {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_carry_units() {
        assert_eq!(duration_ms("20m"), Ok(1_200_000));
        assert_eq!(duration_ms("1h 5m"), Ok(3_900_000));
        assert_eq!(duration_ms("1h5m"), Ok(3_900_000));
        assert_eq!(duration_ms("1.5s"), Ok(1500));
        assert_eq!(duration_ms(" 250 ms "), Ok(250));
        for bad in ["", " ", "20", "m", "1.5ms", "5m 1h", "1m 1m", "1.", "1..5s", "-1s", "20 minutes", "1e3s"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
        assert!(duration_ms("99999999999999999999s").is_err());
        assert!(duration_ms("18446744073709551615d").is_err());
    }

    #[test]
    fn sizes_carry_units() {
        assert_eq!(size_bytes("64KiB"), Ok(65_536));
        assert_eq!(size_bytes("1.5 MiB"), Ok(1_572_864));
        assert_eq!(show_size(65_536), "64KiB");
        assert_eq!(show_size(65_537), "65537B");
        assert!(size_bytes("64KB").is_err());
        assert!(size_bytes("65536").is_err());
        assert_eq!(with_units("65536", (1024, 1 << 24), size_bytes), ["65536B"]);
        assert_eq!(with_units("20", (1000, 3_600_000), duration_ms), ["20s", "20m"]);
    }

    proptest! {
        #[test]
        fn what_is_printed_can_be_read_again(ms in 0u64..400 * 86_400_000, bytes in 0u64..1 << 40) {
            prop_assert_eq!(duration_ms(&show_duration(ms)), Ok(ms));
            prop_assert_eq!(size_bytes(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            let _ = duration_ms(&text);
            let _ = size_bytes(&text);
        }
    }
}
