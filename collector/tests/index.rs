//! The index against the stores that it was made from: however it came to be,
//! it holds the same, and every question has the answer that reading all
//! attempts gives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inquest::collect::{Collector, Options};
use inquest::slurm::target::Target;
use inquest::store::index::{
    Counts, Filter, Group, Index, IndexError, JobEntry, RunEntry, Standing, Visible, Writer, catch_up,
    rebuild,
};
use inquest::verdict::Class;
use inquest_journal::{JobId, Timestamp};
use inquest_tests::generate::{Plan, generate};
use inquest_tests::random::Random;

const EVERYTHING: usize = 100_000;

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new(jobs: u32, days: u32, seed: u64) -> Site {
        let dir = tempfile::tempdir().unwrap();
        generate(&Plan { nodes: 30, jobs, days, runs: None, seed }, &dir.path().join("whole")).unwrap();
        let site = Site { dir };
        fs::create_dir(site.journal()).unwrap();
        site
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Lets every journal grow to this share of what it will be.
    fn grow(&self, percent: usize) {
        for node in fs::read_dir(self.dir.path().join("whole")).unwrap() {
            let node = node.unwrap();
            let to = self.journal().join(node.file_name());
            fs::create_dir_all(&to).unwrap();
            for file in fs::read_dir(node.path()).unwrap() {
                let file = file.unwrap();
                let bytes = fs::read(file.path()).unwrap();
                fs::write(to.join(file.file_name()), &bytes[..bytes.len() * percent / 100]).unwrap();
            }
        }
    }

    fn collect(&self, last: bool) {
        let options = Options { journal: self.journal(), store: self.store(), quiet: Duration::from_secs(1) };
        Collector::open(options, None).unwrap().pass(last).unwrap();
    }

    fn whole(jobs: u32, days: u32, seed: u64) -> Site {
        let site = Site::new(jobs, days, seed);
        site.grow(100);
        site.collect(true);
        site.index();
        site
    }

    fn index(&self) -> Index {
        catch_up(&mut Writer::open(&self.store()).unwrap(), &mut go_on).unwrap();
        Index::open(&self.store()).unwrap()
    }
}

