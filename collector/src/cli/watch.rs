use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use inquest_journal::{JobId, Stamp, Timestamp};

use super::rules::Judging;
use super::{FAILURES, GOOD, NOT_FOUND, Usage, Where};
use crate::recover::{Call, Handlers, Key, RunPlace, Told};
use crate::report::{JSON_SCHEMA, clean, failures, ids};
use crate::runs::Member;
use crate::store::{Found, ReadError, Registries, Store};
use crate::units::count;
use crate::verdict::Class;

const EXAMPLES: &str = "\
Examples:
  inquest watch -- /usr/local/bin/tell-me --channel ops
  inquest watch --class oom,infra -j 2 -- ./handler.sh
  inquest watch --once --state ~/.inquest-told -- mail-me    from cron
  inquest watch -- curl -fsS --json @- https://chat.example/hook
  inquest watch -- sh -c 'jq \"{text: .failure.message}\" |
      curl -fsS --json @- https://chat.example/hook'

The handler is started word by word, never by a shell. On its standard input
is one JSON object: schema, cluster, user, run_id, name, jobs (how many failed
so), members (which) and failure, as 'inquest errors --json' shows it. In its
environment: INQUEST_CLUSTER, INQUEST_USER, INQUEST_RUN_ID, INQUEST_JOB,
INQUEST_NODE, INQUEST_CLASS, INQUEST_CAUSE, INQUEST_FINGERPRINT. Whatever came
from a job is hostile: quote it.

What is told: failures that happen after watch began, of your own runs (-u for
another user's; for root everybody's), once per run and fingerprint: the first
job that fails in a new way calls the handler, its siblings do not. With
--state, what happened while nobody watched is told too, and each failure once
over all lives of watch; one whose handler was at work when watch was killed
is told again. A handler that fails is reported and not called again. No more
than -j run at a time; the others wait. One that takes longer than --timeout
gets SIGTERM, and SIGKILL 5 seconds later, with all of its process group. On
SIGTERM or Ctrl-C watch starts no more and waits for those that run.

Exit status: 0 all handlers ended well, 1 one did not, 2 wrong usage, 3 not
found or unreadable, 4 permission denied.";

/// Between two looks at handlers and signals.
const TICK: Duration = Duration::from_millis(50);

/// Call a program when something fails in a new way.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The program and its arguments.
    #[arg(value_name = "HANDLER", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    handler: Vec<String>,
    /// Only failures of this class (oom, timeout, infra, ...); may be repeated.
    #[arg(long = "class", value_name = "CLASS", value_delimiter = ',')]
    classes: Vec<String>,
    /// Handlers at a time.
    #[arg(short = 'j', long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Seconds that a handler may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Seconds between two looks at the store.
    #[arg(short = 'i', long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Remember in this file what was told.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Look once, wait for the handlers, and end.
    #[arg(long, requires = "state")]
    once: bool,
    #[command(flatten)]
    judging: Judging,
    #[command(flatten)]
    place: Where,
}

