//! Files that hold a secret: written whole or not at all, for their owner only.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use keyreeve::core::secret::Secret;

/// Puts `content` where `path` is, with mode 0600 and nothing after it. Whoever reads sees the old file or the new one, never
/// a part of one. A link at `path` is replaced, not followed.
///
/// # Errors
/// A sentence with the path.
pub fn write_whole(path: &Path, content: &Secret<Vec<u8>>) -> Result<(), String> {
    let failed = |cause: &dyn std::fmt::Display| format!("cannot write `{}`: {cause}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".keyreeve-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(|error| failed(&error))?;
    file.write_all(content.expose()).map_err(|error| failed(&error))?;
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    file.persist(path).map(drop).map_err(|error| failed(&error.error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    fn secret(text: &str) -> Secret<Vec<u8>> {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "something longer that was there before").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let reader = fs::File::open(&path).unwrap();
        write_whole(&path, &secret("token-1")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"token-1", "no line break");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "something longer that was there before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_is_replaced_and_what_it_points_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("token"), folder.path().join("other"));
        fs::write(&other, "theirs").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        write_whole(&path, &secret("ours")).unwrap();
        assert_eq!((fs::read(&other).unwrap(), fs::read(&path).unwrap()), (b"theirs".to_vec(), b"ours".to_vec()));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = write_whole(Path::new("/nonexistent/token"), &secret("x")).unwrap_err();
        assert!(error.starts_with("cannot write `/nonexistent/token`: "), "{error}");
    }
}
