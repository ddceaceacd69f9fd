//! Finding runs and jobs in a store, and reading their events, with the
//! permissions of whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use inquest_journal::{Lines, Timestamp};
use serde::{Deserialize, Serialize};

use super::{EVENTS, EventsFile, Line, REGISTRY, RUN, SITE, run_dir, user_called, user_dir, user_names};
use crate::runs::{Candidate, RunState, RunStatus, path_id};
use crate::verdict::Class;

/// A store, run or job could not be read. The exit code of a command follows
/// from which it is.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such job or run.
    #[error("{0}")]
    NotFound(String),
    /// The operating system does not let the caller read it.
    #[error("no permission to read {0}: runs of other users are for operators")]
    Denied(PathBuf),
    /// It cannot be read for another reason.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
}

/// A run as `_registry.jsonl` lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistryEntry {
    /// Id and directory.
    pub run_id: String,
    /// When its first job was seen.
    pub submitted_at: Timestamp,
    /// When this line was written, by the newest event.
    pub updated_at: Timestamp,
    /// Where it stands.
    pub status: RunStatus,
    /// Always `slurm`.
    pub backend: String,
    /// Jobs.
    pub n_chunks: u32,
    /// Jobs that ended badly.
    pub n_failed: u32,
    /// Jobs by class; running ones are not counted.
    #[serde(default)]
    pub classes: BTreeMap<Class, u32>,
    /// Name of the first job.
    pub name: Option<String>,
    /// What decided that its jobs belong together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Candidate>,
    /// Run ids of stronger keys that were met later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Ids of its jobs, folded: `101-106,110`.
    pub jobs: String,
    /// Ids of the arrays they belong to, folded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arrays: String,
}

/// A store as seen by one caller.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) root: PathBuf,
}

/// Where a user's runs are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) cluster: String,
    pub(super) user: String,
}

/// A run that was found, with those of its members that were asked for.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its directory.
    pub dir: PathBuf,
    /// The run.
    pub run: RunState,
    /// Numbers of the members that the question was about; all for a run.
    pub members: Vec<u32>,
    /// Where the events of these members are in the run's events, from and to,
    /// in order; between the members' ranges when it is not known better.
    pub parts: Option<Vec<(u64, u64)>>,
}

