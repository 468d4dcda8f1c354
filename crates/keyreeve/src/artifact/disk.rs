//! What was read, on disk, for times when no origin answers; it outlives the process.
//!
//! One file for each object: `1`, the length of what follows in four bytes, a CBOR map, the object. When an origin last vouched for
//! it is the time of the file. A file that is not whole, is of another version, or holds something else than its name says, is
//! removed and was never there.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;
use keyreeve_core::time::Timestamp;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::kept::{About, Kept};
use crate::hex;

/// The version of the files.
const VERSION: u8 = 1;
/// The most bytes before the object.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// A file's time is set no more often than this, in milliseconds; so much older may an artifact seem after a restart.
const TOUCH_MS: u64 = 30_000;
/// What a file takes besides its bytes.
const FILE_BYTES: u64 = 4096;
/// The most files.
const FILES_MAX: usize = 100_000;
/// What files end with that are being written.
const UNFINISHED: &str = ".part";

/// The folder of one gate. There is one of these for a folder in a process; its limits come with each use, since a reload may
/// change them.
pub struct Disk {
    folder: PathBuf,
    index: Mutex<Index>,
    written: AtomicU64,
}

#[derive(Default)]
struct Index {
    files: HashMap<String, File>,
    bytes: u64,
}

struct File {
    bytes: u64,
    vouched: Timestamp,
    /// What is in it, if this process knows.
    digest: Option<[u8; 32]>,
}

/// What stands before the object. New fields get new numbers.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Head {
    #[n(0)]
    name: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    digest: Vec<u8>,
    #[n(2)]
    etag: Option<String>,
    #[n(3)]
    modified: u64,
    #[n(4)]
    content_type: Option<String>,
    #[n(5)]
    version_id: Option<String>,
}

