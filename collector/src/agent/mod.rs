/*!
The node agent: what only a process that watches the whole node can see of its
jobs. It is optional; the plugin never needs it, and where Slurm names cgroups
by job id it does not need the plugin.

| source | event |
|---|---|
| process connector, the kernel's word that a process began a program | (names the member of a packed step in `process_died`) |
| taskstats, the kernel's record of every process that ended abnormally | `process_died` |
| /dev/kmsg | `oom_kill` |
| memory cgroups of live steps | `memory_high` |
| a new boot id | `node_booted` |
| a socket for `inquest note`, and files that jobs append to | `note` |

One thread waits for all of them; while nothing happens it does not run.
*/

mod cgroup;
mod deaths;
mod execs;
mod files;
mod handover;
pub mod host;
mod keys;
mod kmsg;
mod members;
mod memory;
mod netlink;
mod node;
pub mod note;
mod oom;
mod proc;
mod rate;
pub mod retention;
mod sources;
mod state;
mod steps;
mod tail;
mod taskstats;
mod watches;

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use inquest_journal::{Identity, OpenError, Source, Stamp, Writer};
use rustix::event::{Timespec, epoll};
use rustix::fs::inotify;

use cgroup::Mounts;
use files::Files;
use kmsg::Kmsg;
use memory::Watch;
use node::Node;
use rate::{Bucket, Rate};
use state::{State, StateFile};
use steps::{Change, Key};
use tail::Tail;

/// What the agent is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the journals, one subdirectory per node.
    pub journal: PathBuf,
    /// This node's name in Slurm.
    pub node: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Directory of what is remembered from life to life.
    pub state: PathBuf,
    /// Where jobs send notes. The directory `notes` beside it is for those who append them to a file.
    pub socket: PathBuf,
    /// How long the node keeps its journal.
    pub keep: retention::Keep,
}

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The journal's path is unusable.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The state cannot be kept.
    #[error("cannot use the state directory {path}: {source}")]
    State {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// There is nothing this process may look at.
    #[error("the kernel shows this process neither ends of processes nor its log; run the agent as root")]
    Blind,
    /// A call that cannot fail did.
    #[error("cannot wait for events: {0}")]
    Wait(#[from] io::Error),
}

impl From<rustix::io::Errno> for AgentError {
    fn from(errno: rustix::io::Errno) -> AgentError {
        AgentError::Wait(errno.into())
    }
}

const STOP: u64 = 0;
const JOURNAL: u64 = 1;
const LOG: u64 = 2;
/// Before the ends: what began and has ended already is to be named.
const EXECS: u64 = 3;
const ENDS: u64 = 4;
const NOTES: u64 = 5;
const FILES: u64 = 6;
/// Tokens from here on are those of watched steps.
const STEPS: u64 = 16;

/// Datagrams taken from one source before the others are looked at.
const BATCH: usize = 256;
/// Time between two tries to follow the journal.
const FOLLOW_US: u64 = 10_000_000;
/// Time between two looks at files of notes. Whoever writes all the time wakes nobody more often.
const FILES_US: u64 = 100_000;
/// Messages with notes that are looked at, whoever sends them: this runs before all jobs of the node.
const NOTE_RATE: Rate = Rate { burst: 256, refill_us: 500 };
/// How long nobody is listened to after more than that.
const NOTE_PAUSE_US: u64 = 50_000;
/// So many batches of ends in a row, each of them full, are a storm: for a while, what is left waits its turn
/// with everybody else. What the kernel's queue does not hold is counted.
const STORM: u32 = 4;
const STORM_PAUSE_US: u64 = 50_000;
/// Batches that are taken at the end of a life, which is more than the queue holds.
const LAST_BATCHES: usize = 64;
const HOUR_US: u64 = 3_600_000_000;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// See [`AgentError`]. A source that this kernel does not have is named on
/// standard error and left out.
pub fn run(options: &Options) -> Result<(), AgentError> {
    let (stop, said) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, said.try_clone()?)?;
    }
    let mut agent = Agent::start(options, stop)?;
    be_quick();
    agent.serve()
}

