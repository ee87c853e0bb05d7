//! HTTP/2 as bytes, from the RFCs alone: frames, HPACK, and a peer that says what a case wants said, right or wrong.

pub(crate) mod frame;
pub(crate) mod hpack;
mod huffman;
pub(crate) mod peer;
pub(crate) mod seen;