impl Disk {
    /// Opens a folder, which is made if it is not there, and looks at what is in it.
    ///
    /// # Errors
    /// A sentence: it cannot be made, or not be read.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("`cache`: `{}`: {error}", folder.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut index = Index::default();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if name.ends_with(UNFINISHED) {
                // Whatever wrote it has ended in the middle.
                drop(fs::remove_file(entry.path()));
            } else if metadata.is_file() && hex::decode::<32>(&name).is_some() {
                let vouched = metadata.modified().map(timestamp).unwrap_or_default();
                index.insert(name, File { bytes: metadata.len(), vouched, digest: None });
            }
        }
        Ok(Self { folder: folder.to_owned(), index: Mutex::new(index), written: AtomicU64::new(0) })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether an object may be there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.index().files.contains_key(&file_name(name))
    }

    /// Whether this process has written down just these bytes, and lately that an origin vouched for them.
    #[must_use]
    pub fn is_kept(&self, kept: &Kept, now: Timestamp) -> bool {
        let index = self.index();
        let Some(file) = index.files.get(&file_name(&kept.name)) else { return false };
        file.digest == Some(kept.digest) && now.0.saturating_sub(file.vouched.0) < TOUCH_MS
    }

    /// Reads an object of at most so many bytes. Waits for the disk.
    #[must_use]
    pub fn read(&self, name: &str, bytes_max: usize) -> Option<Kept> {
        let file = file_name(name);
        let path = self.folder.join(&file);
        let read = || -> io::Result<Option<Kept>> {
            let mut opened = fs::File::open(&path)?;
            let metadata = opened.metadata()?;
            let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
            let limit = limit.saturating_add(u64::from(HEAD_BYTES_MAX)).saturating_add(5);
            if metadata.len() > limit {
                return Ok(None);
            }
            let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
            opened.read_to_end(&mut bytes)?;
            Ok(parse(name, Bytes::from(bytes), timestamp(metadata.modified()?)))
        };
        match read() {
            Ok(Some(kept)) => {
                if let Some(file) = self.index().files.get_mut(&file) {
                    file.digest = Some(kept.digest);
                }
                Some(kept)
            }
            Ok(None) => {
                tracing::warn!(object = name, "the copy of an artifact on disk cannot be used, and is removed");
                self.remove(name);
                None
            }
            Err(error) => {
                tracing::debug!(object = name, "no copy of an artifact on disk: {error}");
                self.index().remove(&file);
                None
            }
        }
    }

    /// Keeps an object, or notes that an origin has vouched for the one that is kept, and makes room until the folder has at most
    /// `bytes_max`. Waits for the disk; what cannot be kept is in the log.
    pub fn keep(&self, kept: &Kept, vouched: Timestamp, bytes_max: u64) {
        let file = file_name(&kept.name);
        let path = self.folder.join(&file);
        let is_there = self.index().files.get(&file).is_some_and(|known| known.digest == Some(kept.digest));
        let done = if is_there {
            fs::File::open(&path).and_then(|file| file.set_modified(system_time(vouched))).map(|()| None)
        } else {
            self.write(kept, &path, vouched).map(Some)
        };
        match done {
            Ok(written) => {
                let mut index = self.index();
                if let Some(bytes) = written {
                    index.insert(file, File { bytes, vouched, digest: Some(kept.digest) });
                } else if let Some(known) = index.files.get_mut(&file) {
                    known.vouched = vouched;
                }
                drop(index);
                self.make_room(bytes_max);
            }
            Err(error) => {
                tracing::warn!(object = &*kept.name, "the artifact is not kept on disk: {error}");
                self.index().remove(&file);
            }
        }
    }

    /// Forgets an object. Waits for the disk.
    pub fn remove(&self, name: &str) {
        let file = file_name(name);
        self.index().remove(&file);
        drop(fs::remove_file(self.folder.join(file)));
    }

    fn write(&self, kept: &Kept, path: &Path, vouched: Timestamp) -> io::Result<u64> {
        let text = |value: &Option<HeaderValue>| value.as_ref().and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let head = Head {
            name: kept.name.to_string(),
            digest: kept.digest.to_vec(),
            etag: kept.about.store_etag.clone(),
            modified: kept.about.modified.0,
            content_type: text(&kept.about.content_type),
            version_id: text(&kept.about.version_id),
        };
        let head = minicbor::to_vec(&head).map_err(io::Error::other)?;
        let length = u32::try_from(head.len()).ok().filter(|length| *length <= HEAD_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("too much is known about it"))?;
        // Two that keep the same object do not write into one file.
        let count = self.written.fetch_add(1, Ordering::Relaxed);
        let part = path.with_extension(format!("{}-{count}{UNFINISHED}", std::process::id()));
        let body = kept.body.clone().unwrap_or_default();
        let result = (|| {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
            file.write_all(&[VERSION])?;
            file.write_all(&length.to_be_bytes())?;
            file.write_all(&head)?;
            file.write_all(&body)?;
            file.set_modified(system_time(vouched))?;
            fs::rename(&part, path)
        })();
        if result.is_err() {
            drop(fs::remove_file(&part));
        }
        result?;
        Ok(u64::try_from(head.len().saturating_add(body.len()).saturating_add(5)).unwrap_or(u64::MAX))
    }

    /// Removes what an origin vouched for longest ago, until there are at most so many bytes. Waits for the disk.
    pub fn make_room(&self, bytes_max: u64) {
        loop {
            let mut index = self.index();
            if index.bytes <= bytes_max && index.files.len() <= FILES_MAX {
                return;
            }
            let Some(oldest) = index.files.iter().min_by_key(|(_, file)| file.vouched).map(|(name, _)| name.clone())
            else {
                return;
            };
            index.remove(&oldest);
            drop(index);
            drop(fs::remove_file(self.folder.join(oldest)));
        }
    }

    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn insert(&mut self, name: String, file: File) {
        self.remove(&name);
        self.bytes = self.bytes.saturating_add(file.bytes).saturating_add(FILE_BYTES);
        self.files.insert(name, file);
    }

    fn remove(&mut self, name: &str) {
        if let Some(file) = self.files.remove(name) {
            self.bytes = self.bytes.saturating_sub(file.bytes).saturating_sub(FILE_BYTES);
        }
    }
}

/// Names of objects are longer than those of files, and may differ in case only.
fn file_name(name: &str) -> String {
    hex::encode(&Sha256::digest(name.as_bytes()))
}