struct Agent {
    node: Node,
    dir: PathBuf,
    keep: retention::Keep,
    state: StateFile,
    /// Last record of the log whose kill is in the journal.
    kmsg_seq: Option<u64>,
    epoll: OwnedFd,
    /// Open for as long as it is waited on.
    _stop: UnixStream,
    tail: Tail,
    inotify: OwnedFd,
    /// The journal's directory cannot be followed yet; when to try again.
    follow_us: Option<u64>,
    execs: Option<netlink::Socket>,
    ends: Option<netlink::Socket>,
    /// Records that the kernel had dropped when it was last asked.
    drops: Option<u64>,
    /// Batches of ends in a row that were full.
    full_batches: u32,
    /// When to run before all others again.
    quick_us: Option<u64>,
    log: Option<Kmsg>,
    /// The log was read up to what was written before the agent began.
    caught_up: bool,
    notes: Option<note::Socket>,
    files: Option<Files>,
    files_us: Option<u64>,
    note_rate: Bucket,
    /// When notes are listened to again.
    notes_us: Option<u64>,
    watches: HashMap<u64, Watch>,
    next_watch: u64,
    look_us: Option<u64>,
    /// When to delete old files: not within an hour of the boot, for the clock may not be set.
    clean_us: Option<u64>,
}

impl Agent {
    fn start(options: &Options, stop: UnixStream) -> Result<Agent, AgentError> {
        let identity = Identity::of_this_process(&options.cluster, &options.node);
        let dir = options.journal.join(identity.node());
        let (writer, failed) = Writer::open(&options.journal, identity, Source::Agent)?;
        if let Some(e) = failed {
            eprintln!("inquest agent: {e} below {}; every event tries again", options.journal.display());
        }
        let in_state = |source| AgentError::State { path: options.state.clone(), source };
        let (state, last) = StateFile::open(&options.state).map_err(in_state)?;

        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watch = |fd: &dyn AsFd, token| {
            epoll::add(&epoll, fd.as_fd(), epoll::EventData::new_u64(token), epoll::EventFlags::IN)
        };
        let warn = |what: &str, e: &io::Error| eprintln!("inquest agent: no {what}: {e}");
        watch(&stop, STOP)?;
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        watch(&inotify, JOURNAL)?;
        let execs = execs::open().inspect_err(|e| warn("members of packed steps", e)).ok();
        if let Some(execs) = &execs {
            watch(execs, EXECS)?;
        }
        // Before all that takes its time: what dies from here on is queued.
        let (ends, watched) = match open_ends() {
            Ok((ends, watched)) => (Some(ends), watched),
            Err(e) => {
                warn("process_died events", &e);
                (None, false)
            }
        };
        if let Some(ends) = &ends {
            watch(ends, ENDS)?;
        }
        let log = Kmsg::open(Path::new("/dev/kmsg")).inspect_err(|e| warn("oom_kill events", e)).ok();
        if let Some(log) = &log {
            watch(log, LOG)?;
        }
        if ends.is_none() && log.is_none() {
            return Err(AgentError::Blind);
        }
        let notes = note::Socket::bind(&options.socket)
            .inspect_err(|e| warn(&format!("notes at {}", options.socket.display()), e))
            .ok();
        if let Some(notes) = &notes {
            watch(notes, NOTES)?;
        }
        let dir_of_files = options.socket.with_file_name("notes");
        let files = Files::open(&dir_of_files)
            .inspect_err(|e| warn(&format!("files of notes below {}", dir_of_files.display()), e))
            .ok();
        if let Some(files) = &files {
            let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
            epoll::add(&epoll, files, epoll::EventData::new_u64(FILES), once)?;
        }
        // How many an earlier life has told of is not known.
        let drops = ends.as_ref().filter(|_| !watched).and_then(netlink::Socket::drops);
        let mut agent = Agent {
            node: Node::new(writer, Mounts::of_this_host()),
            tail: Tail::new(&dir),
            dir,
            keep: options.keep,
            state,
            kmsg_seq: None,
            epoll,
            _stop: stop,
            inotify,
            follow_us: None,
            execs,
            ends,
            drops,
            full_batches: 0,
            quick_us: None,
            log,
            caught_up: false,
            notes,
            files,
            files_us: None,
            note_rate: Bucket::new(NOTE_RATE),
            notes_us: None,
            watches: HashMap::new(),
            next_watch: STEPS,
            look_us: None,
            clean_us: (options.keep.days.is_some() || options.keep.bytes.is_some()).then_some(HOUR_US),
        };
        agent.begin(last, watched).map_err(in_state)?;
        Ok(agent)
    }

