//! What names stand for.
