//! What a running demo consists of, written for the commands that come later (`exec`, `get`, `logs`, `zc`).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

const FILE: &str = "demo.json";

/// A running demo.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Register {
    /// The demo's process; also its id.
    pub(crate) pid: u32,
    pub(crate) folder: PathBuf,
    pub(crate) control: Member,
    pub(crate) nodes: Vec<Member>,
    /// The agents' processes, in the order of the nodes.
    pub(crate) agents: Vec<u32>,
    pub(crate) pods: Vec<Member>,
}

/// One namespace with its main process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Pod name (`sleep-…`), node name, or `control`.
    pub(crate) name: String,
    /// Other names it answers to.
    pub(crate) also: Vec<String>,
    pub(crate) pid: u32,
    pub(crate) address: std::net::IpAddr,
    /// Log of its main process.
    pub(crate) log: PathBuf,
}

impl Register {
    /// Writes the register into its folder, readable once complete.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let draft = self.folder.join(format!(".{FILE}"));
        std::fs::write(&draft, serde_json::to_vec_pretty(self)?).context("writing the demo's register")?;
        std::fs::rename(&draft, self.folder.join(FILE)).context("publishing the demo's register")
    }

    /// All running demos below `folders` (the runtime folder).
    pub(crate) fn running(runtime_folder: &Path) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(runtime_folder) else { return Vec::new() };
        let mut found: Vec<Self> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("demo-"))
            .filter_map(|entry| std::fs::read(entry.path().join(FILE)).ok())
            .filter_map(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|register| Path::new(&format!("/proc/{}", register.pid)).exists())
            .collect();
        found.sort_by_key(|register| register.pid);
        found
    }

    /// The demo meant: the one asked for, else the only one.
    pub(crate) fn choose(runtime_folder: &Path, wanted: Option<u32>) -> anyhow::Result<Self> {
        let mut running = Self::running(runtime_folder);
        if let Some(wanted) = wanted {
            return running.into_iter().find(|register| register.pid == wanted).with_context(|| {
                format!("no demo with id {wanted} runs here; `culvert demo list` shows those that do")
            });
        }
        match running.len() {
            0 => bail!("no demo runs here: start one with `culvert demo` in another terminal"),
            1 => Ok(running.remove(0)),
            _ => {
                let ids: Vec<String> = running.iter().map(|register| register.pid.to_string()).collect();
                bail!("several demos run here ({}): say which with --demo ID", ids.join(", "))
            }
        }
    }

    /// The member a person means.
    pub(crate) fn member(&self, wanted: &str) -> anyhow::Result<&Member> {
        let all = || std::iter::once(&self.control).chain(&self.nodes).chain(&self.pods);
        all()
            .find(|member| member.name == wanted || member.also.iter().any(|name| name == wanted))
            .with_context(|| {
                let names: Vec<&str> =
                    all().map(|member| member.also.first().unwrap_or(&member.name).as_str()).collect();
                format!("nothing in this demo is called `{wanted}`; there are: {}", names.join(", "))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, also: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            also: also.iter().map(|name| (*name).to_owned()).collect(),
            pid: std::process::id(),
            address: [10, 0, 0, 1].into(),
            log: PathBuf::new(),
        }
    }

    #[test]
    fn a_running_demo_is_found_and_a_dead_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for (id, pid) in [("demo-1", std::process::id()), ("demo-2", u32::MAX - 1)] {
            let own = folder.path().join(id);
            std::fs::create_dir(&own).unwrap();
            let register = Register {
                pid,
                folder: own,
                control: member("control", &[]),
                nodes: vec![member("n1", &["ztunnel-a"])],
                agents: vec![],
                pods: vec![member("sleep-1", &["sleep", "default/sleep"])],
            };
            register.write().unwrap();
        }
        let found = Register::choose(folder.path(), None).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert_eq!(found.member("sleep").unwrap().name, "sleep-1");
        assert_eq!(found.member("ztunnel-a").unwrap().name, "n1");
        let complaint = found.member("nobody").unwrap_err().to_string();
        assert!(complaint.contains("`nobody`") && complaint.contains("sleep"), "{complaint}");
        assert!(
            Register::choose(folder.path(), Some(7)).unwrap_err().to_string().contains("no demo with id 7")
        );
    }
}
