//! Slurm's side of the door: its functions, found at run time, and the handle
//! that a hook is given.
//!
//! Nothing here is linked. A function that this release of Slurm lacks is
//! `None`, and whatever it would have told is absent. Every value is asked for
//! by item number; any answer but 0 means absent, because the error numbers
//! have changed between releases and none of them is worth a job.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

#[allow(non_camel_case_types, non_upper_case_globals, unreachable_pub, missing_docs, dead_code)]
mod raw {
    include!(concat!(env!("OUT_DIR"), "/spank_abi.rs"));
}
pub(crate) use raw::*;

/// Looks up a function of the process we were loaded into.
macro_rules! look_up {
    ($name:literal as $t:ty) => {{
        // SAFETY: the name is NUL-terminated. A symbol of this name is a
        // function of this type in every release of Slurm (spank_abi.h), and
        // a null pointer is the None of an optional function pointer.
        unsafe {
            std::mem::transmute::<*mut libc::c_void, $t>(libc::dlsym(
                libc::RTLD_DEFAULT,
                concat!($name, "\0").as_ptr().cast(),
            ))
        }
    }};
}
pub(crate) use look_up;

/// Slurm's functions, as far as the process has them.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    get_item: spk_get_item_fn,
    context: spk_context_fn,
    option_register: spk_option_register_fn,
}

impl Host {
    /// Finds them. A few hundred nanoseconds each; done once per hook that
    /// has no state yet.
    pub(crate) fn find() -> Host {
        Host {
            get_item: look_up!("spank_get_item" as spk_get_item_fn),
            context: look_up!("spank_context" as spk_context_fn),
            option_register: look_up!("spank_option_register" as spk_option_register_fn),
        }
    }

    /// Where we run; SPK_CTX_ERROR when Slurm cannot say.
    pub(crate) fn context(&self) -> u32 {
        // SAFETY: spank_context takes nothing and only reads Slurm's state.
        self.context.map_or(SPK_CTX_ERROR, |f| unsafe { f() })
    }

    /// Says a sentence: in slurmstepd and slurmd in slurmd's log only, in
    /// sbatch, salloc and srun on the user's terminal.
    pub(crate) fn info(&self, text: &str) {
        say(look_up!("slurm_info" as spk_log_fn), text);
    }

    /// Says it as an error. Never in slurmstepd, where it would also land in
    /// the output of the job.
    pub(crate) fn error(&self, text: &str) {
        say(look_up!("slurm_error" as spk_log_fn), text);
    }

    /// Sets a variable of the tasks' environment, or removes it.
    pub(crate) fn set_env(&self, handle: spk_handle, name: &CStr, value: Option<&CStr>) {
        // Slurm copies both. What it refuses is as it was.
        if let Some(value) = value {
            if let Some(f) = look_up!("spank_setenv" as spk_setenv_fn) {
                // SAFETY: the handle is the one of this hook, the strings are NUL-terminated.
                unsafe { f(handle, name.as_ptr(), value.as_ptr(), 1) };
            }
        } else if let Some(f) = look_up!("spank_unsetenv" as spk_unsetenv_fn) {
            // SAFETY: as above.
            unsafe { f(handle, name.as_ptr()) };
        }
    }

    /// Registers an option of sbatch, salloc and srun. Slurm copies it.
    pub(crate) fn register(&self, handle: spk_handle, option: &mut spk_option) {
        if let Some(f) = self.option_register {
            // SAFETY: the handle is the one of this hook, the option lives
            // through the call. A refusal leaves the option unknown; there is
            // nothing to do about it.
            unsafe { f(handle, option) };
        }
    }
}

fn say(log: spk_log_fn, text: &str) {
    let Some(log) = log else { return };
    // Bounded and on the stack; Slurm stops at the first NUL.
    let mut line = [0u8; 512];
    let n = text.len().min(line.len() - 1);
    line[..n].copy_from_slice(&text.as_bytes()[..n]);
    // SAFETY: the format takes exactly one string, which is NUL-terminated.
    unsafe { log(c"%s".as_ptr(), line.as_ptr().cast::<c_char>()) };
}

/// The handle of one hook call.
#[derive(Clone, Copy)]
pub(crate) struct Spank<'a> {
    pub(crate) host: &'a Host,
    pub(crate) handle: spk_handle,
}

