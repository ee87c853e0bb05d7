//! A whole control plane in this process: a folder on one side, clients on the other.

mod client;
mod debug;
mod streams;

use std::path::Path;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::environment::Environment;
use tempfile::TempDir;

use super::*;

/// Every wait of these tests ends.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: xp, uid: uid-NAME, labels: {app: a}}
spec: {nodeName: NODE, serviceAccountName: ACCOUNT, containers: [{name: c, image: i}]}
status:
  phase: Running
  podIP: ADDRESS
  podIPs: [{ip: ADDRESS}]
  conditions: [{type: Ready, status: "True"}]
"#;

pub(super) const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: s, namespace: xp}
spec: {clusterIP: 10.96.60.1, clusterIPs: [10.96.60.1], selector: {app: a}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: xp, labels: {istio.io/dataplane-mode: ambient}}
"#;

pub(super) const POLICY: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: sel, namespace: xp}
spec: {selector: {matchLabels: {app: a}}, rules: [{}]}
"#;

pub(super) fn pod(name: &str, node: &str, ip: &str) -> String {
    POD.replace("NAME", name).replace("NODE", node).replace("ACCOUNT", "front").replace("ADDRESS", ip)
}

/// A control plane over folders of its own.
pub(super) struct Rig {
    pub(super) folders: TempDir,
    pub(super) control: ControlPlane,
}

impl Rig {
    pub(super) fn folder(&self) -> std::path::PathBuf {
        self.folders.path().join("config")
    }

    pub(super) fn state(&self) -> std::path::PathBuf {
        self.folders.path().join("state")
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        write(&self.folder(), name, text);
    }

    pub(super) async fn start(variables: &[(&str, &str)]) -> Self {
        let folders = TempDir::new().unwrap();
        let folder = folders.path().join("config");
        std::fs::create_dir(&folder).unwrap();
        write(&folder, "p1.yaml", &pod("p1", "n1", "10.30.0.1"));
        write(&folder, "p2.yaml", &pod("p2", "n2", "10.30.0.2"));
        write(&folder, "service.yaml", SERVICE);
        write(&folder, "policy.yaml", POLICY);
        Self::start_in(folders, variables).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) async fn start_in(folders: TempDir, variables: &[(&str, &str)]) -> Result<Self, StartError> {
        let path = |name: &str| folders.path().join(name).into_os_string();
        let mut arguments: Vec<OsString> =
            vec!["--config".into(), path("config"), "--state".into(), path("state")];
        for flag in ["--grpcAddr", "--secureGRPCAddr", "--monitoringAddr", "--httpAddr"] {
            arguments.extend([flag.into(), "127.0.0.1:0".into()]);
        }
        let environment: Environment = variables.iter().copied().collect();
        let Task::Serve(config) = config::read(arguments, &environment).unwrap() else { panic!("serve") };
        let control =
            tokio::time::timeout(LIMIT, ControlPlane::start(*config, Clock::system())).await.unwrap()?;
        Ok(Self { folders, control })
    }

    pub(super) fn token(&self, kind: TokenKind, node: &str, account: &str) -> String {
        let account = account.parse().unwrap();
        authority::tokens::issue(&self.state(), kind, node, &account, LIMIT, runtime::clock::wall()).unwrap()
    }
}

use crate::authority::tokens::TokenKind;

pub(super) fn write(folder: &Path, name: &str, text: &str) {
    // As editors do: the new content appears at once.
    let temporary = folder.join(format!(".{name}.tmp"));
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, folder.join(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_folder_is_refused_with_every_mistake_before_anything_listens() {
    let folders = TempDir::new().unwrap();
    let folder = folders.path().join("config");
    std::fs::create_dir(&folder).unwrap();
    write(&folder, "a.yaml", "{ this is: [not yaml");
    write(
        &folder,
        "b.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: 7x, namespace: xp}\nspec: {ports: 3}\n",
    );
    write(&folder, "c.yaml", &pod("fine", "n1", "10.0.0.1"));
    let error = match Rig::start_in(folders, &[]).await {
        Ok(_) => panic!("started"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("a.yaml") && error.contains("b.yaml") && !error.contains("c.yaml"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_streams_and_is_quick() {
    let rig = Rig::start(&[]).await;
    let mut stream = client::plaintext(&rig).await.open("n1").await;
    stream.ask(wire::workload::ADDRESS_TYPE, &[], &[]).await;
    stream.next().await;
    tokio::time::timeout(LIMIT, rig.control.stop(LIMIT)).await.unwrap();
    assert!(stream.ended().await.is_none(), "a clean end, nothing removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_keeps_the_addresses_it_allocates() {
    let folders = TempDir::new().unwrap();
    let folder = folders.path().join("config");
    std::fs::create_dir(&folder).unwrap();
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: xp}\n\
        spec: {hosts: [api.example.com], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}\n";
    write(&folder, "entry.yaml", entry);
    let rig = Rig::start_in(folders, &[]).await.unwrap_or_else(|error| panic!("{error}"));
    let kept = std::fs::read_to_string(rig.state().join("allocated-addresses.json")).unwrap();
    assert!(kept.contains("api.example.com"), "{kept}");
}
