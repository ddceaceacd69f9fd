/*!
Who may see what, as Slurm's `PrivateData` has it. With `jobs` in it, or when
nobody can say: an owner sees what is theirs, a coordinator of an account the
jobs of that account, an operator everything. Without, everybody sees the jobs
of everybody, as with squeue; what the collector met stays with operators.
*/

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::identity::Identity;
use crate::config::Jobs;
use crate::slurm::command;
use crate::store::index::Visible;

/// How long an answer of Slurm is good: so late it is known here that somebody coordinates an account no more,
/// or that jobs are private now. [`crate::config::Serve`] tells people.
const REFRESH: Duration = Duration::from_secs(60);

/// How long an answer of Slurm is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// Name of the account.
    pub name: String,
    /// Sees everything.
    pub operator: bool,
    /// Sees the jobs of everybody.
    pub all_jobs: bool,
    /// Accounts that they coordinate.
    pub accounts: BTreeSet<String>,
}

impl Viewer {
    /// What of the index they may see; `None` is everything.
    pub fn visible(&self) -> Option<Visible> {
        let accounts = self.accounts.iter().cloned().collect();
        (!self.sees_all()).then(|| Visible { user: self.name.clone(), accounts })
    }

    /// Whether the jobs of everybody are theirs to see.
    pub fn sees_all(&self) -> bool {
        self.operator || self.all_jobs
    }

    /// Whether all jobs of this owner are theirs to see.
    pub fn sees_all_of(&self, owner: &str) -> bool {
        self.sees_all() || self.name == owner
    }

    /// `operator`, `coordinator`, `user`.
    pub fn role(&self) -> &'static str {
        match (self.operator, self.accounts.is_empty()) {
            (true, _) => "operator",
            (false, false) => "coordinator",
            (false, true) => "user",
        }
    }
}

/// Accounts by the name of who coordinates them.
type ByName = HashMap<String, BTreeSet<String>>;

/// Who coordinates what, as Slurm said it last.
#[derive(Debug, Default)]
struct Coordinators(Option<(Instant, ByName)>);

impl Coordinators {
    /// Accounts of somebody. Slurm is asked when what it said is too old.
    fn of(&mut self, name: &str, now: Instant, ask: impl FnOnce() -> Option<String>) -> BTreeSet<String> {
        if self.0.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= REFRESH) {
            // Without an answer nobody coordinates anything: less is seen, never more.
            self.0 = Some((now, coordinators(&ask().unwrap_or_default())));
        }
        self.0.as_ref().and_then(|(_, map)| map.get(name)).cloned().unwrap_or_default()
    }
}

/// Who coordinates which accounts, and whether jobs are private at all.
#[derive(Debug)]
pub struct Access {
    coordinators: bool,
    known: Mutex<Coordinators>,
    all_jobs: Arc<AtomicBool>,
}

impl Access {
    /// By what the configuration says. `store` is looked at for its clusters.
    pub fn new(coordinators: bool, jobs: Jobs, store: &Path) -> Access {
        let all_jobs = Arc::new(AtomicBool::new(jobs == Jobs::All));
        if jobs == Jobs::Slurm {
            let (all_jobs, store) = (Arc::clone(&all_jobs), store.to_owned());
            // Nobody waits for Slurm: until it has answered, jobs are private.
            let asker = std::thread::Builder::new().name("private".into());
            let spawned = asker.spawn(move || {
                loop {
                    if let Some(config) = ask(&["scontrol", "show", "config"]) {
                        all_jobs.store(are_public(&config, &clusters(&store)), Ordering::Relaxed);
                    }
                    std::thread::sleep(REFRESH);
                }
            });
            if let Err(e) = spawned {
                eprintln!("inquest serve: no thread to ask Slurm for PrivateData: {e}; jobs are private");
            }
        }
        Access { coordinators, known: Mutex::default(), all_jobs }
    }

    /// The person as a viewer. May take as long as sacctmgr does.
    pub fn viewer(&self, identity: Identity) -> Viewer {
        let Identity { name, operator } = identity;
        let accounts = if self.coordinators && !operator { self.accounts(&name) } else { BTreeSet::new() };
        Viewer { name, operator, all_jobs: self.all_jobs.load(Ordering::Relaxed), accounts }
    }

