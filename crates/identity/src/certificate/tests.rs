//! Reading the authority's answer.
use std::time::Duration;

use rustls_pki_types::PrivateKeyDer;

use super::*;
use crate::testing::{below, leaf, now, options, root};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

// CO-11.3: leaf, two intermediates, one root.
#[test]
fn the_answer_is_leaf_then_intermediates_then_roots() {
    let root = root();
    let upper = below(&root, "upper");
    let lower = below(&upper, "lower");
    let cart = leaf(&[CART]);
    // Only the first block of an element counts, except for the last.
    let chain = [cart.pem(&lower), format!("{}{}", lower.pem(), upper.pem()), upper.pem(), root.pem()];
    let certificate = WorkloadCertificate::new(&chain, cart.key(), options()).unwrap();
    assert_eq!(certificate.identity().as_str(), CART);
    assert_eq!((certificate.chain().len(), certificate.roots().len()), (3, 1));
    assert_eq!(certificate.chain()[1].der(), lower.der());
    assert_eq!(certificate.leaf().serial(), "130725414646659904654517674988867618825");
    assert!(certificate.skipped_roots().is_empty());
    assert!(!format!("{certificate:?}").contains("PRIVATE"));
}

// A-MI-02, CO-11.3: expiry and half-life, also of one that is not valid yet.
#[test]
fn renewal_is_due_at_half_life_and_expiry_is_seen() {
    let root = root();
    let certificate = leaf(&[CART]).issued(&root, &root.pem()).unwrap();
    let (begin, end) = (now() - Duration::from_secs(100), now() + Duration::from_secs(900));
    assert_eq!((certificate.not_before(), certificate.not_after()), (begin, end));
    assert_eq!(certificate.refresh_at(now()), now() + Duration::from_secs(400));
    assert_eq!(certificate.refresh_at(end), end, "late is now");
    assert!(!certificate.is_expired(end - Duration::from_secs(1)));
    assert!(certificate.is_expired(end));
    let future = leaf(&[CART]).with(|params| params.not_before = (now() + Duration::from_secs(100)).into());
    assert_eq!(
        future.issued(&root, &root.pem()).unwrap().refresh_at(now()),
        now() + Duration::from_secs(500)
    );
    let reversed = leaf(&[CART]).with(|params| params.not_before = (now() + Duration::from_secs(901)).into());
    assert_eq!(reversed.issued(&root, &root.pem()).unwrap().refresh_at(now()), end);
}

// Control-and-operations 4.6: bad roots are skipped and reported.
#[test]
fn bad_roots_are_left_out_and_good_ones_used() {
    let (root, other) = (root(), root());
    let bad = "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n";
    let bundle = format!("{}{bad}{}", root.pem(), other.pem());
    let certificate = leaf(&[CART]).issued(&root, &bundle).unwrap();
    assert_eq!(certificate.roots().len(), 2);
    assert_eq!(certificate.skipped_roots().len(), 1);
    assert_eq!(certificate.skipped_roots()[0].index, 1);
    assert_eq!(leaf(&[CART]).issued(&root, bad).unwrap_err(), ChainError::NoUsableRoot { count: 1 });
}

// A-MI-04
#[test]
fn answers_that_cannot_be_used_are_errors_of_their_own() {
    let root = root();
    let cart = leaf(&[CART]);
    let new = |chain: &[String], key: PrivateKeyDer<'static>| {
        WorkloadCertificate::new(chain, key, options()).unwrap_err()
    };
    assert_eq!(new(&[], cart.key()), ChainError::Empty);
    let alone = new(&[cart.pem(&root)], cart.key());
    assert_eq!(alone.to_string(), "invalid root certificate: no root certificate present");
    assert_eq!(new(&[cart.pem(&root), String::new()], cart.key()), ChainError::NoRoot);
    let garbage = new(&["garbage".to_owned(), root.pem()], cart.key());
    assert!(matches!(garbage, ChainError::Unreadable { index: 0, .. }));
    let middle = new(&[cart.pem(&root), "garbage".to_owned(), root.pem()], cart.key());
    assert!(matches!(middle, ChainError::Unreadable { index: 1, .. }));
    let other_key = new(&[cart.pem(&root), root.pem()], leaf(&[CART]).key());
    assert_eq!(other_key.code(), "ca-chain-key-mismatch");
    let nobody = leaf(&["spiffe://cluster.local/workload/x", CART]);
    let nobody = new(&[nobody.pem(&root), root.pem()], nobody.key());
    assert_eq!(nobody.code(), "ca-chain-without-identity");
}

// Control-and-operations 6.3
#[test]
fn the_dump_carries_pem_of_sixty_columns_in_base64() {
    let root = root();
    let certificate = leaf(&[CART]).issued(&root, &root.pem()).unwrap();
    let pem = certificate.leaf().pem();
    let lines: Vec<_> = pem.lines().collect();
    assert_eq!(lines.first(), Some(&"-----BEGIN CERTIFICATE-----"));
    assert_eq!(lines.last(), Some(&"-----END CERTIFICATE-----"));
    assert!(lines[1..lines.len() - 2].iter().all(|line| line.len() == 60));
    assert_eq!(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), certificate.leaf().der());
    assert!(certificate.leaf().pem_base64().starts_with("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1J"));
}
