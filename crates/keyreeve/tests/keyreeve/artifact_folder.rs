//! Objects in a folder of this machine: a disk that is not mounted has taken nothing back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use keyreeve::access::Imported as _;
use keyreeve::artifact::gate::Refused;
use keyreeve::artifact::hashes::Hashes;
use keyreeve::artifact::{Artifacts, Found, Objects, name};
use keyreeve::config::{Compat, ObjectsConfig};
use keyreeve::core::time::Mono;
use keyreeve::core::token::TokenId;
use keyreeve::port::Host;

use crate::http_artifacts::{T, V, config};
use crate::http_world::{SECOND, World, pass};

struct Place {
    _folder: tempfile::TempDir,
    /// The mount point.
    path: PathBuf,
    host: Arc<dyn Host>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects");
        std::fs::create_dir(&path).unwrap();
        Self { _folder: folder, path, host: World::new().node.host.clone() }
    }

    fn hold(&self, name: &str) {
        let path = self.path.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }

    fn open(&self) -> Objects {
        let fetch = keyreeve::system::fetch::Fetch::new(self.host.clone(), &Default::default()).unwrap();
        let place = ObjectsConfig::of_url(&format!("file:{}", self.path.display())).unwrap();
        keyreeve::artifact::objects::open(&place, &fetch, &keyreeve::system::secrets::OsSecrets).unwrap()
    }

    fn artifacts(&self) -> Arc<Artifacts> {
        Artifacts::open("cdn", &config(Compat::Own), vec![("disk".into(), self.open())], self.host.clone(), &[])
            .unwrap()
    }

    /// Its disk is gone, and with it the mount point, or not.
    fn unmount(&self, is_mount_point_left: bool) {
        std::fs::remove_dir_all(&self.path).unwrap();
        if is_mount_point_left {
            std::fs::create_dir(&self.path).unwrap();
        }
    }

    fn soon(&self) -> Mono {
        self.host.now().mono.plus(SECOND)
    }

    /// Whether a process that starts now says nothing, too. Without the folder it does not even start.
    async fn is_unknown_after_a_start(&self) -> bool {
        !self.path.exists() || self.artifacts().look(&name::stored(T, "gone").unwrap(), self.soon()).await.is_err()
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_gone_or_empty_says_nothing_of_what_was_in_it() {
    for is_mount_point_left in [false, true] {
        let place = Place::new();
        place.hold(&format!("artifact/{T}/sdl"));
        let artifacts = place.artifacts();
        let asked = |below: &'static str| name::stored(T, below).unwrap();
        let look = async |below| artifacts.look(&asked(below), place.soon()).await;
        assert!(matches!(look("sdl").await, Ok(Found::Fresh(_))));
        for absent in ["gone", "sdl/below", "contracts"] {
            assert!(matches!(look(absent).await, Ok(Found::Absent)), "{absent}");
        }
        place.unmount(is_mount_point_left);
        pass(2 * SECOND).await;
        assert!(matches!(look("sdl").await, Ok(Found::Stale(..))));
        assert!(look("gone").await.unwrap_err().why.contains("is it mounted?"));
        assert!(artifacts.list(T, "", 10, place.soon()).await.is_err(), "nor that there is nothing");
        assert!(place.is_unknown_after_a_start().await, "nor in a process that never saw it filled");
        for below in ["sdl", "version/1/sdl"] {
            let refused = artifacts.publish(&asked(below), Bytes::from("y"), None, place.soon()).await;
            assert!(matches!(refused, Err(Refused::Away(_))), "{below}: {refused:?}");
        }
        assert!(is_empty(&place.path), "nothing is written to what the disk was mounted on");
        place.hold(&format!("artifact/{T}/sdl"));
        pass(2 * SECOND).await;
        assert!(matches!(look("sdl").await, Ok(Found::Fresh(_))));
        assert!(matches!(look("gone").await, Ok(Found::Absent)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_was_always_empty_is_published_into() {
    for below in ["sdl".to_owned(), format!("version/{V}/sdl")] {
        let place = Place::new();
        let artifacts = place.artifacts();
        let asked = name::stored(T, &below).unwrap();
        assert!(artifacts.look(&asked, place.soon()).await.is_err(), "nobody knows what should be there");
        let published = artifacts.publish(&asked, Bytes::from("x"), None, place.soon()).await;
        assert!(published.is_ok(), "{below}: {published:?}");
        assert!(matches!(artifacts.look(&asked, place.soon()).await, Ok(Found::Fresh(_))));
        let gone = artifacts.look(&name::stored(T, "gone").unwrap(), place.soon()).await;
        assert!(matches!(gone, Ok(Found::Absent)), "from now on");
    }
}

#[tokio::test(start_paused = true)]
async fn hashes_in_a_folder_that_is_gone_are_not_taken_back() {
    for is_mount_point_left in [false, true] {
        let place = Place::new();
        let hashes = Hashes::new(place.open(), place.host.clone());
        let id = TokenId([7; 16]);
        hashes.put(T, Some(id), "$2a$10$x").await.unwrap();
        assert_eq!(hashes.hash(T, Some(id)).await, Ok(Some("$2a$10$x".into())));
        assert_eq!(hashes.hash(T, None).await, Ok(None));
        place.unmount(is_mount_point_left);
        assert!(hashes.hash(T, Some(id)).await.is_err());
        assert!(hashes.list().await.is_err());
        assert!(hashes.put(T, Some(id), "$2a$10$x").await.is_err());
        assert!(hashes.remove(T, Some(id)).await.is_err(), "it may come back with its disk");
        assert!(is_empty(&place.path));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_a_folder_has_all_of_it_in_order() {
    let place = Place::new();
    let mut names: Vec<String> = (0..10_500).map(|at| format!("a{}", at * 7919 % 10_500)).collect();
    for name in &names {
        place.hold(&format!("artifact/{T}/{name}"));
    }
    names.sort();
    let artifacts = place.artifacts();
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = artifacts.list(T, &after, 5000, place.soon()).await.unwrap();
        found.extend(page.artifacts.into_iter().map(|one| one.path));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert!(found == names, "{} of {}", found.len(), names.len());
}
