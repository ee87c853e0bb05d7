//! Every environment variable of the agent, in one list. `docs/environment-agent.md` is made from it.

/// Name, default, meaning.
type Variable = (&'static str, &'static str, &'static str);

const VARIABLES: &[Variable] = &[
    ("NODE_NAME", "`node`", "the node's name, which its folder has too; `--node` goes before it"),
    (
        "INPOD_UDS",
        "`/var/run/ztunnel/ztunnel.sock`",
        "socket that the node proxy connects to; `--zds-socket` goes before it",
    ),
    (
        "CULVERT_RUNTIME_DIR",
        "`/run/culvert` as root, else `$XDG_RUNTIME_DIR/culvert`",
        "folder of the nodes' folders; `--runtime-dir` goes before it",
    ),
    ("XDG_RUNTIME_DIR", "–", "see `CULVERT_RUNTIME_DIR`"),
    ("RUST_LOG", "`info`", "log filter: `level`, `target=level`, comma separated"),
    ("LOG_FORMAT", "plain", "`json`: one object per line"),
];

/// Whether a variable may be read: it is in the list.
pub(crate) fn is_declared(name: &str) -> bool {
    VARIABLES.iter().any(|(declared, ..)| *declared == name)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn page() -> String {
        let mut page = String::from(
            "# Environment of `culvert agent`\n\n\
             Made from `agent/src/variables.rs`; a test keeps it fresh. All are read once, at start; an empty value is none.\n\
             What is given as a flag is listed by `culvert agent --help`.\n\n\
             | name | default | meaning |\n|---|---|---|\n",
        );
        for (name, default, meaning) in VARIABLES {
            let _ = writeln!(page, "| `{name}` | {default} | {meaning} |");
        }
        page
    }

    #[test]
    fn the_documentation_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/environment-agent.md");
        if std::fs::read_to_string(path).unwrap_or_default() != page() {
            let fresh = std::env::temp_dir().join("culvert-environment-agent.md");
            std::fs::write(&fresh, page()).unwrap();
            panic!("the page is not what the list of variables says: copy {} over it", fresh.display());
        }
    }
}
