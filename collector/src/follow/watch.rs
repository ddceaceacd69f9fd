/*!
Which journals there are, and which of them may have grown.

Nothing here depends on being told by the kernel: a shared file system tells
nobody. A look costs two `stat` calls a node, for its directory and for its
newest journal, however many journals it has kept. All of them are looked at
now and then, because an old one may have been replaced: a few nodes with each
look, so that no look is long.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{FollowError, Journal, changed};

/// The time in which every journal is looked at once.
const EVERYTHING: Duration = Duration::from_secs(10);

/// The journals below one directory.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    root_changed: i64,
    nodes: BTreeMap<String, Node>,
    /// Files below the root itself that are no journals' directories.
    errors: Vec<(PathBuf, &'static str)>,
    turn: Turn,
}

/// Whose journals are all looked at next.
#[derive(Debug)]
struct Turn {
    /// When it was somebody's turn last.
    since: Instant,
    /// The node that was the last one.
    node: String,
}

/// What was seen in one look.
#[derive(Debug)]
pub struct Look {
    /// Journals that are new or have changed since they were last reported,
    /// sorted by name.
    pub journals: Vec<Journal>,
    /// What cannot be looked at.
    pub errors: Vec<FollowError>,
    /// Nodes of which every journal was looked at.
    pub listed: BTreeSet<String>,
}

/// One node's directory as it was when it was listed.
#[derive(Debug, Default)]
struct Node {
    changed: i64,
    files: Vec<File>,
    errors: Vec<(PathBuf, Why)>,
    /// Why it could not be listed, when it was looked at last.
    failed: Option<io::Error>,
}

#[derive(Debug)]
struct File {
    journal: Journal,
    /// It was reported as it is.
    told: bool,
}

#[derive(Debug)]
enum Why {
    Fixed(&'static str),
    System(io::Error),
}

fn fail(path: &Path, source: io::Error) -> FollowError {
    FollowError { path: path.to_owned(), source }
}

/// All journal files below `root`, sorted by name, and what could not be
/// looked at.
///
/// # Errors
///
/// When `root` itself cannot be listed.
pub fn find(root: &Path) -> Result<(Vec<Journal>, Vec<FollowError>), FollowError> {
    let look = Watch::new(root).look(true)?;
    Ok((look.journals, look.errors))
}

impl Watch {
    /// Journals below `root`; nothing is looked at yet.
    pub fn new(root: &Path) -> Watch {
        let (nodes, errors) = (BTreeMap::new(), Vec::new());
        let turn = Turn { since: Instant::now(), node: String::new() };
        Watch { root: root.to_owned(), root_changed: 0, nodes, errors, turn }
    }

    /// Nodes that have a directory.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Names of the journals of a node, as they were listed last.
    pub fn journals(&self, node: &str) -> impl Iterator<Item = &str> {
        let files = self.nodes.get(node).into_iter().flat_map(|n| &n.files);
        files.map(|f| f.journal.name.as_str())
    }

    /// Journals that are new or have changed since they were last reported,
    /// sorted by name, and all that cannot be looked at. With `everything`,
    /// every file is looked at; else some are that have not been for long.
    ///
    /// # Errors
    ///
    /// When the directory itself cannot be listed.
    pub fn look(&mut self, everything: bool) -> Result<Look, FollowError> {
        let meta = std::fs::metadata(&self.root).map_err(|e| fail(&self.root, e))?;
        let listed = self.whose_turn(everything);
        // The list of nodes is made anew with the first one's turn.
        let first = self.nodes.first_key_value().is_some_and(|(name, _)| listed.contains(name));
        if everything || first || changed(&meta) != self.root_changed {
            self.list()?;
            self.root_changed = changed(&meta);
        }
        let nodes: Vec<String> = self.nodes.keys().cloned().collect();
        Ok(self.look_into(nodes, |name| everything || listed.contains(name)))
    }

    /// The same for some nodes only, by what is known of the others.
    pub fn look_at(&mut self, nodes: BTreeSet<String>) -> Look {
        self.look_into(nodes, |_| false)
    }

    fn look_into(&mut self, nodes: impl IntoIterator<Item = String>, whole: impl Fn(&str) -> bool) -> Look {
        let (mut found, mut errors, mut listed) = (Vec::new(), Vec::new(), BTreeSet::new());
        for name in nodes {
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            match node.look(&self.root.join(&name), &name, whole(&name)) {
                Ok(true) => _ = listed.insert(name.clone()),
                Ok(false) => {}
                Err(e) => {
                    node.failed = Some(e).filter(|e| e.kind() != io::ErrorKind::NotFound);
                    continue;
                }
            }
            node.failed = None;
            for file in node.files.iter_mut().filter(|f| !f.told) {
                file.told = true;
                found.push(file.journal.clone());
            }
        }
        for (path, why) in &self.errors {
            errors.push(fail(path, io::Error::other(*why)));
        }
        let again = |e: &io::Error| io::Error::new(e.kind(), e.to_string());
        for (name, node) in &self.nodes {
            errors.extend(node.failed.iter().map(|e| fail(&self.root.join(name), again(e))));
            errors.extend(node.errors.iter().map(|(path, why)| match why {
                Why::Fixed(why) => fail(path, io::Error::other(*why)),
                Why::System(e) => fail(path, again(e)),
            }));
        }
        Look { journals: found, errors, listed }
    }

    /// The next nodes in the order of their names: as many as keep the pace.
    fn whose_turn(&mut self, everything: bool) -> BTreeSet<String> {
        let now = Instant::now();
        if everything {
            self.turn = Turn { since: now, node: String::new() };
            return BTreeSet::new();
        }
        let share = now.duration_since(self.turn.since).as_secs_f64() / EVERYTHING.as_secs_f64();
        let count = (share.min(1.0) * self.nodes.len() as f64) as usize;
        if count == 0 {
            return BTreeSet::new(); // A little later it is one.
        }
        let after = (Bound::Excluded(self.turn.node.as_str()), Bound::Unbounded);
        let next: Vec<&String> =
            self.nodes.range::<str, _>(after).chain(&self.nodes).map(|(name, _)| name).take(count).collect();
        let listed = next.iter().copied().cloned().collect();
        if let Some(last) = next.last() {
            self.turn = Turn { since: now, node: String::clone(last) };
        }
        listed
    }

    /// The journal could not be read as it was: it is reported again when
    /// everything is looked at.
    pub fn again(&mut self, journal: &Journal) {
        if let Some(node) = self.nodes.get_mut(journal.node()) {
            node.files.retain(|f| f.journal.name != journal.name);
        }
    }

    fn list(&mut self) -> Result<(), FollowError> {
        self.errors.clear();
        let mut old = std::mem::take(&mut self.nodes);
        for node in std::fs::read_dir(&self.root).map_err(|e| fail(&self.root, e))? {
            let node = node.map_err(|e| fail(&self.root, e))?;
            match node.file_type() {
                Ok(kind) if kind.is_dir() => {}
                Ok(kind) if kind.is_symlink() => {
                    self.errors.push((node.path(), LINK));
                    continue;
                }
                _ => continue,
            }
            match node.file_name().into_string() {
                Ok(name) => {
                    let known = old.remove(&name).unwrap_or_default();
                    self.nodes.insert(name, known);
                }
                Err(_) => self.errors.push((node.path(), NOT_TEXT)),
            }
        }
        Ok(())
    }
}

impl Node {
    /// Says whether it looked at all journals.
    fn look(&mut self, path: &Path, name: &str, everything: bool) -> io::Result<bool> {
        let now = changed(&std::fs::metadata(path)?);
        if everything || now != self.changed {
            self.list(path, name)?;
            self.changed = now;
            return Ok(true);
        }
        let newest = self.files.iter_mut().max_by_key(|f| f.journal.changed);
        if let Some(file) = newest
            && let Some(base) = file.journal.name.split('/').nth(1)
            && let Ok(meta) = std::fs::symlink_metadata(path.join(base))
        {
            file.see(&meta);
        }
        Ok(false)
    }

    fn list(&mut self, path: &Path, name: &str) -> io::Result<()> {
        let listing = std::fs::read_dir(path)?;
        self.errors.clear();
        let known: BTreeMap<String, File> =
            std::mem::take(&mut self.files).into_iter().map(|f| (f.journal.name.clone(), f)).collect();
        let mut known = known;
        for entry in listing.flatten() {
            let raw = entry.file_name();
            let raw = raw.as_encoded_bytes();
            if raw.starts_with(b".") || !ENDINGS.iter().any(|end| raw.ends_with(end.as_bytes())) {
                continue;
            }
            let Ok(base) = entry.file_name().into_string() else {
                self.errors.push((entry.path(), Why::Fixed(NOT_TEXT)));
                continue;
            };
            match entry.metadata() {
                Ok(meta) if meta.is_file() => {
                    let full = format!("{name}/{base}");
                    let mut file = known.remove(&full).unwrap_or_else(|| File::new(full));
                    file.see(&meta);
                    self.files.push(file);
                }
                Ok(meta) if meta.is_symlink() => self.errors.push((entry.path(), Why::Fixed(LINK))),
                Ok(_) => self.errors.push((entry.path(), Why::Fixed(NO_FILE))),
                // Gone between the listing and the look: compressed or expired.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => self.errors.push((entry.path(), Why::System(e))),
            }
        }
        self.files.sort_by(|a, b| a.journal.name.cmp(&b.journal.name));
        Ok(())
    }
}

impl File {
    fn new(name: String) -> File {
        File { journal: Journal { name, size: 0, file: (0, 0), changed: i64::MIN }, told: false }
    }

    fn see(&mut self, meta: &std::fs::Metadata) {
        let now = (meta.len(), (meta.dev(), meta.ino()), changed(meta));
        let journal = &mut self.journal;
        if (journal.size, journal.file, journal.changed) != now {
            (journal.size, journal.file, journal.changed) = now;
            self.told = false;
        }
    }
}

const LINK: &str = "it is a symbolic link; links are not followed, move the journal itself here";
pub(super) const NO_FILE: &str = "it is no regular file; remove it";
const NOT_TEXT: &str = "its name is not UTF-8; rename it";

/// Endings of journals, as written and as somebody may have compressed them.
const ENDINGS: [&str; 3] = [".jsonl", ".jsonl.zst", ".jsonl.gz"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(watch: &mut Watch, everything: bool) -> Vec<String> {
        watch.look(everything).unwrap().journals.into_iter().map(|j| j.name).collect()
    }

    #[test]
    fn only_what_changed_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let append = |name: &str| {
            let path = dir.path().join(name);
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(b"x\n").unwrap();
        };
        for node in ["n1", "n2"] {
            std::fs::create_dir(dir.path().join(node)).unwrap();
            append(&format!("{node}/1.jsonl"));
            append(&format!("{node}/2.jsonl"));
        }
        let mut watch = Watch::new(dir.path());
        assert_eq!(names(&mut watch, false), ["n1/1.jsonl", "n1/2.jsonl", "n2/1.jsonl", "n2/2.jsonl"]);
        assert!(names(&mut watch, false).is_empty());
        append("n2/2.jsonl");
        assert_eq!(names(&mut watch, false), ["n2/2.jsonl"]);
        // An old journal is seen when everything is looked at.
        append("n1/1.jsonl");
        append("n1/2.jsonl");
        names(&mut watch, false);
        assert!(names(&mut watch, true).len() <= 1);
        append("n1/3.jsonl");
        assert_eq!(names(&mut watch, true), ["n1/3.jsonl"]);
        std::fs::create_dir(dir.path().join("n3")).unwrap();
        append("n3/1.jsonl");
        assert_eq!(names(&mut watch, true), ["n3/1.jsonl"]);
        let (found, _) = find(dir.path()).unwrap();
        watch.again(&found[0]);
        assert_eq!(names(&mut watch, true), ["n1/1.jsonl"]);
        std::fs::remove_dir_all(dir.path().join("n1")).unwrap();
        assert!(names(&mut watch, true).is_empty());
    }

    #[test]
    fn every_node_has_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        for node in ["n1", "n2", "n3", "n4"] {
            std::fs::create_dir(dir.path().join(node)).unwrap();
            std::fs::write(dir.path().join(node).join("1.jsonl"), "x\n").unwrap();
            std::fs::write(dir.path().join(node).join("2.jsonl"), "x\n").unwrap();
        }
        let mut watch = Watch::new(dir.path());
        assert_eq!(names(&mut watch, false).len(), 8);
        let mut listed = BTreeSet::new();
        for _ in 0..2 {
            watch.turn.since = Instant::now().checked_sub(EVERYTHING / 2).unwrap();
            let some = watch.look(false).unwrap().listed;
            assert!(some.len() >= 2, "{some:?}");
            listed.extend(some);
        }
        assert_eq!(listed.len(), 4);
        // Only these are looked at; what is known of others stays.
        std::fs::write(dir.path().join("n2/2.jsonl"), "x\nx\n").unwrap();
        std::fs::write(dir.path().join("n3/2.jsonl"), "x\nx\n").unwrap();
        let look = watch.look_at(BTreeSet::from(["n3".to_owned(), "gone".to_owned()]));
        assert_eq!(look.journals.iter().map(Journal::node).collect::<Vec<_>>(), ["n3"]);
        assert_eq!(names(&mut watch, false), ["n2/2.jsonl"]);
    }
}
