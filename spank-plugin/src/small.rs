//! Small reads from /proc and /sys without a heap, and text from jobs.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, O_RDONLY};

/// A C string on the stack.
#[derive(Clone)]
pub(crate) struct Fixed<const N: usize> {
    buf: [u8; N],
    len: usize,
}

impl<const N: usize> Fixed<N> {
    pub(crate) fn new() -> Self {
        Fixed { buf: [0; N], len: 0 }
    }

    /// Appends; `None` when it does not fit or could not be a C string.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len()).filter(|&end| end < N)?;
        if bytes.contains(&0) {
            return None;
        }
        self.buf[self.len..end].copy_from_slice(bytes);
        self.buf[end] = 0;
        self.len = end;
        Some(())
    }

    /// Appends a decimal number.
    pub(crate) fn push_number(&mut self, mut n: u32) -> Option<()> {
        let mut digits = [0u8; 10];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                return self.push(&digits[at..]);
            }
        }
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        // push keeps one NUL, at the end.
        CStr::from_bytes_until_nul(&self.buf).unwrap_or_default()
    }
}

/// `/proc/<pid>/<rest>`.
pub(crate) fn proc_path(pid: u32, rest: &[u8]) -> Option<Fixed<64>> {
    let mut path = Fixed::new();
    path.push(b"/proc/")?;
    path.push_number(pid)?;
    path.push(b"/")?;
    path.push(rest)?;
    Some(path)
}

/// A buffer on the stack that nobody has filled with zeros: right after a
/// fork, every page that is written to costs a copy.
pub(crate) struct Buf<const N: usize>([MaybeUninit<u8>; N]);

impl<const N: usize> Buf<N> {
    pub(crate) fn new() -> Self {
        Buf([MaybeUninit::uninit(); N])
    }

    /// The first `n` bytes, which the kernel has just written.
    fn filled(&self, n: usize) -> Option<&[u8]> {
        let filled = self.0.get(..n)?;
        // SAFETY: the callers have n from a system call that wrote that many,
        // and an initialised MaybeUninit<u8> is a u8.
        Some(unsafe { std::slice::from_raw_parts(filled.as_ptr().cast(), n) })
    }
}

/// O_NONBLOCK and O_NOFOLLOW: whatever lies at the path, do not wait for it
/// and do not be led elsewhere.
const READ_FLAGS: libc::c_int = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW;

/// A descriptor that closes itself.
pub(crate) struct Fd(pub(crate) libc::c_int);

impl Fd {
    pub(crate) fn open(path: &CStr) -> Option<Fd> {
        // SAFETY: path is NUL-terminated.
        let fd = unsafe { libc::open(path.as_ptr(), READ_FLAGS) };
        (fd >= 0).then_some(Fd(fd))
    }

    /// One read. `None` at an error, empty at the end.
    pub(crate) fn read<'b, const N: usize>(&self, buf: &'b mut Buf<N>) -> Option<&'b [u8]> {
        self.read_behind(buf, 0)
    }

    /// One read behind the first `held` bytes, which must have been read
    /// before; gives them and the new ones.
    fn read_behind<'b, const N: usize>(&self, buf: &'b mut Buf<N>, held: usize) -> Option<&'b [u8]> {
        // SAFETY: the buffer is writable from held, which is not above N, to N.
        let n = unsafe { libc::read(self.0, buf.0.as_mut_ptr().add(held).cast(), N - held) };
        buf.filled(held + usize::try_from(n).ok()?)
    }
}

/// A directory that stays open from hook to hook, so that a long path is
/// walked once. With `contain_spank` a later hook may have other descriptors:
/// it is closed only while it still means what was opened. It is read from
/// without that question: below anything else there is no task of this step.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: libc::c_int,
    file: (libc::dev_t, libc::ino_t),
}

impl Dir {
    pub(crate) fn open(path: &CStr) -> Option<Dir> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
        // SAFETY: path is NUL-terminated.
        let fd = unsafe { libc::open(path.as_ptr(), flags) };
        let Some(file) = (fd >= 0).then(|| identity(fd)).flatten() else {
            // Nobody else can have closed what was opened in this hook.
            drop((fd >= 0).then_some(Fd(fd)));
            return None;
        };
        Some(Dir { fd, file })
    }

    /// Opens a file below for reading.
    pub(crate) fn open_file(&self, path: &CStr) -> Option<Fd> {
        // SAFETY: path is NUL-terminated.
        let fd = unsafe { libc::openat(self.fd, path.as_ptr(), READ_FLAGS) };
        (fd >= 0).then_some(Fd(fd))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if identity(self.fd) == Some(self.file) {
            // SAFETY: seen to be what we opened.
            unsafe { libc::close(self.fd) };
        }
    }
}

/// Makes a directory for `uid` alone, unless something is there. Says whether something is.
pub(crate) fn own_new_dir(path: &CStr, uid: u32) -> bool {
    // SAFETY: path is NUL-terminated.
    unsafe {
        if libc::mkdir(path.as_ptr(), 0o700) != 0 {
            return *libc::__errno_location() == libc::EEXIST;
        }
        let flags = libc::O_PATH | libc::O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
        let fd = libc::open(path.as_ptr(), flags);
        if fd < 0 {
            return false;
        }
        let fd = Fd(fd);
        // By its descriptor, and with the group as it is: nothing by this name can be led elsewhere.
        if libc::fchownat(fd.0, c"".as_ptr(), uid, libc::gid_t::MAX, libc::AT_EMPTY_PATH) == 0 {
            return true;
        }
        libc::rmdir(path.as_ptr());
        false
    }
}

