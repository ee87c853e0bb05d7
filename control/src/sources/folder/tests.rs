//! What a reload keeps, takes and reports.

use super::super::objects::Name;
use super::*;

const GOOD: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: n}\nspec: {action: DENY, rules: [{}]}\n";
const OTHER: &str = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: n}\n";

fn file(path: &str, content: &str) -> File {
    File { path: path.into(), content: Ok(content.as_bytes().to_vec()) }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn apply(folder: &mut Folder, files: Vec<File>) -> Snapshot {
    folder.apply(files, None, time(100))
}

fn codes(snapshot: &Snapshot) -> Vec<&'static str> {
    snapshot.problems.iter().map(Problem::code).collect()
}

fn has_policy(snapshot: &Snapshot) -> bool {
    snapshot.objects.authorization_policies.contains_key(&Name::new("n", "p"))
}

#[test]
fn a_bad_object_keeps_its_last_good_version_and_the_others_apply() {
    let mut folder = Folder::default();
    assert!(has_policy(&apply(&mut folder, vec![file("a.yaml", GOOD)])));
    let bad = GOOD.replace("DENY", "MAYBE");
    let snapshot = apply(&mut folder, vec![file("a.yaml", &format!("{OTHER}---\n{bad}"))]);
    assert!(has_policy(&snapshot));
    assert_eq!(snapshot.objects.service_accounts.len(), 1);
    let problem = snapshot.problems.first().expect("a problem");
    assert_eq!(problem.line, Some(5));
    let text = problem.to_string();
    assert!(text.starts_with("a.yaml:5: AuthorizationPolicy/n/p: spec.action: "), "{text}");
    assert!(text.ends_with("[source-invalid-object]"), "{text}");
    // Mended: the problem is gone.
    assert_eq!(apply(&mut folder, vec![file("a.yaml", GOOD)]).problems, []);
}

#[test]
fn an_unparsable_file_keeps_its_objects_until_it_parses_again() {
    let mut folder = Folder::default();
    apply(&mut folder, vec![file("a.yaml", GOOD), file("b.yaml", OTHER)]);
    let snapshot = apply(&mut folder, vec![file("a.yaml", "kind: [\n"), file("b.yaml", "# nothing\n")]);
    assert!(has_policy(&snapshot));
    assert!(snapshot.objects.service_accounts.is_empty());
    assert_eq!(codes(&snapshot), ["source-malformed-yaml"]);
    let unreadable = File { path: "a.yaml".into(), content: Err(Reason::Unreadable("denied".to_owned())) };
    assert!(has_policy(&apply(&mut folder, vec![unreadable])));
    let snapshot = apply(&mut folder, vec![file("a.yaml", OTHER)]);
    assert!(!has_policy(&snapshot));
    assert_eq!(snapshot.problems, []);
    assert!(!has_policy(&apply(&mut folder, vec![])));
}

#[test]
fn a_document_that_lost_its_kind_does_not_delete_the_object_it_was() {
    let mut folder = Folder::default();
    apply(&mut folder, vec![file("a.yaml", GOOD)]);
    let snapshot = apply(&mut folder, vec![file("a.yaml", &GOOD.replace("kind: AuthorizationPolicy\n", ""))]);
    assert!(has_policy(&snapshot));
    assert_eq!(codes(&snapshot), ["source-not-an-object"]);
}

/// `kubectl get … > a.yaml` empties the file at once and fills it when the answer is there, or never.
#[test]
fn an_emptied_file_keeps_its_objects() {
    let mut folder = Folder::default();
    assert_eq!(apply(&mut folder, vec![file("a.yaml", "")]).problems, [], "nothing is lost");
    apply(&mut folder, vec![file("a.yaml", GOOD)]);
    for _ in 0..2 {
        let snapshot = apply(&mut folder, vec![file("a.yaml", "\n")]);
        assert!(has_policy(&snapshot));
        assert_eq!(codes(&snapshot), ["source-emptied-file"]);
    }
    let snapshot = apply(&mut folder, vec![file("a.yaml", "# not any more\n")]);
    assert!(!has_policy(&snapshot));
    assert_eq!(snapshot.problems, []);
}

