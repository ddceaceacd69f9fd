/*!
What Prometheus is told, in OpenMetrics.

Counters of jobs count what ended while the server runs: each has the sum of the
last days, as the index has it, and takes what is added to it. So a store whose
old runs are removed, or an index that is made again, never looks like a reset
or a burst. Labels are cluster, partition and class, and nodes only where the
site wants that; nothing of a user or a job.
*/

mod found;
mod node_exporter;

use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::found::{Found, look};
pub use self::node_exporter::for_node_exporter;
use super::app::{App, now};
use super::data::Problem;
use crate::collect::health::{HEALTH, Health};

/// Content type of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Between two looks at the index.
const EVERY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    cluster: String,
    partition: String,
    class: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    cluster: String,
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

type FloatCounter = Counter<f64, AtomicU64>;
type FloatGauge = Gauge<f64, AtomicU64>;

/// All that is counted.
#[derive(Debug)]
pub struct Meters {
    registry: Registry,
    jobs: Family<JobLabels, Counter>,
    node_seconds: Family<JobLabels, FloatCounter>,
    newest: Family<ClusterLabel, FloatGauge>,
    suspects: Family<ClusterLabel, Gauge>,
    silent: Family<ClusterLabel, Gauge>,
    suspect_node: Option<Family<NodeLabels, Gauge>>,
    silent_node: Option<Family<NodeLabels, Gauge>>,
    collector: Collector,
    index_up: Gauge,
    requests: Family<RouteLabels, Counter>,
    durations: Family<RouteLabel, Histogram, fn() -> Histogram>,
    seen: Mutex<Seen>,
}

/// What the collector says of itself.
#[derive(Debug, Default)]
struct Collector {
    heartbeat: FloatGauge,
    missing: Gauge,
    bad: Gauge,
    copies: Gauge,
    foreign: Gauge,
    newer: Gauge,
    unreadable: Gauge,
}

/// Sums by day and labels as they were seen last.
#[derive(Debug, Default)]
struct Seen {
    at: Option<Instant>,
    sums: Option<HashMap<(i64, JobLabels), (i64, i64)>>,
}

impl Meters {
    /// Nothing is counted yet. With `nodes`, suspect and silent ones are named.
    pub fn new(nodes: bool) -> Meters {
        let mut registry = Registry::with_prefix("inquest");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The server's version", build);
        let jobs = Family::<JobLabels, Counter>::default();
        registry.register("jobs", "Attempts of jobs that ended, since the server started", jobs.clone());
        let node_seconds = Family::<JobLabels, FloatCounter>::default();
        let about = "Time of attempts on their nodes, since the server started";
        registry.register_with_unit("job_node", about, Unit::Seconds, node_seconds.clone());
        let newest = Family::<ClusterLabel, FloatGauge>::default();
        let about = "End of the attempt that ended last, as Unix time";
        registry.register_with_unit("newest_end_timestamp", about, Unit::Seconds, newest.clone());
        let suspects = Family::<ClusterLabel, Gauge>::default();
        registry.register("nodes_suspect", "Nodes worse than chance explains, over 7 days", suspects.clone());
        let silent = Family::<ClusterLabel, Gauge>::default();
        let about = "Nodes on which jobs ended in the week before, and none runs or ended for a day";
        registry.register("nodes_silent", about, silent.clone());
        let named = |registry: &mut Registry, name: &str, about: &str| {
            let family = Family::<NodeLabels, Gauge>::default();
            registry.register(name, about, family.clone());
            family
        };
        let suspect_node =
            nodes.then(|| named(&mut registry, "node_suspect", "1 for a node that is suspect"));
        let silent_node = nodes.then(|| named(&mut registry, "node_silent", "1 for a node that is silent"));
        let collector = Collector::default();
        let about = "When the collector last said that it works, as Unix time";
        let heartbeat = collector.heartbeat.clone();
        registry.register_with_unit("collector_heartbeat_timestamp", about, Unit::Seconds, heartbeat);
        for (name, about, gauge) in [
            ("events_missing", "Events that have a number but never came", &collector.missing),
            ("journal_bad_lines", "Lines of journals that are no events", &collector.bad),
            ("journal_copied_lines", "Lines of journals that had been merged before", &collector.copies),
            ("journal_foreign_lines", "Lines of another node than their directory", &collector.foreign),
            ("journal_newer_lines", "Lines of a newer schema version", &collector.newer),
            ("journals_unreadable", "Journals that cannot be read now", &collector.unreadable),
        ] {
            registry.register(name, about, gauge.clone());
        }
        let index_up = Gauge::default();
        registry.register("index_up", "1 while the index answers", index_up.clone());
        let requests = Family::<RouteLabels, Counter>::default();
        registry.register("http_requests", "Requests by route and status", requests.clone());
        let make: fn() -> Histogram = || Histogram::new([0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0]);
        let durations = Family::<RouteLabel, Histogram, fn() -> Histogram>::new_with_constructor(make);
        registry.register_with_unit(
            "http_request_duration",
            "Time to answer",
            Unit::Seconds,
            durations.clone(),
        );
        Meters {
            registry,
            jobs,
            node_seconds,
            newest,
            suspects,
            silent,
            suspect_node,
            silent_node,
            collector,
            index_up,
            requests,
            durations,
            seen: Mutex::default(),
        }
    }

