/*!
Which nodes' directories have just changed, where the kernel tells.

A hint saves waiting for the next look at all nodes, and nothing else: a shared
file system tells of nothing that other machines write, and a queue may
overflow. Whoever takes hints still looks at all nodes now and then, and does so
more often once a look has found what no hint had told ([`Hints::relied_on`]).
*/

use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// Listens to the directories of nodes.
#[derive(Debug, Default)]
pub struct Hints {
    /// None where the system has none.
    inotify: Option<OwnedFd>,
    nodes: HashMap<i32, String>,
    /// Nodes that were listened to during the whole of the last look.
    heard: BTreeSet<String>,
    /// Nodes that are listened to since the last look.
    new: BTreeSet<String>,
    /// What the last look found without having been told.
    untold: BTreeSet<String>,
    deaf: bool,
}

impl Hints {
    /// Listens to nothing yet.
    pub fn new() -> Hints {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        Hints { deaf: inotify.is_none(), inotify, ..Hints::default() }
    }

    /// Listens to the directories of `nodes` below `root`, and no longer to
    /// others. To be called after each look at all nodes.
    pub fn listen_to<'a>(&mut self, root: &Path, nodes: impl Iterator<Item = &'a str>) {
        let Some(inotify) = &self.inotify else { return };
        let wanted = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        let (mut heard, mut new) = (BTreeSet::new(), BTreeSet::new());
        for node in nodes {
            if self.heard.contains(node) || self.new.contains(node) {
                heard.insert(node.to_owned());
                continue;
            }
            match inotify::add_watch(inotify, root.join(node), wanted) {
                Ok(number) => {
                    self.nodes.insert(number, node.to_owned());
                    new.insert(node.to_owned());
                }
                Err(rustix::io::Errno::NOENT) => {} // Just gone.
                // As many as the system allows: fs.inotify.max_user_watches.
                Err(_) => self.deaf = true,
            }
        }
        (self.heard, self.new) = (heard, new);
    }

    /// Nodes that have changed since this was asked last.
    pub fn take(&mut self) -> BTreeSet<String> {
        let mut told = BTreeSet::new();
        let Some(inotify) = &self.inotify else { return told };
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut overflow = false;
        while let Ok(event) = reader.next() {
            overflow |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let Some(node) = self.nodes.get(&event.wd()) else { continue };
            if !told.contains(node) {
                told.insert(node.clone());
            }
            if event.events().contains(ReadFlags::IGNORED) {
                // The directory has gone; one that comes in its place is new.
                self.heard.remove(node);
                self.new.remove(node);
                self.nodes.remove(&event.wd());
            }
        }
        if overflow {
            self.untold.clear(); // What was lost would have told.
        }
        self.untold.retain(|node| !told.contains(node));
        told
    }

    /// A look found news of `node`, which nobody had told when it began. The
    /// hint may have been on its way; until the next look it must have come.
    pub fn was_silent_on(&mut self, node: &str) {
        if self.heard.contains(node) {
            self.untold.insert(node.to_owned());
        }
    }

    /// Whether every change that a look has found was told, too. To be asked
    /// after [`Hints::take`] and before the next look.
    pub fn relied_on(&mut self) -> bool {
        if !self.deaf && !self.untold.is_empty() {
            tracing::info!(
                "not every change of a journal is told, as on a shared file system: looks are frequent"
            );
            self.deaf = true;
        }
        self.untold.clear();
        !self.deaf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(root: &Path, nodes: &[&str]) -> Hints {
        let mut hints = Hints::new();
        for node in nodes {
            std::fs::create_dir_all(root.join(node)).unwrap();
        }
        for _ in 0..2 {
            hints.listen_to(root, nodes.iter().copied());
        }
        hints
    }

    #[test]
    fn a_change_is_told_by_its_node() {
        let dir = tempfile::tempdir().unwrap();
        let mut hints = hints(dir.path(), &["n1", "n2"]);
        assert!(hints.take().is_empty());
        std::fs::write(dir.path().join("n2/2026-11-21.jsonl"), "x\n").unwrap();
        assert_eq!(hints.take(), BTreeSet::from(["n2".to_owned()]));
        assert!(hints.take().is_empty() && hints.relied_on());
        // Another directory in its place is another one.
        std::fs::remove_dir_all(dir.path().join("n2")).unwrap();
        hints.take();
        std::fs::create_dir(dir.path().join("n2")).unwrap();
        hints.listen_to(dir.path(), ["n1", "n2"].into_iter());
        std::fs::write(dir.path().join("n2/2026-11-21.jsonl"), "x\n").unwrap();
        assert_eq!(hints.take(), BTreeSet::from(["n2".to_owned()]));
    }

    #[test]
    fn who_was_silent_is_not_relied_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut hints = hints(dir.path(), &["n1"]);
        // A look was faster than the hint.
        hints.was_silent_on("n1");
        std::fs::write(dir.path().join("n1/a.jsonl"), "x\n").unwrap();
        hints.take();
        assert!(hints.relied_on());
        // It began to listen after the change.
        hints.was_silent_on("n9");
        assert!(hints.relied_on());
        // No hint ever came.
        hints.was_silent_on("n1");
        hints.take();
        assert!(!hints.relied_on());
        assert!(!hints.relied_on());
    }
}
