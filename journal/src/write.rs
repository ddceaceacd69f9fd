/*!
The line writer, made for the inside of slurmstepd.

A line goes out with a write(2) of its own, or a few of one moment with one.
A write never blocks on another process, never follows a symbolic link, never
calls fsync by itself and never fails its caller: an event that cannot be
written is counted, its `seq` stays unused for ever, and the next line that can
be written says why.

Two dangers are particular to this place. With `contain_spank` a hook runs in a
clone that shares memory but not descriptors, so a descriptor kept here may be
somebody else's by the time it is used: it is compared with the file it was
opened on before every write. And a journal file may be deleted, or its day
may pass, while a long step runs: then the line goes through a
descriptor that is opened for it alone.
*/

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::encode::{Header, encode};
use crate::{Body, Identity, JobId, LINE_MAX, Lost, Severity, Source, Stamp, StepId};

/// A journal that could not be opened: what, and the reason.
#[derive(Debug)]
pub struct OpenError {
    what: &'static str,
    source: io::Error,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Appends events of one stream to the journal of this node.
#[derive(Debug)]
pub struct Writer {
    identity: Identity,
    source: Source,
    journal: CString,
    node: CString,
    file: Option<File>,
    /// Of the line that was written last.
    last: Option<Stamp>,
    next_seq: u64,
    /// The last write was short, so the file may end in the middle of a line.
    torn: bool,
    /// Lost events that no line of ours has told of yet.
    untold: u64,
    lost: u64,
    untold_reason: Option<i32>,
    line: Vec<u8>,
    held: Held,
}

/// Lines in the buffer that wait to be written together.
#[derive(Debug, Default)]
struct Held {
    wanted: bool,
    stamp: Stamp,
    /// Where each of them ends in the buffer.
    ends: [usize; HELD_MAX],
    count: usize,
}

/// Lines that wait at most: what one hook has to say.
const HELD_MAX: usize = 4;

/// The journal file as it was when it was opened.
#[derive(Debug)]
struct File {
    fd: OwnedFd,
    dev: libc::dev_t,
    ino: libc::ino_t,
    day: i64,
    /// Beyond this size the kernel would send SIGXFSZ to slurmstepd. Asked
    /// for once: nobody changes a limit of slurmstepd while it runs.
    size_limit: u64,
}

impl Writer {
    /// Opens today's file of this node below `journal`, an existing directory.
    /// The node's own directory is made when it is missing.
    ///
    /// The writer is returned even when the file cannot be opened, together
    /// with the reason: every event tries again, and counts as lost if it
    /// fails.
    ///
    /// # Errors
    ///
    /// Only when `journal` is not an absolute path that the system can take.
    pub fn open(
        journal: &Path,
        identity: Identity,
        source: Source,
    ) -> Result<(Writer, Option<OpenError>), OpenError> {
        let what = "journal directory";
        if !journal.is_absolute() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute");
            return Err(OpenError { what, source });
        }
        let path =
            CString::new(journal.as_os_str().as_bytes()).map_err(|e| OpenError { what, source: e.into() })?;
        let node =
            CString::new(identity.node()).map_err(|e| OpenError { what: "node name", source: e.into() })?;
        let mut writer = Writer {
            identity,
            source,
            journal: path,
            node,
            file: None,
            last: None,
            next_seq: 0,
            torn: false,
            untold: 0,
            lost: 0,
            untold_reason: None,
            line: Vec::with_capacity(LINE_MAX + 1),
            held: Held::default(),
        };
        let failed = match writer.open_file(Stamp::now()) {
            Ok(file) => {
                writer.file = Some(file);
                None
            }
            Err(e) => Some(e),
        };
        Ok((writer, failed))
    }

    /// Says who saw the events from here on. The stream stays the same: it is
    /// the writer's, not the source's.
    pub fn set_source(&mut self, source: Source) {
        self.source = source;
    }

