//! Pages of the program leave the process and come back the same. A process of its own: other tests would load them
//! meanwhile.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::hint::black_box;

use culvert_net::memory::{Usage, unload};

const LENGTH: usize = 8 << 20;

/// Constants in the program's file.
static CONSTANTS: [u8; LENGTH] = {
    let mut constants = [0; LENGTH];
    let mut n = 0;
    while n < LENGTH {
        constants[n] = (n / 4096 % 251).to_le_bytes()[0];
        n += 4096;
    }
    constants
};

/// Pointers: the loader has written where they point to, and their pages are no longer as in the file.
static POINTERS: [&str; 3] = ["one", "two", "three"];

fn sum() -> usize {
    black_box(&CONSTANTS).iter().step_by(4096).map(|byte| usize::from(*byte)).sum()
}

#[test]
fn pages_of_the_program_go_and_come_back_unchanged() {
    let (constants, pointers) = (sum(), black_box(&POINTERS).concat());
    let before = Usage::now().unwrap();
    assert!(before.of_files() >= 8 << 20, "{before:?}");
    let octets = unload().unwrap();
    let after = Usage::now().unwrap();
    assert!(octets >= 8 << 20, "{octets}");
    assert!(after.of_files() + (8 << 20) <= before.of_files(), "{before:?} {after:?}");
    assert!(
        after.private.abs_diff(before.private) <= 1 << 20,
        "what is no file's stays: {before:?} {after:?}"
    );
    assert_eq!(sum(), constants);
    assert_eq!(black_box(&POINTERS).concat(), pointers);
    assert!(Usage::now().unwrap().of_files() >= after.of_files() + (8 << 20), "read again");
}
