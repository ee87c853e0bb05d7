//! Whom to ask: a file, an address, or the admin sockets of this machine's nodes.
mod sockets;

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use runtime::environment::Environment;
use runtime::folders;

use crate::args::{Args, Command};
use crate::dump::Dump;
use crate::fetch::{Endpoint, fetch};

/// What to do where a cluster would be needed.
const NO_CLUSTER: &str = "looking into a Kubernetes cluster is not supported yet: forward the port \
    (`kubectl -n istio-system port-forward ztunnel-xxxxx 15000`) and pass --admin-address localhost:15000, \
    or save `/config_dump` and pass --file";

/// Where dumps come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    File(PathBuf),
    Address(Endpoint),
    /// Admin sockets in this folder.
    Sockets {
        base: PathBuf,
        demo: Option<String>,
    },
}

impl Place {
    pub(crate) fn of(args: &Args, environment: &Environment) -> anyhow::Result<Self> {
        let common = args.command.common();
        if let Some(file) = &common.file {
            return Ok(Self::File(file.clone()));
        }
        if let Some(address) = &common.admin_address {
            let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let with_port = if has_port && !is_bare_ipv6(address) {
                address.clone()
            } else if is_bare_ipv6(address) {
                format!("[{address}]:{}", common.proxy_admin_port)
            } else {
                format!("{address}:{}", common.proxy_admin_port)
            };
            return Ok(Self::Address(Endpoint::Tcp(with_port)));
        }
        // With a file or an address at hand nobody needs the cluster that scripts name anyway.
        if args.kubeconfig.is_some() || args.context.is_some() {
            bail!(NO_CLUSTER);
        }
        let given = environment.get("CULVERT_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        let base = given.map_or_else(|| folders::default_base(environment), PathBuf::from);
        Ok(Self::Sockets { base, demo: common.demo.clone() })
    }

    /// The admin servers to be asked, with the node names their folders have.
    pub(crate) fn endpoints(&self) -> anyhow::Result<Vec<(Endpoint, Option<String>)>> {
        match self {
            Self::File(path) => bail!("{} is a file, not a running node", path.display()),
            Self::Address(endpoint) => Ok(vec![(endpoint.clone(), None)]),
            Self::Sockets { base, demo } => {
                let found = sockets::find(base, demo.as_deref());
                let demos = sockets::demos(&found);
                if demo.is_none() && demos.len() > 1 {
                    // Meshes of their own: merged they would be no mesh at all.
                    bail!("several demos run here ({}): say which with --demo ID", demos.join(", "));
                }
                if let (Some(demo), true) = (demo, found.is_empty()) {
                    bail!(
                        "no node proxy found: no demo {demo} runs here; `culvert demo list` shows those that do"
                    );
                }
                if found.is_empty() {
                    bail!(
                        "no node proxy found: there is no admin socket in {}. Start one (`culvert demo`), or pass \
                         --admin-address HOST:PORT or --file FILE; {NO_CLUSTER}",
                        base.display()
                    );
                }
                Ok(found)
            }
        }
    }
}

fn is_bare_ipv6(address: &str) -> bool {
    address.parse::<std::net::Ipv6Addr>().is_ok()
}

/// One node that answered.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) dump: Dump,
    /// Name of its folder.
    pub(crate) folder: Option<String>,
    pub(crate) endpoint: Option<Endpoint>,
}

impl Target {
    /// How it is called in messages: `POD.NAMESPACE`, else its node, else where it was asked.
    pub(crate) fn label(&self) -> String {
        if let Some((pod, namespace)) = self.dump.pod() {
            return format!("{pod}.{namespace}");
        }
        let node = self.dump.node().map(str::to_owned).or_else(|| self.folder.clone());
        node.or_else(|| self.endpoint.as_ref().map(Endpoint::to_string)).unwrap_or_default()
    }

    fn is_node(&self, node: &str) -> bool {
        self.dump.node() == Some(node) || self.folder.as_deref() == Some(node)
    }

    fn is_pod(&self, pod: &str, namespace: Option<&str>) -> bool {
        self.dump.pod().is_some_and(|(name, ns)| name == pod && namespace.is_none_or(|wanted| wanted == ns))
    }
}

/// What was read, and what of it is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) dump: Dump,
    /// Workload that stood for its node's proxy: name and namespace.
    pub(crate) workload: Option<(String, String)>,
}

/// Every node that answered.
#[derive(Debug, Clone)]
pub(crate) struct Targets(pub(crate) Vec<Target>);

