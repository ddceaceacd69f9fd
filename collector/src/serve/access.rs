/*!
Who may see what: as with Slurm's `PrivateData=jobs`, always. An owner sees what
is theirs, a coordinator of an account the jobs of that account, an operator
everything.
*/

use std::collections::{BTreeSet, HashMap};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::identity::Identity;
use crate::store::index::Visible;

/// How long an answer of sacctmgr is good.
const REFRESH: Duration = Duration::from_secs(300);

/// Somebody who is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// Name of the account.
    pub name: String,
    /// Sees everything.
    pub operator: bool,
    /// Accounts that they coordinate.
    pub accounts: BTreeSet<String>,
}

impl Viewer {
    /// What of the index they may see; `None` is everything.
    pub fn visible(&self) -> Option<Visible> {
        let accounts = self.accounts.iter().cloned().collect();
        (!self.operator).then(|| Visible { user: self.name.clone(), accounts })
    }

    /// Whether a job of this owner and account is theirs to see.
    pub fn sees(&self, owner: &str, account: Option<&str>) -> bool {
        self.operator || self.name == owner || account.is_some_and(|a| self.accounts.contains(a))
    }

    /// Whether everything that is the owner's is theirs to see, logs too.
    pub fn is_owner_or_operator(&self, owner: &str) -> bool {
        self.operator || self.name == owner
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

/// Who coordinates which accounts.
#[derive(Debug, Default)]
pub struct Coordinators {
    ask: bool,
    known: Mutex<Option<(Instant, ByName)>>,
}

impl Coordinators {
    /// `ask` sacctmgr, or know of none.
    pub fn new(ask: bool) -> Coordinators {
        Coordinators { ask, known: Mutex::default() }
    }

    /// The person as a viewer. May take as long as sacctmgr does.
    pub fn viewer(&self, identity: Identity) -> Viewer {
        let Identity { name, operator } = identity;
        let accounts = if self.ask && !operator { self.accounts(&name) } else { BTreeSet::new() };
        Viewer { name, operator, accounts }
    }

    fn accounts(&self, name: &str) -> BTreeSet<String> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.as_ref().is_none_or(|(at, _)| at.elapsed() > REFRESH) {
            // Without an answer nobody coordinates anything: less is seen, never more.
            let said = Command::new("sacctmgr")
                .args(["-nP", "show", "account", "WithCoord", "format=Account,Coordinators"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output();
            let text = said.ok().filter(|o| o.status.success()).map(|o| o.stdout).unwrap_or_default();
            *known = Some((Instant::now(), coordinators(&String::from_utf8_lossy(&text))));
        }
        known.as_ref().and_then(|(_, map)| map.get(name)).cloned().unwrap_or_default()
    }
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
    fn owners_coordinators_and_operators() {
        let viewer = |name: &str, operator, accounts: &[&str]| Viewer {
            name: name.into(),
            operator,
            accounts: accounts.iter().map(|a| (*a).to_owned()).collect(),
        };
        let ann = viewer("ann", false, &["chem"]);
        assert!(ann.sees("ann", None) && ann.sees("bob", Some("chem")));
        assert!(!ann.sees("bob", Some("physics")) && !ann.sees("bob", None));
        assert!(!ann.is_owner_or_operator("bob"));
        assert!(viewer("eve", true, &[]).sees("bob", None));
        assert_eq!(viewer("eve", true, &[]).visible(), None);
        assert!(ann.visible().is_some());
    }
}
