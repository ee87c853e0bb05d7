//! What is answered: one module per subcommand.
pub(crate) mod all;
pub(crate) mod certificate;
pub(crate) mod connections;
pub(crate) mod log;
pub(crate) mod policy;
pub(crate) mod service;
mod views;
pub(crate) mod workload;

use std::time::SystemTime;

use anyhow::bail;

use crate::args::Command;
use crate::render::{self, Output};
use crate::target::Chosen;

/// The text of a dump subcommand.
pub(crate) fn render(command: &Command, chosen: &Chosen, now: SystemTime) -> anyhow::Result<String> {
    let given = &command.common().output;
    let Some(output) = Output::parse(given) else { bail!("output format {given:?} not supported") };
    let dump = &chosen.dump.parsed;
    match command {
        Command::Workload(args) => {
            let filter = workload::Filter::new(args, chosen.workload.as_ref());
            match output {
                Output::Short => Ok(workload::table(dump, &filter)),
                _ => render::data(&workload::views(dump, &filter), output),
            }
        }
        Command::Service(args) => match output {
            Output::Short => Ok(service::table(dump, &args.service_namespace)),
            _ => render::data(&service::views(dump, &args.service_namespace), output),
        },
        Command::Policy(args) => match output {
            Output::Short => Ok(policy::table(dump, &args.policy_namespace)),
            _ => render::data(&policy::views(dump, &args.policy_namespace), output),
        },
        Command::Certificate(_) => match output {
            Output::Short => Ok(certificate::table(dump, now)),
            _ => render::data(&chosen.dump.has_certificates.then(|| certificate::views(dump)), output),
        },
        Command::Connections(args) => {
            let filter = connections::Filter::new(args, chosen.workload.as_ref());
            match output {
                Output::Short => Ok(connections::table(dump, &filter)),
                _ => render::data(&connections::views(dump, &filter), output),
            }
        }
        Command::All(args) => match output {
            Output::Short => Ok(all::tables(dump, args.with_headers, now)),
            Output::Json => Ok(format!("{}\n", chosen.dump.text)),
            Output::Yaml => {
                let value: serde_json::Value = serde_json::from_str(&chosen.dump.text)?;
                render::data(&value, output)
            }
        },
        Command::Log(_) => bail!("log has no dump"),
    }
}