struct Watcher {
    store: Store,
    registries: Registries,
    rules: crate::verdict::SiteRules,
    classes: Vec<Class>,
    told: Told,
    /// Until when nothing is told of a run, and what was seen of it then.
    known: HashMap<RunPlace, (Timestamp, Timestamp)>,
    /// Attempts of jobs that were looked at.
    seen: HashSet<(RunPlace, JobId, u32)>,
    /// Runs that were looked through, and until when; remembered when all handlers have ended.
    looked: HashMap<RunPlace, Timestamp>,
    /// Runs that could not be looked at, and what was said of it.
    unread: HashMap<RunPlace, String>,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    let classes = super::rerun::classes(&arguments.classes)?;
    let store = arguments.place.open()?;
    let mut registries = Registries::new(arguments.place.cluster.clone(), arguments.place.whose());
    registries.refresh(&store)?;
    // A clock that is ahead must not make everything until then old.
    let now = Stamp::now().wall;
    let newest =
        registries.entries().map(|(.., e)| e.updated_at).max().unwrap_or(Timestamp(i64::MIN)).min(now);
    let mut told = match &arguments.state {
        None => Told::default(),
        Some(path) => Told::open(path, newest).map_err(|e| {
            Usage(format!("cannot use {}: {e}; name another file with --state", path.display()))
        })?,
    };
    let mut known = HashMap::new();
    if told.since().is_none() {
        let key = |c: &str, u: &str, e: &crate::store::RegistryEntry| {
            (c.to_owned(), u.to_owned(), e.run_id.clone())
        };
        let at = |e: &crate::store::RegistryEntry| (e.updated_at.min(now), e.updated_at);
        known.extend(registries.entries().map(|(c, u, e)| (key(c, u, e), at(e))));
    }
    if told.is_new() {
        for (c, u, e) in registries.entries().filter(|(.., e)| e.updated_at > now) {
            told.keep_looked((c.to_owned(), u.to_owned(), e.run_id.clone()), e.updated_at)?;
        }
    }
    let rules = arguments.judging.load()?;
    let mut watcher = Watcher {
        store,
        registries,
        rules,
        classes,
        told,
        known,
        seen: HashSet::new(),
        looked: HashMap::new(),
        unread: HashMap::new(),
    };
    let patience = Duration::from_secs(arguments.timeout);
    let mut handlers = Handlers::new(arguments.handler.clone(), usize::from(arguments.jobs), patience);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut at_work: BTreeMap<String, Key> = BTreeMap::new();
    let mut due = Some(Instant::now());
    let mut code = GOOD;
    loop {
        if stop.load(Ordering::Relaxed) && due.take().is_some() {
            let left = handlers.drop_waiting();
            if left > 0 {
                let waited = "failure that waited for its turn was";
                let left = count(left, waited, "failures that waited for their turn were");
                eprintln!("inquest watch: {left} not told");
            }
        }
        if due.is_some_and(|at| Instant::now() >= at) {
            match watcher.look() {
                Ok(calls) => {
                    for (key, call) in calls {
                        at_work.insert(call.name.clone(), key);
                        handlers.add(call);
                    }
                    if arguments.once && !watcher.unread.is_empty() {
                        code = NOT_FOUND;
                    }
                }
                // A store may be away for a while.
                Err(e) => {
                    eprintln!("inquest watch: {}", clean(&e.to_string()));
                    if arguments.once {
                        code = NOT_FOUND;
                    }
                }
            }
            due = (!arguments.once).then(|| Instant::now() + Duration::from_secs(arguments.interval));
        }
        for ended in handlers.step() {
            if let Some(key) = at_work.remove(&ended.name)
                && let Err(e) = watcher.told.keep(key)
            {
                eprintln!("inquest watch: cannot remember that {} was told: {e}", clean(&ended.name));
            }
            let late = if ended.late { " after its time was over" } else { "" };
            let what = match ended.result {
                Ok(status) if status.success() && !ended.late => continue,
                Ok(status) => format!("ended with {status}{late}"),
                Err(e) => format!("could not be started: {e}"),
            };
            eprintln!("inquest watch: the handler for {} {what}", clean(&ended.name));
            code = FAILURES;
        }
        if at_work.is_empty() {
            for (run, until) in watcher.looked.drain() {
                if let Err(e) = watcher.told.keep_looked(run, until) {
                    eprintln!("inquest watch: cannot remember what was looked at: {e}");
                    code = FAILURES;
                    break;
                }
            }
        }
        if due.is_none() && handlers.is_idle() {
            return Ok(code);
        }
        std::thread::sleep(TICK);
    }
}

