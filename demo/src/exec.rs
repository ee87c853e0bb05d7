//! Becoming a program inside a pod, a node or the control plane of a running demo (`culvert demo exec`).

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

/// Moves this process into the namespaces of `process` (a member of a running demo) and becomes `program`;
/// returns only with an error. The caller has started no thread yet.
pub(crate) fn exec(process: u32, program: &[OsString]) -> anyhow::Error {
    match join(process) {
        Ok(()) => become_program(program),
        Err(error) => error,
    }
}

fn join(process: u32) -> anyhow::Result<()> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).context("not a process number")?;
    let descriptor = pidfd_open(pid, PidfdFlags::empty())
        .with_context(|| format!("process {process} is gone: has the demo ended?"))?;
    let mut kinds = ThreadNameSpaceType::NETWORK | ThreadNameSpaceType::MOUNT;
    let user =
        |who: &str| std::fs::metadata(format!("/proc/{who}/ns/user")).map(|meta| (meta.dev(), meta.ino()));
    if user("self").ok() != user(&process.to_string()).ok() {
        kinds |= ThreadNameSpaceType::USER;
    }
    let folder = std::env::current_dir();
    move_into_thread_name_spaces(descriptor.as_fd(), kinds)
        .context("entering the namespaces of the demo: run this as the user who started it")?;
    // Entering a mount namespace moves to its root; the files are the same, so go back where possible.
    if let Ok(folder) = folder {
        let _ = std::env::set_current_dir(folder);
    }
    Ok(())
}

fn become_program(program: &[OsString]) -> anyhow::Error {
    let Some((name, arguments)) = program.split_first() else {
        return anyhow::anyhow!("no program was given");
    };
    let error = Command::new(name).args(arguments).exec();
    anyhow::Error::new(error).context(format!("starting {}", name.to_string_lossy()))
}
