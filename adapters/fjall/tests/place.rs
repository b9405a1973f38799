//! Where a store may be: nothing that is no store of this kind and format is opened or changed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use synclayer_core::{
    AllowAll, Batch, ClientConfig, ClientStore, Collection, CommitNumber, Context, DatabaseId,
    Document, Epoch, Limits, Now, RecordId, Replica, Rows, ServerStore, StoreError, StoreErrorKind,
    Transaction, Write,
};
use synclayer_fjall::{ClientOptions, FjallClientStore, FjallServerStore, ServerOptions};
use xxhash_rust::xxh3::xxh3_64;

fn open_client(path: &Path) -> Result<FjallClientStore, StoreError> {
    FjallClientStore::open(path, ClientOptions::default())
}

fn open_server(path: &Path) -> Result<FjallServerStore, StoreError> {
    FjallServerStore::open(path, ServerOptions::default())
}

/// A replica with a record that waits for the server.
fn make_client(path: &Path) {
    let (now, mut out) = (Now::default(), Vec::new());
    let store = open_client(path).unwrap();
    let mut replica = Replica::open(ClientConfig::default(), 1, now, store, &mut out).unwrap();
    let todos = Collection::new("todos").unwrap();
    let document = Document::parse(r#"{"n":1}"#, &Limits::default()).unwrap();
    replica
        .write(now, Write::Save(todos, RecordId::new("a").unwrap().clone(), document), &mut out)
        .unwrap();
}

/// A server's database in its first epoch.
fn make_server(path: &Path) {
    begin_epoch(&open_server(path).unwrap(), "e1", "d1");
}

fn begin_epoch(store: &FjallServerStore, epoch: &str, database: &str) {
    let begin = Transaction::BeginEpoch {
        epoch: Epoch::new(epoch).unwrap(),
        database: DatabaseId::new(database).unwrap(),
    };
    let limits = Limits::default();
    let context = Context { policy: &AllowAll, limits: &limits, now: Now::default().wall };
    store.transact(&mut |rows| Ok(begin.decide(rows, context)?.batch)).unwrap();
}

/// All files below a directory and what is in them, but for the locks, which say who had them.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.file_name().unwrap() != "lock" {
            all.insert(path.display().to_string(), fs::read(path).unwrap());
        }
    }
    all
}

#[track_caller]
fn refused<S>(opened: Result<S, StoreError>, words: &[&str]) {
    let error = opened.err().expect("it was opened");
    assert_eq!(error.kind, StoreErrorKind::Foreign, "{error}");
    for word in words {
        assert!(error.message.contains(word), "{error}");
    }
}

#[test]
fn a_store_of_the_other_kind_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (client, server) = (dir.path().join("client"), dir.path().join("server"));
    make_client(&client);
    make_server(&server);
    let before = files(dir.path());
    refused(open_server(&client), &["the store of a client", "a directory of its own"]);
    refused(open_client(&server), &["the store of a server", "a directory of its own"]);
    refused(FjallClientStore::salvage(&server, b""), &["the store of a server"]);
    refused(FjallClientStore::move_aside(&server), &["the store of a server"]);
    assert_eq!(files(dir.path()), before);
    // each is its own still
    drop(open_client(&client).unwrap());
    open_server(&server).unwrap();
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let work = dir.path().join("work");
    fs::create_dir_all(work.join("db")).unwrap();
    fs::write(&file, "mine").unwrap();
    for name in ["a.txt", "b.txt", "db/c.txt", "z.txt"] {
        fs::write(work.join(name), "mine").unwrap();
    }
    let before = files(dir.path());
    let mut entries = fs::read_dir(&work).unwrap().count();
    for path in [&file, &file.join("below")] {
        refused(open_client(path), &["is a file", "directory"]);
        refused(open_server(path), &["is a file", "directory"]);
        refused(FjallClientStore::salvage(path, b""), &["is a file"]);
        refused(FjallClientStore::move_aside(path), &["is a file"]);
    }
    refused(open_client(&work), &["a.txt, b.txt, db, …", "no store", "nothing was changed"]);
    refused(open_server(&work), &["a.txt, b.txt, db, …", "no store", "nothing was changed"]);
    refused(FjallClientStore::salvage(&work, b""), &["no store"]);
    refused(FjallClientStore::move_aside(&work), &["no store"]);
    let nowhere = dir.path().join("nowhere");
    refused(FjallClientStore::salvage(&nowhere, b""), &["no store"]);
    refused(FjallClientStore::move_aside(&nowhere), &["no store"]);
    assert!(!nowhere.exists(), "it was made");
    assert_eq!(files(dir.path()), before);
    entries -= fs::read_dir(&work).unwrap().count();
    assert_eq!(entries, 0, "something was made among another's files");
}

