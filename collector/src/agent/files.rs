/*!
Files of notes: what a job says by appending a line to the path in its `INQUEST_NOTE`.

Such a file is `<notes>/<uid>/<job>.<step>.<pid of slurmstepd>`, in a directory that is the user's own, so
nothing in there is believed. The directory is never listed: only the names of steps that the plugin has told
of are opened, and read if what is there is a plain file of that very user. What was read is cut out of the
file, so that the memory behind it is given back; what of it is in the journal, the journal says
(`file_end`), so that a new life of the agent goes on behind it.
*/

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, inotify};

/// What may wait in a file. Who writes more between two looks loses it.
const UNREAD_MAX: u64 = 1 << 20;
/// Longest line that can be a note: its text with every byte of it escaped.
const LINE_MAX: usize = 8192;
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// The directory of all users' directories.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    /// Number of the mount it is on.
    mount: u64,
    inotify: OwnedFd,
    watched: HashSet<u32>,
}

/// How far a file was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: u64,
    /// It was cut out up to there. An earlier life may have ended between writing to the journal and that.
    pub(super) cut_out: bool,
}

/// A file that was read, and whose lines are not yet in the journal.
#[derive(Debug)]
pub(super) struct Read {
    dir: OwnedFd,
    file: File,
    at: u64,
    is_new: bool,
    whole: bool,
}

impl Read {
    /// What was read is in the journal: cuts it out. Says how far.
    pub(super) fn done(self, name: &str) -> Place {
        if self.whole {
            unlink(&self.dir, name);
        } else if self.is_new && self.at > 0 {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where the file system knows no holes, it is kept for as long as the step.
            let _ = rustix::fs::fallocate(&self.file, flags, 0, self.at);
        }
        Place { at: self.at, cut_out: true }
    }
}

/// Removes a file. A directory by its name stays: the job has made it instead.
fn unlink(dir: &OwnedFd, name: &str) {
    let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
}

/// Something new in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'b> {
    /// A line, and where it ends.
    Line(&'b [u8], u64),
    /// A line that was too long, or more than may wait.
    Skipped,
}

