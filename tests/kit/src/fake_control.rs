//! fake_control
