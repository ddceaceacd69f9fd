//! What /proc says of a process: which step it is of, and who its parent is.

use std::io::Read;

use super::cgroup::{Mounts, step_path};
use super::members::Look;
use super::steps::Steps;

/// Looks at the cgroup of a process.
pub(super) fn look(pid: u32, steps: &Steps, mounts: &Mounts) -> Look {
    let mut buffer = [0; 8192];
    let Some(text) = read_cgroups(pid, &mut buffer) else { return Look::Gone };
    if let Some(path) = step_path(text) {
        return steps.of_path(path, |dir| mounts.is_roots(dir)).map_or(Look::Elsewhere, Look::In);
    }
    if text.lines().any(|l| !l.ends_with(":/")) {
        return Look::Elsewhere;
    }
    // The root cgroup, in which v1 shows whoever is ending.
    let mut buffer = [0; 512];
    let read = std::fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut f| f.read(&mut buffer));
    let family = read.ok().and_then(|n| family_of(buffer.get(..n)?));
    family.map_or(Look::Gone, |(parent, group)| Look::Ending { parent, group })
}

/// Fields 4 and 5 of a /proc/pid/stat, parent and process group; the command
/// in field 2 may hold anything.
fn family_of(stat: &[u8]) -> Option<(u32, u32)> {
    let end = stat.iter().rposition(|&b| b == b')')?;
    let mut fields = stat.get(end + 2..)?.split(|&b| b == b' ').skip(1);
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    Some((number()?, number()?))
}

pub(super) fn read_cgroups(pid: u32, buffer: &mut [u8]) -> Option<&str> {
    let n = std::fs::File::open(format!("/proc/{pid}/cgroup")).ok()?.read(buffer).ok()?;
    // One read gives all of it: the kernel makes the text in a page of its own.
    std::str::from_utf8(buffer.get(..n)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parents_survive_a_hostile_command() {
        assert_eq!(family_of(b"42 (a) b) (c) S 7 2 3 4 5"), Some((7, 2)));
        assert_eq!(family_of(b"42 (a"), None);
    }

    proptest! {
        #[test]
        fn any_stat_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = family_of(&bytes);
        }
    }
}
