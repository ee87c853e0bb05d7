//! Where a child process lives: its network namespace, its view of `/etc/resolv.conf`, its end with its parent; and
//! namespaces of one's own for a process that is not privileged on the machine.
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::NetNamespace;

/// Where a child shall live; see [`place`].
#[derive(Debug, Default)]
pub struct Placement {
    /// Its network namespace.
    pub namespace: Option<NetNamespace>,
    /// Files laid over others, in a mount namespace of its own: (what is shown, over which path).
    pub files: Vec<(PathBuf, PathBuf)>,
    /// SIGKILL it when the **thread** that starts it ends, however that ends.
    pub die_with_parent: bool,
}

/// Makes `command`'s child live as `placement` says. The namespaces need CAP_SYS_ADMIN.
pub fn place(command: &mut Command, placement: Placement) -> io::Result<()> {
    let Placement { namespace, files, die_with_parent } = placement;
    let files = files
        .into_iter()
        .map(|(shown, over)| Ok((c_path(shown)?, c_path(over)?)))
        .collect::<io::Result<Vec<_>>>()?;
    let parent = rustix::process::getpid();
    let prepare = move || {
        if die_with_parent {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // It may have ended before the line above.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        if let Some(namespace) = &namespace {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        if !files.is_empty() {
            own_mounts()?;
            for (shown, over) in &files {
                mount_bind(shown.as_c_str(), over.as_c_str())?;
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls on values made before the fork: no allocation, no lock.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// Namespaces of one's own cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// A setting of the machine forbids it.
    #[error("this kernel forbids namespaces to ordinary users: {setting} is {value}")]
    Forbidden {
        /// The setting's name, as `sysctl` knows it.
        setting: &'static str,
        /// Its value here.
        value: String,
    },
    /// Refused, and no known setting explains it: a container's seccomp or security profile, most likely.
    #[error(
        "namespaces are refused ({0}): run as root, or allow user namespaces in this container's profile"
    )]
    Refused(#[source] io::Error),
    /// Made, but not usable.
    #[error("the namespaces cannot be set up: {0}")]
    SetUp(#[source] io::Error),
}

impl IsolationError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "netns-forbidden-by-setting",
            Self::Refused(_) => "netns-refused",
            Self::SetUp(_) => "netns-cannot-set-up",
        }
    }
}

/// Moves this process into network and mount namespaces of its own, and first into a user namespace (where it is
/// root) if it is not privileged. The process must have one thread only: call it first in `main`.
pub fn isolate() -> Result<(), IsolationError> {
    crate::namespace::forget_home();
    Isolation::prepare().enter().map_err(|error| explain(&error))
}

/// Makes `command`'s child live in namespaces of its own, as [`isolate`] does. If starting it fails, [`explain`] says
/// what forbids it.
pub fn isolate_child(command: &mut Command) {
    let isolation = Isolation::prepare();
    // SAFETY: between fork and exec only system calls on values made before the fork: no allocation, no lock.
    unsafe { command.pre_exec(move || isolation.enter()) };
}

/// Names the setting behind a refusal to make namespaces or to use them.
pub fn explain(error: &io::Error) -> IsolationError {
    const SETTINGS: [(&str, &str, &str); 3] = [
        ("kernel.unprivileged_userns_clone", "/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("user.max_user_namespaces", "/proc/sys/user/max_user_namespaces", "0"),
        (
            "kernel.apparmor_restrict_unprivileged_userns",
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
        ),
    ];
    for (setting, path, forbids) in SETTINGS {
        let value = std::fs::read_to_string(path).unwrap_or_default();
        if value.trim() == forbids {
            return IsolationError::Forbidden { setting, value: value.trim().to_owned() };
        }
    }
    if error.raw_os_error() == Some(libc::ENOSPC) {
        let value = std::fs::read_to_string("/proc/sys/user/max_net_namespaces").unwrap_or_default();
        return IsolationError::Forbidden {
            setting: "user.max_net_namespaces or user.max_user_namespaces",
            value: format!("reached ({})", value.trim()),
        };
    }
    IsolationError::Refused(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EPERM)))
}

/// What [`Isolation::enter`] needs, put together before a fork.
struct Isolation {
    user_map: Vec<u8>,
    group_map: Vec<u8>,
}

impl Isolation {
    fn prepare() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        // Root inside: programs started there keep their capabilities.
        Self {
            user_map: format!("0 {user} 1\n").into_bytes(),
            group_map: format!("0 {group} 1\n").into_bytes(),
        }
    }

    fn enter(&self) -> io::Result<()> {
        let wanted = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
        // SAFETY: of the calling thread, namespaces only; descriptor tables stay shared.
        let privileged = unsafe { rustix::thread::unshare_unsafe(wanted) };
        if privileged.is_err() {
            // SAFETY: as above; the kernel itself refuses a user namespace to a process with several threads.
            unsafe { rustix::thread::unshare_unsafe(wanted | UnshareFlags::NEWUSER) }?;
            // Without this the kernel refuses an unprivileged process its group map. Absent on very old kernels.
            let _ = write(c"/proc/self/setgroups", b"deny");
            write(c"/proc/self/uid_map", &self.user_map)?;
            write(c"/proc/self/gid_map", &self.group_map)?;
        }
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        Ok(())
    }
}

/// A mount namespace of the calling process's own, whose mounts nobody else sees.
fn own_mounts() -> io::Result<()> {
    // SAFETY: a single-threaded child between fork and exec; descriptor tables stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

fn write(path: &std::ffi::CStr, bytes: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, bytes)?;
    Ok(())
}

fn c_path(path: PathBuf) -> io::Result<CString> {
    CString::new(path.into_os_string().into_vec()).map_err(|_| io::ErrorKind::InvalidInput.into())
}
