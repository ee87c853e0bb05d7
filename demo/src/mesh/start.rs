//! Starting, in order: namespaces, control, agents and proxies, enrolment, and only then the applications.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::{Mesh, Running};
use crate::fetch;
use crate::network::{self, Place};
use crate::processes::{Process, Program, arguments};
use crate::report::Report;
use crate::world::{Node, Pod, World};

/// How long any part may take to come up.
const LIMIT: Duration = Duration::from_secs(20);

/// Starts the mesh of `mesh_folder` below `folder`.
pub(crate) async fn start(
    world: World,
    mesh_folder: &Path,
    folder: &Path,
    report: Report,
) -> anyhow::Result<Mesh> {
    let network = network::build(&world, folder)?;
    report.progress(&format!(
        "network: {} namespaces joined (control, {} nodes, {} pods)",
        1 + world.nodes.len() + world.pods.len(),
        world.nodes.len(),
        world.pods.len()
    ));

    let mut control = start_control(&world, network.control, mesh_folder, folder)?;
    wait_for_url(&mut control, "/ready", 8080).await?;
    report.progress("control: ready, certificate authority and discovery open");

    let mut nodes = Vec::new();
    let mut agents = Vec::new();
    let starts =
        world.nodes.iter().zip(network.nodes).map(|(node, place)| start_node(node, place, &world, folder));
    for started in futures::future::join_all(starts).await {
        let (node, agent) = started?;
        nodes.push(node);
        agents.push(agent);
    }
    for (node, agent) in world.nodes.iter().zip(&mut agents) {
        wait_for_socket(agent, &folder.join(&node.name).join("agent.sock")).await?;
    }
    enroll_all(&world, &nodes, &network.pods, folder).await?;
    for node in &mut nodes {
        wait_for_url(node, "/healthz/ready", 15021).await?;
    }
    let captured = world.pods.iter().filter(|pod| pod.captured).count();
    report.progress(&format!("nodes: {} proxies ready, {captured} pods captured", nodes.len()));

    let mut pods = Vec::new();
    for (pod, place) in world.pods.iter().zip(network.pods) {
        pods.push(start_application(pod, place, folder)?);
    }
    for pod in &mut pods {
        wait_for_port(pod, &world).await?;
    }
    report.progress(&format!("pods: {} applications answer", pods.len()));

    let mesh = Mesh { world, folder: folder.to_owned(), control, nodes, agents, pods };
    mesh.register().write()?;
    Ok(mesh)
}

fn start_control(world: &World, place: Place, mesh_folder: &Path, folder: &Path) -> anyhow::Result<Running> {
    let state = folder.join("control");
    let log = folder.join("control.log");
    let program = Program {
        name: "culvert control".to_owned(),
        namespace: place.namespace.try_clone()?,
        files: Vec::new(),
        arguments: arguments([
            OsString::from("control"),
            "--config".into(),
            mesh_folder.into(),
            "--state".into(),
            state.into(),
            "--name".into(),
            world.control.to_string().into(),
        ]),
        environment: Vec::new(),
    };
    let process = program.start(log.clone())?;
    Ok(Running { name: "control".to_owned(), log, place, process })
}

async fn start_node(
    node: &Node,
    place: Place,
    world: &World,
    folder: &Path,
) -> anyhow::Result<(Running, Process)> {
    let own = folder.join(&node.name);
    std::fs::create_dir_all(&own).with_context(|| format!("creating {}", own.display()))?;
    let token = own.join("join-token");
    let printed = Program {
        name: "culvert control token".to_owned(),
        namespace: place.namespace.try_clone()?,
        files: Vec::new(),
        arguments: arguments([
            OsString::from("control"),
            "token".into(),
            "--node".into(),
            node.name.clone().into(),
            "--state".into(),
            folder.join("control").into(),
        ]),
        environment: Vec::new(),
    }
    .output()
    .await?;
    write_secret(&token, printed.trim())?;

    let socket = own.join("ztunnel.sock");
    let agent = Program {
        name: "culvert agent".to_owned(),
        namespace: place.namespace.try_clone()?,
        files: Vec::new(),
        arguments: arguments([
            OsString::from("agent"),
            "--node".into(),
            node.name.clone().into(),
            "--runtime-dir".into(),
            folder.into(),
            "--zds-socket".into(),
            socket.clone().into(),
        ]),
        environment: Vec::new(),
    }
    .start(own.join("agent.log"))?;

    let log = own.join("node.log");
    let control = format!("https://{}:15012", world.control);
    let process = Program {
        name: "culvert node".to_owned(),
        namespace: place.namespace.try_clone()?,
        files: Vec::new(),
        arguments: arguments(["node"]),
        environment: vec![
            ("NODE_NAME", node.name.clone().into()),
            ("POD_NAME", node.proxy.clone().into()),
            ("POD_NAMESPACE", "istio-system".into()),
            ("SERVICE_ACCOUNT", "ztunnel".into()),
            ("INSTANCE_IP", node.address.to_string().into()),
            ("XDS_ADDRESS", control.clone().into()),
            ("CA_ADDRESS", control.into()),
            ("CULVERT_JOIN_TOKEN", token.into()),
            ("CULVERT_RUNTIME_DIR", folder.into()),
            ("INPOD_UDS", socket.into()),
        ],
    }
    .start(log.clone())?;
    Ok((Running { name: node.name.clone(), log, place, process }, agent))
}

