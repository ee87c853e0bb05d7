//! The static table (RFC 7541 appendix A) and the dynamic table (section 2.3.2).

use std::collections::VecDeque;

use super::Field;

/// Name and value by index, from 1.
#[rustfmt::skip]
pub(crate) const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

/// What an entry costs beyond its octets (section 4.1).
pub(crate) const OVERHEAD: usize = 32;

/// Fields both ends remember, newest first, within a size.
#[derive(Debug, Clone)]
pub(crate) struct DynamicTable {
    entries: VecDeque<Field>,
    size: usize,
    max_size: usize,
}

crate::live::codec::portable!(struct DynamicTable { entries, size, max_size });

impl DynamicTable {
    pub(crate) fn is_sound(&self, allowed: usize) -> bool {
        let size: usize = self.entries.iter().map(Field::size).sum();
        self.size == size && size <= self.max_size && self.max_size <= allowed
    }

    pub(crate) fn new(max_size: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, max_size }
    }

    /// Entry by its distance from the newest.
    pub(crate) fn get(&self, distance: usize) -> Option<&Field> {
        self.entries.get(distance)
    }

    /// Adds an entry and evicts from the old end. One larger than the table empties it (section 4.4).
    pub(crate) fn insert(&mut self, field: Field) {
        let cost = field.size();
        self.evict_to(self.max_size.saturating_sub(cost));
        if cost <= self.max_size {
            self.size += cost;
            self.entries.push_front(field);
        }
    }

    pub(crate) fn resize(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict_to(max_size);
    }

    fn evict_to(&mut self, target: usize) {
        while self.size > target {
            let Some(oldest) = self.entries.pop_back() else { break };
            self.size -= oldest.size();
        }
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}
