use super::*;

fn view(search: Option<&[String]>) -> NameView<'_> {
    NameView { namespace: "ns1", cluster_domain: "cluster.local", search, preferred_namespace: None }
}

// A-DN-21
#[test]
fn domains_end_at_labels() {
    assert_eq!(strip_domain("a.b.c", "b.c"), Some("a"));
    assert_eq!(strip_domain("a.b.c", "b.c."), Some("a"));
    assert_eq!(strip_domain("axb.c", "b.c"), None);
    assert_eq!(strip_domain("b.c", "b.c"), None);
    assert_eq!(strip_domain("c", "b.c"), None);
}

// 8.2.2, A-DN-19
#[test]
fn aliases_come_in_order_and_once() {
    let names =
        |name, search| -> Vec<String> { aliases(name, &view(search)).into_iter().map(|a| a.name).collect() };
    assert_eq!(names("x", None), ["x", "x.ns1.svc.cluster.local"]);
    assert_eq!(names("x.y", None), ["x.y", "x.y.svc.cluster.local", "x.y.ns1.svc.cluster.local"]);
    assert_eq!(names("x.y.svc", None), ["x.y.svc", "x.y.svc.cluster.local", "x.y.svc.svc.cluster.local"]);
    assert_eq!(names("x.y.z", None), ["x.y.z", "x.y.z.svc.cluster.local"]);
    assert_eq!(names("a.b.c.svc", None), ["a.b.c.svc", "a.b.c.svc.cluster.local"]);
    assert_eq!(names("a.b.c.d", None), ["a.b.c.d"]);
    assert_eq!(
        names("x.ns1.svc.cluster.local", None),
        [
            "x.ns1.svc.cluster.local",
            "x",
            "x.ns1",
            "x.ns1.svc.cluster.local".replace("x.ns1", "x.ns1.ns1").as_str(),
            "x.ns1.svc",
            "x.ns1.svc.svc.cluster.local"
        ]
        .map(str::to_owned)
    );
    let own = ["corp.example".to_owned()];
    assert_eq!(names("a.b.c.d.corp.example", Some(&own)), ["a.b.c.d.corp.example", "a.b.c.d"]);
    assert_eq!(names("x.ns1.svc.cluster.local", Some(&own)), ["x.ns1.svc.cluster.local"]);
}
