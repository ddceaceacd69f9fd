/*!
Who may see what, as Slurm's `PrivateData` has it. With `jobs` in it, or when
nobody can say: an owner sees what is theirs, a coordinator of an account the
jobs of that account, an operator everything. Without, everybody sees the jobs
of everybody, as with squeue; what the collector met stays with operators.
*/

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::identity::Identity;
use crate::config::Jobs;
use crate::runs::path_id;
use crate::slurm::command;
use crate::store::Store;
use crate::store::index::Visible;

/// Between two questions to Slurm: so late it is known here that somebody coordinates an account no more, or that
/// jobs are private now. [`crate::config::Serve`] tells people.
const REFRESH: Duration = Duration::from_secs(60);

/// How long an answer of Slurm is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer stands where no other one comes: Slurm may be restarted meanwhile, but what it said is no
/// longer what it says for ever. [`crate::config::Serve`] tells people.
const STANDS: Duration = Duration::from_secs(180);

/// Somebody who is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// Name of the account.
    pub name: String,
    /// What the store calls them.
    pub user: String,
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
        (!self.sees_all()).then(|| Visible { user: self.user.clone(), accounts })
    }

    /// Whether the jobs of everybody are theirs to see.
    pub fn sees_all(&self) -> bool {
        self.operator || self.all_jobs
    }

    /// Whether all jobs of this owner are theirs to see.
    pub fn sees_all_of(&self, owner: &str) -> bool {
        self.sees_all() || self.user == owner
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

/// What Slurm said last, and when it was asked for that.
type Said<T> = Arc<Mutex<Option<(Instant, T)>>>;

/// An answer of Slurm that a thread of its own keeps fresh: nobody who wants to see something waits for Slurm, or
/// for whoever asks it.
#[derive(Debug)]
struct Known<T>(Said<T>);

impl<T> Default for Known<T> {
    fn default() -> Known<T> {
        Known(Said::default())
    }
}

impl<T: Send + 'static> Known<T> {
    /// Asks again and again, with `pause` between two questions; `None` is no answer.
    fn asked(name: &str, pause: Duration, mut ask: impl FnMut() -> Option<T> + Send + 'static) -> Known<T> {
        let known = Known::default();
        let said: Said<T> = Arc::clone(&known.0);
        let asker = std::thread::Builder::new().name(name.into()).spawn(move || {
            loop {
                let at = Instant::now();
                if let Some(answer) = ask() {
                    *said.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, answer));
                }
                std::thread::sleep(pause);
            }
        });
        if let Err(e) = asker {
            eprintln!(
                "inquest serve: no thread to ask Slurm for {name}: {e}; people see their own jobs only"
            );
        }
        known
    }

    /// The answer, while it stands.
    fn get<R>(&self, now: Instant, read: impl FnOnce(&T) -> R) -> Option<R> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.as_ref().filter(|(at, _)| now.duration_since(*at) < STANDS).map(|(_, answer)| read(answer))
    }
}

/// Who coordinates which accounts, and whether jobs are private at all. Where Slurm does not say it, less is seen,
/// never more.
#[derive(Debug)]
pub struct Access {
    all: bool,
    public: Known<bool>,
    coordinators: Known<ByName>,
}

impl Access {
    /// By what the configuration says. `store` is looked at for its clusters.
    pub fn new(coordinators: bool, jobs: Jobs, store: &Path) -> Access {
        let mut access =
            Access { all: jobs == Jobs::All, public: Known::default(), coordinators: Known::default() };
        if jobs == Jobs::Slurm {
            let store = store.to_owned();
            access.public = Known::asked("PrivateData", REFRESH, move || {
                let config = ask(&["scontrol", "show", "config"])?;
                let clusters = Store::open(&store).and_then(|s| s.clusters()).ok()?;
                Some(are_public(&config, &clusters))
            });
        }
        if coordinators {
            access.coordinators = Known::asked("coordinators", REFRESH, || {
                let command =
                    ["sacctmgr", "-nP", "show", "account", "WithCoord", "format=Account,Coordinators"];
                Some(self::coordinators(&ask(&command)?))
            });
        }
        access
    }

    /// The person as a viewer.
    pub fn viewer(&self, identity: Identity, now: Instant) -> Viewer {
        let Identity { name, user, operator } = identity;
        let all_jobs = self.all || self.public.get(now, |public| *public).unwrap_or_default();
        let accounts = || self.coordinators.get(now, |map| map.get(&name).cloned()).flatten();
        let accounts = if operator { BTreeSet::new() } else { accounts().unwrap_or_default() };
        Viewer { name, user, operator, all_jobs, accounts }
    }
}

/// What a command of Slurm says; `None` when it fails or is not there.
fn ask(command: &[&str]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    command::ask(program, arguments, PATIENCE).ok()
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
    public && clusters.iter().all(|c| *c == path_id(cluster))
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

    /// Waits for the first answer.
    fn said<T: Clone + Send + 'static>(known: &Known<T>) -> (Instant, T) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let said = known.0.lock().unwrap().clone();
            match said {
                Some(said) => return said,
                None => assert!(Instant::now() < deadline, "nobody asks"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Slurm answers once and then never again, not even that it does not know.
    fn once<T: Clone + Send + 'static>(answer: T) -> Known<T> {
        let mut answers = vec![answer];
        Known::asked("test", Duration::ZERO, move || {
            while answers.is_empty() {
                std::thread::park();
            }
            answers.pop()
        })
    }

    #[test]
    fn without_an_answer_less_is_seen_and_nobody_waits() {
        let known = ByName::from([("ann".to_owned(), BTreeSet::from(["physics".to_owned()]))]);
        let access = Access { all: false, public: once(true), coordinators: once(known) };
        let at = said(&access.public).0.max(said(&access.coordinators).0);
        let ann = |at| {
            let ann = Identity { name: "ann".into(), user: "uid-7".into(), operator: false };
            let Viewer { all_jobs, accounts, .. } = access.viewer(ann, at);
            (all_jobs, accounts.len())
        };
        assert_eq!(ann(at), (true, 1));
        assert_eq!(ann(at + STANDS - Duration::from_secs(5)), (true, 1), "Slurm may be restarted");
        assert_eq!(ann(at + STANDS), (false, 0), "nobody has said it for long");
        let operator = Identity { name: "eve".into(), user: "eve".into(), operator: true };
        assert!(access.viewer(operator, at + STANDS).visible().is_none());
        // Before the first answer, too; what the configuration says needs none.
        let silent = |all| Access { all, public: Known::default(), coordinators: Known::default() };
        let ann = Identity { name: "ann".into(), user: "ann".into(), operator: false };
        assert!(!silent(false).viewer(ann.clone(), at).sees_all() && silent(true).viewer(ann, at).sees_all());
    }

    #[test]
    fn slurm_is_asked_again_and_the_newest_answer_counts() {
        let mut answers = vec![3, 2, 1];
        let known = Known::asked("test", Duration::ZERO, move || answers.pop());
        let deadline = Instant::now() + Duration::from_secs(60);
        while said(&known).1 != 3 {
            assert!(Instant::now() < deadline, "{:?}", said(&known));
            std::thread::yield_now();
        }
    }

    #[test]
    fn owners_coordinators_and_operators() {
        let viewer = |name: &str, operator, all_jobs| Viewer {
            name: format!("DOM\\{name}"),
            user: name.into(),
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
        // What the store had to call otherwise is the same cluster.
        assert!(are_public(&config("none").replace("lab", "a b"), &[path_id("a b")]));
    }
}