    fn accounts(&self, name: &str) -> BTreeSet<String> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.of(name, Instant::now(), || {
            ask(&["sacctmgr", "-nP", "show", "account", "WithCoord", "format=Account,Coordinators"])
        })
    }
}

/// What a command of Slurm says; `None` when it fails or is not there.
fn ask(command: &[&str]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    command::ask(program, arguments, PATIENCE).ok()
}

/// Names of the clusters in a store.
fn clusters(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store).into_iter().flatten().flatten();
    let directories = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    directories.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether `scontrol show config` says that everybody may see the jobs of all
/// these clusters: it speaks of one only.
fn are_public(config: &str, clusters: &[String]) -> bool {
    let said = |key: &str| {
        config.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim())
        })
    };
    let (Some(private), Some(cluster)) = (said("PrivateData"), said("ClusterName")) else { return false };
    let words: Vec<String> = private.split(',').map(|w| w.trim().to_ascii_lowercase()).collect();
    let public = !private.is_empty() && !words.iter().any(|w| w == "jobs" || w == "all");
    public && clusters.iter().all(|c| c == cluster)
}

/// `physics|ann,bob` lines, by name.
fn coordinators(text: &str) -> ByName {
    let mut map = ByName::new();
    for (account, names) in text.lines().filter_map(|l| l.split_once('|')) {
        for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            map.entry(name.to_owned()).or_default().insert(account.to_owned());
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sacctmgr_says_of_coordinators() {
        let map = coordinators("root|\nphysics|ann,bob\nchem|ann\n");
        assert_eq!(map["ann"].iter().collect::<Vec<_>>(), ["chem", "physics"]);
        assert_eq!((map.len(), map["bob"].len()), (2, 1));
    }

    #[test]
    fn who_coordinates_nothing_any_more_is_known_within_a_minute() {
        let (mut known, start) = (Coordinators::default(), Instant::now());
        let mut asked = 0;
        let mut accounts = |seconds: u64, says: Option<&str>| {
            let said = || {
                asked += 1;
                says.map(str::to_owned)
            };
            let accounts = known.of("ann", start + Duration::from_secs(seconds), said);
            (accounts.into_iter().collect::<Vec<_>>().join(","), asked)
        };
        assert_eq!(accounts(0, Some("physics|ann\n")), ("physics".into(), 1));
        assert_eq!(accounts(59, Some("physics|\n")), ("physics".into(), 1), "it is not asked each time");
        assert_eq!(accounts(60, Some("physics|\n")), (String::new(), 2));
        assert_eq!(accounts(120, Some("physics|ann\n")), ("physics".into(), 3));
        assert_eq!(accounts(180, None), (String::new(), 4), "nobody says it any more");
    }

    #[test]
    fn owners_coordinators_and_operators() {
        let viewer = |name: &str, operator, all_jobs| Viewer {
            name: name.into(),
            operator,
            all_jobs,
            accounts: BTreeSet::from(["chem".to_owned()]),
        };
        let ann = viewer("ann", false, false);
        assert!(ann.sees_all_of("ann") && !ann.sees_all_of("bob") && !ann.sees_all());
        assert_eq!(ann.visible().map(|v| (v.user, v.accounts)), Some(("ann".into(), vec!["chem".into()])));
        for all in [viewer("eve", true, false), viewer("ann", false, true)] {
            assert!(all.sees_all_of("bob") && all.visible().is_none());
        }
    }

    #[test]
    fn private_data_as_scontrol_says_it() {
        let config = |private: &str| {
            format!(
                "Configuration data as of now\nClusterName             = lab\nPrivateData             = {private}\n"
            )
        };
        let lab = ["lab".to_owned()];
        for (private, public) in [
            ("none", true),
            ("accounts,nodes,usage", true),
            ("jobs", false),
            ("accounts,jobs", false),
            ("accounts, Jobs", false),
            ("all", false),
            ("", false),
        ] {
            assert_eq!(are_public(&config(private), &lab), public, "{private}");
        }
        // Slurm speaks of its own cluster; of another one, nobody has said anything.
        assert!(!are_public(&config("none"), &["lab".to_owned(), "other".to_owned()]));
        assert!(!are_public("ClusterName = lab", &lab) && !are_public("PrivateData = none", &lab));
        assert!(!are_public("", &[]));
    }
}