#[test]
fn two_definitions_are_refused_by_name_and_the_one_in_use_stays() {
    let mut folder = Folder::default();
    apply(&mut folder, vec![file("a.yaml", GOOD)]);
    let open = GOOD.replace("DENY", "ALLOW");
    let snapshot = apply(&mut folder, vec![file("a.yaml", GOOD), file("b.yaml", &open)]);
    assert_eq!(codes(&snapshot), ["source-duplicate-object"]);
    let text = snapshot.problems.first().expect("a problem").to_string();
    assert!(text.contains("b.yaml:1: AuthorizationPolicy/n/p: also defined in a.yaml:1"), "{text}");
    let policy = snapshot.objects.authorization_policies.get(&Name::new("n", "p")).expect("the policy");
    assert_eq!(policy.spec.action, super::super::objects::Action::Deny);
    // The first file goes: the second is the definition now.
    let snapshot = apply(&mut folder, vec![file("b.yaml", &open)]);
    let policy = snapshot.objects.authorization_policies.get(&Name::new("n", "p")).expect("the policy");
    assert_eq!(policy.spec.action, super::super::objects::Action::Allow);
}

#[test]
fn age_is_what_is_written_or_when_the_object_was_first_seen() {
    let mut folder = Folder::default();
    folder.apply(vec![file("a.yaml", GOOD)], None, time(100));
    let dated = OTHER.replace("name: a,", "name: a, creationTimestamp: 1970-01-01T00:00:07Z,");
    let snapshot = folder.apply(
        vec![file("a.yaml", &GOOD.replace("DENY", "ALLOW")), file("b.yaml", &dated)],
        None,
        time(200),
    );
    let policy = snapshot.objects.authorization_policies.get(&Name::new("n", "p")).expect("the policy");
    assert_eq!(policy.metadata.age().0, time(100));
    let account = snapshot.objects.service_accounts.get(&Name::new("n", "a")).expect("the account");
    assert_eq!(account.metadata.age().0, time(7));
}

#[test]
fn a_flawed_policy_never_replaces_a_good_one_but_is_better_than_none() {
    let flawed = GOOD.replace("rules: [{}]", "rules: [{to: [{operation: {ports: [http]}}]}]");
    let mut folder = Folder::default();
    let snapshot = apply(&mut folder, vec![file("a.yaml", &flawed)]);
    assert!(has_policy(&snapshot));
    assert_eq!(codes(&snapshot), ["source-invalid-object"]);
    apply(&mut folder, vec![file("a.yaml", GOOD)]);
    let snapshot = apply(&mut folder, vec![file("a.yaml", &flawed)]);
    let policy = snapshot.objects.authorization_policies.get(&Name::new("n", "p")).expect("the policy");
    assert!(policy.spec.rules.iter().all(|rule| rule.to.is_empty()));
}

#[test]
fn lists_are_taken_apart_with_the_lines_of_their_items() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ServiceAccount\n  metadata: {name: a, namespace: n}\n- apiVersion: v1\n  kind: ServiceAccount\n  metadata: {name: B, namespace: n}\n";
    let snapshot = apply(&mut Folder::default(), vec![file("l.yaml", list)]);
    assert_eq!(snapshot.objects.service_accounts.len(), 1);
    assert_eq!(snapshot.problems.first().and_then(|problem| problem.line), Some(7));
    let json = r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a"}]}}]}"#;
    let snapshot = apply(&mut Folder::default(), vec![file("l.json", json)]);
    assert!(snapshot.objects.pods.contains_key(&Name::new("default", "p")), "{:?}", snapshot.problems);
}

#[test]
fn kinds_that_mean_nothing_are_counted() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let snapshot = apply(&mut Folder::default(), vec![file("a.yaml", text)]);
    assert_eq!(snapshot.problems, []);
    assert_eq!(snapshot.ignored_kinds.keys().collect::<Vec<_>>(), ["apps/v1 Deployment", "v1 ConfigMap"]);
}

#[test]
fn the_mesh_configuration_comes_from_its_config_map_or_its_file() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    trustDomain: my.td\n    defaultConfig: {discoveryAddress: x}\n";
    let mut folder = Folder::default();
    assert_eq!(apply(&mut folder, vec![file("m.yaml", map)]).mesh.trust_domain, "my.td");
    let snapshot = apply(&mut folder, vec![file("m.yaml", &map.replace("my.td", "[1"))]);
    assert_eq!(snapshot.mesh.trust_domain, "my.td");
    assert_eq!(codes(&snapshot), ["source-invalid-mesh-config"]);
    let mut folder = Folder::default();
    let mesh = file("mesh.yaml", "trustDomain: other.td\n");
    assert_eq!(folder.apply(vec![file("m.yaml", map)], Some(mesh), time(1)).mesh.trust_domain, "other.td");
    let bad = file("mesh.yaml", "rootNamespace: [a]\n");
    let snapshot = folder.apply(vec![], Some(bad), time(2));
    assert_eq!(snapshot.mesh.trust_domain, "other.td");
    assert_eq!(codes(&snapshot), ["source-invalid-mesh-config"]);
}