impl Watcher {
    /// What failed in a new way since the last look.
    fn look(&mut self) -> anyhow::Result<Vec<(Key, Call)>> {
        self.registries.refresh(&self.store)?;
        let since = self.told.since().map_or(Timestamp(i64::MIN), |since| since.min(Stamp::now().wall));
        let mut changed = Vec::new();
        for (cluster, user, entry) in self.registries.entries() {
            let run = (cluster.to_owned(), user.to_owned(), entry.run_id.clone());
            let before = || self.told.looked(&run).unwrap_or(Timestamp(i64::MIN));
            let known = self.known.entry(run.clone()).or_insert_with(|| (since, before()));
            if known.1 != entry.updated_at && entry.updated_at > known.0 {
                known.1 = entry.updated_at;
                changed.push((run, known.0));
            }
        }
        let mut calls = Vec::new();
        for (run, since) in changed {
            match self.look_at(&run, since) {
                Ok(new) => {
                    self.unread.remove(&run);
                    calls.extend(new);
                    if let Some(known) = self.known.get(&run) {
                        self.looked.insert(run, known.1);
                    }
                }
                // What one run hides must not cost the failures of others; it is looked at again.
                Err(e) => {
                    let why = e.to_string();
                    if self.unread.get(&run) != Some(&why) {
                        let (user, id) = (clean(&run.1), clean(&run.2));
                        eprintln!("inquest watch: the run {id} of {user} has to wait: {}", clean(&why));
                    }
                    if let Some(known) = self.known.get_mut(&run) {
                        known.1 = Timestamp(i64::MIN);
                    }
                    self.unread.insert(run, why);
                }
            }
        }
        Ok(calls)
    }

    /// What failed in a new way in one run. Nothing counts as seen or told when it cannot be read.
    fn look_at(&mut self, run: &RunPlace, since: Timestamp) -> anyhow::Result<Vec<(Key, Call)>> {
        let (dir, state) = match self.store.run(&run.0, &run.1, &run.2) {
            // Removed since it was listed.
            Err(ReadError::NotFound(_)) => return Ok(Vec::new()),
            other => other?,
        };
        let members = state.members.keys().copied().collect();
        let mut found = Found { dir, run: state, members, parts: None };
        let place = |m: &Member| (run.clone(), m.job_id, m.attempts);
        let new = |n: &u32| {
            let m = &found.run.members[n];
            m.verdict.is_some() && m.last > since && !self.seen.contains(&place(m))
        };
        found.members = found.members.iter().copied().filter(new).collect();
        let seen: Vec<_> = found.members.iter().map(|n| place(&found.run.members[n])).collect();
        super::judge(&mut found, &self.rules)?;
        found.members.retain(|n| found.run.members[n].failed());
        let calls = if found.members.is_empty() { Vec::new() } else { self.calls(run, &found)? };
        self.seen.extend(seen);
        for (key, _) in &calls {
            self.told.mark(key.clone());
        }
        Ok(calls)
    }

    /// One call per kind of failure that was not told of this run.
    fn calls(&self, run: &RunPlace, found: &Found) -> anyhow::Result<Vec<(Key, Call)>> {
        let mut kinds: BTreeMap<String, Vec<failures::Failure>> = BTreeMap::new();
        for failure in super::members::failures(found, true)? {
            if self.classes.is_empty() || self.classes.contains(&failure.class) {
                kinds.entry(failure.fingerprint().to_string()).or_default().push(failure);
            }
        }
        let mut calls = Vec::new();
        for (fingerprint, mut alike) in kinds {
            let key = (run.0.clone(), run.1.clone(), run.2.clone(), fingerprint.clone());
            if self.told.knows(&key) {
                continue;
            }
            alike.sort_by_key(|f| f.at);
            let first = &alike[0];
            let members = found.run.members.values().filter(|m| alike.iter().any(|f| f.job_id == m.job_id));
            let id = |m: &Member| (m.job_id.0, m.array_job_id.map(|a| a.0).zip(m.array_task_id));
            let input = serde_json::json!({
                "schema": JSON_SCHEMA,
                "cluster": run.0,
                "user": run.1,
                "run_id": run.2,
                "name": found.run.name,
                "jobs": alike.len(),
                "members": ids::fold(members.map(id)),
                "failure": first,
            });
            let environment = vec![
                ("INQUEST_CLUSTER", clean(&run.0)),
                ("INQUEST_USER", clean(&run.1)),
                ("INQUEST_RUN_ID", clean(&run.2)),
                ("INQUEST_JOB", clean(&first.job)),
                ("INQUEST_NODE", clean(first.node.as_deref().unwrap_or_default())),
                ("INQUEST_CLASS", first.class.to_string()),
                ("INQUEST_CAUSE", clean(&first.cause)),
                ("INQUEST_FINGERPRINT", fingerprint),
            ];
            let name = format!("{} in {} ({})", first.job, run.2, key.3);
            calls.push((key, Call { name, input: serde_json::to_vec(&input)?, environment }));
        }
        Ok(calls)
    }
}
