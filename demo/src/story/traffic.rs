//! Steps that send requests: through the tunnel, over the replicas, against the policies.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::evidence::{Mark, field};
use crate::app::Answer;
use crate::mesh::{Mesh, Reply};
use crate::report::Step;

const PRODUCTPAGE: &str = "http://productpage:9080/";
const REVIEWS: &str = "http://reviews:9080/";
/// Requests after which a replica that was never chosen means a fault: (2/3)^60 is below 1e-10.
const SPREAD_LIMIT: u32 = 60;

/// Makes `count` requests from sleep to productpage; gives the replies and the lines of both ends.
pub(super) async fn prove_tunnel(mesh: &Mesh, count: u32) -> anyhow::Result<(Vec<Reply>, String, String)> {
    let (client, server) = (mesh.pod("sleep")?, mesh.pod("productpage")?);
    let (client_mark, server_mark) = (Mark::here(mesh, &client.node)?, Mark::here(mesh, &server.node)?);
    let replies = mesh.get(client, PRODUCTPAGE, count).await?;
    if let Some(bad) = replies.iter().find(|reply| reply.status != Some(200)) {
        bail!("sleep asked {PRODUCTPAGE} and got {}", bad.outcome());
    }
    let lines = usize::try_from(count)?;
    let between = |line: &str, direction: &str| {
        field(line, "direction") == Some(direction)
            && field(line, "src.workload") == Some(&client.name)
            && field(line, "dst.workload") == Some(&server.name)
            && field(line, "error").is_none()
    };
    let outbound = client_mark.lines(lines, |line| between(line, "outbound")).await?;
    let inbound = server_mark.lines(lines, |line| between(line, "inbound")).await?;
    for line in outbound.iter().chain(&inbound) {
        for needed in ["dst.hbone_addr", "src.identity", "dst.identity"] {
            field(line, needed)
                .with_context(|| format!("the line shows no {needed}, so no tunnel: {line}"))?;
        }
    }
    let last = |mut lines: Vec<String>| lines.pop().context("no line");
    Ok((replies, last(inbound)?, last(outbound)?))
}

/// Ten requests to productpage, and the access-log lines that prove HBONE.
pub(super) async fn hbone(mesh: &Mesh) -> anyhow::Result<Step> {
    let (replies, inbound, outbound) = prove_tunnel(mesh, 10).await?;
    let answer: Answer =
        serde_json::from_str(replies.first().and_then(|reply| reply.body.as_deref()).unwrap_or(""))
            .context("productpage's answer")?;
    let mut output =
        vec![format!("10 requests, 10 answers: {} {} on {}", answer.service, answer.version, answer.pod)];
    for asked in &answer.asked {
        let by = asked.answer.as_ref().map_or("nobody", |answer| &answer.pod);
        output.push(format!("  it asked {} and heard {by}", asked.url));
    }
    output.push("the server's side (inbound) and the client's side (outbound) of one of them:".to_owned());
    output.extend([inbound.clone(), outbound.clone()]);
    let heard = answer.asked.iter().all(|asked| asked.status == Some(200));
    Ok(Step {
        id: "hbone",
        title: "Requests travel through the tunnel: both ends log HBONE and both identities".to_owned(),
        command: format!("culvert demo exec sleep -- curl {PRODUCTPAGE}; culvert demo logs"),
        output,
        ok: heard && answer.asked.len() == 2,
        problem: (!heard).then(|| "productpage could not ask details and reviews".to_owned()),
        facts: json!({"requests": replies.len(), "answer": answer, "inbound": inbound, "outbound": outbound}),
    })
}