impl Store {
    /// A store at `root`.
    ///
    /// # Errors
    ///
    /// When there is none, or the caller may not enter it.
    pub fn open(root: &Path) -> Result<Store, ReadError> {
        match fs::metadata(root) {
            Ok(meta) if meta.is_dir() => Ok(Store { root: root.to_owned() }),
            Ok(_) => Err(ReadError::Unreadable {
                path: root.to_owned(),
                reason: "it is a file; --store names the directory that the collector writes".into(),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(ReadError::Unreadable {
                path: root.to_owned(),
                reason:
                    "there is no such directory; give the collector's store with --store or INQUEST_STORE"
                        .into(),
            }),
            Err(e) => Err(unreadable(root, &e)),
        }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Clusters and users that have runs.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed.
    pub fn users(&self) -> Result<Vec<(String, String)>, ReadError> {
        Ok(self.places(None, None)?.into_iter().map(|p| (p.cluster, p.user)).collect())
    }

    /// Names of the clusters that have jobs or nodes in it.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed.
    pub fn clusters(&self) -> Result<Vec<String>, ReadError> {
        subdirectories(&self.root)
    }

    /// Whether the jobs of that user, as Slurm or the store calls them, are the caller's to read: their own, or
    /// anybody's for an operator.
    pub fn is_callers(&self, user: &str) -> bool {
        own_names().contains(&user_called(user)) || self.is_of_all_users()
    }

    /// Whether the caller may list the users of every cluster, as operators may.
    pub(super) fn is_of_all_users(&self) -> bool {
        let listed = |cluster: &String| subdirectories(&self.root.join(cluster)).is_ok();
        subdirectories(&self.root).is_ok_and(|clusters| clusters.iter().all(listed))
    }

    /// Clusters and users that the caller may look into, filtered by names.
    pub(super) fn places(&self, cluster: Option<&str>, user: Option<&str>) -> Result<Vec<Place>, ReadError> {
        let mut places = Vec::new();
        for cluster in
            subdirectories(&self.root)?.into_iter().filter(|c| cluster.is_none_or(|want| want == c))
        {
            let dir = self.root.join(&cluster);
            // Only operators may list it; others know their own names.
            let users = match (subdirectories(&dir), user) {
                (Err(ReadError::Denied(_)), user) => {
                    let own = own_names();
                    match user.filter(|user| !own.contains(*user)) {
                        Some(other) => vec![other.to_owned()],
                        None => own.into_iter().collect(),
                    }
                }
                (users, Some(user)) => users?.into_iter().filter(|u| u == user).collect(),
                (users, None) => users?,
            };
            for user in users {
                if dir.join(&user).join("runs").is_dir() {
                    places.push(Place { cluster: cluster.clone(), user });
                }
            }
        }
        places.sort();
        Ok(places)
    }

    /// All runs that the caller may see, oldest first, with cluster and user.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed. Users' directories that are closed to
    /// the caller are left out.
    pub fn runs(
        &self,
        cluster: Option<&str>,
        user: Option<&str>,
    ) -> Result<Vec<(String, String, RegistryEntry)>, ReadError> {
        let mut runs = Vec::new();
        for place in self.places(cluster, user)? {
            match self.registry(&place) {
                Ok(entries) => {
                    let name = |e| (place.cluster.clone(), place.user.clone(), e);
                    runs.extend(entries.into_values().map(name));
                }
                Err(ReadError::Denied(_)) if user.is_none() => {}
                Err(e) => return Err(e),
            }
        }
        runs.sort_by(|a, b| {
            a.2.submitted_at.cmp(&b.2.submitted_at).then_with(|| a.2.run_id.cmp(&b.2.run_id))
        });
        Ok(runs)
    }

    fn registry(&self, place: &Place) -> Result<BTreeMap<String, RegistryEntry>, ReadError> {
        let bytes = self.registry_text(place)?;
        let lines =
            Lines::new(&bytes).filter_map(|(_, line)| serde_json::from_slice::<RegistryEntry>(line).ok());
        Ok(lines.map(|entry| (entry.run_id.clone(), entry)).collect())
    }

    pub(super) fn registry_text(&self, place: &Place) -> Result<Vec<u8>, ReadError> {
        let path = self.root.join(user_dir(&place.cluster, &place.user)).join(REGISTRY);
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|e| unreadable(&path, &e)),
        }
    }

    /// A run and its directory.
    ///
    /// # Errors
    ///
    /// When it is not there any more, or cannot be read.
    pub fn run(&self, cluster: &str, user: &str, run_id: &str) -> Result<(PathBuf, RunState), ReadError> {
        let place = Place { cluster: cluster.to_owned(), user: user.to_owned() };
        self.load(&place, run_id)
    }

    /// Directories with the events that are of no job, by cluster; those that
    /// the caller may not read are left out.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed.
    pub fn sites(&self, cluster: Option<&str>) -> Result<Vec<(String, PathBuf)>, ReadError> {
        let mut clusters = self.clusters()?;
        clusters.retain(|name| cluster.is_none_or(|want| want == name));
        clusters.sort();
        let dir = |name: String| (self.root.join(&name).join(SITE), name);
        let readable = |dir: &Path| fs::File::open(dir.join(EVENTS)).is_ok();
        Ok(clusters
            .into_iter()
            .map(dir)
            .filter(|(dir, _)| readable(dir))
            .map(|(dir, name)| (name, dir))
            .collect())
    }

    pub(super) fn load(&self, place: &Place, run_id: &str) -> Result<(PathBuf, RunState), ReadError> {
        let dir = self.root.join(run_dir(&place.cluster, &place.user, run_id));
        let path = dir.join(RUN);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound if !dir.exists() => ReadError::NotFound(format!(
                "the run {run_id} of {} is not in the store any more",
                place.user
            )),
            _ => unreadable(&path, &e),
        })?;
        let run = serde_json::from_slice(&bytes).map_err(|e| ReadError::Unreadable {
            path,
            reason: format!("it is no run.json of this version: {e}"),
        })?;
        Ok((dir, run))
    }
}

/// Bytes of events that are read at once.
const PIECE: usize = 8 << 20;

/// Calls `each` with every event of a run between two positions of its file,
/// in the order of the file. Says how many lines could not be read.
///
/// # Errors
///
/// When the file cannot be read.
pub fn read_events(
    dir: &Path,
    range: Option<(u64, u64)>,
    each: impl FnMut(Line<'_>, &[u8]),
) -> Result<u64, ReadError> {
    read_parts(dir, &[range.unwrap_or((0, u64::MAX))], each)
}

/// As [`read_events`], of several parts of the file.
///
/// # Errors
///
/// When the file cannot be read.
pub fn read_parts(
    dir: &Path,
    parts: &[(u64, u64)],
    mut each: impl FnMut(Line<'_>, &[u8]),
) -> Result<u64, ReadError> {
    let file = EventsFile::open(dir)?;
    let mut bad = 0;
    for &(from, to) in parts {
        file.lines(from, to, PIECE, |_, line| match serde_json::from_slice::<Line<'_>>(line) {
            Ok(head) => each(head, line),
            Err(_) => bad += 1,
        })?;
    }
    Ok(bad)
}

/// What the caller's directories may be called.
fn own_names() -> BTreeSet<String> {
    user_names(rustix::process::geteuid().as_raw())
}

/// Names of the directories that are the collector's: no `lost+found` of a file system, and none of the names that
/// the store has for itself.
pub(super) fn subdirectories(dir: &Path) -> Result<Vec<String>, ReadError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => return Err(unreadable(dir, &e)),
    };
    let names = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    Ok(names.filter_map(|e| e.file_name().into_string().ok()).filter(|n| path_id(n) == *n).collect())
}

pub(super) fn unreadable(path: &Path, e: &io::Error) -> ReadError {
    match e.kind() {
        io::ErrorKind::PermissionDenied => ReadError::Denied(path.to_owned()),
        io::ErrorKind::IsADirectory => ReadError::Unreadable {
            path: path.to_owned(),
            reason: "it is a directory; move it away, the collector will make the file again".into(),
        },
        _ => ReadError::Unreadable { path: path.to_owned(), reason: e.to_string() },
    }
}
