//! The rules of a reload, without I/O.
//!
//! Per object: a bad object keeps its own last good version, a file that cannot be taken apart
//! keeps all its objects, everything else applies. Nothing is ever removed because of a mistake.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use xxhash_rust::xxh64::xxh64;

use super::admit::{self, Admission, Admitted, admit};
use super::objects::{MeshConfig, ObjectRef, Objects};
use super::{Problem, Reason, document};

/// What a source has at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) objects: Objects,
    pub(crate) mesh: MeshConfig,
    /// What was refused; for each, the last good version (if any) is still in `objects`.
    pub(crate) problems: Vec<Problem>,
    /// Kinds found in the folder that mean nothing here, with their number.
    pub(crate) ignored_kinds: BTreeMap<String, usize>,
}

/// A file as it was read, or why it could not be.
#[derive(Debug)]
pub(crate) struct File {
    /// Relative to the folder.
    pub(crate) path: PathBuf,
    pub(crate) content: Result<Vec<u8>, Reason>,
}

/// A folder's last good state.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    /// What each file said, by the hash of its content: unchanged files are not read again.
    parsed: BTreeMap<PathBuf, (u64, Arc<Parsed>)>,
    kept: BTreeMap<ObjectRef, Kept>,
    mesh: MeshConfig,
}

/// An object in use.
#[derive(Debug, Clone)]
struct Kept {
    file: PathBuf,
    admitted: Admitted,
    first_seen: Timestamp,
    /// Not flawed: worth keeping when the next version is bad.
    good: bool,
}

#[derive(Debug)]
enum Parsed {
    Objects(Vec<(u64, Admission)>),
    Unusable(Option<u64>, Reason),
}

/// One definition of an object.
struct Definition<'p> {
    file: &'p Path,
    line: u64,
    admission: &'p Admission,
}

impl Folder {
    /// Takes over what the files say now. `mesh_file` is the file of `--meshConfig`, if given.
    pub(crate) fn apply(&mut self, files: Vec<File>, mesh_file: Option<File>, now: Timestamp) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.parsed = files
            .into_iter()
            .map(|file| {
                let before = self.parsed.remove(&file.path);
                let had_objects = || self.kept.values().any(|kept| kept.file == file.path);
                let parsed = parse(&file, before, had_objects);
                (file.path, parsed)
            })
            .collect();
        let parsed = self.parsed.clone();

        let mut definitions: BTreeMap<&ObjectRef, Vec<Definition<'_>>> = BTreeMap::new();
        // Files of which an object may have gone missing by mistake.
        let mut doubtful: BTreeSet<&Path> = BTreeSet::new();
        for (path, (_, parsed)) in &parsed {
            let mut report = |line, object, reason| {
                snapshot.problems.push(Problem { file: path.clone(), line, object, reason });
            };
            match parsed.as_ref() {
                Parsed::Unusable(line, reason) => {
                    doubtful.insert(path);
                    report(*line, None, reason.clone());
                }
                Parsed::Objects(entries) => {
                    for (line, admission) in entries {
                        let definition = Definition { file: path, line: *line, admission };
                        match admission {
                            Admission::Object(object, _)
                            | Admission::Flawed(object, ..)
                            | Admission::Refused(Some(object), _) => {
                                definitions.entry(object).or_default().push(definition);
                            }
                            Admission::Refused(None, reason) => {
                                doubtful.insert(path);
                                report(Some(*line), None, reason.clone());
                            }
                            Admission::Ignored(kind) => {
                                *snapshot.ignored_kinds.entry(kind.clone()).or_default() += 1;
                            }
                        }
                    }
                }
            }
        }

        let mut kept = BTreeMap::new();
        for (object, definitions) in &definitions {
            let before = self.kept.remove(*object);
            if let Some(now_kept) = decide(object, definitions, before, now, &mut snapshot.problems) {
                kept.insert((*object).clone(), now_kept);
            }
        }
        let missing = std::mem::take(&mut self.kept);
        kept.extend(missing.into_iter().filter(|(_, before)| doubtful.contains(before.file.as_path())));
        self.kept = kept;