impl Spank<'_> {
    fn get<T>(&self, item: u32, mut value: T) -> Option<T> {
        // SAFETY: callers pass the type that spank_abi.h names for the item;
        // Slurm writes one such value or nothing.
        let rc = unsafe { (self.host.get_item?)(self.handle, item, &raw mut value) };
        (rc == 0).then_some(value)
    }

    /// A uint32_t, uid_t or gid_t item.
    pub(crate) fn u32(&self, item: u32) -> Option<u32> {
        self.get(item, 0u32)
    }

    /// A uint32_t item where Slurm says "none" with 0 or NO_VAL and above.
    pub(crate) fn positive(&self, item: u32) -> Option<u32> {
        self.u32(item).filter(|&n| n != 0 && n < SPK_NO_VAL)
    }

    /// A uint64_t item.
    pub(crate) fn u64(&self, item: u32) -> Option<u64> {
        self.get(item, 0u64)
    }

    /// An int or pid_t item.
    pub(crate) fn int(&self, item: u32) -> Option<c_int> {
        self.get(item, -1)
    }

    /// A string item. It belongs to Slurm and is valid during this hook.
    pub(crate) fn str(&self, item: u32) -> Option<&[u8]> {
        let p = self.get(item, ptr::null_mut::<c_char>()).filter(|p| !p.is_null())?;
        // SAFETY: Slurm hands out NUL-terminated strings of its own that live
        // as long as the step.
        Some(unsafe { CStr::from_ptr(p) }.to_bytes())
    }

    /// The job's environment, `KEY=value` each.
    pub(crate) fn env(&self) -> Strings<'_> {
        let list = self.get(SPK_JOB_ENV, ptr::null_mut::<*mut c_char>());
        Strings { next: list.unwrap_or(ptr::null_mut()), left: ENV_MAX, _of: self }
    }

    /// The command of the step.
    pub(crate) fn argv(&self) -> Strings<'_> {
        let (mut argc, mut argv) = (0 as c_int, ptr::null_mut::<*mut c_char>());
        let rc = self.host.get_item.map(|f| {
            // SAFETY: SPK_JOB_ARGV takes an int and a char ** to fill.
            unsafe { f(self.handle, SPK_JOB_ARGV, &raw mut argc, &raw mut argv) }
        });
        let left = if rc == Some(0) { usize::try_from(argc).unwrap_or(0) } else { 0 };
        Strings { next: argv, left, _of: self }
    }
}

/// A list of strings without an end is a broken host, not a long environment.
const ENV_MAX: usize = 65_536;

/// Walks an array of C strings up to its null pointer.
pub(crate) struct Strings<'a> {
    next: *mut *mut c_char,
    left: usize,
    _of: &'a Spank<'a>,
}

impl<'a> Iterator for Strings<'a> {
    type Item = RawStr<'a>;

    fn next(&mut self) -> Option<RawStr<'a>> {
        if self.next.is_null() || self.left == 0 {
            return None;
        }
        // SAFETY: the array ends with a null pointer, where we stop for good,
        // or after `left` entries.
        let entry = unsafe { *self.next };
        if entry.is_null() {
            self.left = 0;
            return None;
        }
        self.left -= 1;
        // SAFETY: the entry was not the last, so there is one behind it.
        self.next = unsafe { self.next.add(1) };
        Some(RawStr { start: entry, _of: std::marker::PhantomData })
    }
}

#[cfg(test)]
impl<'a> Strings<'a> {
    /// Those of a test, with the null pointer at their end.
    pub(crate) fn of(list: &'a mut [*mut c_char], spank: &'a Spank<'a>) -> Strings<'a> {
        assert!(list.last().is_some_and(|last| last.is_null()));
        Strings { next: list.as_mut_ptr(), left: list.len(), _of: spank }
    }
}

/// A C string of unknown, possibly huge, length: it is looked at only as far
/// as somebody wants to know.
#[derive(Clone, Copy)]
pub(crate) struct RawStr<'a> {
    start: *const c_char,
    _of: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> RawStr<'a> {
    /// Its first byte, 0 when it is empty.
    pub(crate) fn first(self) -> u8 {
        // SAFETY: start is NUL-terminated, so there is at least the NUL.
        unsafe { self.start.cast::<u8>().read() }
    }

    /// Its first bytes, at most `max`.
    pub(crate) fn head(self, max: usize) -> &'a [u8] {
        // SAFETY: start is NUL-terminated, so strnlen stays inside it and so
        // does the slice.
        unsafe {
            let len = libc::strnlen(self.start, max);
            std::slice::from_raw_parts(self.start.cast(), len)
        }
    }

    /// What follows the first `n` bytes, which the caller has seen.
    pub(crate) fn skip(self, n: usize) -> RawStr<'a> {
        // SAFETY: the caller has seen n bytes before the NUL.
        RawStr { start: unsafe { self.start.add(n) }, _of: self._of }
    }
}
