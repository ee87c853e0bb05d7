//! The lines of the agent's own socket.
use super::*;

#[test]
fn requests_and_answers_are_lines_of_json() {
    let line = r#"{"do":"enroll","netns":"/run/netns/x","uid":"u","pod":"ns/web","serviceAccount":"sa","dnsCapture":false,"ingress":true,"virtualInterfaces":[],"trackAnswers":false,"waitSeconds":30}"#;
    let request: Request = serde_json::from_str(line).unwrap();
    assert_eq!(serde_json::to_string(&request).unwrap(), line);
    let Request::Enroll(enroll) = request else { panic!() };
    assert!(enroll.options.ingress && !enroll.options.dns_capture);

    // What is left out has its default.
    let line =
        r#"{"do":"enroll","netns":"/x","uid":"u","pod":"ns/web","serviceAccount":"sa","waitSeconds":1}"#;
    let Request::Enroll(enroll) = serde_json::from_str(line).unwrap() else { panic!() };
    assert_eq!(enroll.options, Options::default());
    assert!(serde_json::from_str::<Request>(r#"{"do":"list"}"#).is_ok());
    assert!(serde_json::from_str::<Request>(r#"{"do":"enroll"}"#).is_err());
}

#[test]
fn the_only_agent_is_found_and_several_are_listed() {
    let base = tempfile::tempdir().unwrap();
    assert_eq!(client::socket(base.path(), None).unwrap_err().code(), "agent-not-running");
    assert_eq!(client::socket(base.path(), Some("x")).unwrap(), base.path().join("x").join(SOCKET));
    let listen = |node: &str| {
        std::fs::create_dir(base.path().join(node)).unwrap();
        std::os::unix::net::UnixListener::bind(base.path().join(node).join(SOCKET)).unwrap()
    };
    let _one = listen("n1");
    assert_eq!(client::socket(base.path(), None).unwrap(), base.path().join("n1").join(SOCKET));
    let _two = listen("n2");
    let error = client::socket(base.path(), None).unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("n1, n2")), ("agent-ambiguous", true));
}
