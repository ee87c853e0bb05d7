//! Recorded manifests with one value gone wrong: what is still admitted must give records that a node takes.

use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Value, json};
use state::{Delta, Mesh, MeshConfig, ResourceType};
use wire::workload::address;

use super::data;
use crate::sources::{File, Folder};
use crate::translate::{Records, Switches, translate};

/// Mutations per recorded case.
const ROUNDS: usize = 15;

/// What people, templates and broken scripts leave behind.
fn junk(random: u64) -> Value {
    let values = [
        json!(null),
        json!(""),
        json!("*"),
        json!("none"),
        json!("/"),
        json!("a/b/c"),
        json!(" "),
        json!("UDP"),
        json!("x".repeat(300)),
        json!("\u{e9}\u{0}\n"),
        json!("10.0.0.1/0"),
        json!("::ffff:1.2.3.4"),
        json!("fe80::1%eth0"),
        json!("True"),
        json!(0),
        json!(-1),
        json!(65_536),
        json!(4_294_967_296_u64),
        json!(1.5),
        json!(true),
        json!([]),
        json!({}),
        json!([null]),
        json!([{}]),
        json!({"": ""}),
    ];
    values[usize::try_from(random % values.len() as u64).unwrap()].clone()
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

/// Replaces, removes or doubles one value somewhere below.
fn mutate(value: &mut Value, random: &mut Random) {
    let deeper = random.below(4) > 0;
    match value {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(random.below(map.len())).cloned().unwrap();
            if deeper {
                mutate(&mut map[&key], random);
            } else if random.below(3) == 0 {
                map.remove(&key);
            } else {
                map.insert(key, junk(random.next()));
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let index = random.below(items.len());
            if deeper {
                mutate(&mut items[index], random);
            } else {
                let copy = items[index].clone();
                items.push(copy);
            }
        }
        other => *other = junk(random.next()),
    }
}

fn documents(text: &str) -> Vec<Value> {
    let parsed: Vec<Value> = text
        .split("\n---")
        .filter_map(|document| serde_saphyr::from_str::<Value>(document).ok())
        .filter(Value::is_object)
        .collect();
    assert!(!parsed.is_empty(), "{text}");
    parsed
}

/// Names of what a node would refuse.
fn refused(records: &Records) -> Vec<String> {
    let addresses: Vec<(&str, Vec<u8>)> =
        records.addresses.iter().map(|(name, record)| (name.as_str(), record.encode_to_vec())).collect();
    let policies: Vec<(&str, Vec<u8>)> =
        records.authorizations.iter().map(|(name, record)| (name.as_str(), record.encode_to_vec())).collect();
    let kinds = [(ResourceType::Address, addresses), (ResourceType::Authorization, policies)];
    let mut refused = Vec::new();
    for (kind, resources) in kinds {
        let resources = resources.iter().map(|(name, payload)| (*name, Some(payload.as_slice())));
        let (_, applied) =
            Mesh::new(MeshConfig::default()).apply(Delta::decode(kind, resources, Vec::<String>::new()));
        refused.extend(
            applied.rejected.iter().map(|rejected| format!("{}: {}", rejected.name, rejected.reason)),
        );
    }
    for record in records.addresses.values() {
        let Some(address::Type::Workload(workload)) = &record.r#type else { continue };
        let unknown =
            workload.authorization_policies.iter().filter(|key| !records.authorizations.contains_key(*key));
        refused.extend(unknown.map(|key| format!("{} names {key}", workload.uid)));
    }
    refused
}

#[test]
fn a_value_gone_wrong_is_refused_by_name_or_harmless() {
    let mut random = Random(0x0dd0_5678_9abc_def1);
    let mut n_admitted = 0;
    for case in std::fs::read_dir(data("translation")).expect("recorded cases") {
        let input = case.expect("a case").path().join("input.yaml");
        let Ok(text) = std::fs::read_to_string(&input) else { continue };
        let good = documents(&text);
        for _ in 0..ROUNDS {
            let mut mutated = good.clone();
            let index = random.below(mutated.len());
            mutate(&mut mutated[index], &mut random);
            let text: String = mutated.iter().map(|document| format!("---\n{document}\n")).collect();
            let file = File { path: "all.json.yaml".into(), content: Ok(text.clone().into_bytes()) };
            let snapshot = Folder::default().apply(vec![file], None, Timestamp::UNIX_EPOCH);
            n_admitted += usize::from(snapshot.problems.is_empty());
            let records = translate(&snapshot.objects, &snapshot.mesh, &Switches::default());
            let refused = refused(&records);
            assert!(refused.is_empty(), "{}: {refused:?}\n{}", input.display(), mutated[index]);
        }
    }
    assert!(n_admitted > 100, "only {n_admitted} mutations were admitted: the test sees nothing");
}
