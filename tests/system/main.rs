//! Whole-mesh scenarios: real processes, real namespaces, real redirection. The laboratory is `culvert demo`
//! (docs/decisions/0003).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests: a failure is a panic, and they are processes of their own"
)]

mod capture;
mod change;
mod hostile;
mod lab;
mod page;
mod probe;
mod restart;
mod servers;