impl Files {
    /// Makes the directory where it is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or could be changed by others than root.
    pub(super) fn open(dir: &Path) -> io::Result<Files> {
        std::fs::create_dir_all(dir)?;
        let meta = std::fs::symlink_metadata(dir)?;
        let own = meta.uid() == 0 || meta.uid() == rustix::process::geteuid().as_raw();
        if !meta.is_dir() || !own || meta.mode() & 0o022 != 0 {
            let reason = "it must be a directory of root that nobody else can write to";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        // Whatever the umask: users have to get through.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let mount = mount_of(&look_up(CWD, dir)?)?;
        Ok(Files { dir: dir.to_owned(), mount, inotify, watched: HashSet::new() })
    }

    /// Asks to be woken when a user of this node writes.
    pub(super) fn watch(&mut self, uid: u32) {
        use inotify::WatchFlags as W;
        if self.watched.contains(&uid) {
            return;
        }
        let wanted = W::MODIFY | W::CREATE | W::MOVED_TO | W::ONLYDIR;
        if let Some(dir) = self.user_dir(uid)
            && inotify::add_watch(&self.inotify, path_of(&dir), wanted).is_ok()
        {
            self.watched.insert(uid);
        }
    }

    /// Forgets what has woken us. The words do not matter: everything is looked at.
    pub(super) fn drain(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut gone = false;
        // The kernel keeps no more than this by itself (max_queued_events).
        for _ in 0..16_384 {
            let Ok(event) = reader.next() else { break };
            gone |= event.events().contains(inotify::ReadFlags::IGNORED);
        }
        if gone {
            // Of which user, a new watch will show.
            self.watched.clear();
        }
    }

    /// Gives `each` what is new in a step's file. `whole` says that nobody will write any more: what has no end
    /// of line is a line, and the file goes away. Nothing changes there before [`Read::done`].
    pub(super) fn read(
        &self,
        uid: u32,
        name: &str,
        from: Place,
        whole: bool,
        mut each: impl FnMut(Piece<'_>),
    ) -> Option<Read> {
        let dir = self.user_dir(uid)?;
        let Some(file) = self.open_file(&dir, name, uid) else {
            if whole {
                unlink(&dir, name);
            }
            return None;
        };
        let (began, at) = read(&file, from, whole, &mut each).ok()?;
        Some(Read { dir, file, at, is_new: at != began || !from.cut_out, whole })
    }

    fn user_dir(&self, uid: u32) -> Option<OwnedFd> {
        let dir = self.find(CWD, &self.dir.join(uid.to_string()))?;
        let stat = rustix::fs::fstat(&dir).ok()?;
        (FileType::from_raw_mode(stat.st_mode).is_dir() && stat.st_uid == uid).then_some(dir)
    }

    /// Opens a file of notes: no link, nothing that waits, one name only, and the user's.
    fn open_file(&self, dir: &OwnedFd, name: &str, uid: u32) -> Option<File> {
        let found = self.find(dir, Path::new(name))?;
        // What it is shows before it is opened, because a FIFO may wake somebody.
        let stat = rustix::fs::fstat(&found).ok()?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() || stat.st_uid != uid || stat.st_nlink != 1 {
            return None;
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Some(File::from(rustix::fs::open(path_of(&found), flags, Mode::empty()).ok()?))
    }

    /// What is there, if nothing is mounted over it. Users may mount in a directory of theirs (FUSE), and who
    /// asks such a file system anything, be it only for the owner, waits until its user likes to answer.
    fn find(&self, dir: impl AsFd, name: &Path) -> Option<OwnedFd> {
        look_up(dir, name).ok().filter(|found| mount_of(found).is_ok_and(|mount| mount == self.mount))
    }
}

impl AsFd for Files {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Opens a name without asking the file system what is behind it.
fn look_up(dir: impl AsFd, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Number of the mount that a descriptor leads to. The kernel knows it without the file system.
fn mount_of(fd: &OwnedFd) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or_else(|| io::Error::other("/proc does not say on which mount it is"))
}

/// A path to what a descriptor leads to, whatever has come to stand by its name.
fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// From where to where it was read.
fn read(file: &File, from: Place, whole: bool, each: &mut impl FnMut(Piece<'_>)) -> io::Result<(u64, u64)> {
    let size = file.metadata()?.len();
    // What was read is cut out: where something stands again, the file was begun anew.
    let anew = from.cut_out && from.at > 0 && from.at <= size && first_byte(file)? != 0;
    let began = if size < from.at || anew { 0 } else { from.at };
    let mut at = began;
    if size - at > UNREAD_MAX {
        each(Piece::Skipped);
        at = size;
    }
    let mut buffer = vec![0; if at < size { CHUNK } else { 0 }];
    while at < size {
        let n = file.read_at(&mut buffer, at)?;
        let used = take_lines(&buffer[..n], at, at + n as u64 >= size, whole, each);
        at += used as u64;
        if used == 0 {
            break;
        }
    }
    Ok((began, at))
}

/// Takes the lines of a piece of a file that begins at `at`; says how much of it was used. `last` says that
/// the file ends with it.
fn take_lines(text: &[u8], at: u64, last: bool, whole: bool, each: &mut impl FnMut(Piece<'_>)) -> usize {
    let mut used = 0;
    while let Some(rest) = text.get(used..).filter(|rest| !rest.is_empty()) {
        // A hole is what an earlier look has cut out, or nothing.
        let hole = rest.iter().take_while(|&&b| b == 0).count();
        let end = rest.iter().position(|&b| b == b'\n');
        let (line, length) = match end {
            _ if hole > 0 => (&rest[..0], hole),
            Some(end) => (&rest[..end], end + 1),
            None if last && rest.len() <= LINE_MAX && !whole => return used,
            // The rest of it comes with the next piece.
            None if !last && used > 0 => return used,
            None => (rest, rest.len()),
        };
        used += length;
        let line = line.trim_ascii();
        if line.len() > LINE_MAX {
            each(Piece::Skipped);
        } else if !line.is_empty() {
            each(Piece::Line(line, at + used as u64));
        }
    }
    used
}

fn first_byte(file: &File) -> io::Result<u8> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0)?;
    Ok(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::{CStr, CString};
    use std::io::Write as _;

    struct User {
        root: tempfile::TempDir,
        files: Files,
        uid: u32,
    }

    fn user() -> User {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("notes");
        let mut files = Files::open(&dir).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        std::fs::create_dir(dir.join(uid.to_string())).unwrap();
        files.watch(uid);
        User { root, files, uid }
    }

    impl User {
        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join("notes").join(self.uid.to_string()).join(name)
        }

        fn append(&self, text: &[u8]) {
            let mut file = File::options().append(true).create(true).open(self.path("7.0.42")).unwrap();
            file.write_all(text).unwrap();
        }

        fn read(&self, place: &mut Place, whole: bool) -> Vec<String> {
            let mut got = Vec::new();
            let end = self.files.read(self.uid, "7.0.42", *place, whole, |piece| {
                got.push(match piece {
                    Piece::Line(line, _) => String::from_utf8_lossy(line).into_owned(),
                    Piece::Skipped => "SKIPPED".into(),
                });
            });
            if let Some(read) = end {
                *place = read.done("7.0.42");
            }
            got
        }
    }

    #[test]
    fn each_line_once_and_its_memory_given_back() {
        let user = user();
        let mut place = Place::default();
        assert!(user.read(&mut place, false).is_empty());
        user.append(b"one\n\ntwo\nhal");
        assert_eq!(user.read(&mut place, false), ["one", "two"]);
        assert!(user.read(&mut place, false).is_empty());
        user.append(b"f\n");
        // Another life, which knows the place from the journal, or not at all.
        let mut known = Place { at: place.at, cut_out: false };
        let mut unknown = Place::default();
        assert_eq!(user.read(&mut known, false), ["half"]);
        user.append(b"three\n");
        assert_eq!(user.read(&mut unknown, false), ["three"]);
        // Begun anew, shorter or as long.
        std::fs::write(user.path("7.0.42"), "x\n").unwrap();
        assert_eq!(user.read(&mut unknown, false), ["x"]);
        std::fs::write(user.path("7.0.42"), "y\n").unwrap();
        assert_eq!(user.read(&mut unknown, false), ["y"]);
        user.append(b"end");
        assert_eq!(user.read(&mut unknown, true), ["end"]);
        assert!(!user.path("7.0.42").exists());
    }

    #[test]
    fn a_life_that_ended_before_it_cut_out_does_not_tell_twice() {
        let user = user();
        user.append(b"told\nnew\n");
        let mut place = Place { at: 5, cut_out: false };
        assert_eq!(user.read(&mut place, false), ["new"]);
        assert!(user.read(&mut place, false).is_empty());
    }

    #[test]
    fn what_is_no_file_of_notes_is_left_alone() {
        let user = user();
        let path = user.path("7.0.42");
        let secret = user.root.path().join("secret");
        std::fs::write(&secret, "secret\n").unwrap();
        let mut place = Place::default();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(user.read(&mut place, false).is_empty());
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&secret, &path).unwrap();
        assert!(user.read(&mut place, false).is_empty());
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        assert!(user.read(&mut place, false).is_empty());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(user.read(&mut place, true).is_empty());
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret\n");
    }

    #[test]
    fn what_is_mounted_there_is_left_alone() {
        // SAFETY: only flags are given; the namespace is that of this test's thread.
        if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) } != 0 {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let mount = |source: &Path, at: &Path, kind: &CStr, flags| {
            let path = |p: &Path| CString::new(p.as_os_str().as_encoded_bytes()).unwrap();
            let (source, at) = (path(source), path(at));
            // SAFETY: three strings that outlive the call, flags, and no data.
            let done =
                unsafe { libc::mount(source.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
            assert_eq!(done, 0, "{}", io::Error::last_os_error());
        };
        mount(Path::new("none"), Path::new("/"), c"", libc::MS_REC | libc::MS_PRIVATE);
        let mut user = user();
        let (mut place, file) = (Place::default(), user.path("7.0.42"));
        user.append(b"one\n");
        assert_eq!(user.read(&mut place, false), ["one"]);
        // One file over another, then a file system over the directory.
        let other = user.root.path().join("other");
        std::fs::write(&other, "other\n").unwrap();
        mount(&other, &file, c"", libc::MS_BIND);
        assert!(user.read(&mut Place::default(), false).is_empty());
        let dir = file.parent().unwrap();
        mount(Path::new("none"), dir, c"tmpfs", 0);
        std::fs::write(&file, "mounted\n").unwrap();
        assert!(user.read(&mut Place::default(), false).is_empty());
        user.files.watched.clear();
        user.files.watch(user.uid);
        assert!(user.files.watched.is_empty());
        for at in [dir, &file] {
            let at = CString::new(at.as_os_str().as_encoded_bytes()).unwrap();
            // SAFETY: a string that outlives the call.
            assert_eq!(unsafe { libc::umount2(at.as_ptr(), 0) }, 0, "{}", io::Error::last_os_error());
        }
    }

    #[test]
    fn too_much_costs_only_itself() {
        let user = user();
        let mut place = Place::default();
        user.append(b"a\n");
        user.append(&vec![b'x'; LINE_MAX + 1]);
        user.append(b"\nb\n");
        assert_eq!(user.read(&mut place, false), ["a", "SKIPPED", "b"]);
        user.append(&vec![b'y'; 2 << 20]);
        user.append(b"\n");
        assert_eq!(user.read(&mut place, false), ["SKIPPED"]);
        user.append(b"c\n");
        assert_eq!(user.read(&mut place, false), ["c"]);
        // A file of a terabyte, without anything in it.
        File::options().write(true).open(user.path("7.0.42")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(user.read(&mut place, false), ["SKIPPED"]);
        std::fs::write(user.path("7.0.42"), "d\n").unwrap();
        assert_eq!(user.read(&mut place, false), ["d"]);
        std::fs::write(user.path("7.0.42"), [&[0; 70_000][..], b"e\n"].concat()).unwrap();
        assert_eq!(user.read(&mut place, false), ["e"]);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            pieces in proptest::collection::vec(proptest::collection::vec(
                prop_oneof![3 => Just(b'x'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..40), 1..12),
        ) {
            let user = user();
            let mut place = Place::default();
            let mut got = Vec::new();
            for piece in &pieces {
                user.append(piece);
                got.extend(user.read(&mut place, false));
            }
            got.extend(user.read(&mut place, true));
            let all = pieces.concat();
            // Zeros at the beginning of a line cannot be told from a hole.
            let lines = all.split(|&b| b == b'\n').map(|line| {
                let zeros = line.iter().take_while(|&&b| b == 0).count();
                String::from_utf8_lossy(line[zeros..].trim_ascii()).into_owned()
            });
            let wanted: Vec<String> = lines.filter(|l| !l.is_empty()).collect();
            prop_assert_eq!(got, wanted);
        }
    }
}