    /// Learns the past from the journal and the log.
    fn begin(&mut self, last: Option<State>, watched: bool) -> io::Result<()> {
        self.follow_journal();
        self.read_journal(true);
        let live: Vec<Key> = self.node.steps().live().collect();
        live.into_iter().for_each(|key| self.step_began(key));
        if let Some(files) = &self.files {
            self.node.read_old_files(files, Stamp::now());
            self.node.read_files(files, None, Stamp::now());
        }

        let now = Stamp::now();
        let boot = self.node.boot().to_owned();
        match &last {
            Some(last) => {
                self.node.begins_again(last, watched, now);
                let seen = last.kmsg_seq.filter(|_| last.boot == boot);
                self.kmsg_seq = seen;
                self.read_log(|seq| seen.is_none_or(|seen| seq > seen));
            }
            // The first life: what was before it is not its business.
            None => self.read_log(|_| false),
        }
        self.caught_up = true;
        self.save()
    }

    fn save(&mut self) -> io::Result<()> {
        if !self.node.has_open_kills() {
            self.kmsg_seq = self.node.kmsg_seq;
        }
        self.state.save(&State { boot: self.node.boot().into(), kmsg_seq: self.kmsg_seq })
    }

    fn serve(&mut self) -> Result<(), AgentError> {
        eprintln!("inquest agent: watching {}", self.dir.display());
        let mut events = Vec::with_capacity(64);
        loop {
            let timeout = self.due();
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io::Error::from(e).into()),
            }
            // In the order of their numbers: the journal says what the others mean.
            let mut tokens: Vec<u64> = events.iter().map(|e: &epoll::Event| e.data.u64()).collect();
            tokens.sort_unstable();
            for token in tokens {
                match token {
                    STOP => return self.stop(),
                    JOURNAL => self.journal_changed(),
                    LOG => self.read_log(|_| true),
                    EXECS => self.read_execs(),
                    ENDS => self.read_ends_for_a_while(),
                    NOTES => self.read_notes(),
                    FILES => self.files_us = Some(Stamp::now().mono_us + FILES_US),
                    step => self.look_at(step),
                }
            }
        }
    }

    fn stop(&mut self) -> Result<(), AgentError> {
        for _ in 0..LAST_BATCHES {
            if !self.read_ends() {
                break;
            }
        }
        self.node.finish(Stamp::now());
        Ok(self.save()?)
    }

    /// Does what is due and says how long to wait.
    fn due(&mut self) -> Option<Timespec> {
        let now = Stamp::now();
        let had_kills = self.node.has_open_kills();
        let mut next = self.node.due(now);
        if had_kills && !self.node.has_open_kills() {
            self.remember();
        }
        if self.look_us.is_some_and(|at| at <= now.mono_us) {
            self.look_at_polled(now);
        }
        if self.files_us.is_some_and(|at| at <= now.mono_us) {
            self.read_files(now);
        }
        if self.notes_us.is_some_and(|at| at <= now.mono_us) {
            self.notes_us = None;
            self.listen_to_notes(epoll::EventFlags::IN);
        }
        if self.quick_us.is_some_and(|at| at <= now.mono_us) {
            self.quick_us = None;
            let _ = schedule(libc::SCHED_FIFO);
        }
        if self.clean_us.is_some_and(|at| at <= now.mono_us) {
            self.clean_us = Some(now.mono_us + HOUR_US);
            match retention::clean(&self.dir, self.keep, now.wall.day_number(), SystemTime::now()) {
                Ok(gone) => gone.iter().for_each(|n| eprintln!("inquest agent: deleted {n}")),
                Err(e) => eprintln!("inquest agent: cannot clean {}: {e}", self.dir.display()),
            }
        }
        if self.follow_us.is_some_and(|at| at <= now.mono_us) {
            self.follow_journal();
            if self.follow_us.is_none() {
                self.read_journal(false);
            }
        }
        let own = [self.look_us, self.clean_us, self.follow_us, self.files_us, self.notes_us, self.quick_us];
        next = own.into_iter().chain([next]).flatten().min();
        let wait_us = next?.saturating_sub(now.mono_us);
        Some(Timespec {
            tv_sec: i64::try_from(wait_us / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(wait_us % 1_000_000 * 1_000).unwrap_or(0),
        })
    }

    fn remember(&mut self) {
        if let Err(e) = self.save() {
            eprintln!("inquest agent: cannot save the state: {e}");
        }
    }

    /// Asks to be woken by every line. A directory that is not there yet may
    /// be on a file system that is mounted later.
    fn follow_journal(&mut self) {
        use inotify::WatchFlags as W;
        let wanted = W::MODIFY | W::CREATE | W::MOVED_TO | W::ONLYDIR;
        let followed = inotify::add_watch(&self.inotify, &self.dir, wanted);
        if let (Err(e), None) = (followed, self.follow_us) {
            let dir = self.dir.display();
            eprintln!(
                "inquest agent: cannot follow {dir}: {e}; until it can, steps are known by cgroup only"
            );
        }
        self.follow_us = followed.is_err().then(|| Stamp::now().mono_us + FOLLOW_US);
    }

    fn journal_changed(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut replaced = false;
        while let Ok(event) = reader.next() {
            replaced |= event.events().contains(inotify::ReadFlags::IGNORED);
        }
        if replaced {
            // The directory was deleted or moved; its successor is the journal.
            self.tail = Tail::new(&self.dir);
            self.follow_journal();
        }
        self.read_journal(false);
    }

    fn read_journal(&mut self, history: bool) {
        let now = Stamp::now();
        let mut changes = Vec::new();
        let node = &mut self.node;
        let read = self.tail.read(&now.wall.day(), |line| {
            if let Some(change) = node.line(line, now).filter(|_| !history) {
                changes.push(change);
            }
        });
        if let Err(e) = read
            && self.follow_us.is_none()
        {
            eprintln!("inquest agent: cannot read {}: {e}", self.dir.display());
        }
        for change in changes {
            match change {
                Change::Started(key) => self.step_began(key),
                Change::Ended(key) => {
                    if let Some(files) = &self.files {
                        self.node.read_files(files, Some(key), now);
                    }
                    self.watches.retain(|_, watch| watch.key != key);
                    self.watch_job(key.0);
                }
            }
        }
    }
}