fn parse(name: &str, bytes: Bytes, vouched: Timestamp) -> Option<Kept> {
    let (first, rest) = bytes.split_at_checked(5)?;
    let (version, length) = first.split_first()?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    let (head, body) = rest.split_at_checked(length)?;
    let head: Head = minicbor::decode(head).ok()?;
    let digest: [u8; 32] = head.digest.as_slice().try_into().ok()?;
    if *version != VERSION || head.name != name || digest != <[u8; 32]>::from(Sha256::digest(body)) {
        return None;
    }
    let value = |text: Option<String>| text.and_then(|text| HeaderValue::try_from(text).ok());
    let about = About {
        etag: head.etag.as_deref().and_then(super::read::etag),
        store_etag: head.etag,
        size: u64::try_from(body.len()).unwrap_or(u64::MAX),
        modified: Timestamp(head.modified),
        content_type: value(head.content_type),
        version_id: value(head.version_id),
    };
    let body = bytes.slice_ref(body);
    Some(Kept::found(name, Some(body), digest, about, vouched))
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(at.0)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, body: &'static [u8]) -> Kept {
        let about = About {
            etag: super::super::read::etag("\"e1\""),
            store_etag: Some("\"e1\"".into()),
            size: body.len() as u64,
            modified: Timestamp(5000),
            content_type: Some(HeaderValue::from_static("text/plain")),
            version_id: None,
        };
        Kept::found(name, Some(Bytes::from_static(body)), Sha256::digest(body).into(), about, Timestamp(0))
    }

    #[test]
    fn what_is_kept_is_found_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.keep(&kept("artifact/t/sdl", b"type Query"), Timestamp(1_000_000), 1 << 20);
        fs::write(folder.path().join("0-1.part"), "half").unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let found = disk.read("artifact/t/sdl", 1 << 16).unwrap();
        assert_eq!(found.body.as_deref(), Some(&b"type Query"[..]));
        assert_eq!(found.about, kept("artifact/t/sdl", b"type Query").about);
        assert_eq!(found.age_ms(Timestamp(1_000_500)), 500);
        assert!(disk.read("artifact/t/other", 1 << 16).is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "what was half written is gone");
        disk.keep(&found, Timestamp(2_000_000), 1 << 20);
        assert_eq!(disk.read("artifact/t/sdl", 1 << 16).unwrap().age_ms(Timestamp(2_000_000)), 0);
    }

    #[test]
    fn what_is_not_whole_was_never_there() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let path = folder.path().join(file_name("a"));
        disk.keep(&kept("a", b"body"), Timestamp(1), 1 << 20);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            // Flipping a bit of what is known besides the bytes is not found out, and does no harm.
            fs::write(&path, &broken).unwrap();
            if let Some(found) = parse("a", broken.into(), Timestamp(0)) {
                assert_eq!(found.body.as_deref(), Some(&b"body"[..]), "{at}");
            }
            fs::write(&path, &whole[..at]).unwrap();
            assert!(disk.read("a", 1 << 16).is_none(), "cut off at {at}");
        }
        fs::write(folder.path().join(file_name("b")), &whole).unwrap();
        assert!(disk.read("b", 1 << 16).is_none(), "it is another object");
    }

    #[test]
    fn the_folder_stays_as_large_as_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        for (name, at) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            disk.keep(&kept(name, b"body"), Timestamp(at), 3 * (FILE_BYTES + 200));
        }
        assert!(!disk.has("a") && disk.has("b") && disk.has("d"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn the_first_version_of_the_file_can_be_read() {
        let bytes = hex::decode::<66>(concat!(
            "0100000039",
            "a6",
            "00",
            "6161",
            "01",
            "5820",
            "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5",
            "02",
            "64",
            "22653122",
            "03",
            "191388",
            "04",
            "64",
            "742f7478",
            "05",
            "f6",
            "626f6479"
        ));
        let bytes = bytes.expect("sixty-six bytes");
        let found = parse("a", Bytes::copy_from_slice(&bytes), Timestamp(9)).expect("it is read");
        assert_eq!(found.body.as_deref(), Some(&b"body"[..]));
        assert_eq!(found.about.store_etag.as_deref(), Some("\"e1\""));
        assert_eq!(found.about.modified, Timestamp(5000));
    }
}
