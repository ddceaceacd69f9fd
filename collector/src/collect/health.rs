/*!
What the collector met beside events: in which journals, how often.

The ledger belongs to the running collector alone, so this is also written to
[`HEALTH`] in the store, for everybody else who wants to know.
*/

use std::path::Path;
use std::time::{Duration, Instant};

use inquest_journal::Timestamp;
use serde::{Deserialize, Serialize};

use super::asker::Asker;
use super::daemon::now;
use super::{CollectError, Collector};
use crate::ledger::Counts;

/// File of the collector's health, in the store.
pub const HEALTH: &str = "health.json";

/// Between two looks, so that it costs nothing.
const EVERY: Duration = Duration::from_secs(5);

/// The file is written so often even when nothing has changed, so that its
/// age says that the collector works.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Streams with gaps are looked through no more often than so many times as long as that takes.
const GAPS_SHARE: u32 = 200;

/// Journals and streams that are listed; the sums are over all.
const LISTED: usize = 1000;

/// What was met over all time, and what cannot be read now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Version of this form.
    pub schema: u32,
    /// When the collector last said so: it says it every [`HEARTBEAT`] while
    /// it works. Absent in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Over all journals.
    pub totals: Oddities,
    /// Events that have a number but never came.
    pub lost: u64,
    /// Journals with something other than new events in them.
    pub journals: Vec<JournalHealth>,
    /// Streams with events that never came.
    pub gaps: Vec<Gap>,
    /// Journals that could not be read in the last pass, and why.
    pub unreadable: Vec<(String, String)>,
    /// Runs and users, below the store, that are set aside because they cannot be written, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<(String, String)>,
    /// The daemon at work; absent when the collector was run once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<Daemon>,
}

/// What a collector has done since it was started. Written every five seconds:
/// when `updated` is older, it hangs or is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it was started.
    pub started: Timestamp,
    /// When this was written.
    pub updated: Timestamp,
    /// Looks at all journals.
    pub passes: u64,
    /// Events merged.
    pub events: u64,
    /// Bytes of journals read.
    pub bytes: u64,
    /// Lines that are no events.
    pub bad: u64,
    /// Lines that had been merged before.
    pub copies: u64,
    /// Runs that it goes on without: their directories were gone.
    #[serde(default)]
    pub removed_runs: u64,
    /// Jobs judged.
    pub judged: u64,
    /// Why Slurm gave no answer when it was asked last, where it was so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slurm_silent: Vec<String>,
    /// Jobs without a verdict, now.
    pub open_jobs: u64,
    /// Lines that wait until it is known which run they belong to, or for a run that is set aside, now.
    pub held_lines: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// How long the last one took, in microseconds, the disk included.
    pub checkpoint_last_us: u64,
    /// How long the longest one took.
    pub checkpoint_longest_us: u64,
    /// How long all of them took together.
    pub checkpoint_sum_us: u64,
    /// How long the last look at the journals took.
    pub look_us: u64,
    /// Nodes that have said something since.
    pub nodes_seen: u64,
    /// The nodes among them whose newest event came latest, or most before its time.
    pub nodes: Vec<NodeSeen>,
}

/// A node that has said something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSeen {
    /// Its name.
    pub node: String,
    /// Time of its newest event, by its own clock.
    pub newest: Timestamp,
    /// How long after that, by our clock, the event that came last was read,
    /// in milliseconds. Negative when its clock is ahead.
    pub delay_ms: i64,
}

/// How often what was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oddities {
    /// Lines that are no events: torn, overwritten, too long, and archives
    /// that are damaged.
    pub bad: u64,
    /// Lines of a newer schema version; merged as far as they are understood.
    pub newer: u64,
    /// Lines that had been merged before.
    pub copies: u64,
    /// Lines of another node than the directory that they lie in; merged.
    pub foreign_node: u64,
}

impl From<Counts> for Oddities {
    fn from(counts: Counts) -> Oddities {
        let Counts { bad, newer, copies, foreign_node } = counts;
        Oddities { bad, newer, copies, foreign_node }
    }
}

