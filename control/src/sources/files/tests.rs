//! Real folders: what is read, kept and noticed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use super::*;
use crate::sources::objects::Name;

const ENTRY: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: n}\nspec: {hosts: [a.example, b.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n";

fn account(name: &str) -> String {
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n")
}

fn config(folder: &Path) -> FileSourceConfig {
    FileSourceConfig { folder: folder.to_owned(), mesh_config: None, state: None, allocate_addresses: true }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000).expect("a time")
}

fn accounts(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.objects.service_accounts.keys().map(|name| name.name.as_str()).collect()
}

#[test]
fn a_first_start_lists_every_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), "a: [").expect("a file");
    fs::write(folder.path().join("b.yaml"), account("Bad")).expect("a file");
    fs::write(folder.path().join("c.yaml"), account("good")).expect("a file");
    let error = FileSource::open(config(folder.path()), now()).expect_err("two problems");
    assert_eq!(error.problems.len(), 2);
    let text = error.to_string();
    assert!(text.starts_with("2 problems in the configuration:\n  a.yaml:1: "), "{text}");
    assert!(text.contains("b.yaml:1: ServiceAccount/default/Bad: metadata.name: "), "{text}");
    let missing = FileSource::open(config(&folder.path().join("none")), now()).expect_err("no folder");
    assert_eq!(missing.problems.first().map(Problem::code), Some("source-unreadable"));
}

#[test]
fn subfolders_are_read_and_other_files_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let below = folder.path().join("sub");
    fs::create_dir(&below).expect("a folder");
    fs::write(below.join("a.yml"), account("a")).expect("a file");
    symlink("..", below.join("loop")).expect("a link");
    for other in ["README.md", ".a.yaml.swp", ".hidden.yaml", "a.yaml~", "kustomization.yaml"] {
        fs::write(folder.path().join(other), "not a manifest: [").expect("a file");
    }
    let mesh = folder.path().join("mesh.yaml");
    fs::write(&mesh, "trustDomain: my.td").expect("a file");
    let config = FileSourceConfig { mesh_config: Some(mesh), ..config(folder.path()) };
    let (_, snapshot) = FileSource::open(config, now()).expect("no problems");
    assert_eq!(accounts(&snapshot), ["a"]);
    assert_eq!(snapshot.mesh.trust_domain, "my.td");
}

#[test]
fn a_folder_that_vanishes_keeps_everything() {
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path().join("config");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("a.yaml"), account("a")).expect("a file");
    let (mut source, _) = FileSource::open(config(&folder), now()).expect("no problems");
    fs::rename(&folder, outer.path().join("away")).expect("it moves");
    let snapshot = source.reload(now()).expect("a problem is news");
    assert_eq!(accounts(&snapshot), ["a"]);
    assert_eq!(snapshot.problems.first().map(Problem::code), Some("source-unreadable"));
}

#[test]
fn nothing_new_is_no_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), account("a")).expect("a file");
    let (mut source, _) = FileSource::open(config(folder.path()), now()).expect("no problems");
    assert_eq!(source.reload(now()), None);
    fs::write(folder.path().join("a.yaml"), format!("# said differently\n{}", account("a"))).expect("a file");
    assert_eq!(source.reload(now()), None);
}

fn allocated(snapshot: &Snapshot) -> Vec<(String, String)> {
    let entry = snapshot.objects.service_entries.get(&Name::new("n", "e")).expect("the entry");
    entry.status.addresses.iter().map(|address| (address.host.clone(), address.value.clone())).collect()
}

