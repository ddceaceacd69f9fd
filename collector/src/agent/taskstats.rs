/*!
The kernel's record of a process that ended: the payload of the generic netlink
family TASKSTATS, and the filter that keeps clean ends inside the kernel.

The record carries its version. Fields were appended over the years, but 6.14
and 6.15 had new ones in the middle, so positions depend on version and length
(`include/uapi/linux/taskstats.h`); a record whose own pid is not where it
should be is refused.
*/

use super::netlink::{Attributes, GENL_HEADER, Message};

/// Name of the generic netlink family.
pub(super) const FAMILY: &str = "TASKSTATS";
/// `TASKSTATS_CMD_GET`: requests.
pub(super) const CMD_GET: u8 = 1;
/// `TASKSTATS_CMD_NEW`: records.
const CMD_NEW: u8 = 2;
/// `TASKSTATS_CMD_ATTR_REGISTER_CPUMASK`.
pub(super) const ATTR_REGISTER_CPUMASK: u16 = 3;

const TYPE_PID: u16 = 1;
const TYPE_STATS: u16 = 3;
const TYPE_AGGR_PID: u16 = 4;

/// One process that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Process id.
    pub(super) pid: u32,
    /// The parent's process id; 0 when it had none any more.
    pub(super) ppid: u32,
    /// User id.
    pub(super) uid: u32,
    /// Command name, repaired UTF-8.
    pub(super) command: String,
    /// Exit code, when it exited.
    pub(super) exit_code: Option<u8>,
    /// Signal that ended it, when one did.
    pub(super) signal: Option<u8>,
    /// The kernel marked a core dump. (The ACORE flag of the record says so
    /// even with a core size limit of 0; the wait status does not.)
    pub(super) core: bool,
    /// Peak resident set in bytes.
    pub(super) peak_rss_bytes: u64,
}

/// A message that is no record of a process, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOne {
    /// Another kind of message, a thread that is not its process' first, or
    /// the sum over a thread group.
    Other,
    /// It ended with code 0.
    Clean,
    /// The bytes do not fit any layout this reader knows.
    Unreadable,
}

/// Reads one netlink message of family `family`.
///
/// # Errors
///
/// Says why the message is not about an abnormal end of a process.
pub(super) fn parse(message: &Message<'_>, family: u16) -> Result<Ended, NotOne> {
    if message.kind != family || message.payload.first() != Some(&CMD_NEW) {
        return Err(NotOne::Other);
    }
    let body = message.payload.get(GENL_HEADER..).ok_or(NotOne::Unreadable)?;
    let (_, aggregate) =
        Attributes::new(body).find(|(kind, _)| *kind == TYPE_AGGR_PID).ok_or(NotOne::Other)?;
    let (mut pid, mut stats) = (None, None);
    for (kind, value) in Attributes::new(aggregate) {
        match kind {
            TYPE_PID => pid = u32_at(value, 0),
            TYPE_STATS => stats = Some(value),
            _ => {}
        }
    }
    let (Some(pid), Some(stats)) = (pid, stats) else { return Err(NotOne::Unreadable) };
    read_stats(pid, stats)
}

/// Where the fields of one layout are.
struct Layout {
    /// From `ac_comm` to the delays of memory reclaim.
    basic: usize,
    /// `ac_tgid`; absent before version 12.
    tgid: Option<usize>,
}

/// Size of version 14, the last one before fields moved.
const SIZE_V14: usize = 432;

fn layout(version: u16, len: usize) -> Layout {
    // 6.14 kept number 14, 6.15 wrote 15; both have `max`, later also `min`,
    // behind every pair of count and total: three of those before ac_comm, six
    // before ac_tgid.
    let (before_comm, before_tgid) = match (version, len.saturating_sub(SIZE_V14)) {
        (14 | 15, 64) => (3 * 8, 6 * 8),
        (14 | 15, n) if n >= 128 => (3 * 16, 6 * 16),
        _ => (0, 0),
    };
    Layout { basic: 80 + before_comm, tgid: (version >= 12).then_some(368 + before_tgid) }
}

