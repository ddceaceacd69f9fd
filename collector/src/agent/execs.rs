/*!
The kernel's word that a process has begun to run a program: the process
connector (`include/uapi/linux/cn_proc.h`), with a filter that lets nothing else
out of the kernel.

At this moment, and at no later one that is certain, the environment of a
short-lived process can be read.
*/

use std::io;

use super::netlink::{Message, Socket};
use super::taskstats::Instruction;

/// `CN_IDX_PROC` and `CN_VAL_PROC`.
const PROC: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `PROC_EVENT_EXEC`.
const EXEC: u32 = 2;
const NLMSG_DONE: u16 = 3;
/// `struct cn_msg` before its data.
const CN_HEADER: usize = 20;

/// Asks to be told.
///
/// # Errors
///
/// What the kernel says; it has to be built with `CONFIG_PROC_EVENTS`.
pub(super) fn open() -> io::Result<Socket> {
    let socket = Socket::open_connector(PROC)?;
    // Before listening, so that nothing else is ever queued.
    socket.attach_filter(&filter())?;
    let mut data = Vec::with_capacity(CN_HEADER + 4);
    for word in [PROC, PROC, 0, 0] {
        data.extend(word.to_ne_bytes());
    }
    data.extend(4u16.to_ne_bytes());
    data.extend(0u16.to_ne_bytes());
    data.extend(LISTEN.to_ne_bytes());
    socket.send(NLMSG_DONE, &data)?;
    Ok(socket)
}

/// The process that a message says has begun a program.
pub(super) fn parse(message: &Message<'_>) -> Option<u32> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(message.payload.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    if message.kind != NLMSG_DONE || (word(0)?, word(4)?) != (PROC, PROC) {
        return None;
    }
    // what, cpu, time stamp of 8 bytes; thread and process of exec_proc_event.
    let event = CN_HEADER;
    if word(event)? != EXEC {
        return None;
    }
    word(event + 20).filter(|&pid| pid > 0)
}

/// Lets `PROC_EVENT_EXEC` pass.
fn filter() -> [Instruction; 4] {
    const LOAD_U32: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    [
        (LOAD_U32, 0, 0, 16 + 20), // proc_event.what, behind both headers
        (EQUAL, 0, 1, u32::from_be_bytes(EXEC.to_ne_bytes())),
        (RETURN, 0, 0, u32::MAX),
        (RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(what: u32, pid: u32) -> Vec<u8> {
        let words = [PROC, PROC, 0, 0, 40, what, 0, 7, 0, pid, pid];
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    #[test]
    fn a_program_began() {
        let read = |bytes: &[u8]| parse(&Message { kind: NLMSG_DONE, payload: bytes });
        assert_eq!(read(&payload(EXEC, 42)), Some(42));
        assert_eq!(read(&payload(1, 42)), None);
        assert_eq!(read(&payload(EXEC, 42)[..43]), None);
        assert_eq!(parse(&Message { kind: 2, payload: &payload(EXEC, 42) }), None);
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&Message { kind: NLMSG_DONE, payload: &bytes });
        }
    }
}
