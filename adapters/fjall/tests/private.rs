//! A store's directory is its owner's: nobody else writes there, and nothing in it leads elsewhere.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use synclayer_core::{StoreError, StoreErrorKind};
use synclayer_fjall::{ClientOptions, FjallClientStore, FjallServerStore, ServerOptions};

fn open(path: &Path) -> Result<(), StoreError> {
    FjallClientStore::open(path, ClientOptions::default()).map(drop)
}

fn open_server(path: &Path) -> Result<(), StoreError> {
    FjallServerStore::open(path, ServerOptions::default()).map(drop)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_that_is_made_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (parent, beside) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&beside).unwrap();
    for (name, open) in [("client", open as fn(&Path) -> _), ("server", open_server)] {
        let path = parent.join(name);
        open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&parent), mode(&beside), "those above it are as any other");
    }
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, open) in [("client", open as fn(&Path) -> _), ("server", open_server)] {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        for wrong in [0o770, 0o775, 0o702, 0o777, 0o1777] {
            set_mode(&path, wrong);
            let error = open(&path).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Other, "{error}");
            let advice = format!("chmod -R go-w {}", path.display());
            assert!(error.message.contains(&advice), "{error}");
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "something was made in it");
        }
        for right in [0o700, 0o750, 0o755] {
            set_mode(&path, right);
            open(&path).unwrap();
            assert_eq!(mode(&path), right);
        }
        // what is in it counts as far as others can reach it
        let db = path.join("db");
        set_mode(&db, 0o777);
        let error = open(&path).unwrap_err();
        assert!(error.message.contains(&format!("write to {}, ", db.display())), "{error}");
        set_mode(&path, 0o700);
        open(&path).unwrap();
    }
}

#[test]
fn a_link_in_a_store_is_refused_and_what_it_leads_to_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    for (name, open) in [("client", open as fn(&Path) -> _), ("server", open_server)] {
        let path = dir.path().join(name);
        open(&path).unwrap();
        for entry in ["lock", "store.new", "db/0.jnl", "db/keyspaces/1/current", "more"] {
            fs::write(&target, "mine").unwrap();
            let entry = path.join(entry);
            let kept = fs::read(&entry).ok();
            drop(fs::remove_file(&entry));
            symlink(&target, &entry).unwrap();
            let error = open(&path).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Foreign, "{error}");
            let words = format!("{} is a symbolic link", entry.display());
            assert!(error.message.contains(&words), "{error}");
            assert_eq!(fs::read_to_string(&target).unwrap(), "mine", "{}", entry.display());
            fs::remove_file(&entry).unwrap();
            kept.into_iter().for_each(|bytes| fs::write(&entry, bytes).unwrap());
        }
        open(&path).unwrap();
        let link = dir.path().join(format!("{name}.link"));
        symlink(&path, &link).unwrap();
        open(&link).unwrap();
    }
    let server = dir.path().join("server");
    symlink(&target, server.join("link")).unwrap();
    let error = FjallServerStore::repair(&server).map(drop).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Foreign, "{error}");
    let client = dir.path().join("client");
    symlink(&target, client.join("link")).unwrap();
    for error in [
        FjallClientStore::salvage(&client, b"").map(drop).unwrap_err(),
        FjallClientStore::move_aside(&client).map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind, StoreErrorKind::Foreign, "{error}");
    }
}
