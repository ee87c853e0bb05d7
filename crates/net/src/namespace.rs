//! A network namespace held by its descriptor, and the short visit of a thread to it.
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The calling thread's namespace. `/proc/self` would be that of the process's first thread.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// What tells one living namespace from another: device and inode of its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId {
    /// Device of the kernel's namespace file system.
    pub device: u64,
    /// Inode there; reused only after the namespace is gone.
    pub inode: u64,
}

/// A namespace could not be opened, made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The path cannot be opened.
    #[error("cannot open the network namespace {}: {source}", path.display())]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The descriptor is something else.
    #[error("the descriptor is not a network namespace")]
    NotANetworkNamespace,
    /// `setns` refused.
    #[error("cannot enter the network namespace: {0} (CAP_SYS_ADMIN is needed)")]
    Enter(#[source] io::Error),
    /// `unshare` refused.
    #[error("cannot create a network namespace: {0} (CAP_SYS_ADMIN is needed)")]
    Create(#[source] io::Error),
    /// The descriptor cannot be read or duplicated.
    #[error("network namespace descriptor: {0}")]
    Descriptor(#[source] io::Error),
}

impl NamespaceError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "netns-cannot-open",
            Self::NotANetworkNamespace => "netns-not-a-network-namespace",
            Self::Enter(_) => "netns-cannot-enter",
            Self::Create(_) => "netns-cannot-create",
            Self::Descriptor(_) => "netns-bad-descriptor",
        }
    }
}

/// A network namespace; it lives at least as long as this value.
#[derive(Debug)]
pub struct NetNamespace {
    descriptor: OwnedFd,
    id: NamespaceId,
}

impl NetNamespace {
    /// Opens `/proc/PID/ns/net`, `/run/netns/NAME` or anything else that is a network namespace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NamespaceError> {
        let path = path.as_ref();
        let file =
            File::open(path).map_err(|source| NamespaceError::Open { path: path.to_owned(), source })?;
        Self::from_fd(file.into())
    }

    /// The calling thread's own namespace.
    pub fn current() -> Result<Self, NamespaceError> {
        Self::open(CURRENT)
    }

    /// Takes a descriptor, for example one received over a socket, after checking what it is.
    pub fn from_fd(descriptor: OwnedFd) -> Result<Self, NamespaceError> {
        if !is_network_namespace(descriptor.as_fd()) {
            return Err(NamespaceError::NotANetworkNamespace);
        }
        let id = id_of(descriptor.as_fd())?;
        Ok(Self { descriptor, id })
    }

    /// A new, unnamed, empty namespace: one loopback link, down. The calling thread stays where it is.
    pub fn create() -> Result<Self, NamespaceError> {
        // A thread of its own: should anything fail half way, the thread ends and nobody is left in the wrong place.
        let made = std::thread::Builder::new().name("netns".into()).spawn(|| {
            unshare_network().map_err(NamespaceError::Create)?;
            Self::current()
        });
        match made.map_err(NamespaceError::Create)?.join() {
            Ok(made) => made,
            Err(_) => Err(NamespaceError::Create(io::Error::other("the creating thread panicked"))),
        }
    }

    /// Device and inode, taken when the descriptor was.
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// A second descriptor of the same namespace.
    pub fn try_clone(&self) -> Result<Self, NamespaceError> {
        let descriptor = self.descriptor.try_clone().map_err(NamespaceError::Descriptor)?;
        Ok(Self { descriptor, id: self.id })
    }

    /// Runs `visit` on this thread inside the namespace and returns to where the thread was.
    ///
    /// The closure is short, synchronous work such as making a socket: sockets belong to the namespace they were made
    /// in, wherever they are used later. A thread that cannot return would create every later socket in the wrong
    /// pod, so then the process aborts.
    pub fn run<T>(&self, visit: impl FnOnce() -> T) -> Result<T, NamespaceError> {
        // Taken while the thread is away, so that a visit within a visit looks anew.
        let home = match HOME.take() {
            Some(home) => home,
            None => Self::current()?,
        };
        if home.id == self.id {
            HOME.set(Some(home));
            return Ok(visit());
        }
        self.enter().map_err(NamespaceError::Enter)?;
        let _return = Return { home: Some(home), _thread: PhantomData };
        Ok(visit())
    }

    /// Moves the calling thread for good: for a thread or process that lives in this namespace.
    pub fn enter(&self) -> io::Result<()> {
        forget_home();
        move_into_link_name_space(self.descriptor.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }
}

impl AsFd for NetNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<NetNamespace> for OwnedFd {
    fn from(namespace: NetNamespace) -> Self {
        namespace.descriptor
    }
}

thread_local! {
    /// Where this thread is, once it was asked: opening it anew costs four system calls for each visit. Whatever moves
    /// a thread forgets it first.
    static HOME: Cell<Option<NetNamespace>> = const { Cell::new(None) };
}

/// To be called before the calling thread is moved by anything but [`NetNamespace::enter`].
pub(crate) fn forget_home() {
    HOME.set(None);
}

/// Brings the thread home, also when the visit panics. Not `Send`: another thread must not be moved.
struct Return {
    home: Option<NetNamespace>,
    _thread: PhantomData<Cell<()>>,
}

impl Drop for Return {
    fn drop(&mut self) {
        let home = self.home.take();
        if home.as_ref().is_none_or(|home| home.enter().is_err()) {
            std::process::abort();
        }
        HOME.set(home);
    }
}

/// Is the descriptor a network namespace (and not any other file or kind of namespace)?
pub fn is_network_namespace(descriptor: BorrowedFd<'_>) -> bool {
    // SAFETY: NS_GET_NSTYPE takes no argument and writes no memory; on a descriptor that is no namespace it fails.
    let kind = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

/// Moves the calling thread into a new network namespace.
pub(crate) fn unshare_network() -> io::Result<()> {
    forget_home();
    // SAFETY: CLONE_NEWNET replaces the calling thread's network namespace only; descriptor tables stay shared, which
    // is the condition of `unshare_unsafe`.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
    Ok(())
}

fn id_of(descriptor: BorrowedFd<'_>) -> Result<NamespaceId, NamespaceError> {
    let stat = rustix::fs::fstat(descriptor).map_err(|error| NamespaceError::Descriptor(error.into()))?;
    Ok(NamespaceId { device: stat.st_dev, inode: stat.st_ino })
}
