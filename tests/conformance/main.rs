//! The HBONE conformance suite against real listeners: our node in a mesh of its own, and Envoy's CONNECT listener.
//!
//! Each takes minutes, so each is a stage of `.ci/run`:
//! `cargo test --test conformance -- --ignored culvert`, `CULVERT_ENVOY=… cargo test --test conformance -- --ignored envoy`.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test that fails says why")]
#![allow(clippy::disallowed_methods, reason = "a test reads the clock and its environment")]

mod credentials;
mod culvert;
mod envoy;
mod process;
