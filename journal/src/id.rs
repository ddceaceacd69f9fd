//! Who wrote a line, and which job, step and task it is about.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::put::append_number;

/// A Slurm job id. In JSON it is a string, as in every other system's files,
/// so that a reader never loses digits or compares it as a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u32);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<JobId, Self::Err> {
        if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
            return Err("not a job id");
        }
        s.parse().map(JobId).map_err(|_| "not a job id")
    }
}

/// A step of a job, in Slurm's own words: `0`, `1`, ... or one of the special
/// steps. Numbers of the special steps: slurm.h, SLURM_BATCH_SCRIPT and its
/// neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepId {
    /// `batch`: the job script.
    Batch,
    /// `extern`: everything that entered the allocation from outside.
    Extern,
    /// `interactive`: the shell of salloc.
    Interactive,
    /// A step of srun.
    Number(u32),
}

impl StepId {
    /// The step that Slurm calls `raw`.
    pub fn from_raw(raw: u32) -> StepId {
        match raw {
            0xffff_fffb => StepId::Batch,
            0xffff_fffc => StepId::Extern,
            0xffff_fffa => StepId::Interactive,
            n => StepId::Number(n),
        }
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepId::Batch => f.pad("batch"),
            StepId::Extern => f.pad("extern"),
            StepId::Interactive => f.pad("interactive"),
            StepId::Number(n) => n.fmt(f),
        }
    }
}

impl FromStr for StepId {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<StepId, Self::Err> {
        match s {
            "batch" => Ok(StepId::Batch),
            "extern" => Ok(StepId::Extern),
            "interactive" => Ok(StepId::Interactive),
            _ => s.parse::<JobId>().map(|n| StepId::Number(n.0)).map_err(|_| "not a step id"),
        }
    }
}

macro_rules! text_serde {
    ($t:ty, $name:literal, $pattern:literal) => {
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<$t, D::Error> {
                parse_str(d)
            }
        }
        #[cfg(feature = "schema")]
        crate::schema::text_schema!($t, $name, $pattern);
    };
}
text_serde!(JobId, "JobId", r"^[0-9]{1,10}$");
text_serde!(StepId, "StepId", r"^([0-9]{1,10}|batch|extern|interactive)$");

/// Reads a JSON string and parses it, without keeping a copy.
pub(crate) fn parse_str<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: fmt::Display,
{
    struct Text<T>(PhantomData<T>);
    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_str<E: Error>(self, s: &str) -> Result<T, E> {
            s.parse().map_err(E::custom)
        }
    }
    d.deserialize_str(Text(PhantomData))
}

/// One life of one writer: the constant part of all its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub(crate) cluster: String,
    pub(crate) node: String,
    pub(crate) boot: String,
    pub(crate) stream: String,
}

/// Names are cut here, once, so that the header of a line has a bound.
const NAME_MAX: usize = 64;

impl Identity {
    /// The identity of this process. `cluster` and `node` are names as Slurm
    /// has them; what is not `[A-Za-z0-9._-]` becomes `_`, and a name is cut at
    /// 64 bytes, because both end up in paths and in the fixed part of a line.
    ///
    /// Boot id and start time come from /proc; where it cannot be read they
    /// are `0`, and the stream falls back to the current time to stay unique.
    pub fn of_this_process(cluster: &str, node: &str) -> Identity {
        let boot = read_boot_id().unwrap_or_else(|| "0".into());
        let start = own_start_ticks().unwrap_or_else(|| crate::Stamp::now().wall.0.unsigned_abs());
        Identity::new(cluster, node, &boot, std::process::id(), start)
    }