#[test]
fn allocated_addresses_survive_restarts_and_other_entries() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = tempfile::tempdir().expect("a folder");
    // At the very first start there is no state folder yet.
    let state = place.path().join("state");
    fs::write(folder.path().join("e.yaml"), ENTRY).expect("a file");
    let config = FileSourceConfig { state: Some(state.clone()), ..config(folder.path()) };
    let (_, first) = FileSource::open(config.clone(), now()).expect("no problems");
    assert_eq!(fs::metadata(&state).expect("the folder").permissions().mode() & 0o777, 0o700);
    let before = allocated(&first);
    assert_eq!(before.len(), 4);
    let distinct: BTreeSet<&String> = before.iter().map(|(_, address)| address).collect();
    assert_eq!(distinct.len(), 4);
    assert!(
        before.iter().all(|(_, address)| address.starts_with("240.240.") || address.starts_with("2001:2::"))
    );
    // Somebody takes one of them by hand: only that one moves.
    let taken = &before.iter().find(|(host, _)| host == "a.example").expect("an address").1;
    let user = ENTRY.replace("name: e,", "name: user,").replace("a.example, b.example", "c.example");
    let user = user.replace("resolution: DNS", &format!("resolution: DNS, addresses: ['{taken}']"));
    fs::write(folder.path().join("user.yaml"), user).expect("a file");
    let (_, second) = FileSource::open(config.clone(), now()).expect("no problems");
    let after = allocated(&second);
    let of = |all: &[(String, String)], host: &str| {
        all.iter().filter(|(h, _)| h == host).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of(&after, "b.example"), of(&before, "b.example"));
    assert!(!after.iter().any(|(_, address)| address == taken));
    // It stays moved when the reason is gone: the table remembers.
    fs::remove_file(folder.path().join("user.yaml")).expect("a file");
    let (_, third) = FileSource::open(config, now()).expect("no problems");
    assert_eq!(allocated(&third), after);
}

/// Waits for the watch, then reloads until the accounts are these.
async fn await_accounts(source: &mut FileSource, watch: &mut Watch, expected: &[&str]) {
    let reached = async {
        loop {
            watch.changed().await;
            if let Some(snapshot) = source.reload(now())
                && accounts(&snapshot) == expected
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the change is noticed");
}

#[tokio::test]
async fn an_atomic_rename_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), account("a")).expect("a file");
    let (mut source, _) = FileSource::open(config(folder.path()), now()).expect("no problems");
    let mut watch = source.watch();
    fs::write(folder.path().join(".a.yaml.tmp"), account("b")).expect("a file");
    fs::rename(folder.path().join(".a.yaml.tmp"), folder.path().join("a.yaml")).expect("a rename");
    await_accounts(&mut source, &mut watch, &["b"]).await;
}

/// A mounted ConfigMap: files are links through `..data`, which is replaced at once.
#[tokio::test]
async fn a_swapped_config_map_volume_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let version = |name: &str, content: &str| {
        fs::create_dir(at(name)).expect("a folder");
        fs::write(at(name).join("a.yaml"), account(content)).expect("a file");
    };
    version("..2026_1", "a");
    symlink("..2026_1", at("..data")).expect("a link");
    symlink("..data/a.yaml", at("a.yaml")).expect("a link");
    let (mut source, snapshot) = FileSource::open(config(folder.path()), now()).expect("no problems");
    assert_eq!(accounts(&snapshot), ["a"]);
    let mut watch = source.watch();
    version("..2026_2", "b");
    symlink("..2026_2", at("..data_tmp")).expect("a link");
    fs::rename(at("..data_tmp"), at("..data")).expect("a rename");
    await_accounts(&mut source, &mut watch, &["b"]).await;
}

/// A file that is written bit by bit is whole only when its writer closes it.
#[tokio::test]
async fn a_file_that_is_being_written_is_read_when_it_is_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.yaml");
    let both = format!("{}---\n{}", account("a"), account("b"));
    fs::write(&path, &both).expect("a file");
    let (mut source, _) = FileSource::open(config(folder.path()), now()).expect("no problems");
    let mut watch = source.watch();
    let mut writer = fs::File::create(&path).expect("emptied");
    let (first, rest) = both.split_at(account("a").len());
    writer.write_all(first.as_bytes()).expect("half");
    tokio::time::timeout(Duration::from_millis(400), watch.changed()).await.expect_err("half is not read");
    writer.write_all(rest.replace("name: b", "name: c").as_bytes()).expect("the rest");
    drop(writer);
    await_accounts(&mut source, &mut watch, &["a", "c"]).await;
}