    /// Who this writer is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Events that could not be written so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Number that the next event will have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Writes one event, stamped now. Says whether it is in the file.
    pub fn write(
        &mut self,
        severity: Severity,
        job_id: Option<JobId>,
        step: Option<StepId>,
        task: Option<u32>,
        body: &Body,
    ) -> bool {
        self.write_at(Stamp::now(), severity, job_id, step, task, body)
    }

    /// From here on lines wait, a few at most, until [`Writer::release`] writes them with one call. For
    /// events of one moment: a line that waits is lost with its process.
    pub fn hold(&mut self) {
        self.held.wanted = true;
    }

    /// Writes the lines that wait. Says whether all of them are in the file.
    pub fn release(&mut self) -> bool {
        self.held.wanted = false;
        self.write_held()
    }

    fn write_held(&mut self) -> bool {
        let count = std::mem::take(&mut self.held.count);
        if count == 0 {
            return true;
        }
        let line = std::mem::take(&mut self.line);
        let (written, errno) = self.append(&line, self.held.stamp);
        self.line = line;
        let lost = self.held.ends[..count].iter().filter(|&&end| end > written).count() as u64;
        self.count_lost(lost, errno);
        lost == 0
    }

    fn count_lost(&mut self, lost: u64, errno: i32) {
        if lost > 0 {
            self.untold += lost;
            self.lost += lost;
            self.untold_reason.get_or_insert(errno);
        }
    }

    /// Writes one event that happened at `stamp`. While lines are held, `true` says no more than that
    /// it is among them.
    pub fn write_at(
        &mut self,
        stamp: Stamp,
        severity: Severity,
        job_id: Option<JobId>,
        step: Option<StepId>,
        task: Option<u32>,
        body: &Body,
    ) -> bool {
        if self.held.count == HELD_MAX {
            self.write_held();
        }
        // What a loss needs is told line by line.
        if self.held.wanted && self.untold == 0 {
            if self.held.count == 0 {
                self.held.stamp = stamp;
                self.line.clear();
            }
            self.encode(stamp, severity, job_id, step, task, body);
            self.held.ends[self.held.count] = self.line.len();
            self.held.count += 1;
            self.next_seq += 1;
            return true;
        }
        if self.untold > 0 {
            let reason = self.untold_reason.map(|e| io::Error::from_raw_os_error(e).to_string());
            let note = Lost { count: Some(self.untold), reason };
            // The note about a loss must not itself count as one more loss
            // each time it fails, so its number is given back, unless a part
            // of it is in the file: that part may turn out to be a whole line.
            let put = self.put(stamp, Severity::Error, job_id, step, None, &note.into());
            if !matches!(put, Err((0, _))) {
                self.next_seq += 1;
            }
            if put.is_ok() {
                self.untold = 0;
                self.untold_reason = None;
            }
        }
        let put = self.put(stamp, severity, job_id, step, task, body);
        self.next_seq += 1;
        self.count_lost(u64::from(put.is_err()), put.err().map_or(0, |(_, errno)| errno));
        put.is_ok()
    }

    /// Asks the disk to keep what was written (about 4 ms). Only worth it
    /// after something that will be asked about.
    pub fn sync(&self) {
        // SAFETY: the descriptor is open and was just seen to be ours.
        let sync = |file: &File| unsafe { libc::fdatasync(file.fd.as_raw_fd()) };
        let held = self.file.as_ref().filter(|file| file.is_ours());
        if let Some(file) = held {
            sync(file);
        }
        // What was written last went elsewhere: another day has begun, or the file was deleted.
        if let Some(stamp) = self.last
            && held.is_none_or(|file| file.day != stamp.wall.day_number())
            && let Ok(file) = self.open_file(stamp)
        {
            sync(&file);
        }
    }

    /// Writes one line; else says how many bytes of it are in the file, and why not all.
    fn put(
        &mut self,
        stamp: Stamp,
        severity: Severity,
        job_id: Option<JobId>,
        step: Option<StepId>,
        task: Option<u32>,
        body: &Body,
    ) -> Result<(), (usize, i32)> {
        self.line.clear();
        self.encode(stamp, severity, job_id, step, task, body);
        let line = std::mem::take(&mut self.line);
        let (written, errno) = self.append(&line, stamp);
        let whole = written == line.len();
        self.line = line;
        if whole { Ok(()) } else { Err((written, errno)) }
    }

