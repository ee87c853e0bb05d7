//! Where the cluster's objects come from. Today: a folder of Kubernetes manifests ([`files`]).
//!
//! A source reads, checks what an API server would have checked, and hands over one consistent
//! [`Snapshot`]. It does not translate: [`crate::translate`] turns a snapshot into records.
//! Start reading at [`Folder`], the rules of a reload without any I/O.

mod admit;
mod allocation;
mod document;
pub(crate) mod files;
mod folder;
mod mirror;
pub(crate) mod objects;
mod problem;

pub(crate) use files::{FileSource, FileSourceConfig};
#[cfg(test)]
pub(crate) use folder::File;
pub(crate) use folder::{Folder, Snapshot};
pub(crate) use problem::{LoadError, Problem, Reason};
