//! What every program needs around its real work: time, tasks, stopping, signals, logs, metrics, small HTTP
//! servers, readiness, the folder for sockets.
//!
//! What it does **not** do: know what a mesh, a workload or a proxy is. It depends on no other crate here.
//!
//! Start reading at [`tasks`] and [`drain`]: they decide how everything here starts and ends.
//!
//! Invariants
//! - This crate is the one home of the calls that are banned elsewhere: reading clocks ([`clock`]), bare spawning
//!   ([`tasks`]), reading the environment ([`environment`]).
//! - Every task has a parent; a panic or an early exit of an essential child reaches it.
//! - Logs are lossless: when the writer cannot keep up, those who log wait.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod build;
pub mod clock;
pub mod drain;
pub mod environment;
pub mod folders;
pub mod health;
pub mod http;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod signals;
pub mod tasks;
pub mod throttle;