/// Asks to run as soon as there is something to do. Which step a process
/// belonged to is known only for as long as its parent lives, and that may be
/// a tenth of a millisecond. What has to be done then is short, and the kernel
/// bounds what a real-time process may take.
fn be_quick() {
    if !schedule(libc::SCHED_FIFO)
        && let Err(e) = rustix::process::setpriority_process(None, -20)
    {
        eprintln!("inquest agent: cannot raise its priority: {e}; some ends may not be attributed");
    }
}

/// How the kernel lets this thread run; says whether it does.
fn schedule(policy: libc::c_int) -> bool {
    let priority = libc::sched_param { sched_priority: libc::c_int::from(policy == libc::SCHED_FIFO) };
    // SAFETY: the parameter is a valid struct, and 0 means this thread.
    unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &priority) == 0 }
}

/// Registers for the ends of all processes of the node, or goes on where an
/// earlier life did; says whether it does.
fn open_ends() -> io::Result<(netlink::Socket, bool)> {
    let mut socket = netlink::Socket::open(taskstats::FAMILY)?;
    if let Some(kept) = handover::take() {
        match socket.adopt(kept) {
            Ok(socket) => return Ok((socket, true)),
            Err(e) => eprintln!("inquest agent: what systemd kept is no netlink socket: {e}"),
        }
        socket = netlink::Socket::open(taskstats::FAMILY)?;
    }
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let mask = [possible.trim().as_bytes(), b"\0"].concat();
    socket.attach_filter(&taskstats::filter(socket.family()))?;
    socket.call(taskstats::CMD_GET, taskstats::ATTR_REGISTER_CPUMASK, &mask, |_| {})?;
    if let Err(e) = handover::leave(socket.as_fd()) {
        eprintln!("inquest agent: systemd does not keep the socket: {e}; ends during a restart go unseen");
    }
    Ok((socket, false))
}