fn go_on(_: inquest::store::index::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Everything that a reader can see, without the numbers of rows.
fn content(index: &Index) -> (Vec<RunEntry>, Vec<JobEntry>, Vec<Vec<Counts>>) {
    let mut runs = index.runs(&Filter::default(), EVERYTHING).unwrap();
    runs.iter_mut().for_each(|r| r.id = 0);
    runs.sort_by(|a, b| (&a.user, &a.run_id).cmp(&(&b.user, &b.run_id)));
    let mut jobs = index.jobs(&Filter { open: Some(false), ..Filter::default() }, EVERYTHING).unwrap();
    jobs.iter_mut().for_each(|j| j.id = 0);
    jobs.sort_by_key(|j| (j.run_id.clone(), j.chunk_id, j.entry.attempt));
    let groups = [
        Group::All,
        Group::Day,
        Group::User,
        Group::Account,
        Group::Partition,
        Group::Node,
        Group::Fingerprint,
    ];
    let counts = groups.map(|g| {
        let mut counts = index.count(&Filter::default(), g, EVERYTHING).unwrap();
        counts.sort_by(|a, b| a.key.cmp(&b.key));
        counts
    });
    (runs, jobs, counts.into())
}

#[test]
fn growing_with_the_stores_or_made_from_them_at_once_it_is_the_same() {
    let mut requeued = 0;
    for seed in [1, 2] {
        let site = Site::new(300, 3, seed);
        for percent in [10, 35, 36, 70, 100] {
            site.grow(percent);
            site.collect(percent == 100);
            let _ = site.index();
        }
        let grown = content(&site.index());
        assert!(grown.1.len() >= 300, "seed {seed}");
        requeued += grown.1.iter().filter(|j| j.entry.attempt > 1).count();
        rebuild(&mut Writer::open(&site.store()).unwrap(), &mut go_on).unwrap();
        let made = content(&Index::open(&site.store()).unwrap());
        assert_eq!(grown.0, made.0, "runs, seed {seed}");
        assert_eq!(grown.1, made.1, "jobs, seed {seed}");
        assert_eq!(grown.2, made.2, "sums, seed {seed}");
    }
    assert!(requeued > 0, "a job with several attempts was among them");
}

#[test]
fn every_job_of_the_stores_is_in_it_as_run_json_has_it() {
    let site = Site::whole(300, 2, 5);
    let index = Index::open(&site.store()).unwrap();
    let mut seen = 0;
    for run in index.runs(&Filter::default(), EVERYTHING).unwrap() {
        let dir = site.store().join(&run.cluster).join(&run.user).join("runs").join(&run.run_id);
        let text = fs::read(dir.join("run.json")).unwrap();
        let state: inquest::runs::RunState = serde_json::from_slice(&text).unwrap();
        assert_eq!((run.members as usize, run.status), (state.members.len(), state.status), "{}", run.run_id);
        assert_eq!((&run.classes, run.failed), (&state.classes, state.failed()), "{}", run.run_id);
        assert_eq!((run.key, run.last), (Some(state.key.clone()), state.last), "{}", run.run_id);
        assert_eq!(run.length, fs::metadata(dir.join("events.jsonl")).unwrap().len());
        let events = fs::read(dir.join("events.jsonl")).unwrap();
        let target = Target::Run(run.run_id.clone());
        let located = index.locate(&target, Some(&run.cluster), Some(&run.user)).unwrap();
        let [(_, places)] = located.as_slice() else { panic!("{located:?}") };
        assert_eq!(places.len(), state.members.len());
        for place in places {
            let member = &state.members[&place.chunk];
            assert_eq!((place.job_id, place.attempts), (member.job_id, member.attempts));
            assert_eq!((place.started, place.last), (member.started, member.last));
            assert_eq!(place.range.1, member.range.1);
            let verdict = place.verdict.map(|(at, n)| &events[at as usize..at as usize + n as usize]);
            let verdict = verdict.map(|text| serde_json::from_slice(text).unwrap());
            assert_eq!(verdict, member.verdict);
            let own: usize = place.extents.iter().map(|(_, n)| *n as usize).sum();
            let lines = own_lines(&events, member.job_id);
            assert_eq!(own, lines, "job {} of {}", member.job_id, run.run_id);
            seen += 1;
        }
    }
    assert_eq!(seen, 300);
}

/// Bytes of the lines of a job that the collector did not add.
fn own_lines(events: &[u8], job: JobId) -> usize {
    let wanted = format!(",\"job_id\":\"{job}\"");
    let text = std::str::from_utf8(events).unwrap();
    let own =
        text.split_inclusive('\n').filter(|l| l.contains(&wanted) && !l.contains("\"source\":\"collector\""));
    own.map(str::len).sum()
}

/// What a filter means, said again without SQL.
fn model(job: &JobEntry, f: &Filter) -> bool {
    let is =
        |wanted: &Option<String>, value: Option<&str>| wanted.as_deref().is_none_or(|w| Some(w) == value);
    let end = job.entry.end.as_ref();
    is(&f.cluster, Some(&job.cluster))
        && is(&f.user, Some(&job.user))
        && is(&f.account, job.entry.account.as_deref())
        && is(&f.partition, job.entry.partition.as_deref())
        && is(&f.name, job.entry.name.as_deref())
        && is(&f.run_id, Some(&job.run_id))
        && is(&f.cause, end.map(|e| e.cause.as_str()))
        && is(&f.fingerprint, end.and_then(|e| e.fingerprint.as_deref()))
        && f.node.as_ref().is_none_or(|n| job.entry.nodes.contains(n))
        && f.since.is_none_or(|t| job.ended().is_none_or(|e| e >= t))
        && f.until.is_none_or(|t| job.ended().is_some_and(|e| e < t))
        && (f.classes.is_empty() || job.class().is_some_and(|c| f.classes.contains(&c)))
        && (!f.failed || job.class().is_some_and(|c| c != Class::Ok))
        && f.open.is_none_or(|open| job.class().is_none() == open)
        && f.visible.as_ref().is_none_or(|v| {
            v.user == job.user || job.entry.account.as_ref().is_some_and(|a| v.accounts.contains(a))
        })
}

/// A filter made of values that jobs have, and some that none has.
fn any_filter(random: &mut Random, jobs: &[JobEntry]) -> Filter {
    let mut f = Filter::default();
    let pick = |random: &mut Random| jobs[random.below(jobs.len() as u64) as usize].clone();
    for _ in 0..=random.below(3) {
        let job = pick(random);
        let end = job.entry.end.as_ref();
        match random.below(15) {
            0 => f.user = Some(job.user),
            13 => {
                let accounts = (0..random.below(4)).filter_map(|_| pick(random).entry.account).collect();
                f.visible = Some(Visible { user: job.user, accounts });
            }
            1 => f.account = job.entry.account,
            2 => f.partition = job.entry.partition,
            3 => f.node = job.entry.nodes.first().cloned(),
            4 => f.name = job.entry.name,
            5 => f.run_id = Some(job.run_id),
            6 => f.cause = end.map(|e| e.cause.clone()),
            7 => f.fingerprint = end.and_then(|e| e.fingerprint.clone()),
            8 => f.since = Some(Timestamp(job.entry.last.0 - random.below(2).cast_signed())),
            9 => f.until = Some(Timestamp(job.entry.last.0 + random.below(2).cast_signed())),
            10 => f.classes.extend(job.class()),
            11 => f.failed = true,
            12 => f.open = Some(random.percent(30)),
            _ => f.cluster = Some(if random.percent(90) { job.cluster } else { "nowhere".into() }),
        }
    }
    f
}

#[test]
fn every_question_has_the_answer_that_reading_all_gives() {
    let site = Site::whole(300, 4, 9);
    let index = Index::open(&site.store()).unwrap();
    let all = index.jobs(&Filter::default(), EVERYTHING).unwrap();
    let mut random = Random::new(77);
    let mut met = 0;
    for n in 0..300 {
        let filter = any_filter(&mut random, &all);
        let found = index.jobs(&filter, EVERYTHING).unwrap();
        let right: Vec<JobEntry> = all.iter().filter(|j| model(j, &filter)).cloned().collect();
        assert_eq!(found, right, "question {n}: {filter:?}");
        met += found.len();

        let mut pages: Vec<JobEntry> = Vec::new();
        loop {
            let before = pages.last().map(|j| (j.ended(), j.id));
            let page = index.jobs(&Filter { before, ..filter.clone() }, 37).unwrap();
            if page.is_empty() {
                break;
            }
            pages.extend(page);
        }
        assert_eq!(pages, right, "pages of question {n}: {filter:?}");

        // Those of one run, in the order of their numbers.
        let run = &all[random.below(all.len() as u64) as usize];
        let of_run = Filter {
            cluster: Some(run.cluster.clone()),
            user: Some(run.user.clone()),
            run_id: Some(run.run_id.clone()),
            visible: filter.visible.clone(),
            ..Filter::default()
        };
        let from = random.below(4) as u32;
        let mut members: Vec<JobEntry> =
            all.iter().filter(|j| model(j, &of_run) && j.chunk_id >= from).cloned().collect();
        members.sort_by_key(|j| (j.chunk_id, j.entry.attempt));
        let numbers: BTreeSet<u32> = all.iter().filter(|j| model(j, &of_run)).map(|j| j.chunk_id).collect();
        assert_eq!(index.members(&of_run, from, EVERYTHING).unwrap(), members, "{of_run:?}");
        let (first, last) = (numbers.first().copied().unwrap_or(0), numbers.last().copied().unwrap_or(0));
        assert_eq!(index.member_numbers(&of_run, first..=last).unwrap(), numbers, "{of_run:?}");
        let inner = numbers.iter().copied().filter(|n| *n > first && *n < last).collect();
        assert_eq!(
            index.member_numbers(&of_run, first + 1..=last.saturating_sub(1)).unwrap(),
            inner,
            "{of_run:?}"
        );
        let mut last: BTreeMap<u32, &JobEntry> = BTreeMap::new();
        for job in all.iter().filter(|j| model(j, &of_run)) {
            let newest = last.entry(job.chunk_id).or_insert(job);
            if job.entry.attempt > newest.entry.attempt {
                *newest = job;
            }
        }
        let (mut classes, mut running) = (BTreeMap::new(), 0);
        for job in last.values() {
            match job.class() {
                Some(class) => *classes.entry(class).or_insert(0) += 1,
                None => running += 1,
            }
        }
        assert_eq!(index.come_to(&of_run).unwrap(), (classes, running), "{of_run:?}");

        let group = [
            Group::All,
            Group::Day,
            Group::Hour,
            Group::Cluster,
            Group::User,
            Group::Account,
            Group::Partition,
            Group::Node,
            Group::Cause,
            Group::Fingerprint,
        ][random.below(10) as usize];
        let counts = index.count(&filter, group, EVERYTHING).unwrap();
        let counts: BTreeMap<String, BTreeMap<Class, i64>> =
            counts.into_iter().map(|c| (c.key, c.jobs)).filter(|(_, jobs)| !jobs.is_empty()).collect();
        assert_eq!(counts, count(&right, &filter, group), "{group:?} of question {n}: {filter:?}");
    }
    assert!(met > 1000, "the questions were about something: {met}");
}

fn count(jobs: &[JobEntry], filter: &Filter, group: Group) -> BTreeMap<String, BTreeMap<Class, i64>> {
    let mut sums: BTreeMap<String, BTreeMap<Class, i64>> = BTreeMap::new();
    for job in jobs {
        let Some(end) = &job.entry.end else { continue };
        let floor = |us: i64| (end.ended.0 - end.ended.0 % us).to_string();
        let keys: Vec<String> = match group {
            Group::All => vec![String::new()],
            Group::Day => vec![floor(86_400_000_000)],
            Group::Hour => vec![floor(3_600_000_000)],
            Group::Cluster => vec![job.cluster.clone()],
            Group::User => vec![job.user.clone()],
            Group::Account => vec![job.entry.account.clone().unwrap_or_default()],
            Group::Partition => vec![job.entry.partition.clone().unwrap_or_default()],
            Group::Node => {
                let here = |n: &&String| filter.node.as_ref().is_none_or(|w| w == *n);
                job.entry.nodes.iter().filter(here).cloned().collect()
            }
            Group::Cause => vec![end.cause.clone()],
            Group::Name => vec![job.entry.name.clone().unwrap_or_default()],
            Group::Fingerprint => end.fingerprint.iter().cloned().collect(),
        };
        for key in keys {
            *sums.entry(key).or_default().entry(end.class).or_default() += 1;
        }
    }
    sums
}

#[test]
fn a_job_is_found_by_every_way_of_naming_it() {
    let site = Site::whole(300, 1, 3);
    let index = Index::open(&site.store()).unwrap();
    let all = index.jobs(&Filter::default(), EVERYTHING).unwrap();
    let mut arrays = 0;
    for job in &all {
        let target: Target = job.display_id().parse().unwrap();
        let found = index.locate(&target, None, None).unwrap();
        let [(run, places)] = found.as_slice() else { panic!("{target:?}: {found:?}") };
        assert_eq!((&run.run_id, places.len(), places[0].chunk), (&job.run_id, 1, job.chunk_id));
        assert_eq!(index.place(run.id, job.chunk_id).unwrap().as_ref(), Some(&places[0]));
        if let Some(array) = job.array_job_id {
            arrays += 1;
            let whole = index.locate(&Target::Job { id: array, step: None }, None, None).unwrap();
            let members =
                all.iter().filter(|j| j.array_job_id == Some(array) && j.entry.attempt == 1).count();
            assert_eq!(whole[0].1.len(), members);
        }
    }
    assert!(arrays > 20, "{arrays}");
    let nobody = index.locate(&Target::Job { id: JobId(99_999), step: None }, None, None).unwrap();
    assert!(nobody.is_empty());
    assert!(index.locate(&Target::Run(all[0].run_id.clone()), None, Some("nobody")).unwrap().is_empty());
}

#[test]
fn runs_that_are_gone_or_cut_back_are_followed() {
    let site = Site::whole(200, 1, 4);
    let index = Index::open(&site.store()).unwrap();
    let runs = index.runs(&Filter::default(), EVERYTHING).unwrap();
    let dir = |r: &RunEntry| site.store().join(&r.cluster).join(&r.user).join("runs").join(&r.run_id);
    fs::remove_dir_all(dir(&runs[0])).unwrap();
    // As if a crash had cut it back to its first lines, and other ones came.
    let events = dir(&runs[1]).join("events.jsonl");
    let text = fs::read_to_string(&events).unwrap();
    let half: String = text.split_inclusive('\n').take(4).collect();
    fs::write(&events, half).unwrap();
    let grown = content(&site.index());
    rebuild(&mut Writer::open(&site.store()).unwrap(), &mut go_on).unwrap();
    assert_eq!(grown, content(&Index::open(&site.store()).unwrap()));
    assert_eq!(grown.0.len(), runs.len() - 1);
}

#[test]
fn what_is_no_index_is_said_and_made_anew() {
    let site = Site::whole(60, 1, 6);
    let path = site.store().join("index.db");
    let all = content(&Index::open(&site.store()).unwrap());

    // Another machine's.
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "application_id", 1).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(db);
    assert!(matches!(Index::open(&site.store()), Err(Standing::Elsewhere)));
    assert_eq!(content(&site.index()), all, "its own collector takes it up again");

    // A newer version's.
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 9).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(db);
    assert!(matches!(Index::open(&site.store()), Err(Standing::Version(9))));
    let said = Writer::open(&site.store()).unwrap_err().to_string();
    assert!(said.contains("version 9") && said.contains("delete"), "{said}");

    // Deleted, with and without what lies beside it.
    for name in ["index.db", "index.db-wal"] {
        let _ = fs::remove_file(site.store().join(name));
    }
    assert!(matches!(Index::open(&site.store()), Err(Standing::Absent)));
    assert_eq!(content(&site.index()), all);
    fs::remove_file(&path).unwrap();
    assert_eq!(content(&site.index()), all);

    // No database at all, and one with a hole in it.
    fs::write(&path, "this is no database, and longer than the head of one would be".repeat(9)).unwrap();
    assert!(Index::open(&site.store()).is_err());
    assert_eq!(content(&site.index()), all);
}

