//! The version of a resource.

/// The version of a serialized resource: the 64-bit xxHash of its bytes in hexadecimal without leading zeros.
///
/// The bytes must be a deterministic serialization (map keys sorted), so that every replica agrees and a client
/// that reconnects elsewhere is not sent what it holds. Never empty.
#[must_use]
pub fn version_of(payload: &[u8]) -> String {
    format!("{:x}", xxhash_rust::xxh64::xxh64(payload, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Vector {
        name: String,
        version: String,
        payload: Vec<u8>,
    }

    fn vectors() -> Vec<Vector> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/xds/version-vectors.json");
        let text = std::fs::read_to_string(path).expect("the recorded vectors are part of the repository");
        let list: serde_json::Value = serde_json::from_str(&text).expect("vectors are JSON");
        let field = |vector: &serde_json::Value, key: &str| vector[key].as_str().expect("text").to_owned();
        list.as_array()
            .expect("a list")
            .iter()
            .map(|vector| Vector {
                name: field(vector, "name"),
                version: field(vector, "version"),
                payload: hex::decode(field(vector, "payload_hex")).expect("hexadecimal"),
            })
            .collect()
    }

    // CP-2.3: the recorded versions, among them one that starts with a zero digit.
    #[test]
    fn recorded_payloads_have_the_recorded_versions() {
        let vectors = vectors();
        assert!(vectors.iter().any(|vector| vector.version.len() < 16), "a version with a leading zero");
        for vector in vectors {
            assert_eq!(version_of(&vector.payload), vector.version, "{}", vector.name);
        }
    }

    // The generated messages must serialize as the reference does, or versions would never agree.
    #[test]
    fn messages_serialize_to_the_recorded_bytes() {
        use prost::Message as _;
        for vector in vectors() {
            let address = wire::workload::Address::decode(vector.payload.as_slice()).expect("an Address");
            assert_eq!(address.encode_to_vec(), vector.payload, "{}", vector.name);
        }
    }
}
