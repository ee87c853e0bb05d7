//! Requests on 15008 by their header fields, and the statuses they get.

use super::probe::{Answer, Probe};
use super::*;

/// The header list of `sent`.
fn header_list(sent: &str) -> Vec<(String, String)> {
    let list = sent.split_once("[(").unwrap().1.split_once(")]").unwrap().0;
    let field = |field: &str| {
        let field = field.trim_matches('\'').replace("\\\"", "\"");
        let (name, value) = field.split_once("', '").unwrap();
        let mut value = value.replace("{vip_server}", &vip("server"));
        for (name, ip, _) in ROLES {
            value = value.replace(&format!("{{{name}}}"), ip);
        }
        (name.to_owned(), value)
    };
    list.split("), (").map(field).collect()
}

/// Sends the request of the recording and 11 bytes.
async fn ask(lab: &Lab, recording: &Recording, echo: &Echo, id: &str) -> Value {
    let known = recording.observed["source_seen_by_app"][0] == "<peer>";
    let tls = lab.tls(if known { "peer" } else { "client" });
    let fields = header_list(&recording.sent);
    let ends = id == "CN-48";
    let answer = inside(lab.pod(if known { "peer" } else { "raw" }), move || {
        let mut probe = Probe::connect(at("server", 15008), tls);
        let mut answer = Answer::default();
        probe.request(1, &fields, ends);
        probe.read(1, &mut answer, |answer| answer.status.is_some() || answer.is_over());
        if answer.status.as_deref() == Some("200") {
            if !ends {
                probe.data(1, b"hello world", true);
            }
            probe.read(1, &mut answer, Answer::is_over);
        }
        probe.settle(1, &mut answer);
        probe.close();
        answer
    });
    let answer = answer.await;
    let mut told = answer.told();
    if answer.status.as_deref() == Some("200") && !ends {
        told["echo"] = json!(answer.data == b"hello world");
    }
    let callers = echo.callers();
    if !callers.is_empty() {
        told["source_seen_by_app"] = json!(callers);
    }
    told
}

#[test]
fn requests_get_the_recorded_answers_lines_and_counters() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let echo = lab.echo("server", 7000);
            for id in [
                "CN-01", "CN-02", "CN-03", "CN-04", "CN-09", "CN-12", "CN-14", "CN-20", "CN-23", "CN-24",
                "CN-26", "CN-28", "CN-36", "CN-38", "CN-43", "CN-46", "CN-48", "HD-01", "HD-02", "HD-03",
                "HD-04", "HD-08", "HD-12", "HD-13", "HD-17", "HD-18", "HD-26",
            ] {
                lab.replay(id, async |recording| ask(&lab, recording, &echo, id).await).await;
            }
            lab.assert_same();
        });
    });
}