    /// Appends a line to the buffer.
    fn encode(
        &mut self,
        stamp: Stamp,
        severity: Severity,
        job_id: Option<JobId>,
        step: Option<StepId>,
        task: Option<u32>,
        body: &Body,
    ) {
        let id = &self.identity;
        let header = Header {
            stamp,
            severity,
            source: self.source,
            cluster: &id.cluster,
            node: &id.node,
            boot: &id.boot,
            stream: &id.stream,
            seq: self.next_seq,
            job_id,
            step,
            task,
        };
        if self.torn && self.line.is_empty() {
            self.line.push(b'\n');
        }
        encode(&mut self.line, &header, body);
    }

    /// How many bytes of it are in the file, and why not all.
    fn append(&mut self, line: &[u8], stamp: Stamp) -> (usize, i32) {
        let today = stamp.wall.day_number();
        let wrote = match &self.file {
            Some(file) if file.day == today && file.is_ours() => file.write(line),
            _ => match self.open_file(stamp) {
                Ok(file) => file.write(line),
                Err(e) => Err(e.source.raw_os_error().unwrap_or(libc::EIO)),
            },
        };
        if wrote.is_ok() {
            self.last = Some(stamp);
        }
        match wrote {
            Ok(n) if n == line.len() => {
                self.torn = false;
                (n, 0)
            }
            Ok(n) => {
                self.torn = self.torn || n > 0;
                (n, libc::ENOSPC)
            }
            Err(errno) => (0, errno),
        }
    }

    fn open_file(&self, stamp: Stamp) -> Result<File, OpenError> {
        let dir_flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let root = open_at(libc::AT_FDCWD, &self.journal, dir_flags, "journal directory")?;
        refuse_foreign(&root)?;
        let mut name = stamp.wall.day();
        name.push_str(".jsonl");
        // In one call, where the kernel has it and nothing is missing; what
        // else there may be is found and named step by step.
        if let Some(fd) = self.open_below(&root, &name)
            && let Ok(file) = File::new(fd, stamp)
        {
            return Ok(file);
        }
        let node = match open_at(root.as_raw_fd(), &self.node, dir_flags, "node's journal directory") {
            Err(e) if e.source.raw_os_error() == Some(libc::ENOENT) => {
                // SAFETY: root is open, node is a NUL-terminated string.
                // Losing the race against another writer is fine.
                let made = unsafe { libc::mkdirat(root.as_raw_fd(), self.node.as_ptr(), DIR_MODE) } == 0;
                let node = open_at(root.as_raw_fd(), &self.node, dir_flags, "node's journal directory")?;
                if made
                    && let Ok(stat) = stat_fd(node.as_raw_fd())
                    && let Some(mode) = short_of(&stat, DIR_MODE)
                {
                    // SAFETY: as above; fchmod takes no descriptor that only names a place.
                    unsafe { libc::fchmodat(root.as_raw_fd(), self.node.as_ptr(), mode, 0) };
                }
                node
            }
            other => other?,
        };
        let what = "journal file";
        let name = CString::new(name).map_err(|e| OpenError { what, source: e.into() })?;
        let fd = open_at(node.as_raw_fd(), &name, FILE_FLAGS, what)?;
        File::new(fd, stamp).map_err(|source| OpenError { what, source })
    }

    /// openat2(2) of Linux 5.6: no link is followed on the way.
    fn open_below(&self, root: &OwnedFd, name: &str) -> Option<OwnedFd> {
        let path = [self.node.to_bytes(), b"/", name.as_bytes(), b"\0"].concat();
        let path = CStr::from_bytes_with_nul(&path).ok()?;
        // SAFETY: zeros are a valid open_how: no flag, no mode, no restriction.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = u64::try_from(FILE_FLAGS).ok()?;
        how.mode = u64::from(FILE_MODE);
        how.resolve = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_BENEATH;
        // SAFETY: path is NUL-terminated, how is of the size that is given.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of_val(&how),
            )
        };
        // SAFETY: a descriptor that openat2 just returned belongs to nobody else.
        RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// O_NONBLOCK: should somebody have put a FIFO here, do not wait for it.
