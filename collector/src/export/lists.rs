//! The tables of runs and of their members.

use super::{Cell, Column, Kind};
use crate::report::runs::status;
use crate::runs::{Member, MemberState, RunState};
use crate::store::RegistryEntry;
use crate::verdict::Class;

/// What a column of runs is, and its cell.
type OfRun = (&'static str, Kind, &'static str, fn(&Run) -> Cell);

/// What a column of members is, and its cell.
type OfMember = (&'static str, Kind, &'static str, fn(&Part<'_>) -> Cell);

/// A run with its cluster and user.
type Run = (String, String, RegistryEntry);

/// A member with its run and its number in it.
type Part<'a> = (&'a RunState, u32, &'a Member);

const RUNS: [OfRun; 15] = [
    ("cluster", Kind::Text, "Name of the cluster.", |r| Cell::text(&r.0)),
    ("user", Kind::Text, "Whose run it is.", |r| Cell::text(&r.1)),
    ("run_id", Kind::Text, "The run.", |r| Cell::text(&r.2.run_id)),
    ("name", Kind::Text, "Name of its first job.", |r| Cell::of(r.2.name.as_deref(), Cell::text)),
    ("status", Kind::Text, "running, completed or failed.", |r| Cell::text(status(r.2.status))),
    ("started", Kind::Time, "First event of any member.", |r| Cell::Time(r.2.submitted_at)),
    ("last", Kind::Time, "Newest event of any member.", |r| Cell::Time(r.2.updated_at)),
    ("n_chunks", Kind::Unsigned, "Members.", |r| Cell::Unsigned(r.2.n_chunks.into())),
    ("n_failed", Kind::Unsigned, "Members that ended badly.", |r| Cell::Unsigned(r.2.n_failed.into())),
    (
        "key_kind",
        Kind::Text,
        "What keeps the members together: explicit, env, name, path, array, het, group, job.",
        |r| Cell::of(r.2.key.as_ref(), |k| Cell::text(k.kind.as_str())),
    ),
    ("engine", Kind::Text, "The workflow engine that made them.", |r| {
        Cell::of(r.2.key.as_ref().and_then(|k| k.engine.as_deref()), Cell::text)
    }),
    ("key", Kind::Text, "The engine's own id, a path, or a job id.", |r| {
        Cell::of(r.2.key.as_ref(), |k| Cell::text(&k.value))
    }),
    ("aliases", Kind::Json, "Further ids of the run.", |r| Cell::json(&r.2.aliases)),
    ("jobs", Kind::Text, "Ids of its jobs, folded: 101-106,110.", |r| Cell::text(&r.2.jobs)),
    ("arrays", Kind::Text, "Ids of the arrays they belong to, folded.", |r| {
        Cell::of(Some(&r.2.arrays).filter(|a| !a.is_empty()), Cell::text)
    }),
];

const MEMBERS: [OfMember; 31] = [
    ("cluster", Kind::Text, "Name of the cluster.", |p| Cell::text(&p.0.cluster)),
    ("user", Kind::Text, "Whose job it is.", |p| Cell::text(&p.0.user)),
    ("run_id", Kind::Text, "The run.", |p| Cell::text(&p.0.run_id)),
    ("chunk_id", Kind::Unsigned, "Number of the job in the run.", |p| Cell::Unsigned(p.1.into())),
    ("job_id", Kind::Text, "The job.", |p| Cell::text(p.2.job_id.to_string())),
    ("array_job_id", Kind::Text, "The array it belongs to.", |p| {
        Cell::of(p.2.array_job_id, |id| Cell::text(id.to_string()))
    }),
    ("array_task_id", Kind::Unsigned, "Index in it.", |p| {
        Cell::of(p.2.array_task_id, |n| Cell::Unsigned(n.into()))
    }),
    ("name", Kind::Text, "What its workflow engine calls it.", |p| Cell::of(p.2.name.as_deref(), Cell::text)),
    ("attempts", Kind::Unsigned, "Attempts so far.", |p| Cell::Unsigned(p.2.attempts.into())),
    ("started", Kind::Time, "First event.", |p| Cell::Time(p.2.started)),
    ("last", Kind::Time, "Newest event.", |p| Cell::Time(p.2.last)),
    ("state", Kind::Text, "ended, running, or requeued: waiting in the queue again.", |p| {
        Cell::text(match (&p.2.verdict, p.2.state) {
            (Some(_), _) => "ended",
            (None, Some(MemberState::Requeued)) => "requeued",
            (None, None) => "running",
        })
    }),
    ("class", Kind::Text, "Class of the verdict; empty while it runs.", |p| {
        Cell::of(p.2.verdict.as_ref(), |v| Cell::text(v.class.to_string()))
    }),
    ("cause", Kind::Text, "Cause of the verdict.", |p| {
        Cell::of(p.2.verdict.as_ref(), |v| Cell::text(&v.cause))
    }),
    ("label", Kind::Text, "The verdict in one word.", |p| {
        Cell::of(p.2.verdict.as_ref(), |v| Cell::text(&v.label))
    }),
    ("detail", Kind::Text, "The verdict in one sentence.", |p| {
        Cell::of(p.2.verdict.as_ref(), |v| Cell::text(&v.detail))
    }),
    ("confidence", Kind::Text, "How sure it is: fact, log or inferred.", |p| {
        Cell::of(p.2.verdict.as_ref(), |v| word(&v.confidence))
    }),
    ("retry", Kind::Text, "Whether to run it again, and how.", |p| {
        Cell::of(p.2.verdict.as_ref(), |v| word(&v.retry))
    }),
    ("fingerprint", Kind::Text, "A name for the failure that is the same in other jobs.", |p| {
        let failed = p.2.verdict.as_ref().filter(|v| v.class != Class::Ok);
        Cell::of(failed, |v| Cell::text(v.fingerprint().to_string()))
    }),
    ("died_at", Kind::Time, "When the death that explains the others was noticed.", |p| {
        death(p, |d| Cell::Time(d.at.wall))
    }),
    ("died_node", Kind::Text, "Its node.", |p| death(p, |d| Cell::text(&*d.at.node))),
    ("died_step", Kind::Text, "Its step.", |p| death(p, |d| Cell::text(d.step.to_string()))),
    ("died_task", Kind::Unsigned, "Its task.", |p| death(p, |d| Cell::Unsigned(d.task.into()))),
    ("exit_code", Kind::Unsigned, "Its exit code, when it exited.", |p| {
        death(p, |d| Cell::of(d.exit_code, |n| Cell::Unsigned(n.into())))
    }),
    ("signal", Kind::Unsigned, "Its signal, when one ended it.", |p| {
        death(p, |d| Cell::of(d.signal, |n| Cell::Unsigned(n.into())))
    }),
    ("peak_bytes", Kind::Unsigned, "Highest charge of its cgroup, in bytes.", |p| {
        death(p, |d| Cell::of(d.peak_bytes, Cell::Unsigned))
    }),
    ("limit_bytes", Kind::Unsigned, "Memory limit, in bytes.", |p| {
        death(p, |d| Cell::of(d.limit_bytes, Cell::Unsigned))
    }),
    ("slurm_state", Kind::Text, "What Slurm itself says, when it was asked.", |p| {
        Cell::of(p.2.verdict.as_ref().and_then(|v| v.slurm.as_ref()), |s| Cell::text(&s.state))
    }),
    ("rule", Kind::Text, "The rule of the site that decided, where one did.", |p| {
        Cell::of(p.2.verdict.as_ref().and_then(|v| v.rule.as_deref()), Cell::text)
    }),
    ("advice", Kind::Json, "What to do about it.", |p| {
        Cell::of(p.2.verdict.as_ref(), |v| Cell::json(&v.advice))
    }),
    ("evidence", Kind::Json, "The events that the verdict rests on, as stream#seq.", |p| {
        Cell::of(p.2.verdict.as_ref(), |v| Cell::json(&v.evidence))
    }),
];

/// The columns of the table of runs.
pub fn runs() -> Vec<Column> {
    RUNS.iter().map(|(name, kind, about, _)| Column::new(*name, *kind, *about)).collect()
}

/// The columns of the table of members.
pub fn members() -> Vec<Column> {
    MEMBERS.iter().map(|(name, kind, about, _)| Column::new(*name, *kind, *about)).collect()
}

/// The row of a run.
pub fn run(run: &(String, String, RegistryEntry)) -> Vec<Cell> {
    RUNS.iter().map(|(.., cell)| cell(run)).collect()
}

/// The row of a member of a run.
pub fn member(run: &RunState, number: u32, member: &Member) -> Vec<Cell> {
    MEMBERS.iter().map(|(.., cell)| cell(&(run, number, member))).collect()
}

fn death(part: &Part<'_>, cell: impl FnOnce(&crate::verdict::Death) -> Cell) -> Cell {
    Cell::of(part.2.verdict.as_ref().and_then(|v| v.first_failure.as_ref()), cell)
}

/// A word of an enumeration, as JSON has it.
fn word(value: &impl serde::Serialize) -> Cell {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Cell::Text(word),
        _ => Cell::Null,
    }
}