/// Captures every pod that is in the mesh: returns when the proxies serve them and the rules stand.
async fn enroll_all(world: &World, nodes: &[Running], places: &[Place], folder: &Path) -> anyhow::Result<()> {
    let enrolments =
        world.pods.iter().zip(places).filter(|(pod, _)| pod.captured).map(|(pod, place)| async move {
            let node = nodes.iter().find(|node| node.name == pod.node).context("the pod's node")?;
            Program {
                name: "culvert agent enroll".to_owned(),
                namespace: node.place.namespace.try_clone()?,
                files: Vec::new(),
                arguments: arguments([
                    OsString::from("agent"),
                    "enroll".into(),
                    "--node".into(),
                    node.name.clone().into(),
                    "--runtime-dir".into(),
                    folder.into(),
                    "--netns".into(),
                    place.path().into(),
                    "--pod".into(),
                    format!("{}/{}", pod.namespace, pod.name).into(),
                    "--service-account".into(),
                    pod.service_account.clone().into(),
                    "--uid".into(),
                    pod.uid.clone().into(),
                ]),
                environment: Vec::new(),
            }
            .output()
            .await
            .with_context(|| format!("enrolling {}/{}", pod.namespace, pod.name))?;
            anyhow::Ok(())
        });
    futures::future::try_join_all(enrolments).await.map(|_| ())
}

fn start_application(pod: &Pod, place: Place, folder: &Path) -> anyhow::Result<Running> {
    let log = folder.join(format!("{}.log", pod.name));
    let mut words: Vec<OsString> =
        arguments(["demo", "app", "--service", &pod.app, "--version", &pod.version, "--pod", &pod.name]);
    for port in &pod.ports {
        words.extend(["--port".into(), port.to_string().into()]);
    }
    for call in calls(&pod.app) {
        words.extend(["--call".into(), OsString::from(call)]);
    }
    let program = Program {
        name: pod.name.clone(),
        namespace: place.namespace.try_clone()?,
        files: place.files.clone(),
        arguments: words,
        environment: Vec::new(),
    };
    let process = program.start(log.clone())?;
    Ok(Running { name: pod.name.clone(), log, place, process })
}

/// Whom bookinfo's applications ask.
fn calls(app: &str) -> &'static [&'static str] {
    match app {
        "productpage" => &["http://details:9080/", "http://reviews:9080/"],
        "reviews" => &["http://ratings:9080/"],
        _ => &[],
    }
}

/// Waits until `path` answers 200 in the namespace of `running`.
async fn wait_for_url(running: &mut Running, path: &str, port: u16) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let answer = fetch::get_in(&running.place.namespace, &url).await;
        if matches!(&answer, Ok(fetched) if fetched.status == 200) {
            return Ok(());
        }
        running.process.still_runs()?;
        if tokio::time::Instant::now() >= deadline {
            let said = match answer {
                Ok(fetched) => {
                    format!("{} {}", fetched.status, String::from_utf8_lossy(&fetched.body).trim_end())
                }
                Err(error) => format!("{error:#}"),
            };
            bail!("{} is not ready after {LIMIT:?}: {said} (log: {})", running.name, running.log.display());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the agent listens on its socket.
async fn wait_for_socket(agent: &mut Process, socket: &Path) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while let Err(error) = tokio::net::UnixStream::connect(socket).await {
        agent.still_runs()?;
        if tokio::time::Instant::now() >= deadline {
            return Err(error)
                .with_context(|| format!("no agent listens on {} after {LIMIT:?}", socket.display()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Waits until the application accepts on its first port, asked from inside its own namespace.
async fn wait_for_port(running: &mut Running, world: &World) -> anyhow::Result<()> {
    let port =
        world.pods.iter().find(|pod| pod.name == running.name).and_then(|pod| pod.ports.first()).copied();
    let url = format!("http://127.0.0.1:{}/", port.context("a pod without ports")?);
    let deadline = tokio::time::Instant::now() + LIMIT;
    // Any answer will do: what it answers may depend on others that are still starting.
    while fetch::connects_in(&running.place.namespace, &url).await.is_err() {
        running.process.still_runs()?;
        if tokio::time::Instant::now() >= deadline {
            bail!(
                "the application of {} does not listen after {LIMIT:?} (log: {})",
                running.name,
                running.log.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn write_secret(file: &PathBuf, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut open = std::fs::OpenOptions::new();
    let mut handle = open
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("creating {}", file.display()))?;
    handle.write_all(text.as_bytes()).with_context(|| format!("writing {}", file.display()))
}
