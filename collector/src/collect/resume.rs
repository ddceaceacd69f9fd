/*!
Takes up what the last collector committed, or this one before it set runs aside.
*/

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{CollectError, Collector};
use crate::follow::Watch;
use crate::ledger::{Changes, Output};
use crate::store::{EVENTS, run_dir};

impl Collector {
    /// Takes up what is committed. What cannot be used of single runs is set aside.
    pub(super) fn load(&mut self) -> Result<(), CollectError> {
        loop {
            let known = self.count_aside();
            match self.load_all() {
                Err(CollectError::Store(e))
                    if self.aside.note(&self.options.store, &e) && self.count_aside() > known => {}
                done => return done,
            }
        }
    }

    fn load_all(&mut self) -> Result<(), CollectError> {
        self.forget();
        self.removed_runs += self.cut_back()?;
        self.positions = self.ledger.journals()?.into_iter().collect();
        self.last_run = self.ledger.last_run()?;
        self.news_since = self.ledger.cursor()?;
        for row in self.ledger.open_jobs()? {
            if !self.is_aside(row.run)? {
                self.load_job(row)?;
            }
        }
        for id in self.ledger.stale_runs()? {
            if !self.is_aside(id)? {
                self.load_run(id)?;
            }
        }
        let closing = self.runs.values().filter(|r| r.head.closing.is_some()).map(|r| r.id);
        self.closing = closing.collect();
        self.load_held()
    }

    /// Forgets what is of a store, and of what was read since the last commit.
    /// Numbers of clusters stay: an answer of Slurm may have them.
    fn forget(&mut self) {
        self.news = None;
        self.news_due = None;
        self.moved.clear();
        self.forgotten.clear();
        self.streams.clear();
        self.jobs.clear();
        self.changed.clear();
        self.ending.clear();
        self.runs.clear();
        self.run_names.clear();
        self.alike.clear();
        self.touched.clear();
        self.boot = (u16::MAX, "".into(), "".into());
        self.boots.clear();
        self.brought_back.clear();
        self.closing.clear();
        self.others.clear();
        self.held.clear();
        self.released.clear();
        self.forget_waiting();
        self.read = 0;
        self.put = None;
        self.watch = Watch::new(&self.options.journal);
        self.grown.clear();
    }

    /// Cuts every file of the store back to its committed length, and forgets
    /// runs whose directory was moved away: how many.
    fn cut_back(&mut self) -> Result<u64, CollectError> {
        let mut gone = Vec::new();
        let (appender, aside, store) = (&self.appender, &mut self.aside, &self.options.store);
        self.ledger.lengths(|file, length| -> Result<(), CollectError> {
            let (path, replaced) = match file {
                Output::Run(cluster, user, run_id) => (run_dir(cluster, user, run_id).join(EVENTS), Ok(())),
                Output::Other(path) => {
                    (PathBuf::from(path), appender.finish_replacement(Path::new(path), length))
                }
            };
            match replaced.and_then(|()| appender.cut_back(&path, length)) {
                Ok(true) => {}
                Ok(false) => gone.push(match file {
                    Output::Run(cluster, user, run_id) => Ok((cluster.into(), user.into(), run_id.into())),
                    Output::Other(path) => Err(path.to_owned()),
                }),
                Err(e) if aside.note(store, &e) => {}
                Err(e) => return Err(e.into()),
            }
            Ok(())
        })?;
        // Its user is told of it no more. Before the ledger forgets it, so that a crash leaves this to the next start.
        let users: BTreeSet<(String, String)> = gone
            .iter()
            .flatten()
            .filter(|run| !self.is_named_aside(run))
            .map(|run| (run.0.clone(), run.1.clone()))
            .collect();
        for user in users {
            self.shorten_registry(&user)?;
        }
        let mut removed = 0;
        for file in gone {
            match file {
                Ok(run) => {
                    let (cluster, user, id) = &run;
                    tracing::warn!(
                        cluster,
                        user,
                        run = id,
                        "its directory is gone; the collector goes on without this run"
                    );
                    self.ledger.forget_run(&run)?;
                    if let Some(indexer) = &self.indexer {
                        indexer.tell([(run, 0)]);
                    }
                    removed += 1;
                }
                Err(path) => {
                    let outputs = vec![(path, 0)];
                    self.ledger.put(&Changes { outputs, ..Changes::default() })?;
                    self.ledger.commit()?;
                }
            }
        }
        Ok(removed)
    }
}