/// Which file a descriptor means.
fn identity(fd: libc::c_int) -> Option<(libc::dev_t, libc::ino_t)> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: stat is writable, and read only when the call has filled it.
    unsafe { (libc::fstat(fd, stat.as_mut_ptr()) == 0).then(|| stat.assume_init()) }
        .map(|stat| (stat.st_dev, stat.st_ino))
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once.
        unsafe { libc::close(self.0) };
    }
}

/// Reads a small file, as far as the buffer goes. The files of /proc and /sys
/// that we want come whole with the first read.
pub(crate) fn read_file<'b, const P: usize, const N: usize>(
    path: &Fixed<P>,
    buf: &'b mut Buf<N>,
) -> Option<&'b [u8]> {
    Fd::open(path.as_c_str())?.read(buf)
}

/// Gives `each` every line of a file, without newline, until it returns
/// something. Reads at most `max` bytes; a line that is longer than 4 KiB is
/// given in pieces that nobody will recognise.
pub(crate) fn find_line<T>(fd: &Fd, max: usize, mut each: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    let mut buf = Buf::<4096>::new();
    let (mut held, mut total) = (0, 0);
    while total < max {
        let text = fd.read_behind(&mut buf, held)?;
        let (end, n) = (text.len(), text.len() - held);
        total += n;
        let mut start = 0;
        while let Some(at) = text[start..].iter().position(|&b| b == b'\n') {
            if let found @ Some(_) = each(&text[start..start + at]) {
                return found;
            }
            start += at + 1;
        }
        if n == 0 || end - start == 4096 {
            if let found @ Some(_) = each(&text[start..]) {
                return found;
            }
            start = end;
        }
        if n == 0 {
            return None;
        }
        buf.0.copy_within(start..end, 0);
        held = end - start;
    }
    None
}

/// Where a symbolic link points; `None` when it is longer than the buffer,
/// because half a path is a wrong path.
pub(crate) fn read_link<'b, const N: usize>(path: &CStr, buf: &'b mut Buf<N>) -> Option<&'b [u8]> {
    // SAFETY: path is NUL-terminated, buf is writable for its length.
    let n = unsafe { libc::readlink(path.as_ptr(), buf.0.as_mut_ptr().cast(), N) };
    buf.filled(usize::try_from(n).ok().filter(|&n| n < N)?)
}

/// A decimal number with blanks around it.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// The value behind `key` in a file of `key value` lines.
pub(crate) fn field(text: &[u8], key: &[u8]) -> Option<u64> {
    text.split(|&b| b == b'\n').find_map(|line| number(line.strip_prefix(key)?.strip_prefix(b" ")?))
}

/// Text of a job as it goes into an event: repaired where it is not UTF-8.
/// The journal bounds and escapes it.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// CLOCK_MONOTONIC in nanoseconds, for durations.
pub(crate) fn monotonic_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: ts is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    (ts.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(ts.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_on_the_stack_never_overflows() {
        let mut p = Fixed::<8>::new();
        assert!(p.push(b"1234567").is_some());
        assert!(p.push(b"8").is_none());
        assert_eq!(p.as_c_str().to_bytes(), b"1234567");
        assert!(Fixed::<8>::new().push(b"a\0b").is_none());
        assert_eq!(proc_path(4_294_967_295, b"fd/1").unwrap().as_c_str(), c"/proc/4294967295/fd/1");
        assert_eq!(proc_path(0, b"x").unwrap().as_c_str(), c"/proc/0/x");
    }

    proptest::proptest! {
        /// A path is what was pushed, or was refused.
        #[test]
        fn any_path_is_taken_whole_or_refused(
            parts in proptest::collection::vec(
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..24), 0..8),
            n in proptest::prelude::any::<u32>(),
        ) {
            let (mut path, mut taken) = (Fixed::<64>::new(), Vec::new());
            for part in &parts {
                match path.push(part) {
                    Some(()) => taken.extend_from_slice(part),
                    None => proptest::prop_assert!(part.contains(&0) || taken.len() + part.len() >= 64),
                }
            }
            if path.push_number(n).is_some() {
                taken.extend_from_slice(n.to_string().as_bytes());
            }
            proptest::prop_assert_eq!(path.as_c_str().to_bytes(), &taken[..]);
        }

        /// Each line of a file once and whole, however long its neighbours are.
        #[test]
        fn lines_are_found_whole(
            lengths in proptest::collection::vec(
                proptest::prop_oneof![0usize..30, 4000usize..4200, 9000usize..9001], 0..12),
        ) {
            use std::os::fd::IntoRawFd;
            let letter = |n: usize| char::from(b'a' + (n % 26) as u8).to_string();
            let lines: Vec<String> = lengths.iter().enumerate().map(|(n, &len)| letter(n).repeat(len)).collect();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            std::fs::write(&path, lines.join("\n")).unwrap();
            let fd = Fd(std::fs::File::open(&path).unwrap().into_raw_fd());
            let mut seen = Vec::new();
            let none: Option<()> = find_line(&fd, 1 << 20, |line| {
                seen.push(String::from_utf8(line.to_vec()).unwrap());
                None
            });
            proptest::prop_assert!(none.is_none());
            for line in lines.iter().filter(|l| l.len() < 4096) {
                proptest::prop_assert!(seen.contains(line), "{:?}", line);
            }
            proptest::prop_assert_eq!(seen.concat(), lines.concat());
        }
    }

    #[test]
    fn fields_are_whole_words() {
        let text = b"oom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(field(text, b"oom"), Some(3));
        assert_eq!(field(text, b"oom_kill"), Some(2));
        assert_eq!(field(text, b"max"), None);
        assert_eq!(field(b"under_oom 0\noom_kill -1", b"oom_kill"), None);
    }
}
