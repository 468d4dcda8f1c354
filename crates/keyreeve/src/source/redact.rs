//! What strangers wrote, made fit for a history: known secrets, things named like secrets and things that look like
//! tokens become `***`, control characters become spaces.
//!
//! It errs on the side of hiding: a long path with digits in it may be lost, a token must not be kept.

use keyreeve_core::secret::Secret;

/// What stands for whatever was hidden.
const STARS: &str = "***";
/// Known secrets shorter than this are not searched for: they would be found everywhere.
const KNOWN_BYTES_MIN: usize = 3;
/// A run of token characters at least this long is looked at.
const RUN_BYTES_MIN: usize = 16;

/// Hides secrets in text.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    /// Longest first, so that no secret hides a part of a longer one.
    known: Vec<Secret<String>>,
}

impl Redactor {
    /// Takes the secrets that must not be seen; of those with several lines, each line counts.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known: Vec<&str> = secrets
            .into_iter()
            .flat_map(|secret| std::iter::once(secret).chain(secret.lines()))
            .map(str::trim)
            .filter(|secret| secret.len() >= KNOWN_BYTES_MIN)
            .collect();
        known.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        known.dedup();
        Self { known: known.into_iter().map(|secret| Secret::new(secret.to_owned())).collect() }
    }

    /// The text on one line, without anything that is or looks like a secret.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            text = text.replace(secret.expose().as_str(), STARS);
            // Whoever bounded the text may have cut a secret in two.
            let cut = (4..secret.expose().len()).rev().find_map(|end| {
                let start = secret.expose().get(..end)?;
                text.strip_suffix(start).map(|rest| format!("{rest}{STARS}"))
            });
            text = cut.unwrap_or(text);
        }
        let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let spaced = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
        Scan::default().run(&spaced)
    }

    /// The beginning of the cleaned text, at most about `bytes_max` bytes.
    #[must_use]
    pub fn start(&self, text: &str, bytes_max: usize) -> String {
        let clean = self.clean(text);
        if clean.len() <= bytes_max {
            return clean;
        }
        let end = clean.floor_char_boundary(bytes_max);
        format!("{}...", clean.get(..end).unwrap_or_default())
    }

    /// The end of the cleaned text, where programs say why they failed; at most about `bytes_max` bytes.
    #[must_use]
    pub fn end(&self, text: &str, bytes_max: usize) -> String {
        let clean = self.clean(text);
        if clean.len() <= bytes_max {
            return clean;
        }
        let start = clean.ceil_char_boundary(clean.len().saturating_sub(bytes_max));
        format!("...{}", clean.get(start..).unwrap_or_default())
    }
}

/// Goes over words and the gaps between them.
#[derive(Default)]
struct Scan<'a> {
    out: String,
    /// The last word, and where it begins in `out`.
    word: Option<(&'a str, usize)>,
    gap: &'a str,
    /// Inside a value that is hidden to its end, whatever characters it has.
    is_hiding: bool,
}

const fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-' | '.' | '~' | '%')
}

impl<'a> Scan<'a> {
    fn run(mut self, text: &'a str) -> String {
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c| !is_word_char(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            self.take_word(word);
            let end = after.find(is_word_char).unwrap_or(after.len());
            let (gap, after) = after.split_at_checked(end).unwrap_or((after, ""));
            self.take_gap(gap);
            rest = after;
        }
        self.out
    }

    fn take_word(&mut self, word: &'a str) {
        if word.is_empty() || self.is_hiding {
            return;
        }
        let named = self.word.map_or(Named::No, |(before, _)| named(before, self.gap, word));
        self.word = Some((word, self.out.len()));
        if named == Named::Value {
            self.is_hiding = true;
            self.out.push_str(STARS);
        } else if named == Named::Word || looks_like_token(word) {
            self.out.push_str(STARS);
        } else {
            self.out.push_str(word);
        }
    }

    fn take_gap(&mut self, gap: &'a str) {
        const ENDS: [char; 6] = [' ', '&', '"', '\'', ',', ';'];
        if self.is_hiding {
            let Some(end) = gap.find(ENDS) else { return };
            self.is_hiding = false;
            self.out.push_str(gap.get(end..).unwrap_or_default());
        } else {
            if let (true, ":", Some((_, start))) = (gap.starts_with('@'), self.gap, self.word) {
                // RFC 3986 3.2.1: `user:password@host`.
                self.out.truncate(start);
                self.out.push_str(STARS);
            }
            self.out.push_str(gap);
        }
        self.gap = gap;
    }
}

#[derive(PartialEq, Eq)]
enum Named {
    No,
    /// This word is a secret.
    Word,
    /// A secret begins here, and ends at the next delimiter.
    Value,
}

/// Whether `word` is the value of something that is named like a secret.
fn named(before: &str, gap: &str, word: &str) -> Named {
    const PASSWORDS: [&str; 4] = ["password", "passwd", "passphrase", "pwd"];
    const OTHERS: [&str; 9] =
        ["token", "secret", "key", "authorization", "signature", "assertion", "credential", "cookie", "code"];
    let before = before.to_ascii_lowercase();
    let has = |names: &[&str]| names.iter().any(|name| before.ends_with(name));
    if has(&["bearer", "basic"]) && gap == " " && word.len() >= 6 {
        return Named::Word;
    }
    let is_password = has(&PASSWORDS);
    if !is_password && !has(&OTHERS) {
        return Named::No;
    }
    let is_quoted = gap.contains(['"', '\'']);
    let is_prose = gap.starts_with(':') && gap.contains(' ') && !is_quoted;
    if gap.contains('=') || (gap.contains(':') && !is_prose) {
        return Named::Value;
    }
    // `token: expired` is worth reading, `token: 8f3a91` is not.
    let has_digit = word.bytes().any(|b| b.is_ascii_digit());
    if is_prose && (is_password || (has_digit && word.len() >= 6)) { Named::Value } else { Named::No }
}

/// Whether a run of characters is more like a token than like words, a path or an error's name.
fn looks_like_token(run: &str) -> bool {
    if run.len() < RUN_BYTES_MIN {
        return false;
    }
    let count = |is: fn(&u8) -> bool| run.bytes().filter(is).count();
    let upper = count(u8::is_ascii_uppercase);
    let lower = count(u8::is_ascii_lowercase);
    let digits = count(u8::is_ascii_digit);
    let mut segments = run.split(['/', '.', '_', '-', '~', '%', '+']);
    if upper == 0 {
        let is_random = |segment: &str| {
            let digits = segment.bytes().filter(u8::is_ascii_digit).count();
            segment.len() >= 24 || (segment.len() >= 8 && digits >= 2)
        };
        return segments.any(is_random);
    }
    let is_constant = lower == 0 && digits == 0 && segments.nth(1).is_some();
    let is_camel_case = digits == 0 && upper.saturating_mul(4) <= run.len() && lower > 0;
    !(is_constant || is_camel_case)
}
