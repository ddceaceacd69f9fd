//! Journals that are gone need not be remembered: what was seen of their streams is, so one that comes back is
//! merged no second time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Collector;
use crate::follow::Look;

/// A journal that is gone for so long is forgotten. One that is only being moved or compressed is soon back.
const GRACE: Duration = Duration::from_secs(86_400);

impl Collector {
    /// Forgets journals that are long gone, of the nodes of which all were listed.
    pub(super) fn forget_gone(&mut self, look: &Look, now: Instant) {
        for node in &look.listed {
            let there: BTreeSet<&str> = self.watch.journals(node).collect();
            // Behind the slash comes the digit 0.
            let known = self.positions.range(format!("{node}/")..format!("{node}0"));
            let mut long = Vec::new();
            for (name, _) in known {
                if there.contains(name.as_str()) {
                    self.gone.remove(name);
                } else if now.saturating_duration_since(*self.gone.entry(name.clone()).or_insert(now))
                    >= GRACE
                {
                    long.push(name.clone());
                }
            }
            for name in long {
                self.gone.remove(&name);
                self.positions.remove(&name);
                self.forgotten.push(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use inquest_journal::{Body, Header, Identity, JobId, Note, Severity, Source, Stamp, StepId, encode};

    use super::super::Options;
    use super::*;

    fn write(journal: &Path, day: &str, seq: u64) {
        let identity = Identity::new("lab", "n1", "0badc0de", 7, 0);
        let header = Header {
            stamp: Stamp::now(),
            severity: Severity::Info,
            source: Source::User,
            cluster: "lab",
            node: "n1",
            boot: "0badc0de",
            stream: identity.stream(),
            seq,
            job_id: Some(JobId(7)),
            step: Some(StepId::Batch),
            task: None,
        };
        let mut line = Vec::new();
        encode(&mut line, &header, &Body::from(Note::default()));
        std::fs::create_dir_all(journal.join("n1")).unwrap();
        std::fs::write(journal.join("n1").join(day), line).unwrap();
    }

    #[test]
    fn a_journal_that_is_long_gone_is_forgotten_and_not_merged_when_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, store) = (dir.path().join("journal"), dir.path().join("store"));
        let open = || {
            let options =
                Options { journal: journal.clone(), store: store.clone(), quiet: Duration::from_secs(1) };
            Collector::open(options, None).unwrap()
        };
        let names = |c: &Collector| c.positions.keys().cloned().collect::<Vec<_>>();
        write(&journal, "2026-11-20.jsonl", 0);
        write(&journal, "2026-11-21.jsonl", 1);
        let mut collector = open();
        assert_eq!(collector.pass(true).unwrap().events, 2);
        let away = dir.path().join("away");
        let old = journal.join("n1/2026-11-20.jsonl");
        std::fs::rename(&old, &away).unwrap();
        let now = Instant::now();
        for (hours, known) in [(0, 2), (23, 2), (24, 1)] {
            let look = collector.look_around(true).unwrap();
            collector.forget_gone(&look, now + Duration::from_secs(hours * 3600));
            assert_eq!(names(&collector).len(), known, "{hours}");
        }
        collector.pass(true).unwrap();
        drop(collector);
        let mut collector = open();
        assert_eq!(names(&collector), ["n1/2026-11-21.jsonl"]);
        std::fs::rename(&away, &old).unwrap();
        let stats = collector.pass(true).unwrap();
        assert_eq!((stats.events, stats.copies), (0, 1));
    }
}
