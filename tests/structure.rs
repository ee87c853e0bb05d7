//! The tree keeps its shape: dependency edges, file sizes, module names, where `unsafe` may stand.
//! The rules are those of ARCHITECTURE.md ("Which way the arrows point").
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// What each package may use of ours. Whoever adds an edge argues it here and in ARCHITECTURE.md.
const ALLOWED: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("identity", &[]),
    ("net", &[]),
    ("runtime", &[]),
    ("policy", &["identity"]),
    ("xds", &["wire", "runtime"]),
    ("hbone", &["identity", "net", "runtime"]),
    ("state", &["policy", "identity", "wire"]),
    ("node", &["state", "policy", "identity", "xds", "hbone", "net", "runtime", "wire"]),
    ("control", &["state", "policy", "identity", "xds", "runtime", "wire"]),
    ("agent", &["wire", "net", "runtime"]),
    ("cli", &["wire", "state", "policy", "runtime"]),
    ("demo", &["runtime", "net", "wire"]),
    ("bench", &["runtime", "net"]),
    ("conformance", &["runtime"]),
    ("kit", &["wire", "identity", "policy", "state", "xds", "hbone", "net", "runtime"]),
];

/// Third parties that have one home.
const HOMES: &[(&str, &[&str])] = &[
    ("h2", &["bench"]),
    ("clap", &["culvert", "node", "control", "agent", "cli", "demo", "bench", "conformance"]),
    ("netlink-packet-route", &["net"]),
    ("netlink-packet-netfilter", &["net"]),
    ("libc", &["net"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new().no_deps().other_options(["--offline".to_owned()]).exec().unwrap()
}

fn short(name: &str) -> &str {
    name.strip_prefix("culvert-").unwrap_or(name)
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let metadata = metadata();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in metadata.packages.iter().filter(|package| package.name.as_str() != "culvert") {
        let name = short(&package.name);
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the table of allowed edges"));
            continue;
        };
        for dependency in &package.dependencies {
            let target = short(&dependency.name);
            if !ours.contains(dependency.name.as_str())
                || dependency.kind == DependencyKind::Development && target == "kit"
            {
                continue;
            }
            if !allowed.contains(&target) {
                wrong.push(format!("{name} must not use {target}"));
            }
        }
    }
    // What measures the product is no part of it; nor is what comes with it (the `h2` crate as a baseline).
    let product = metadata.packages.iter().find(|package| package.name.as_str() == "culvert").unwrap();
    wrong.extend(
        product
            .dependencies
            .iter()
            .filter(|dependency| short(&dependency.name) == "bench")
            .map(|_| "culvert must not use bench".to_owned()),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn third_parties_stay_in_their_home() {
    let mut wrong = Vec::new();
    for package in &metadata().packages {
        let name = short(&package.name);
        for dependency in
            package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development)
        {
            if let Some((third, homes)) = HOMES.iter().find(|(third, _)| *third == dependency.name)
                && !homes.contains(&name)
            {
                wrong.push(format!("{third} lives in {homes:?}, but {name} depends on it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_small_and_named_after_the_domain() {
    let mut wrong = Vec::new();
    for file in sources() {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        if lines > 1000 {
            wrong.push(format!("{}: {lines} lines (limit 1000)", file.display()));
        }
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        if ["util", "utils", "common", "manager", "helper", "helpers", "types", "misc"]
            .contains(&stem.as_str())
        {
            wrong.push(format!("{}: the name says nothing about the domain", file.display()));
        }
        // Cargo takes every file of `tests/` for a test of its own, so what several share needs a folder.
        let shared_by_tests = file.ancestors().nth(2).is_some_and(|folder| folder.ends_with("tests"));
        if stem == "mod" && !shared_by_tests {
            wrong.push(format!("{}: write foo.rs beside foo/", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_stays_in_net() {
    let marker = ["unsafe", "_code"].concat();
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|file| !file.components().any(|part| part.as_os_str() == "net"))
        .filter(|file| {
            std::fs::read_to_string(file)
                .unwrap()
                .lines()
                .any(|line| line.contains(&marker) && (line.contains("allow(") || line.contains("expect(")))
        })
        .filter(|file| !file.ends_with("structure.rs"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// All Rust sources of the workspace, without build folders.
fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(env!("CARGO_MANIFEST_DIR")), &mut found);
    assert!(found.len() > 30, "the walk found only {} files", found.len());
    found
}