    /// Counts an answer.
    pub fn answered(&self, route: &str, status: StatusCode, took: Duration) {
        let route = route.to_owned();
        let labels = RouteLabels { route: route.clone(), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&RouteLabel { route }).observe(took.as_secs_f64());
    }

    /// Every metric there is, each with an example of its labels.
    pub fn described() -> String {
        let meters = Meters::new(true);
        let jobs = JobLabels { cluster: "lab".into(), partition: "main".into(), class: "oom".into() };
        let cluster = ClusterLabel { cluster: "lab".into() };
        let node = NodeLabels { cluster: "lab".into(), node: "n1".into() };
        let _ = meters.jobs.get_or_create(&jobs);
        let _ = meters.node_seconds.get_or_create(&jobs);
        let _ = meters.newest.get_or_create(&cluster);
        let _ = meters.suspects.get_or_create(&cluster);
        let _ = meters.silent.get_or_create(&cluster);
        for named in [&meters.suspect_node, &meters.silent_node].into_iter().flatten() {
            let _ = named.get_or_create(&node);
        }
        meters.answered("/", StatusCode::OK, Duration::ZERO);
        meters.text()
    }

    fn due(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let due = seen.at.is_none_or(|at| at.elapsed() >= EVERY);
        if due {
            seen.at = Some(Instant::now());
        }
        due
    }

    fn take(&self, found: Found) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // What is there at the start is not news.
        let known = seen.sums.take();
        for ((day, labels), &(jobs, node_us)) in &found.sums {
            let key = (*day, labels.clone());
            let (old_jobs, old_us) = match &known {
                Some(known) => known.get(&key).copied().unwrap_or_default(),
                None => (jobs, node_us),
            };
            let (more, more_us) = ((jobs - old_jobs).max(0), (node_us - old_us).max(0));
            self.jobs.get_or_create(labels).inc_by(more.cast_unsigned());
            self.node_seconds.get_or_create(labels).inc_by(more_us as f64 / 1e6);
        }
        let mut sums = found.sums;
        if let Some(known) = known {
            // The highest that was seen stays: what was removed is not counted again.
            let oldest = sums.keys().map(|(day, _)| *day).min().unwrap_or(i64::MAX);
            for (key, old) in known.into_iter().filter(|((day, _), _)| *day >= oldest) {
                let now = sums.entry(key).or_default();
                *now = (now.0.max(old.0), now.1.max(old.1));
            }
        }
        seen.sums = Some(sums);
        self.newest.clear();
        for (cluster, at) in found.newest {
            self.newest.get_or_create(&ClusterLabel { cluster }).set(at.0 as f64 / 1e6);
        }
        name_nodes(&self.suspects, self.suspect_node.as_ref(), found.suspects);
        name_nodes(&self.silent, self.silent_node.as_ref(), found.silent);
    }

    fn take_health(&self, health: &Health) {
        let said = &self.collector;
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if let Some(at) = health.at {
            said.heartbeat.set(at.0 as f64 / 1e6);
        }
        said.missing.set(whole(health.lost));
        said.bad.set(whole(health.totals.bad));
        said.copies.set(whole(health.totals.copies));
        said.foreign.set(whole(health.totals.foreign_node));
        said.newer.set(whole(health.totals.newer));
        said.unreadable.set(whole(health.unreadable.len() as u64));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn name_nodes(
    counts: &Family<ClusterLabel, Gauge<i64, AtomicI64>>,
    names: Option<&Family<NodeLabels, Gauge>>,
    found: BTreeMap<String, Vec<String>>,
) {
    // A cluster that is gone has no nodes.
    counts.clear();
    if let Some(names) = names {
        names.clear();
    }
    for (cluster, nodes) in found {
        counts.get_or_create(&ClusterLabel { cluster: cluster.clone() }).set(nodes.len() as i64);
        for node in nodes {
            if let Some(names) = names {
                names.get_or_create(&NodeLabels { cluster: cluster.clone(), node }).set(1);
            }
        }
    }
}

/// What the collector last said of itself.
///
/// # Errors
///
/// When it has said nothing yet, or what it said cannot be read.
pub fn health(store: &Path) -> Result<Health, Problem> {
    let path = store.join(HEALTH);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Problem::Unavailable("the collector has said nothing yet"));
        }
        Err(e) => return Err(Problem::Broken(format!("cannot read {}: {e}", path.display()))),
    };
    serde_json::from_slice(&bytes).map_err(|e| Problem::Broken(format!("{}: {e}", path.display())))
}

