//! fake_ca