/// A volume's root, and a directory in which an opening was killed at once, are as good as empty.
#[test]
fn an_empty_directory_and_one_that_is_not_there_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    let volume = dir.path().join("volume");
    fs::create_dir_all(&empty).unwrap();
    fs::create_dir_all(volume.join("lost+found")).unwrap();
    fs::write(volume.join("lock"), "").unwrap();
    fs::write(volume.join("store.new"), "half a ma").unwrap();
    for path in [empty, volume, dir.path().join("a/b/c")] {
        make_client(&path);
        drop(open_client(&path).unwrap());
        refused(open_server(&path), &["the store of a client"]);
    }
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    make_client(&path);
    let mark = fs::read_to_string(path.join("store")).unwrap();
    let body = mark[..mark.find("check ").unwrap()].replace("format 1", "format 2");
    let check = xxh3_64(body.as_bytes());
    fs::write(path.join("store"), format!("{body}check {check:016x}\n")).unwrap();
    let before = files(dir.path());
    refused(open_client(&path), &["a later version", "format 2", "up to 1"]);
    refused(open_server(&path), &["a later version"]);
    refused(FjallClientStore::move_aside(&path), &["a later version"]);
    assert_eq!(files(dir.path()), before);
    let error = {
        fs::write(path.join("store"), body).unwrap();
        open_client(&path).unwrap_err()
    };
    assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
}

/// As a version without marks left them.
#[test]
fn a_store_without_a_mark_is_known_by_its_rows_and_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let (client, server) = (dir.path().join("client"), dir.path().join("server"));
    make_client(&client);
    make_server(&server);
    let marks = [&client, &server].map(|path| fs::read(path.join("store")).unwrap());
    let unmark = || {
        [&client, &server]
            .into_iter()
            .for_each(|path| fs::remove_file(path.join("store")).unwrap());
    };
    unmark();
    refused(open_server(&client), &["the store of a client"]);
    refused(open_client(&server), &["the store of a server"]);
    drop(open_client(&client).unwrap());
    drop(open_server(&server).unwrap());
    assert_eq!([&client, &server].map(|path| fs::read(path.join("store")).unwrap()), marks);
    // what holds no row that tells is whose it is opened as
    let bare = dir.path().join("bare");
    let mut batch = Batch::default();
    batch.put(&b"key"[..], &b"value"[..]);
    open_client(&bare).unwrap().commit(CommitNumber(1), batch).unwrap();
    fs::remove_file(bare.join("store")).unwrap();
    drop(open_client(&bare).unwrap());
    refused(open_server(&bare), &["the store of a client"]);
}

/// Versions without marks let a server and a client write into one directory. To refuse either now
/// would take its records away.
#[test]
fn a_store_in_which_both_have_written_opens_for_both() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    make_client(&path);
    let mut rows = BTreeMap::new();
    {
        let server = dir.path().join("server");
        make_server(&server);
        let store = open_server(&server).unwrap();
        let read = &mut |all: &dyn Rows| {
            all.scan(b"a", b"z", &mut |key, value| {
                rows.insert(key.to_vec(), value);
                Ok(synclayer_core::Scan::Next)
            })
        };
        store.read(read).unwrap();
    }
    let mut batch = Batch::default();
    rows.into_iter().for_each(|(key, value)| batch.put(key, value));
    open_client(&path).unwrap().commit(CommitNumber(1), batch).unwrap();
    fs::remove_file(path.join("store")).unwrap();
    for _ in 0..2 {
        drop(open_client(&path).unwrap());
        drop(open_server(&path).unwrap());
    }
}

#[test]
fn a_servers_mark_names_its_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server");
    make_server(&path);
    let mark = fs::read_to_string(path.join("store")).unwrap();
    assert!(mark.starts_with("SyncLayer store\nkind server\nformat 1\ndatabase d1\n"), "{mark}");
    // a copy keeps it, and so does every later opening
    let copy = dir.path().join("copy");
    fs::rename(&path, &copy).unwrap();
    begin_epoch(&open_server(&copy).unwrap(), "e2", "d2");
    assert_eq!(fs::read_to_string(copy.join("store")).unwrap(), mark);
    // one of before there were identities gets it when it is there
    fs::remove_file(copy.join("store")).unwrap();
    let mut batch = Batch::default();
    batch.delete(&b"d"[..]);
    open_server(&copy).unwrap().transact(&mut |_| Ok(batch.clone())).unwrap();
    begin_epoch(&open_server(&copy).unwrap(), "e3", "d3");
    let mark = fs::read_to_string(copy.join("store")).unwrap();
    assert!(mark.contains("database d3\n"), "{mark}");
}
