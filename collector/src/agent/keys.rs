/*!
Which member of a run a process is, by its environment.

An engine that packs dozens of its jobs into one step of Slurm tells them
apart by variables that it sets for each child. They are read when a process
begins a program, and kept until its end is told. A process that was only
forked has its parent's.
*/

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;

use inquest_journal::{RANK_KEYS, RUN_KEYS, is_fit};

use super::steps::Key;

/// Allow-listed variables of one process.
pub(super) type Keys = BTreeMap<String, String>;

/// Bytes of an environment that are looked at.
const ENVIRON_MAX: u64 = 1 << 17;
/// Bytes of names and values that are kept of one process.
const KEPT_MAX: usize = 1024;
/// Processes per generation; two are kept.
const GENERATION: usize = 2048;

/// The keys of processes seen lately.
#[derive(Debug, Default)]
pub(super) struct Processes {
    young: HashMap<u32, (Key, Keys)>,
    old: HashMap<u32, (Key, Keys)>,
}

impl Processes {
    /// Notes what a process of a step began with.
    pub(super) fn put(&mut self, pid: u32, step: Key, keys: Keys) {
        // A pid that is used again is not what it was.
        self.old.remove(&pid);
        if keys.is_empty() {
            self.young.remove(&pid);
            return;
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(pid, (step, keys));
    }

    /// What a process of this step began with; `None` when that was not seen.
    pub(super) fn get(&self, pid: u32, step: Key) -> Option<&Keys> {
        let (of, keys) = self.young.get(&pid).or_else(|| self.old.get(&pid))?;
        (*of == step).then_some(keys)
    }
}

/// Reads the environment that a living process began with.
pub(super) fn read(pid: u32) -> Keys {
    let mut bytes = Vec::new();
    // What was read before an error counts: a process may end at any time.
    let _ = File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRON_MAX).read_to_end(&mut bytes));
    parse(&bytes)
}

/// Picks the variables of the list out of an environment. The last entry has
/// no end when the environment was longer than what was read, and is left out.
fn parse(environ: &[u8]) -> Keys {
    let mut keys = Keys::new();
    let mut left = KEPT_MAX;
    let Some(end) = environ.iter().rposition(|&b| b == 0) else { return keys };
    for entry in environ[..end].split(|&b| b == 0) {
        let Some(eq) = entry.iter().position(|&b| b == b'=') else { continue };
        let Ok(name) = std::str::from_utf8(&entry[..eq]) else { continue };
        let value = &entry[eq + 1..];
        let known = [RUN_KEYS, RANK_KEYS].iter().any(|list| list.binary_search(&name).is_ok());
        if !known || !is_fit(value) || entry.len() > left {
            continue;
        }
        left -= entry.len();
        // The first one counts, as it does for getenv(3).
        keys.entry(name.to_owned()).or_insert_with(|| String::from_utf8_lossy(value).into_owned());
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{JobId, StepId};
    use proptest::prelude::*;

    fn keys(pairs: &[(&str, &str)]) -> Keys {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn only_the_list_is_read_and_no_login() {
        let environ = b"PATH=/bin\0TORC_JOB_ID=7\0TORC_PASSWORD=x\0WANDB_API_KEY=y\0\
            TORC_API_URL=https://me:pw@host/\0PARALLEL_SEQ=3\0PARALLEL_SEQ=4\0RANK=5\0LOCAL_RANK=1\0=\0\xff=1\0NXF_CLI=";
        assert_eq!(parse(environ), keys(&[("TORC_JOB_ID", "7"), ("PARALLEL_SEQ", "3"), ("RANK", "5")]));
        assert_eq!(parse(b"TORC_JOB_ID=7"), keys(&[]));
    }

    #[test]
    fn a_pid_counts_in_its_step_until_it_is_used_again() {
        let here = (JobId(1), StepId::Batch);
        let mut processes = Processes::default();
        processes.put(9, here, keys(&[("PARALLEL_SEQ", "1")]));
        assert_eq!(processes.get(9, here), Some(&keys(&[("PARALLEL_SEQ", "1")])));
        assert_eq!(processes.get(9, (JobId(2), StepId::Batch)), None);
        processes.put(9, here, Keys::new());
        assert_eq!(processes.get(9, here), None);
        for pid in 0..100_000 {
            processes.put(pid, here, keys(&[("PARALLEL_SEQ", "1")]));
        }
        assert!(processes.young.len() + processes.old.len() <= 2 * GENERATION);
        assert!(processes.get(99_999, here).is_some() && processes.get(0, here).is_none());
    }

    proptest! {
        #[test]
        fn any_environment_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..2000), long in "[a-z]{0,600}") {
            let mut environ = bytes;
            for (n, key) in RUN_KEYS.iter().enumerate() {
                environ.extend(format!("\0{key}={long}{n}\0").bytes());
            }
            let kept = parse(&environ);
            prop_assert!(kept.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() <= KEPT_MAX);
        }
    }
}
