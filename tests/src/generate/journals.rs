//! The journals of all nodes: lines are said for times to come, and written when those have come.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use inquest_journal::{
    Body, Header, Identity, JobId, NodeBooted, Severity, Source, Stamp, StepId, Timestamp, encode,
};

use super::{Made, SECOND};
use crate::random::Random;

const CLUSTER: &str = "lab";
/// Bytes gathered for a node before they are written.
const BLOCK: usize = 24 << 10;

pub(super) struct Node {
    pub(super) name: String,
    boot: String,
    boots: u32,
    /// Its jobs fail more often than those of others.
    pub(super) bad: bool,
    next_pid: u32,
    day: i64,
    waiting: Vec<u8>,
}

/// A line of the future: time, order of making, node, line.
type Later = (i64, u64, u32, Box<[u8]>);

pub(super) struct Journals {
    out: PathBuf,
    begin: Timestamp,
    pub(super) nodes: Vec<Node>,
    future: BinaryHeap<Reverse<Later>>,
    order: u64,
    line: Vec<u8>,
    made: Made,
    files: HashSet<(u32, i64)>,
}

/// One slurmstepd.
pub(super) struct Stepd {
    node: u32,
    identity: Identity,
    pub(super) pid: u32,
    seq: u64,
    job: JobId,
    pub(super) step: StepId,
}

impl Journals {
    pub(super) fn new(nodes: u32, out: &Path, begin: Timestamp, random: &mut Random) -> io::Result<Journals> {
        let nodes = (1..=nodes.max(1)).map(|n| Node {
            name: format!("n{n:04}"),
            boot: format!("{:08x}", random.any() >> 32),
            boots: 1,
            bad: random.percent(2),
            next_pid: 2000 + random.below(20_000) as u32,
            day: 0,
            waiting: Vec::new(),
        });
        let nodes: Vec<Node> = nodes.collect();
        for node in &nodes {
            fs::DirBuilder::new().mode(0o750).create(out.join(&node.name))?;
        }
        Ok(Journals {
            out: out.to_owned(),
            begin,
            nodes,
            future: BinaryHeap::new(),
            order: 0,
            line: Vec::new(),
            made: Made::default(),
            files: HashSet::new(),
        })
    }

    /// A slurmstepd begins on the node with that index.
    pub(super) fn stepd(&mut self, node: u32, job: u32, step: StepId, at: i64) -> Stepd {
        let n = &mut self.nodes[node as usize];
        n.next_pid = if n.next_pid > 4_000_000 { 2000 } else { n.next_pid + 7 };
        let ticks = ((at - self.begin.0) / 10_000).unsigned_abs() + 8_640_000;
        let identity = Identity::new(CLUSTER, &n.name, &n.boot, n.next_pid, ticks);
        Stepd { node, identity, pid: n.next_pid, seq: 0, job: JobId(job), step }
    }

    /// Everything that was open on the node ended with it.
    pub(super) fn reboot(&mut self, node: u32, at: i64, random: &mut Random) {
        let n = &mut self.nodes[node as usize];
        let boot = format!("{:08x}", random.any() >> 32);
        let previous_boot = Some(std::mem::replace(&mut n.boot, boot));
        n.boots += 1;
        let identity = Identity::new(CLUSTER, &n.name, &n.boot, 600, u64::from(n.boots));
        let mut agent = Stepd { node, identity, pid: 600, seq: 0, job: JobId(0), step: StepId::Extern };
        let body = NodeBooted { previous_boot, booted_at: Some(Timestamp(at - 20 * SECOND)) };
        self.say(&mut agent, at, None, Severity::Warn, body);
    }

    /// Puts a line among those of the future.
    pub(super) fn say(
        &mut self,
        stepd: &mut Stepd,
        at: i64,
        task: Option<u32>,
        severity: Severity,
        body: impl Into<Body>,
    ) {
        let agent = stepd.job.0 == 0;
        let mono_us = (at - self.begin.0 + 86_400 * SECOND).unsigned_abs();
        let header = Header {
            stamp: Stamp { wall: Timestamp(at), mono_us },
            severity,
            source: if agent { Source::Agent } else { Source::Plugin },
            cluster: stepd.identity.cluster(),
            node: stepd.identity.node(),
            boot: stepd.identity.boot(),
            stream: stepd.identity.stream(),
            seq: stepd.seq,
            job_id: (!agent).then_some(stepd.job),
            step: (!agent).then_some(stepd.step),
            task,
        };
        self.line.clear();
        encode(&mut self.line, &header, &body.into());
        stepd.seq += 1;
        self.order += 1;
        let line = self.line.as_slice().into();
        self.future.push(Reverse((at, self.order, stepd.node, line)));
    }

    /// Writes what has happened before `now`.
    pub(super) fn advance(&mut self, now: i64) -> io::Result<()> {
        while let Some(next) = self.future.peek() {
            if next.0.0 >= now {
                break;
            }
            let Some(Reverse((at, _, n, line))) = self.future.pop() else { break };
            let day = Timestamp(at).day_number();
            let node = &self.nodes[n as usize];
            if node.waiting.len() >= BLOCK || (node.day != day && !node.waiting.is_empty()) {
                self.write(n)?;
            }
            let node = &mut self.nodes[n as usize];
            node.day = day;
            node.waiting.extend_from_slice(&line);
            self.made.events += 1;
            self.made.bytes += line.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, n: u32) -> io::Result<()> {
        let node = &mut self.nodes[n as usize];
        if node.waiting.is_empty() {
            return Ok(());
        }
        let day = Timestamp(node.day * 86_400 * SECOND).day();
        let path = self.out.join(&node.name).join(format!("{day}.jsonl"));
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        file.write_all(&node.waiting)?;
        node.waiting.clear();
        self.files.insert((n, node.day));
        Ok(())
    }

    /// Leaves nothing waiting.
    pub(super) fn write_all(&mut self) -> io::Result<()> {
        (0..self.nodes.len() as u32).try_for_each(|n| self.write(n))
    }

    /// What was written until now, but for what only the site knows.
    pub(super) fn made(&self) -> Made {
        Made { files: self.files.len() as u64, ..self.made }
    }
}
