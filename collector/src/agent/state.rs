/*!
What the agent must remember beyond its own life: the boot it last ran in, and
the last kill it read from the kernel's log. The journal itself is the truth
about what was told; this file only says where to read on.
*/

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Content of `agent.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Short boot id.
    pub(super) boot: String,
    /// Number of the last record of /dev/kmsg in that boot that needs no
    /// second look.
    #[serde(default)]
    pub(super) kmsg_seq: Option<u64>,
}

/// The state's place on disk, locked for one agent.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    _lock: File,
}

impl StateFile {
    /// Opens the directory, makes it when it is missing, and reads what is
    /// there; `None` the first time, and when the file is damaged.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used, or another agent has it.
    pub(super) fn open(dir: &Path) -> io::Result<(StateFile, Option<State>)> {
        std::fs::create_dir_all(dir)?;
        let lock = File::create(dir.join("agent.lock"))?;
        if lock.try_lock().is_err() {
            let reason = "another agent is running on it; give this one its own --state";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, reason));
        }
        let path = dir.join("agent.json");
        let state = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok((StateFile { path, _lock: lock }, state))
    }

    /// Replaces the file, so that a crash leaves the old or the new one.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub(super) fn save(&self, state: &State) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(serde_json::to_string(state)?.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_and_one_agent_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, state) = StateFile::open(&dir.path().join("new")).unwrap();
        assert_eq!(state, None);
        let state = State { boot: "0badc0de".into(), kmsg_seq: Some(7) };
        file.save(&state).unwrap();
        assert!(StateFile::open(&dir.path().join("new")).is_err());
        drop(file);
        assert_eq!(StateFile::open(&dir.path().join("new")).unwrap().1, Some(state));
    }

    #[test]
    fn a_damaged_file_is_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("agent.json"), b"{\"boot\":").unwrap();
        assert_eq!(StateFile::open(dir.path()).unwrap().1, None);
    }
}