fn read_stats(pid: u32, stats: &[u8]) -> Result<Ended, NotOne> {
    let bad = NotOne::Unreadable;
    let version = u16_at(stats, 0).ok_or(bad)?;
    let status = u32_at(stats, 4).ok_or(bad)?;
    let at = layout(version, stats.len());
    let command = stats.get(at.basic..at.basic + 32).ok_or(bad)?;
    let uid = u32_at(stats, at.basic + 40).ok_or(bad)?;
    let own_pid = u32_at(stats, at.basic + 48).ok_or(bad)?;
    let ppid = u32_at(stats, at.basic + 52).ok_or(bad)?;
    let peak_kib = u64_at(stats, at.basic + 120).ok_or(bad)?;
    if own_pid != pid {
        return Err(bad);
    }
    if status == 0 {
        return Err(NotOne::Clean);
    }
    // Only the first thread of a group carries the exit status; a thread that
    // is not the first is no process. Older records cannot tell and carry 0.
    if at.tgid.and_then(|at| u32_at(stats, at)).is_some_and(|tgid| tgid != pid) {
        return Err(NotOne::Other);
    }
    let command = command.split(|&b| b == 0).next().unwrap_or_default();
    let (signal, code) = (u8::try_from(status & 0x7f).unwrap_or(0), (status >> 8) & 0xff);
    Ok(Ended {
        pid,
        ppid,
        uid,
        command: String::from_utf8_lossy(command).into_owned(),
        exit_code: if signal == 0 { u8::try_from(code).ok() } else { None },
        signal: (signal != 0).then_some(signal),
        core: signal != 0 && status & 0x80 != 0,
        peak_rss_bytes: peak_kib.saturating_mul(1024),
    })
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_ne_bytes)
}

/// One instruction of a classic BPF program, `struct sock_filter`.
pub(super) type Instruction = (u16, u8, u8, u32);

