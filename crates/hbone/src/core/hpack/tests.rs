//! RFC 7541 appendix C, bad input, and what we encode.
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]

use proptest::prelude::*;

use super::{BadBlock, DEFAULT_TABLE, Decoder, Field, encode, huffman};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn fields(list: &[(&str, &str)]) -> Vec<Field> {
    list.iter().map(|(n, v)| Field { name: n.as_bytes().to_vec(), value: v.as_bytes().to_vec() }).collect()
}

#[track_caller]
fn check(decoder: &mut Decoder, block: &str, expected: &[(&str, &str)], table: usize) {
    let list = decoder.decode(&hex(block), 1 << 20).unwrap();
    assert_eq!(list.fields, fields(expected));
    assert_eq!(decoder.table_size(), table);
}

const FIRST: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];

fn second() -> Vec<(&'static str, &'static str)> {
    [&FIRST[..], &[("cache-control", "no-cache")]].concat()
}

const THIRD: [(&str, &str); 5] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

#[test]
fn appendix_c_2_single_fields() {
    let new = || Decoder::new(DEFAULT_TABLE);
    check(
        &mut new(),
        "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
        &[("custom-key", "custom-header")],
        55,
    );
    check(&mut new(), "040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], 0);
    check(&mut new(), "1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], 0);
    check(&mut new(), "82", &[(":method", "GET")], 0);
}

#[test]
fn appendix_c_3_and_4_requests() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new(DEFAULT_TABLE);
        check(&mut decoder, blocks[0], &FIRST, 57);
        check(&mut decoder, blocks[1], &second(), 110);
        check(&mut decoder, blocks[2], &THIRD, 164);
    }
}

#[test]
fn appendix_c_5_and_6_answers_evict() {
    const DATE: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
    const LATER: &str = "Mon, 21 Oct 2013 20:13:22 GMT";
    const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    const PLACE: (&str, &str) = ("location", "https://www.example.com");
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120
         474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738
         666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33
         3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718
         63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7
         b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new(256);
        let private = ("cache-control", "private");
        check(&mut decoder, blocks[0], &[(":status", "302"), private, ("date", DATE), PLACE], 222);
        check(&mut decoder, blocks[1], &[(":status", "307"), private, ("date", DATE), PLACE], 222);
        check(
            &mut decoder,
            blocks[2],
            &[
                (":status", "200"),
                private,
                ("date", LATER),
                PLACE,
                ("content-encoding", "gzip"),
                ("set-cookie", COOKIE),
            ],
            215,
        );
    }
}

#[test]
fn a_bad_block_is_refused() {
    for (block, why) in [
        ("80", "index zero"),
        ("be", "index beyond the tables"),
        ("ff ff ff ff ff ff", "integer too large"),
        ("40", "truncated"),
        ("40 0a 61", "truncated"),
        ("82 20", "table size update after a field"),
        ("3f e2 1f", "table size update above the setting"),
        // Huffman: EOS inside, padding of zeros, padding of a whole octet.
        ("00 84 ff ff ff ff 01 61", "bad huffman code"),
        ("00 81 00 01 61", "bad huffman code"),
        ("00 82 1f ff 01 61", "bad huffman code"),
    ] {
        let result = Decoder::new(DEFAULT_TABLE).decode(&hex(block), 1 << 20);
        assert_eq!(result, Err(BadBlock(why)), "{block}");
    }
}

#[test]
fn size_updates_shrink_and_grow_the_table() {
    let mut decoder = Decoder::new(DEFAULT_TABLE);
    decoder.decode(&hex("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572"), 1000).unwrap();
    assert_eq!(decoder.table_size(), 55);
    decoder.decode(&hex("20 3f e1 1f 82"), 1000).unwrap();
    assert_eq!(decoder.table_size(), 0);
}

#[test]
fn a_list_above_the_limit_keeps_the_tables_in_step() {
    let mut decoder = Decoder::new(DEFAULT_TABLE);
    let mut block = Vec::new();
    encode("x-big", &[b'v'; 500], &mut block);
    block.extend(hex("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572"));
    let list = decoder.decode(&block, 400).unwrap();
    assert!(list.oversized && list.fields.is_empty());
    let list = decoder.decode(&[0xbe], 400).unwrap();
    assert_eq!(list.fields, fields(&[("custom-key", "custom-header")]));
}

proptest! {
    #[test]
    fn what_we_encode_decodes_to_the_same(
        list in prop::collection::vec(("[a-z:-]{1,20}", prop::collection::vec(any::<u8>(), 0..200)), 0..20)
    ) {
        let mut block = Vec::new();
        for (name, value) in &list {
            encode(name, value, &mut block);
        }
        let decoded = Decoder::new(DEFAULT_TABLE).decode(&block, usize::MAX).unwrap();
        let expected: Vec<Field> =
            list.into_iter().map(|(name, value)| Field { name: name.into_bytes(), value }).collect();
        prop_assert_eq!(decoded.fields, expected);
    }

    #[test]
    fn huffman_goes_both_ways(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (mut coded, mut decoded) = (Vec::new(), Vec::new());
        huffman::encode(&bytes, &mut coded);
        huffman::decode(&coded, &mut decoded).unwrap();
        prop_assert_eq!(decoded, bytes);
    }

    #[test]
    fn no_input_upsets_the_decoder(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..5)) {
        let mut decoder = Decoder::new(DEFAULT_TABLE);
        for block in blocks {
            let _ = decoder.decode(&block, 1000);
            prop_assert!(decoder.table_size() <= DEFAULT_TABLE);
        }
    }
}
