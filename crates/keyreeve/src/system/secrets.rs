//! Secrets by reference: from the environment and from files.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use crate::config::SecretRef;
use crate::port::Secrets;
use keyreeve_core::secret::Secret;

/// The largest secret that is read, in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Environment variables and files of this machine.
///
/// A file must be a regular file (symbolic links to one are followed: that is how orchestrators mount secrets) and must
/// not be writable or readable by everybody: a key that every account of the machine can read is no secret, and
/// finding that out at start is cheaper than later. Readable by a group is fine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsSecrets;

impl Secrets for OsSecrets {
    fn read(&self, reference: &SecretRef) -> Result<Secret<Vec<u8>>, String> {
        let secret = match reference {
            SecretRef::Env(name) => variable(name)?,
            SecretRef::NameIn(holder) => {
                // Whoever mistakes `name-in` for `env` has the secret itself there: it is not shown.
                let name = variable(holder)?;
                let name = std::str::from_utf8(name.expose()).unwrap_or_default();
                variable(name.trim())
                    .map_err(|_| format!("`{holder}` does not hold the name of an environment variable that is set"))?
            }
            SecretRef::File(path) => file(path)?,
            SecretRef::Binding(name) => {
                return Err(format!(
                    "`binding:{name}` exists on Workers only\nhint: use `env:{name}` or `file:PATH` here"
                ));
            }
            SecretRef::Literal(text) => Secret::new(text.expose().clone().into_bytes()),
        };
        if secret.expose().len() > SECRET_BYTES_MAX {
            return Err(format!("{} is larger than {SECRET_BYTES_MAX} bytes", named(reference)));
        }
        let secret = without_line_break(secret);
        if secret.expose().is_empty() {
            return Err(format!("{} is empty", named(reference)));
        }
        Ok(secret)
    }
}

fn named(reference: &SecretRef) -> String {
    match reference {
        SecretRef::Env(name) => format!("the variable `{name}`"),
        SecretRef::NameIn(name) => format!("the variable named by `{name}`"),
        SecretRef::File(path) => format!("the file `{}`", path.display()),
        SecretRef::Binding(name) => format!("the binding `{name}`"),
        SecretRef::Literal(_) => "the literal secret".into(),
    }
}

/// Editors and `echo` end files with a line break that nobody means.
fn without_line_break(secret: Secret<Vec<u8>>) -> Secret<Vec<u8>> {
    let bytes = secret.expose().as_slice();
    let Some(line) = bytes.strip_suffix(b"\n") else { return secret };
    Secret::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn variable(name: &str) -> Result<Secret<Vec<u8>>, String> {
    use std::os::unix::ffi::OsStringExt as _;

    if !is_name(name) {
        return Err(format!("`{name}` is no name of an environment variable"));
    }
    let value = std::env::var_os(name).ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
    Ok(Secret::new(value.into_vec()))
}

fn file(path: &Path) -> Result<Secret<Vec<u8>>, String> {
    use std::os::unix::fs::PermissionsExt as _;

    let failed = |cause: std::io::Error| format!("cannot read `{}`: {cause}", path.display());
    // Before opening: opening a pipe would wait for somebody to write.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("`{}` is not a regular file", path.display()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o006 != 0 {
        return Err(format!(
            "everybody on this machine may read or write `{path}` (mode {mode:04o})\nhint: chmod 0600 '{path}'",
            path = path.display()
        ));
    }
    let limit = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that grew meanwhile from one that just fits.
    fs::File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn written(folder: &tempfile::TempDir, content: &[u8], mode: u32) -> PathBuf {
        let path = folder.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn read(reference: &SecretRef) -> Result<Vec<u8>, String> {
        OsSecrets.read(reference).map(|secret| secret.expose().clone())
    }

    #[test]
    fn a_file_gives_its_content_without_one_line_break() {
        let folder = tempfile::tempdir().unwrap();
        for (content, secret) in
            [(&b"abc"[..], &b"abc"[..]), (b"abc\n", b"abc"), (b"abc\r\n", b"abc"), (b"a\n\n", b"a\n")]
        {
            let path = written(&folder, content, 0o640);
            assert_eq!(read(&SecretRef::File(path)).as_deref(), Ok(secret));
        }
    }

    #[test]
    fn a_file_for_everybody_is_refused_with_the_command_that_helps() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o604, 0o602] {
            let error = read(&SecretRef::File(written(&folder, b"abc", mode))).unwrap_err();
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("hint: chmod 0600"), "{error}");
        }
        assert!(read(&SecretRef::File(written(&folder, b"abc", 0o640))).is_ok());
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(&SecretRef::File(folder.path().into())).unwrap_err();
        assert!(error.ends_with("is not a regular file"), "{error}");
        let error = read(&SecretRef::File(folder.path().join("absent"))).unwrap_err();
        assert!(error.starts_with("cannot read `"), "{error}");
    }

    #[test]
    fn a_link_to_a_file_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(written(&folder, b"abc", 0o600), &link).unwrap();
        assert_eq!(read(&SecretRef::File(link)).as_deref(), Ok(&b"abc"[..]));
    }

    #[test]
    fn a_secret_has_a_size_limit_and_is_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(&folder, &vec![b'x'; SECRET_BYTES_MAX], 0o600);
        assert_eq!(read(&SecretRef::File(path)).unwrap().len(), SECRET_BYTES_MAX);
        let path = written(&folder, &vec![b'x'; SECRET_BYTES_MAX + 1], 0o600);
        assert!(read(&SecretRef::File(path)).unwrap_err().contains("larger than 65536 bytes"));
        let path = written(&folder, b"\n", 0o600);
        assert!(read(&SecretRef::File(path)).unwrap_err().ends_with("is empty"));
    }

    #[test]
    fn variables_are_read_by_name_and_by_the_name_in_another() {
        // Set by cargo for every test, so that no test has to change the environment.
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        assert_eq!(read(&SecretRef::Env("CARGO_PKG_VERSION".into())).as_deref(), Ok(version));
        let error = read(&SecretRef::Env("KEYREEVE_TEST_UNSET".into())).unwrap_err();
        assert_eq!(error, "the environment variable `KEYREEVE_TEST_UNSET` is not set");
        let error = read(&SecretRef::NameIn("CARGO_PKG_NAME".into())).unwrap_err();
        assert_eq!(error, "`CARGO_PKG_NAME` does not hold the name of an environment variable that is set");
        assert!(read(&SecretRef::Env("A=B".into())).unwrap_err().contains("no name"));
    }

    #[test]
    fn a_binding_is_not_for_this_platform() {
        let error = read(&SecretRef::Binding("KEY".into())).unwrap_err();
        assert_eq!(error, "`binding:KEY` exists on Workers only\nhint: use `env:KEY` or `file:PATH` here");
    }
}