/// Brings what is counted up to date.
async fn refresh(app: &Arc<App>) {
    if !app.meters.due() {
        return;
    }
    let at = now();
    match app.data.ask(move |sources| look(&sources, at)).await {
        Ok(found) => {
            app.meters.index_up.set(1);
            app.meters.take(found);
        }
        Err(problem) => {
            problem.log();
            app.meters.index_up.set(0);
        }
    }
    let store = app.data.store().to_owned();
    if let Ok(Ok(health)) = tokio::task::spawn_blocking(move || health(&store)).await {
        app.meters.take_health(&health);
    }
}

/// What Prometheus asks for.
pub async fn scrape(State(app): State<Arc<App>>) -> Response {
    refresh(&app).await;
    ([(header::CONTENT_TYPE, OPENMETRICS)], app.meters.text()).into_response()
}

/// Writes the metrics to a file, whole or not at all.
///
/// # Errors
///
/// When it cannot be written.
pub async fn textfile(app: &Arc<App>, path: &Path) -> io::Result<()> {
    refresh(app).await;
    let text = for_node_exporter(&app.meters.text());
    let path = path.to_owned();
    let write = move || {
        // node_exporter reads *.prom only.
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        // node_exporter is another user, whatever umask the service has.
        std::fs::set_permissions(&new, Permissions::from_mode(0o644))?;
        std::fs::rename(&new, &path)
    };
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use inquest_journal::Timestamp;

    use super::found::{LABEL_MAX, label};
    use super::*;

    fn labels() -> JobLabels {
        JobLabels { cluster: "lab".into(), partition: "batch".into(), class: "oom".into() }
    }

    fn found(jobs: i64, day: i64) -> Found {
        Found {
            sums: [((day, labels()), (jobs, jobs * 1_000_000))].into(),
            newest: BTreeMap::new(),
            suspects: [("lab".to_owned(), vec!["n1".to_owned()])].into(),
            silent: BTreeMap::new(),
        }
    }

    fn counted(meters: &Meters) -> u64 {
        meters.jobs.get_or_create(&labels()).get()
    }

    #[test]
    fn counters_only_grow_by_what_is_new() {
        let meters = Meters::new(false);
        meters.take(found(100, 5));
        assert_eq!(counted(&meters), 0, "what was there before is not news");
        meters.take(found(103, 5));
        assert_eq!(counted(&meters), 3);
        meters.take(found(40, 5));
        meters.take(found(103, 5));
        assert_eq!(counted(&meters), 3, "removed and indexed again is not news");
        meters.take(found(2, 6));
        assert_eq!(counted(&meters), 5, "a new day begins at nothing");
        assert!((meters.node_seconds.get_or_create(&labels()).get() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn a_cluster_that_is_gone_has_no_gauges() {
        let meters = Meters::new(true);
        let newest = [("lab".to_owned(), Timestamp(5_000_000))].into();
        meters.take(Found { newest, silent: found(1, 5).suspects, ..found(1, 5) });
        let gauges = |text: String| {
            let of = |line: &&str| line.contains("cluster=\"lab\"") && !line.starts_with("inquest_job");
            text.lines().filter(of).count()
        };
        assert_eq!(gauges(meters.text()), 5, "{}", meters.text());
        meters.take(Found { suspects: BTreeMap::new(), ..found(1, 5) });
        assert_eq!(gauges(meters.text()), 0, "{}", meters.text());
    }

    #[test]
    fn nodes_are_named_only_where_the_site_wants_it() {
        let (plain, named) = (Meters::new(false), Meters::new(true));
        plain.take(found(1, 5));
        named.take(found(1, 5));
        assert!(plain.text().contains("inquest_nodes_suspect{cluster=\"lab\"} 1"), "{}", plain.text());
        assert!(!plain.text().contains("n1"), "{}", plain.text());
        assert!(
            named.text().contains("inquest_node_suspect{cluster=\"lab\",node=\"n1\"} 1"),
            "{}",
            named.text()
        );
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let meters = Meters::new(false);
        let evil = "a\"} 1\ninquest_jobs_total{x=\"\\";
        meters.jobs.get_or_create(&JobLabels { partition: label(evil), ..labels() }).inc();
        let text = meters.text();
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("inquest_jobs_total")).collect();
        let quoted = "a\\\"} 1\\\\ninquest_jobs_total{x=\\\"\\\\";
        assert_eq!(
            lines,
            [format!("inquest_jobs_total{{cluster=\"lab\",partition=\"{quoted}\",class=\"oom\"}} 1")]
        );
        assert!(label(&"x".repeat(1000)).len() <= LABEL_MAX);
    }
}