        self.settle(mesh_file, &mut snapshot);
        snapshot.problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        snapshot
    }

    /// Puts the kept objects and the mesh configuration into the snapshot.
    fn settle(&mut self, mesh_file: Option<File>, snapshot: &mut Snapshot) {
        let mut of_folder = None;
        for (object, kept) in &self.kept {
            kept.admitted.insert_into(&object.name, &mut snapshot.objects, &mut of_folder);
        }
        super::mirror::mirror(&mut snapshot.objects);
        match mesh_file {
            None => self.mesh = of_folder.unwrap_or_default(),
            Some(file) => {
                let is_default = self.mesh == MeshConfig::default();
                let text =
                    file.content.and_then(|bytes| match bytes.trim_ascii().is_empty() && !is_default {
                        true => Err(Reason::Emptied),
                        false => utf8(&bytes).map(str::to_owned),
                    });
                match text.and_then(|text| admit::parse_mesh_config(&text)) {
                    Ok(mesh) => self.mesh = mesh,
                    Err(reason) => {
                        snapshot.problems.push(Problem { file: file.path, line: None, object: None, reason });
                    }
                }
            }
        }
        snapshot.mesh = self.mesh.clone();
    }
}

/// Which version of an object is used.
fn decide(
    object: &ObjectRef,
    definitions: &[Definition<'_>],
    before: Option<Kept>,
    now: Timestamp,
    problems: &mut Vec<Problem>,
) -> Option<Kept> {
    let (first, others) = definitions.split_first()?;
    let mut report = |definition: &Definition<'_>, reason: &Reason| {
        let (file, line) = (definition.file.to_owned(), Some(definition.line));
        problems.push(Problem { file, line, object: Some(object.clone()), reason: reason.clone() });
    };
    if !others.is_empty() {
        // Which one is meant? Neither is taken.
        for other in others {
            report(other, &Reason::Duplicate { first: first.file.to_owned(), line: Some(first.line) });
        }
        return before;
    }
    let first_seen = before.as_ref().map_or(now, |before| before.first_seen);
    let use_now = |admitted: &Admitted, good| {
        let mut admitted = admitted.clone();
        admitted.settle(&object.name, first_seen);
        Some(Kept { file: first.file.to_owned(), admitted, first_seen, good })
    };
    match first.admission {
        Admission::Object(_, admitted) => use_now(admitted, true),
        Admission::Flawed(_, admitted, reason) => {
            report(first, reason);
            match before {
                Some(before) if before.good => Some(before),
                _ => use_now(admitted, false),
            }
        }
        Admission::Refused(_, reason) => {
            report(first, reason);
            before
        }
        Admission::Ignored(_) => None,
    }
}

fn parse(
    file: &File,
    before: Option<(u64, Arc<Parsed>)>,
    had_objects: impl Fn() -> bool,
) -> (u64, Arc<Parsed>) {
    let unusable = |reason| (0, Arc::new(Parsed::Unusable(None, reason)));
    let bytes = match &file.content {
        Ok(bytes) => bytes,
        Err(reason) => return unusable(reason.clone()),
    };
    // A redirection empties the file long before, or without ever, filling it again.
    if bytes.trim_ascii().is_empty() && had_objects() {
        return unusable(Reason::Emptied);
    }
    let hash = xxh64(bytes, bytes.len() as u64);
    if let Some(before) = before.filter(|(before, _)| *before == hash) {
        return before;
    }
    let documents = utf8(bytes).map_err(|reason| (None, reason)).and_then(document::parse);
    let parsed = match documents {
        Ok(documents) => {
            Parsed::Objects(documents.iter().map(|document| (document.line, admit(document))).collect())
        }
        Err((line, reason)) => Parsed::Unusable(line, reason),
    };
    (hash, Arc::new(parsed))
}

fn utf8(bytes: &[u8]) -> Result<&str, Reason> {
    std::str::from_utf8(bytes).map_err(|_| Reason::Malformed("it is no UTF-8 text".to_owned()))
}
