//! Against the traces of RFC 8448 section 3 (simple 1-RTT handshake, AES-128-GCM).
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]
#![allow(clippy::cast_possible_truncation, reason = "hexadecimal digits")]

use super::*;
use crate::record::protection::Direction;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn secret(text: &str) -> Secret {
    Secret::new(Suite::Aes128GcmSha256, Zeroizing::new(hex(text))).unwrap()
}

const CLIENT: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const SERVER: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";

#[test]
fn keys_are_those_of_the_trace() {
    let (key, iv) = secret(CLIENT).material().unwrap();
    assert_eq!(*key, hex("17422dda596ed5d9acd890e3c63f5051"));
    assert_eq!(iv.to_vec(), hex("5b78923dee08579033e523d9"));
    let (key, iv) = secret(SERVER).material().unwrap();
    assert_eq!(*key, hex("9f02283b6c9c07efc26bb9f2ac92e356"));
    assert_eq!(iv.to_vec(), hex("cf782b88dd83549aadf1e984"));
}

#[test]
fn records_are_those_of_the_trace() {
    let payload: Vec<u8> = (0..50).collect();
    let record =
        hex("17030300 43a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a\
        20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4");
    let mut sealed = Vec::new();
    Direction::new(secret(CLIENT), 0).unwrap().seal_into(&payload, 23, &mut sealed).unwrap();
    assert_eq!(sealed, record);

    let mut in_place = [vec![0; 5], payload.clone(), vec![0; 17]].concat();
    Direction::new(secret(CLIENT), 0).unwrap().seal(&mut in_place, payload.len(), 23).unwrap();
    assert_eq!(in_place, record);

    let (kind, content) =
        Direction::new(secret(CLIENT), 0).unwrap().open(&mut in_place).map(|(k, c)| (k, c.to_vec())).unwrap();
    assert_eq!((kind, content), (23, payload));

    // The client's second record: close_notify.
    let mut alert = hex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3");
    let mut read = Direction::new(secret(CLIENT), 1).unwrap();
    let (kind, content) = read.open(&mut alert).unwrap();
    assert_eq!((kind, &*content), (21, &[1, 0][..]));
}

#[test]
fn a_secret_of_another_length_is_refused() {
    assert_eq!(Secret::new(Suite::Aes256GcmSha384, Zeroizing::new(vec![0; 32])), None);
    assert_eq!(Secret::new(Suite::Chacha20Poly1305Sha256, Zeroizing::new(vec![0; 48])), None);
}

/// What was not derived is never taken for a key.
#[test]
fn an_expansion_that_fails_says_so() {
    let hash = 32;
    assert_eq!(secret(CLIENT).expand(b"key", &mut vec![0; 255 * hash]), Some(()));
    assert_eq!(secret(CLIENT).expand(b"key", &mut vec![0; 255 * hash + 1]), None);
    assert_eq!(secret(CLIENT).expand(&[b'x'; 250], &mut [0; 16]), None);
    assert_eq!(secret(CLIENT).expand(b"key", &mut vec![0; 1 << 16]), None);
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?} {:?}", secret(CLIENT), Direction::new(secret(SERVER), 7).unwrap());
    assert_eq!(shown, "Secret(Aes128GcmSha256) Direction { secret: Secret(Aes128GcmSha256), sequence: 7 }");
}
