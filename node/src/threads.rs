//! The traffic threads: each one event loop with its own listeners, tunnels, log and counters.
//!
//! A thread has no lock and no wake-up in common with another on the path of a connection; the
//! mesh is a shared immutable snapshot. Work is brought to a thread as a [`Job`].

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::clock::Clock;
use runtime::logging::Logging;
use runtime::tasks::TaskGroup;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use crate::access_log::AccessLog;
use crate::certs::CertificateManager;
use crate::certs::revocations::Revision;
use crate::context::Contexts;
use crate::dialers::Dialers;
use crate::hostnames::Hostnames;
use crate::inbound::UnknownPolicies;
use crate::metrics::Shard;
use crate::peers::Peers;
use crate::pods::Loads;
use crate::settings::Settings;
use crate::sync::MeshHandle;

/// Jobs that wait for a thread; more than that and the sender waits.
const MAX_JOBS: usize = 64;

/// What a connection finds on its thread.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) mesh: MeshHandle,
    pub(crate) certificates: CertificateManager,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counters: Shard,
    pub(crate) log: AccessLog,
    pub(crate) contexts: Contexts,
    pub(crate) hostnames: Hostnames,
    pub(crate) unknown_policies: UnknownPolicies,
    pub(crate) peers: Peers,
    pub(crate) dialers: Dialers,
}

/// What a thread is equipped with before it carries traffic.
#[derive(Debug)]
pub(crate) struct Equipment {
    pub(crate) mesh: MeshHandle,
    pub(crate) certificates: CertificateManager,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counters: Shard,
    pub(crate) logging: Logging,
    pub(crate) clock: Clock,
    /// Changes when other revocation lists are in force, where there are any.
    pub(crate) revocations: Option<Revision>,
}

impl Thread {
    /// Makes the parts that never leave the thread.
    pub(crate) fn new(equipment: Equipment) -> Self {
        let Equipment { mesh, certificates, settings, counters, logging, clock, revocations } = equipment;
        Self {
            mesh,
            certificates,
            counters,
            log: AccessLog::new(logging, clock.clone()),
            contexts: Contexts::default(),
            hostnames: Hostnames::new(Arc::clone(&settings)),
            unknown_policies: UnknownPolicies::default(),
            peers: Peers::new(revocations, clock),
            dialers: Dialers::default(),
            settings,
        }
    }
}

/// Something to be done on a traffic thread, between its other work: short, or spawning tasks.
pub(crate) type Job = Box<dyn FnOnce(&Rc<Thread>) + Send>;

/// All traffic threads.
#[derive(Debug)]
pub(crate) struct Threads {
    threads: Vec<Running>,
    loads: Loads,
    /// Set when they are to end.
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Running {
    jobs: mpsc::Sender<Job>,
    equipment: Option<oneshot::Sender<Equipment>>,
    event_loop: Handle,
    /// None once it was asked to end.
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Threads {
    /// Starts `n` threads, which wait for their equipment.
    pub(crate) fn start(n: usize) -> io::Result<Self> {
        let stop = watch::Sender::new(false);
        let start = |n| Running::start(n, stop.subscribe());
        let threads = (0..n.max(1)).map(start).collect::<io::Result<Vec<_>>>()?;
        let loads = Loads::new(threads.len());
        Ok(Self { threads, loads, stop })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.threads.len()
    }

    /// How many HBONE connections each of them serves.
    pub(crate) fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Their event loops, for the metrics.
    pub(crate) fn event_loops(&self) -> Vec<Handle> {
        self.threads.iter().map(|thread| thread.event_loop.clone()).collect()
    }

    /// Equips every thread; from then on jobs are done.
    pub(crate) fn equip(&mut self, mut equipment: impl FnMut() -> Equipment) {
        for thread in &mut self.threads {
            if let Some(waiting) = thread.equipment.take() {
                // A thread that has ended takes nothing; whoever sends it a job learns that.
                let _ = waiting.send(equipment());
            }
        }
    }

    /// Does something on every thread and collects the results; nothing from a thread that died.
    pub(crate) async fn each<T, J>(&self, mut job: impl FnMut(usize) -> J) -> Vec<T>
    where
        T: Send + 'static,
        J: FnOnce(&Rc<Thread>) -> T + Send + 'static,
    {
        let mut answers = Vec::with_capacity(self.threads.len());
        for (n, thread) in self.threads.iter().enumerate() {
            let (answer, waiting) = oneshot::channel();
            let job = job(n);
            let job: Job = Box::new(move |thread| {
                let _ = answer.send(job(thread));
            });
            if thread.jobs.send(job).await.is_ok() {
                answers.push(waiting);
            }
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.extend(answer.await.ok());
        }
        results
    }

    /// Ends the threads once their tasks have been drained or cut, whoever else holds them. Jobs that they have taken are
    /// done, and their logs handed over.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        let threads: Vec<_> = self.threads.iter().filter_map(|thread| thread.thread.lock().take()).collect();
        let joined = tokio::task::spawn_blocking(|| {
            for thread in threads {
                // A panic has been logged where it happened.
                let _ = thread.join();
            }
        });
        let _ = tokio::time::timeout(Duration::from_secs(2), joined).await;
    }
}

impl Running {
    fn start(n: usize, stop: watch::Receiver<bool>) -> io::Result<Self> {
        let (jobs, work) = mpsc::channel(MAX_JOBS);
        let (equipment, waiting) = oneshot::channel();
        let event_loop = Builder::new_current_thread().enable_all().build()?;
        let handle = event_loop.handle().clone();
        let thread = std::thread::Builder::new().name(format!("ztunnel-{n}")).spawn(move || {
            LocalSet::new().block_on(&event_loop, run(waiting, work, stop));
        })?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { jobs, equipment: Some(equipment), event_loop: handle, thread })
    }
}

async fn run(
    waiting: oneshot::Receiver<Equipment>,
    mut work: mpsc::Receiver<Job>,
    mut stop: watch::Receiver<bool>,
) {
    let equipment = tokio::select! {
        biased;
        equipment = waiting => equipment,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let Ok(equipment) = equipment else { return };
    let thread = Rc::new(Thread::new(equipment));
    let tasks = TaskGroup::new("traffic thread");
    let log = Rc::clone(&thread);
    tasks.spawn_local("access log", async move { log.log.hand_over(log.settings.log_pause).await });
    let dialers = Rc::clone(&thread);
    tasks.spawn_local("idle sockets", async move { dialers.dialers.close_idle_sockets().await });
    let peers = Rc::clone(&thread);
    tasks.spawn_local("revocations", async move { peers.peers.follow().await });
    loop {
        let job = tokio::select! {
            biased;
            job = work.recv() => job,
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let Some(job) = job else { break };
        job(&thread);
    }
    thread.log.flush();
    tasks.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_end_although_others_hold_them() {
        let threads = Arc::new(Threads::start(2).unwrap());
        let held = Arc::clone(&threads);
        threads.stop().await;
        assert!(held.each(|_| |_: &Rc<Thread>| ()).await.is_empty(), "nobody is there");
        assert!(held.threads.iter().all(|thread| thread.jobs.is_closed()));
    }
}
