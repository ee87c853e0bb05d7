mod foil;

use std::collections::BTreeSet;

use super::*;

#[test]
fn ids_are_unique_and_every_case_says_all() {
    let mut ids = BTreeSet::new();
    for case in cases::all() {
        assert!(ids.insert(case.id), "{} stands twice", case.id);
        assert!(case.id.starts_with("HB-"), "{}", case.id);
        let number = case.id.rsplit('-').next().unwrap();
        assert!(number.len() == 2 && number.parse::<u8>().is_ok(), "{}", case.id);
        for text in [case.title, case.sent, case.wanted, case.spec] {
            assert!(!text.is_empty(), "{}", case.id);
        }
    }
    assert!(ids.len() > 100);
}

#[test]
fn the_page_lists_the_cases_as_they_are() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let page = std::fs::read_to_string(file).unwrap();
    let listed = page.split_once("<!-- culvert conformance list -o markdown -->\n").unwrap().1;
    assert!(
        listed.trim() == report::page().trim(),
        "docs/conformance.md is behind: put the output of `culvert conformance list -o markdown` below the mark"
    );
}
