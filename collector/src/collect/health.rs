/*!
What the collector met beside events: in which journals, how often.

The ledger belongs to the running collector alone, so this is also written to
[`HEALTH`] in the store, for everybody else who wants to know.
*/

use std::path::Path;
use std::time::{Duration, Instant};

use inquest_journal::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CollectError, Collector};
use crate::ledger::Counts;

/// File of the collector's health, in the store.
pub const HEALTH: &str = "health.json";

/// Between two looks, so that it costs nothing.
const EVERY: Duration = Duration::from_secs(5);

/// The file is written so often even when nothing has changed, so that its
/// age says that the collector works.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

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
        let gaps = self.ledger.gaps()?;
        let journals = self.ledger.oddities()?.into_iter().take(LISTED);
        let unreadable =
            self.unreadable.iter().map(|(path, why)| (path.to_string_lossy().into_owned(), why.clone()));
        Ok(Health {
            schema: 1,
            at: None,
            totals: self.ledger.totals()?.into(),
            lost: gaps.iter().fold(0, |sum, (_, _, lost)| sum.saturating_add(*lost)),
            journals: journals.map(|(name, met)| JournalHealth { name, met: met.into() }).collect(),
            gaps: gaps
                .into_iter()
                .take(LISTED)
                .map(|(node, stream, lost)| Gap { node, stream, lost })
                .collect(),
            unreadable: unreadable.collect(),
        })
    }

    /// Writes it down, now and then; `now` in any case.
    pub(super) fn tell_health(&mut self, now: bool) -> Result<(), CollectError> {
        if !now && Instant::now() < self.health_due {
            return Ok(());
        }
        self.health_due = Instant::now() + EVERY;
        let health = self.health()?;
        let at = Timestamp(jiff::Timestamp::now().as_microsecond());
        // A clock that was set back makes it due, too.
        let beat = i64::try_from(HEARTBEAT.as_micros()).unwrap_or(i64::MAX);
        let due = self.health.at.is_none_or(|last| !(0..beat).contains(&at.since(last)));
        if now || due || health != (Health { at: None, ..self.health.clone() }) {
            let health = Health { at: Some(at), ..health };
            let text = serde_json::to_vec(&health).unwrap_or_default();
            self.appender.replace(Path::new(""), Path::new(HEALTH), &text)?;
            self.health = health;
        }
        Ok(())
    }
}