#[test]
fn one_that_is_being_built_is_not_asked() {
    let site = Site::whole(100, 1, 8);
    let mut writer = Writer::open(&site.store()).unwrap();
    let mut looks = 0;
    let stopped = rebuild(&mut writer, &mut |_| {
        looks += 1;
        assert!(matches!(Index::open(&site.store()), Err(Standing::Building)));
        ControlFlow::Break(())
    });
    assert!(stopped.is_ok() && looks == 1);
    drop(writer);
    assert!(matches!(Index::open(&site.store()), Err(Standing::Building)));
    let _ = site.index();
}

/// Runs that are in the store, the last name first.
fn names(site: &Site) -> Vec<(String, String, String)> {
    let store = inquest::store::Store::open(&site.store()).unwrap();
    let mut names: Vec<_> =
        store.runs(None, None).unwrap().into_iter().map(|r| (r.0, r.1, r.2.run_id)).collect();
    names.sort_by(|a, b| b.cmp(a));
    names
}

/// The collector keeps its index open while somebody makes it again: names have other numbers then.
#[test]
fn an_index_that_another_made_again_is_written_and_read_by_its_new_numbers() {
    let site = Site::new(200, 2, 21);
    site.grow(60);
    site.collect(false);
    let mut collector = Writer::open(&site.store()).unwrap();
    assert!(catch_up(&mut collector, &mut |_| ControlFlow::Break(())).is_ok());
    for name in names(&site) {
        collector.update([(name, None)]).unwrap();
    }
    catch_up(&mut collector, &mut go_on).unwrap();
    let reader = Index::open(&site.store()).unwrap();
    let before = content(&reader);
    rebuild(&mut Writer::open(&site.store()).unwrap(), &mut go_on).unwrap();
    assert_eq!(content(&reader), before, "what was open goes by the new numbers");

    site.grow(100);
    site.collect(true);
    for name in names(&site) {
        collector.update([(name, None)]).unwrap();
    }
    let followed = content(&reader);
    rebuild(&mut Writer::open(&site.store()).unwrap(), &mut go_on).unwrap();
    let made = content(&Index::open(&site.store()).unwrap());
    assert!(made.0.len() > before.0.len(), "some runs are new");
    assert_eq!(followed.0, made.0, "runs");
    assert_eq!(followed.1, made.1, "jobs");
    assert_eq!(followed.2, made.2, "sums");
}