const FILE_FLAGS: i32 = libc::O_WRONLY
    | libc::O_APPEND
    | libc::O_CREAT
    | libc::O_NOFOLLOW
    | libc::O_NONBLOCK
    | libc::O_NOCTTY
    | libc::O_CLOEXEC;
const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

/// The mode that something new needs where the umask has taken from it: slurmstepd has the one that the user submitted
/// the job with.
fn short_of(stat: &libc::stat, wanted: u32) -> Option<libc::mode_t> {
    (stat.st_mode & wanted != wanted).then_some((stat.st_mode & 0o7777) | wanted)
}

impl File {
    fn new(fd: OwnedFd, stamp: Stamp) -> io::Result<File> {
        let stat = stat_fd(fd.as_raw_fd())?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // An admin's mode of a file that has lines already stays.
        if stat.st_size == 0
            && let Some(mode) = short_of(&stat, FILE_MODE)
        {
            // SAFETY: the descriptor is open.
            unsafe { libc::fchmod(fd.as_raw_fd(), mode) };
        }
        let day = stamp.wall.day_number();
        Ok(File { fd, dev: stat.st_dev, ino: stat.st_ino, day, size_limit: size_limit() })
    }

    /// The descriptor still means the file it was opened on, and the file
    /// still has a name.
    fn is_ours(&self) -> bool {
        let Ok(stat) = stat_fd(self.fd.as_raw_fd()) else { return false };
        stat.st_dev == self.dev && stat.st_ino == self.ino && stat.st_nlink > 0
    }

    fn write(&self, line: &[u8]) -> Result<usize, i32> {
        if self.size_limit != libc::RLIM_INFINITY {
            let stat = stat_fd(self.fd.as_raw_fd()).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))?;
            let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
            if size.saturating_add(line.len() as u64) > self.size_limit {
                return Err(libc::EFBIG);
            }
        }
        write_line(self.fd.as_raw_fd(), line)
    }
}

/// The largest size to which this process may write a file, in bytes.
fn size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: limit is a valid, writable rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

fn write_line(fd: RawFd, line: &[u8]) -> Result<usize, i32> {
    loop {
        // SAFETY: the descriptor is open, the buffer is a live slice.
        let n = unsafe { libc::write(fd, line.as_ptr().cast(), line.len()) };
        if let Ok(n) = usize::try_from(n) {
            return Ok(n);
        }
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        if errno != libc::EINTR {
            return Err(errno);
        }
    }
}

fn open_at(dir: RawFd, path: &CStr, flags: i32, what: &'static str) -> Result<OwnedFd, OpenError> {
    // SAFETY: path is NUL-terminated; the mode is read only with O_CREAT.
    let fd = unsafe { libc::openat(dir, path.as_ptr(), flags, FILE_MODE) };
    if fd < 0 {
        return Err(OpenError { what, source: io::Error::last_os_error() });
    }
    // SAFETY: a descriptor that openat just returned belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn stat_fd(fd: RawFd) -> io::Result<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: stat is writable and is read only when the call succeeded.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstat succeeded, so it filled the struct.
    Ok(unsafe { stat.assume_init() })
}

/// A directory that others may write to could hold anything under our names.
fn refuse_foreign(dir: &OwnedFd) -> Result<(), OpenError> {
    let what = "journal directory";
    let stat = stat_fd(dir.as_raw_fd()).map_err(|source| OpenError { what, source })?;
    // SAFETY: geteuid cannot fail.
    let euid = unsafe { libc::geteuid() };
    if (stat.st_uid == 0 || stat.st_uid == euid) && stat.st_mode & 0o002 == 0 {
        return Ok(());
    }
    let reason = "it must belong to root and not be writable by others";
    Err(OpenError { what, source: io::Error::new(io::ErrorKind::PermissionDenied, reason) })
}
