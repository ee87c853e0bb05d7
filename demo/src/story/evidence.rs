//! Access-log lines of the node proxies as evidence.

use std::time::Duration;

use anyhow::bail;

use crate::mesh::{Mesh, Running};

/// Longest wait for a line that a finished connection must leave.
const LIMIT: Duration = Duration::from_secs(5);

/// Where the log of a node ended when the evidence began.
#[derive(Debug)]
pub(super) struct Mark<'mesh> {
    node: &'mesh Running,
    offset: usize,
}

impl<'mesh> Mark<'mesh> {
    /// Remembers the present end of `node`'s log.
    pub(super) fn here(mesh: &'mesh Mesh, node: &str) -> anyhow::Result<Self> {
        let node = mesh.node(node)?;
        Ok(Self { node, offset: node.log_text().len() })
    }

    /// Access-log lines since the mark for which `wanted` holds, at least `count` of them.
    pub(super) async fn lines(
        &self,
        count: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Vec<String>> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let text = self.node.log_text();
            let found: Vec<String> = text
                .get(self.offset..)
                .unwrap_or_default()
                .lines()
                .filter(|line| line.contains("\taccess\t") && wanted(line))
                .map(str::to_owned)
                .collect();
            if found.len() >= count {
                return Ok(found);
            }
            if tokio::time::Instant::now() >= deadline {
                bail!(
                    "the log of {} shows {} of {count} expected access lines after {LIMIT:?}: {}",
                    self.node.name,
                    found.len(),
                    self.node.log.display()
                );
            }
            // The log is a file that another process writes: looking again is the only notice there is.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The value of `name` in a plain access-log line, without quotes.
pub(super) fn field<'line>(line: &'line str, name: &str) -> Option<&'line str> {
    let start = line.find(&format!("{name}="))? + name.len() + 1;
    let rest = line.get(start..)?;
    rest.strip_prefix('"').map_or_else(
        || rest.split([' ', '\n']).next(),
        |quoted| quoted.find('"').and_then(|end| quoted.get(..end)),
    )
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_read_quoted_and_bare() {
        let line = "t\tinfo\taccess\tconnection complete\tsrc.addr=10.1.0.9:40122 src.workload=\"web-1\" bytes_sent=67 error=\"a b\"";
        assert_eq!(field(line, "src.addr"), Some("10.1.0.9:40122"));
        assert_eq!(field(line, "src.workload"), Some("web-1"));
        assert_eq!(field(line, "bytes_sent"), Some("67"));
        assert_eq!(field(line, "error"), Some("a b"));
        assert_eq!(field(line, "dst.addr"), None);
    }
}