#[test]
fn empty_names_of_the_mesh_configuration_are_the_defaults_and_bad_ones_are_refused() {
    let parse = |text: &str| Folder::default().apply(vec![], Some(file("mesh.yaml", text)), time(1));
    let snapshot = parse("trustDomain: ''\nrootNamespace: ''\n");
    assert_eq!(snapshot.problems, []);
    assert_eq!(snapshot.mesh, MeshConfig::default());
    assert_eq!(codes(&parse("trustDomain: a/b\n")), ["source-invalid-mesh-config"]);
    // Emptied under way: what it said stays.
    let mut folder = Folder::default();
    folder.apply(vec![], Some(file("mesh.yaml", "trustDomain: my.td\n")), time(1));
    let snapshot = folder.apply(vec![], Some(file("mesh.yaml", "")), time(2));
    assert_eq!(snapshot.mesh.trust_domain, "my.td");
    assert_eq!(codes(&snapshot), ["source-emptied-file"]);
}

#[test]
fn hostile_files_are_refused_within_bounds() {
    let nested = "[".repeat(100_000);
    let deep = (0..5000).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>();
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (previous, name) in ["a", "b", "c", "d", "e", "f", "g", "h"].windows(2).map(|pair| (pair[0], pair[1]))
    {
        let aliases = vec![format!("*{previous}"); 10].join(",");
        bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
    }
    let json = format!("{{\"a\":{}", "[".repeat(100_000));
    for text in
        [nested.as_str(), &deep, &bomb, &json, "\u{0}", "- - - : :", "%YAML 9.9", "a: *b", "a: 1\na: 2"]
    {
        let snapshot = apply(&mut Folder::default(), vec![file("a.yaml", text)]);
        assert_eq!(
            codes(&snapshot),
            ["source-malformed-yaml"],
            "{}",
            text.chars().take(40).collect::<String>()
        );
    }
    let snapshot = Folder::default().apply(
        vec![File { path: "a.yaml".into(), content: Ok(vec![0xff, 0xfe, 0x80]) }],
        None,
        time(1),
    );
    assert_eq!(codes(&snapshot), ["source-malformed-yaml"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        apply(&mut Folder::default(), vec![File { path: "a.yaml".into(), content: Ok(bytes) }]);
    }

    /// A good manifest with a few characters replaced: the parser gets far, and anything may be wrong.
    #[test]
    fn damaged_manifests_are_survived(
        which in 0_usize..4,
        damage in proptest::collection::vec((0_usize..400, "[ -~\n]{0,4}"), 1..6),
    ) {
        let texts = [
            GOOD,
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80, targetPort: a}]}\n",
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec: {hosts: [a.b], resolution: STATIC, ports: [{number: 1, name: a}], endpoints: [{address: 1.1.1.1, weight: 3}]}\n",
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a}]}}]\n",
        ];
        let mut text: Vec<char> = texts[which].chars().collect();
        for (at, replacement) in damage {
            let at = at.min(text.len());
            let end = (at + replacement.len()).min(text.len());
            text.splice(at..end, replacement.chars());
        }
        let text: String = text.into_iter().collect();
        let snapshot = apply(&mut Folder::default(), vec![file("a.yaml", &text)]);
        crate::translate::translate(&snapshot.objects, &snapshot.mesh, &crate::translate::Switches::default());
    }
}

#[test]
fn a_misspelt_kind_is_a_problem_and_does_not_take_the_object_away() {
    let mut folder = Folder::default();
    assert!(has_policy(&apply(&mut folder, vec![file("a.yaml", GOOD)])));
    let misspelt = GOOD.replace("AuthorizationPolicy", "AuthorisationPolicy");
    let snapshot = apply(&mut folder, vec![file("a.yaml", &misspelt)]);
    assert!(has_policy(&snapshot), "the last good version stays in use");
    let told: Vec<String> = snapshot.problems.iter().map(ToString::to_string).collect();
    let wanted = "a.yaml:1: there is no kind security.istio.io/v1 AuthorisationPolicy; \
                  security.istio.io/v1 AuthorizationPolicy is probably meant [source-unknown-kind]";
    assert_eq!(told, [wanted]);
}