/// What was met in one journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHealth {
    /// Path below the journal directory.
    pub name: String,
    /// How often what.
    #[serde(flatten)]
    pub met: Oddities,
}

/// Events of a stream that never came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The node.
    pub node: String,
    /// The stream.
    pub stream: String,
    /// How many.
    pub lost: u64,
}

impl Collector {
    /// What was met so far, as committed.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn health(&self) -> Result<Health, CollectError> {
        self.health_with(self.gaps()?)
    }

    /// Events that never came, and where.
    fn gaps(&self) -> Result<(u64, Vec<Gap>), CollectError> {
        let gaps = self.ledger.gaps()?;
        let lost = gaps.iter().fold(0u64, |sum, (_, _, lost)| sum.saturating_add(*lost));
        let gap = |(node, stream, lost)| Gap { node, stream, lost };
        Ok((lost, gaps.into_iter().take(LISTED).map(gap).collect()))
    }

    fn health_with(&self, (lost, gaps): (u64, Vec<Gap>)) -> Result<Health, CollectError> {
        let journals = self.ledger.oddities()?.into_iter().take(LISTED);
        let unreadable =
            self.unreadable.iter().map(|(path, why)| (path.to_string_lossy().into_owned(), why.clone()));
        let aside = self.aside.places().take(LISTED);
        Ok(Health {
            schema: 1,
            at: None,
            totals: self.ledger.totals()?.into(),
            lost,
            journals: journals.map(|(name, met)| JournalHealth { name, met: met.into() }).collect(),
            gaps,
            unreadable: unreadable.collect(),
            aside: aside.map(|(place, why)| (place.to_string_lossy().into_owned(), why.clone())).collect(),
            daemon: self.daemon(),
        })
    }

    fn daemon(&self) -> Option<Daemon> {
        let watchman = self.watchman.as_ref()?;
        let mut nodes: Vec<&NodeSeen> = watchman.nodes.values().collect();
        let far = |n: &NodeSeen| std::cmp::Reverse(n.delay_ms.unsigned_abs());
        nodes.sort_by(|a, b| far(a).cmp(&far(b)).then(a.node.cmp(&b.node)));
        Some(Daemon {
            updated: now(),
            removed_runs: self.removed_runs,
            slurm_silent: self.accounting.iter().flat_map(Asker::failed).cloned().collect(),
            open_jobs: self.jobs.values().filter(|j| j.open).count() as u64,
            held_lines: self.held.values().map(|h| h.rows.len() as u64).sum::<u64>() + self.aside.lines,
            look_us: u64::try_from(self.looked.as_micros()).unwrap_or(u64::MAX),
            nodes_seen: nodes.len() as u64,
            nodes: nodes.into_iter().take(LISTED).cloned().collect(),
            ..watchman.seen.clone()
        })
    }

    /// Writes it down, now and then; `now` in any case.
    pub(super) fn tell_health(&mut self, now: bool) -> Result<(), CollectError> {
        if !now && Instant::now() < self.health_due {
            return Ok(());
        }
        self.health_due = Instant::now() + EVERY;
        let began = Instant::now();
        let gaps = match now || began >= self.gaps_due {
            true => {
                let gaps = self.gaps()?;
                self.gaps_due = Instant::now() + began.elapsed() * GAPS_SHARE;
                gaps
            }
            false => (self.health.lost, self.health.gaps.clone()),
        };
        let health = self.health_with(gaps)?;
        let at = Timestamp(jiff::Timestamp::now().as_microsecond());
        // A clock that was set back makes it due, too.
        let beat = i64::try_from(HEARTBEAT.as_micros()).unwrap_or(i64::MAX);
        let due = self.health.at.is_none_or(|last| !(0..beat).contains(&at.since(last)));
        if now || due || health != (Health { at: None, ..self.health.clone() }) {
            let health = Health { at: Some(at), ..health };
            let text = serde_json::to_vec(&health).unwrap_or_default();
            self.appender.tell(Path::new(HEALTH), &text)?;
            self.tell_manager();
            self.health = health;
        }
        Ok(())
    }
}