impl Targets {
    /// Reads dumps. A node that does not answer is an error only if there is no other.
    pub(crate) async fn read(place: &Place, limit: Duration) -> anyhow::Result<Self> {
        if let Place::File(path) = place {
            return Ok(Self(vec![Target { dump: read_file(path)?, folder: None, endpoint: None }]));
        }
        let mut targets = Vec::new();
        let mut failure = None;
        for (endpoint, folder) in place.endpoints()? {
            let what = || {
                let whom = folder.clone().unwrap_or_else(|| endpoint.to_string());
                format!("failed to execute command on {whom} Ztunnel")
            };
            match fetch(&endpoint, Method::GET, "/config_dump", limit).await.with_context(what) {
                Ok(text) => {
                    targets.push(Target { dump: Dump::parse(text)?, folder, endpoint: Some(endpoint) });
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) if targets.is_empty() => Err(error),
            _ => Ok(Self(targets)),
        }
    }

    /// The one that is named, or all merged. `certificate`, `connections` and dumps printed whole need exactly one.
    pub(crate) fn choose(
        self,
        name: Option<&str>,
        node: Option<&str>,
        args: &Args,
    ) -> anyhow::Result<Chosen> {
        let choices = self.choices();
        if let Some(node) = node {
            let found = self.0.into_iter().find(|target| target.is_node(node));
            let target =
                found.with_context(|| format!("no pods found: no proxy of node {node} here; {choices}"))?;
            return Ok(Chosen { dump: target.dump, workload: None });
        }
        if let Some(name) = name.filter(|name| !is_all(name)) {
            return self.named(name, args);
        }
        let one_needed = match &args.command {
            Command::Certificate(_) | Command::Connections(_) => true,
            Command::All(all) => all.common.output != "short",
            _ => false,
        };
        if one_needed && self.0.len() != 1 {
            bail!("ztunnel pod name or --node must be set; {choices}");
        }
        let merged = self.0.into_iter().map(|target| target.dump).reduce(|mut dump, other| {
            dump.merge(other);
            dump
        });
        Ok(Chosen { dump: merged.context("no node proxy answered")?, workload: None })
    }

    /// A proxy by node, pod or pod and namespace; else a workload, whose node's proxy is taken.
    fn named(self, name: &str, args: &Args) -> anyhow::Result<Chosen> {
        let choices = self.choices();
        let literal = name.rsplit_once('/').map_or(name, |(_, name)| name);
        let (pod, namespace) = match literal.rsplit_once('.') {
            Some((pod, namespace)) => (pod, Some(namespace)),
            None => (literal, Some(args.namespace.as_str()).filter(|namespace| !namespace.is_empty())),
        };
        if let Some(target) =
            self.0.iter().find(|target| target.is_pod(pod, namespace) || target.is_node(literal))
        {
            return Ok(Chosen { dump: target.dump.clone(), workload: None });
        }
        let by_kind = name.contains('/');
        let workload = self.0.iter().flat_map(|target| &target.dump.parsed.workloads).find(|workload| {
            let is_it = workload.name == pod || (by_kind && workload.workload_name == pod);
            is_it && namespace.is_none_or(|wanted| workload.namespace == wanted)
        });
        let shown = format!("{pod}.{}", namespace.unwrap_or(&args.istio_namespace));
        let Some(workload) = workload else {
            bail!(
                "failed to get pod {shown}: no proxy and no workload of that name is known here; {choices}"
            );
        };
        let (found, node) = ((workload.name.clone(), workload.namespace.clone()), workload.node.clone());
        let shown = format!("{}.{}", found.0, found.1);
        if node.is_empty() {
            bail!("pod {shown} is not scheduled to a node");
        }
        let n_targets = self.0.len();
        let target = self.0.into_iter().find(|target| {
            // A single dump from an unnamed place is taken at its word.
            target.is_node(&node) || (n_targets == 1 && target.dump.node().is_none())
        });
        let target = target.with_context(|| {
            format!("failed to find ztunnel on node {node} for pod {shown}: it is not here; {choices}")
        })?;
        Ok(Chosen { dump: target.dump, workload: Some(found) })
    }

    /// The names one can choose from.
    pub(crate) fn choices(&self) -> String {
        let mut names: Vec<String> = self
            .0
            .iter()
            .map(|target| {
                let node = target.dump.node().or(target.folder.as_deref()).unwrap_or("unknown node");
                format!("{} (--node {node})", target.label())
            })
            .collect();
        names.sort_unstable();
        format!("choose one of: {}", names.join(", "))
    }
}

/// The set of all proxies, named as a set.
fn is_all(name: &str) -> bool {
    matches!(name, "daemonset/ztunnel" | "ds/ztunnel" | "daemonsets/ztunnel")
}

fn read_file(path: &PathBuf) -> anyhow::Result<Dump> {
    let mut text = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut text).context("cannot read standard input")?;
    } else {
        text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Dump::parse(text)
}