    /// An identity from its parts; `start` is the writer's start time in clock
    /// ticks since boot (field 22 of /proc/pid/stat).
    pub fn new(cluster: &str, node: &str, boot: &str, pid: u32, start: u64) -> Identity {
        let (cluster, node, boot) = (clean_name(cluster), clean_name(node), clean_name(boot));
        let mut stream = Vec::with_capacity(node.len() + boot.len() + 32);
        for part in [node.as_bytes(), b"-", boot.as_bytes(), b"-"] {
            stream.extend_from_slice(part);
        }
        append_number(&mut stream, u64::from(pid));
        stream.push(b'-');
        append_number(&mut stream, start);
        // Names are clean, digits are digits.
        let stream = String::from_utf8(stream).unwrap_or_default();
        Identity { cluster: cluster.into(), node: node.into_owned(), boot: boot.into(), stream }
    }

    /// The cluster's name as it stands in every line.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The node's name, also the name of its journal directory.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The first eight hex digits of the kernel's boot id.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// The stream: unique for every life of every writer.
    pub fn stream(&self) -> &str {
        &self.stream
    }
}

fn clean_name(name: &str) -> Cow<'_, str> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    // A leading dot would hide the directory or climb out of it.
    if !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(good) && !name.starts_with('.') {
        return Cow::Borrowed(name);
    }
    let mut out: String =
        name.bytes().take(NAME_MAX).map(|b| if good(b) { char::from(b) } else { '_' }).collect();
    if out.is_empty() || out.starts_with('.') {
        out.insert(0, '_');
        out.truncate(NAME_MAX);
    }
    Cow::Owned(out)
}

fn read_boot_id() -> Option<String> {
    let mut buf = [0; 64];
    let text = std::str::from_utf8(read_once("/proc/sys/kernel/random/boot_id", &mut buf)?).ok()?;
    text.get(..8).filter(|s| s.bytes().all(|b| b.is_ascii_hexdigit())).map(str::to_owned)
}

fn own_start_ticks() -> Option<u64> {
    start_ticks(read_once("/proc/self/stat", &mut [0; 1024])?)
}

/// One read: the kernel makes these files anew for every one, and a plugin has
/// no microseconds to spare.
fn read_once<'b>(path: &str, buf: &'b mut [u8]) -> Option<&'b [u8]> {
    let n = std::fs::File::open(path).ok()?.read(buf).ok()?;
    buf.get(..n)
}

/// Field 22 of a /proc/pid/stat. The command in field 2 may hold blanks and
/// brackets, so fields are counted from the last bracket.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let after = stat.iter().rposition(|&b| b == b')')? + 2;
    let field = stat.get(after..)?.split(|&b| b == b' ').nth(19)?;
    std::str::from_utf8(field).ok()?.trim_ascii().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steps_have_slurms_own_words() {
        for (raw, text) in
            [(0xffff_fffb, "batch"), (0xffff_fffc, "extern"), (0xffff_fffa, "interactive"), (7, "7")]
        {
            assert_eq!(StepId::from_raw(raw).to_string(), text);
            assert_eq!(text.parse(), Ok(StepId::from_raw(raw)));
        }
        assert!("".parse::<StepId>().is_err());
        assert!("+1".parse::<JobId>().is_err());
    }

    #[test]
    fn start_time_survives_a_hostile_command() {
        let stat = b"42 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21";
        assert_eq!(start_ticks(stat), Some(987_654));
        assert_eq!(start_ticks(b"garbage"), None);
    }

    #[test]
    fn this_process_has_a_boot_and_a_start() {
        let id = Identity::of_this_process("lab", "n1");
        assert_eq!(id.boot().len(), 8);
        assert!(id.stream().starts_with(&format!("n1-{}-{}-", id.boot(), std::process::id())));
    }

    proptest! {
        #[test]
        fn a_name_never_leaves_its_directory(name in any::<String>()) {
            let id = Identity::new(&name, &name, "0badc0de", 1, 2);
            prop_assert!(!id.node().is_empty() && id.node().len() <= NAME_MAX);
            prop_assert!(!id.node().starts_with('.') && !id.node().contains('/'));
        }
    }
}