/// The program that drops the records of clean ends before they are queued.
/// Whatever it does not know for certain it lets through.
pub(super) fn filter(family: u16) -> [Instruction; 8] {
    const LOAD_U16: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const LOAD_U32: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    // Loads are big-endian, netlink is not: compare with swapped constants.
    let big = |n: u16| u32::from(u16::from_be_bytes(n.to_ne_bytes()));
    [
        (LOAD_U16, 0, 0, 4), // nlmsg_type
        (EQUAL, 0, 5, big(family)),
        // Header 16, generic header 4, AGGR_PID 4, PID 8: here is STATS, where
        // the kernel did not pad (it does on machines that want alignment).
        (LOAD_U16, 0, 0, 34),
        (EQUAL, 0, 3, big(TYPE_STATS)),
        (LOAD_U32, 0, 0, 40), // ac_exitcode
        (EQUAL, 0, 1, 0),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::netlink::Messages;
    use proptest::prelude::*;

    /// As the kernel sends it: one record, with or without the group's sum.
    fn message(family: u16, pid: u32, stats: &[u8]) -> Vec<u8> {
        let attribute = |kind: u16, value: &[u8]| {
            let mut a = (4 + value.len() as u16).to_ne_bytes().to_vec();
            a.extend(kind.to_ne_bytes());
            a.extend(value);
            a.resize(a.len().next_multiple_of(4), 0);
            a
        };
        let inner = [attribute(TYPE_PID, &pid.to_ne_bytes()), attribute(TYPE_STATS, stats)].concat();
        let body = [vec![CMD_NEW, 1, 0, 0], attribute(TYPE_AGGR_PID, &inner)].concat();
        let mut m = (16 + body.len() as u32).to_ne_bytes().to_vec();
        m.extend(family.to_ne_bytes());
        m.extend([0; 10]);
        m.extend(body);
        m
    }

    fn stats(version: u16, len: usize, comm_at: usize, tgid_at: Option<usize>, status: u32) -> Vec<u8> {
        let mut s = vec![0; len];
        let mut put = |at: usize, bytes: &[u8]| s[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &version.to_ne_bytes());
        put(4, &status.to_ne_bytes());
        put(comm_at, b"eater");
        put(comm_at + 40, &1001u32.to_ne_bytes());
        put(comm_at + 48, &4242u32.to_ne_bytes());
        put(comm_at + 52, &4200u32.to_ne_bytes());
        put(comm_at + 120, &61_440u64.to_ne_bytes());
        if let Some(at) = tgid_at {
            put(at, &4242u32.to_ne_bytes());
        }
        s
    }

    fn read(bytes: &[u8], family: u16) -> Result<Ended, NotOne> {
        parse(&Messages::new(bytes).next().unwrap(), family)
    }

    #[test]
    fn every_layout_is_read() {
        for (version, len, comm, tgid) in [
            (8, 328, 80, None),        // 3.10
            (9, 344, 80, None),        // 4.18
            (12, 400, 80, Some(368)),  // 5.14 with backports, 5.19
            (14, 432, 80, Some(368)),  // 6.12
            (14, 496, 104, Some(416)), // on the way to 6.14
            (15, 560, 128, Some(464)), // 6.15
            (16, 560, 80, Some(368)),  // 6.18
            (17, 688, 80, Some(368)),  // 7.x
        ] {
            let got = read(&message(31, 4242, &stats(version, len, comm, tgid, 0x8b)), 31).unwrap();
            assert_eq!((got.pid, got.ppid, got.uid), (4242, 4200, 1001), "version {version}");
            assert_eq!((got.command.as_str(), got.peak_rss_bytes), ("eater", 61_440 << 10));
            assert_eq!((got.signal, got.exit_code, got.core), (Some(11), None, true));
        }
    }

    #[test]
    fn exits_signals_and_what_is_no_process() {
        let with = |status| read(&message(31, 4242, &stats(16, 560, 80, Some(368), status)), 31);
        let seven = with(0x700).unwrap();
        assert_eq!((seven.exit_code, seven.signal, seven.core), (Some(7), None, false));
        let killed = with(9).unwrap();
        assert_eq!((killed.exit_code, killed.signal, killed.core), (None, Some(9), false));
        assert_eq!(with(0), Err(NotOne::Clean));

        let mut thread = stats(16, 560, 80, Some(368), 9);
        thread[368] ^= 1;
        assert_eq!(read(&message(31, 4242, &thread), 31), Err(NotOne::Other));
        assert_eq!(read(&message(31, 9, &stats(16, 560, 80, Some(368), 9)), 31), Err(NotOne::Unreadable));
        assert_eq!(read(&message(30, 4242, &stats(16, 560, 80, Some(368), 9)), 31), Err(NotOne::Other));
        assert_eq!(read(&message(31, 4242, &[16, 0, 0, 0]), 31), Err(NotOne::Unreadable));
    }

    /// Runs a program as the kernel would: the number of bytes to let through.
    fn run(program: &[Instruction], packet: &[u8]) -> u32 {
        let (mut at, mut a) = (0, 0);
        loop {
            let (code, yes, no, k) = program[at];
            let k_at = k as usize;
            at += 1;
            match code {
                0x28 | 0x20 => {
                    let size = if code == 0x28 { 2 } else { 4 };
                    let Some(bytes) = packet.get(k_at..k_at + size) else { return 0 };
                    a = bytes.iter().fold(0, |n, &b| n << 8 | u32::from(b));
                }
                0x15 => at += usize::from(if a == k { yes } else { no }),
                0x06 => return k,
                _ => unreachable!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn the_filter_drops_clean_ends_and_nothing_else() {
        let program = filter(31);
        let with = |status| run(&program, &message(31, 4242, &stats(16, 560, 80, Some(368), status)));
        assert_eq!(with(0), 0);
        for status in [1, 9, 0x100, 0x8b, 0xff00] {
            assert_eq!(with(status), u32::MAX, "{status:#x}");
        }
        // An answer of another family with zeros everywhere.
        assert_eq!(run(&program, &message(16, 0, &[0; 100])), u32::MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            for message in Messages::new(&bytes) {
                let _ = parse(&message, message.kind);
            }
        }

        #[test]
        fn a_damaged_record_is_read_or_refused(
            version in 0u16..20, len in 0usize..700, flips in proptest::collection::vec((0usize..760, any::<u8>()), 0..8),
        ) {
            let mut s = vec![0; len.max(2)];
            s[..2].copy_from_slice(&version.to_ne_bytes());
            let mut m = message(31, 0, &s);
            for (at, bits) in flips {
                if let Some(b) = m.get_mut(at) {
                    *b ^= bits;
                }
            }
            for message in Messages::new(&m) {
                let _ = parse(&message, 31);
            }
        }
    }
}