/// Requests to reviews reach all three replicas.
pub(super) async fn spread(mesh: &Mesh) -> anyhow::Result<Step> {
    let client = mesh.pod("sleep")?;
    let mut versions: BTreeMap<String, u32> = BTreeMap::new();
    let mut asked = 0;
    while asked < SPREAD_LIMIT && (asked < 20 || versions.len() < 3) {
        for reply in mesh.get(client, REVIEWS, 10).await? {
            asked += 1;
            let answer: Option<Answer> =
                reply.body.as_deref().and_then(|body| serde_json::from_str(body).ok());
            let Some(answer) = answer else { bail!("sleep asked {REVIEWS} and got {}", reply.outcome()) };
            *versions.entry(answer.version).or_default() += 1;
        }
    }
    let output = versions
        .iter()
        .map(|(version, count)| format!("reviews {version}: {count:3} {}", "#".repeat(*count as usize)))
        .collect();
    Ok(Step {
        id: "spread",
        title: format!("{asked} requests to reviews are spread over its replicas"),
        command: format!("culvert demo exec sleep -- curl {REVIEWS}"),
        output,
        ok: versions.len() == 3,
        problem: (versions.len() != 3).then(|| format!("only {} of 3 replicas answered", versions.len())),
        facts: json!({"requests": asked, "by_version": versions}),
    })
}

/// A plaintext connection to a STRICT workload is refused.
pub(super) async fn strict(mesh: &Mesh) -> anyhow::Result<Step> {
    let (client, server) = (mesh.pod("legacy/old")?, mesh.pod("prod/ledger")?);
    let url = format!("http://{}:8080/", server.address);
    let mark = Mark::here(mesh, &server.node)?;
    let reply = mesh.get(client, &url, 1).await?.pop().context("no reply")?;
    let source = client.address.to_string();
    let lines = mark
        .lines(1, |line| {
            field(line, "direction") == Some("inbound")
                && field(line, "src.addr").is_some_and(|address| address.starts_with(&source))
                && field(line, "error").is_some()
        })
        .await?;
    refused(
        "strict",
        "Plaintext to a workload with STRICT mutual TLS is refused",
        "legacy/old",
        &url,
        &reply,
        &lines,
        "PeerAuthentication",
    )
}

/// A caller that an AuthorizationPolicy denies is refused, and the log names the policy.
pub(super) async fn denied(mesh: &Mesh) -> anyhow::Result<Step> {
    let (client, server) = (mesh.pod("notsleep")?, mesh.pod("productpage")?);
    let mark = Mark::here(mesh, &server.node)?;
    let reply = mesh.get(client, PRODUCTPAGE, 1).await?.pop().context("no reply")?;
    let lines = mark
        .lines(1, |line| {
            field(line, "direction") == Some("inbound")
                && field(line, "src.workload") == Some(&client.name)
                && field(line, "error").is_some()
        })
        .await?;
    refused(
        "denied",
        "A caller that an AuthorizationPolicy denies is refused",
        "notsleep",
        PRODUCTPAGE,
        &reply,
        &lines,
        "AuthorizationPolicy",
    )
}

fn refused(
    id: &'static str,
    title: &str,
    from: &str,
    url: &str,
    reply: &Reply,
    lines: &[String],
    kind: &str,
) -> anyhow::Result<Step> {
    let line = lines.first().context("no line")?;
    let error = field(line, "error").context("no error on the line")?;
    let policy = error.rsplit_once("explicitly denied by: ").map(|(_, policy)| policy);
    let ok = reply.status.is_none() && policy.is_some();
    let mut output = vec![format!("{from} asked {url}: {}", reply.outcome())];
    if let Some(policy) = policy {
        output.push(format!("refused by the policy {policy} (from {kind}); the server's node says why:"));
    }
    output.push(line.clone());
    Ok(Step {
        id,
        title: title.to_owned(),
        command: format!("culvert demo exec {from} -- curl {url}"),
        output,
        ok,
        problem: (!ok).then(|| "the connection should have been refused, naming the policy".to_owned()),
        facts: json!({"outcome": reply.outcome(), "policy": policy, "code": field(line, "code"), "line": line}),
    })
}
