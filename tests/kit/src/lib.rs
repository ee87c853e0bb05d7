//! What tests of several crates share: fakes and the network-namespace sandbox. A dev-dependency only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "test support")]

pub mod dns;
pub mod echo;
pub mod fake_ca;
pub mod fake_control;
pub mod sandbox;