/// What has ended while the index was made again has ended in it.
#[test]
fn a_run_that_went_on_while_the_index_was_made_again_is_not_cut_back() {
    let site = Site::new(150, 1, 22);
    site.grow(50);
    site.collect(false);
    let mut collector = Writer::open(&site.store()).unwrap();
    catch_up(&mut collector, &mut go_on).unwrap();
    let mut first = true;
    rebuild(&mut Writer::open(&site.store()).unwrap(), &mut |_| {
        // It has been seen how long the runs are, and nothing is read yet.
        if std::mem::take(&mut first) {
            site.grow(100);
            site.collect(true);
            collector.update(names(&site).into_iter().map(|name| (name, None))).unwrap();
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let kept = content(&Index::open(&site.store()).unwrap());
    rebuild(&mut Writer::open(&site.store()).unwrap(), &mut go_on).unwrap();
    assert_eq!(kept, content(&Index::open(&site.store()).unwrap()));
}

/// Who began before the index was emptied has not filled it.
#[test]
fn an_index_is_whole_when_who_emptied_it_is_done() {
    let site = Site::whole(60, 1, 23);
    let mut other = Writer::open(&site.store()).unwrap();
    let mut first = true;
    catch_up(&mut Writer::open(&site.store()).unwrap(), &mut |_| {
        if std::mem::take(&mut first) {
            rebuild(&mut other, &mut |_| ControlFlow::Break(())).unwrap();
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(matches!(Index::open(&site.store()), Err(Standing::Building)));
    let _ = site.index();
}

/// An index that was open knows that it is emptied.
#[test]
fn an_index_that_is_emptied_is_asked_no_more() {
    let site = Site::whole(60, 1, 24);
    let reader = Index::open(&site.store()).unwrap();
    rebuild(&mut Writer::open(&site.store()).unwrap(), &mut |_| ControlFlow::Break(())).unwrap();
    let said = reader.runs(&Filter::default(), EVERYTHING).unwrap_err();
    assert!(matches!(said, IndexError::Building), "{said}");
    let _ = site.index();
    assert!(!reader.runs(&Filter::default(), EVERYTHING).unwrap().is_empty());
}

/// Readers go on while a writer commits, and never see half of a run.
#[test]
fn readers_see_whole_runs_while_the_writer_writes() {
    let site = Site::whole(200, 1, 12);
    let store = site.store();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let busy = |store: &Path| {
        let mut asked = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) || asked == 0 {
            let index = Index::open(store).unwrap();
            for run in index.runs(&Filter::default(), EVERYTHING).unwrap() {
                assert_eq!(run.members, run.running + run.classes.values().sum::<u32>());
            }
            asked += 1;
        }
        asked
    };
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|_| scope.spawn(|| busy(&store)));
        let mut writer = Writer::open(&store).unwrap();
        for _ in 0..5 {
            let runs = Index::open(&store).unwrap().runs(&Filter::default(), EVERYTHING).unwrap();
            let names: Vec<_> = runs.into_iter().map(|r| (r.cluster, r.user, r.run_id)).collect();
            for some in names.chunks(10) {
                writer.forget(some).unwrap();
                writer.update(some.iter().cloned().map(|name| (name, None))).unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}

#[test]
fn what_cannot_be_listed_does_not_cost_the_rest() {
    let site = Site::new(60, 1, 3);
    site.grow(100);
    site.collect(true);
    let cluster = inquest::store::Store::open(&site.store()).unwrap().clusters().unwrap().remove(0);
    let backup = site.store().join(cluster).join("backup");
    fs::create_dir(&backup).unwrap();
    let run = |index: &Index| index.runs(&Filter::default(), EVERYTHING).unwrap().len();
    let whole = run(&site.index());
    // Root may list everything, but no file.
    fs::write(backup.join("runs"), "").unwrap();
    fs::remove_file(site.store().join("index.db")).unwrap();
    let done = catch_up(&mut Writer::open(&site.store()).unwrap(), &mut go_on).unwrap();
    assert_eq!(done.closed, [backup.join("runs")]);
    let index = Index::open(&site.store()).unwrap();
    assert!(whole > 0 && run(&index) == whole);
    drop(index);
    // What was known of a user whose directory is closed for a while is not forgotten.
    let (cluster, user) = inquest::store::Store::open(&site.store()).unwrap().users().unwrap().remove(0);
    let runs = site.store().join(cluster).join(user).join("runs");
    fs::rename(&runs, runs.with_file_name("away")).unwrap();
    fs::write(&runs, "").unwrap();
    let done = catch_up(&mut Writer::open(&site.store()).unwrap(), &mut go_on).unwrap();
    assert_eq!((done.closed.len(), run(&Index::open(&site.store()).unwrap())), (2, whole));
}
