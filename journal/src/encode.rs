/*!
One event to one line of at most [`LINE_MAX`] bytes.

The head comes first and is never cut: it is identity. The strings of the body
belong to jobs and may be of any length; they are cut to the longest bound that
makes the line fit, and the line then says `"cut":true`.
*/

use crate::put::{Put as _, Sink};
use crate::{Body, JobId, LINE_MAX, SCHEMA_VERSION, Severity, Source, Stamp, StepId};

/// The fixed part of every line, in the order in which it is written.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// When, by both clocks.
    pub stamp: Stamp,
    /// How much it matters.
    pub severity: Severity,
    /// Who saw it.
    pub source: Source,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Name of the node.
    pub node: &'a str,
    /// Short boot id.
    pub boot: &'a str,
    /// The writer's life.
    pub stream: &'a str,
    /// Number of the event in its stream, from 0.
    pub seq: u64,
    /// The job, when the event is about one.
    pub job_id: Option<JobId>,
    /// The step.
    pub step: Option<StepId>,
    /// Rank of the task in its step, over all nodes.
    pub task: Option<u32>,
}

/// How long a string of the body may be, in encoded bytes, from generous to
/// tight. The last one fits every body without lists: at most 20 strings.
const BOUNDS: [usize; 5] = [2048, 1024, 512, 256, 96];

/// Appends one line, newline included, to `out`. The line is never longer than
/// [`LINE_MAX`], whatever the body holds.
pub fn encode(out: &mut Vec<u8>, header: &Header<'_>, body: &Body) {
    let start = out.len();
    append_head(out, header, body.event_type());
    let head_end = out.len();

    for bound in BOUNDS {
        if append_body(out, body, bound, false) && out.len() - start <= LINE_MAX {
            return;
        }
        out.truncate(head_end);
    }
    let mut short = body.clone();
    short.drop_lists();
    if !append_body(out, &short, BOUNDS[BOUNDS.len() - 1], true) || out.len() - start > LINE_MAX {
        out.truncate(head_end);
        out.extend_from_slice(b",\"cut\":true}\n");
    }
}

/// Appends `{<fields of the head>`, without a brace at the end: the body
/// follows in the same object.
fn append_head(out: &mut Vec<u8>, header: &Header<'_>, event_type: &str) {
    // Identity is never cut: its names are bounded where it is made.
    let mut sink = Sink::new(out, usize::MAX, false);
    let key_of_time = b"{\"v\":1,\"timestamp\":";
    const { assert!(SCHEMA_VERSION == 1) };
    sink.raw(key_of_time);
    header.stamp.wall.put(&mut sink);
    for (key, text) in [
        (b",\"event_type\":".as_slice(), event_type),
        (b",\"severity\":", header.severity.word()),
        (b",\"source\":", header.source.word()),
        (b",\"cluster\":", header.cluster),
        (b",\"node\":", header.node),
        (b",\"boot\":", header.boot),
    ] {
        sink.raw(key);
        sink.text(text);
    }
    sink.raw(b",\"mono_us\":");
    sink.number(header.stamp.mono_us);
    sink.raw(b",\"stream\":");
    sink.text(header.stream);
    sink.raw(b",\"seq\":");
    sink.number(header.seq);
    if let Some(id) = header.job_id {
        sink.raw(b",\"job_id\":");
        id.put(&mut sink);
    }
    if let Some(step) = header.step {
        sink.raw(b",\"step\":");
        match step {
            StepId::Number(id) => JobId(id).put(&mut sink),
            StepId::Batch => sink.text("batch"),
            StepId::Extern => sink.text("extern"),
            StepId::Interactive => sink.text("interactive"),
        }
    }
    if let Some(task) = header.task {
        sink.raw(b",\"task\":");
        sink.number(u64::from(task));
    }
}

/// Appends `,<fields>}` and a newline; says whether it came to no more than a line. `cut` says that
/// something was left out before.
fn append_body(out: &mut Vec<u8>, body: &Body, bound: usize, cut: bool) -> bool {
    let mut sink = Sink::new(out, bound, cut);
    body.put_fields(&mut sink);
    if sink.cut {
        sink.raw(b",\"cut\":true");
    }
    sink.raw(b"}\n");
    !sink.full
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::*;
    use proptest::prelude::*;
    use serde::Serialize as _;
    use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};
    use std::io::{self, Write};

    fn header<'a>() -> Header<'a> {
        Header {
            stamp: Stamp { wall: crate::Timestamp(1_763_735_401_234_567), mono_us: 5_000_001 },
            severity: Severity::Info,
            source: Source::Plugin,
            cluster: "lab",
            node: "n1",
            boot: "0badc0de",
            stream: "n1-0badc0de-42-7",
            seq: 3,
            job_id: Some(JobId(123)),
            step: Some(StepId::Batch),
            task: Some(0),
        }
    }

    #[test]
    fn a_line_reads_as_the_contract_says() {
        let mut out = Vec::new();
        let memory = Memory { cgroup_peak_bytes: Some(1 << 20), clipped: true, ..Memory::default() };
        let body = TaskExited { pid: Some(77), signal: Some(9), memory, ..TaskExited::default() };
        encode(&mut out, &header(), &body.into());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"v\":1,\"timestamp\":\"2025-11-21T14:30:01.234567Z\",\"event_type\":\"task_exited\",\
             \"severity\":\"info\",\"source\":\"plugin\",\"cluster\":\"lab\",\"node\":\"n1\",\
             \"boot\":\"0badc0de\",\"mono_us\":5000001,\"stream\":\"n1-0badc0de-42-7\",\"seq\":3,\
             \"job_id\":\"123\",\"step\":\"batch\",\"task\":0,\"pid\":77,\"signal\":9,\
             \"memory\":{\"cgroup_peak_bytes\":1048576,\"clipped\":true}}\n"
        );
    }

    /// The head as serde writes it.
    #[derive(serde::Serialize)]
    struct Wire<'a> {
        v: u32,
        timestamp: crate::Timestamp,
        event_type: &'a str,
        severity: Severity,
        source: Source,
        cluster: &'a str,
        node: &'a str,
        boot: &'a str,
        mono_us: u64,
        stream: &'a str,
        seq: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        job_id: Option<JobId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<StepId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        task: Option<u32>,
    }

    proptest! {
        #[test]
        fn a_head_by_hand_is_the_head_of_serde(
            wall in any::<i64>(), mono_us in any::<u64>(), seq in any::<u64>(),
            severity in proptest::sample::select(&[Severity::Info, Severity::Warn, Severity::Error][..]),
            source in proptest::sample::select(
                &[Source::Plugin, Source::Agent, Source::User, Source::Collector][..]),
            names in proptest::collection::vec(any::<String>(), 4),
            job_id in any::<Option<u32>>(), step in any::<Option<u32>>(), task in any::<Option<u32>>(),
        ) {
            let timestamp = crate::Timestamp(wall);
            let (job_id, step) = (job_id.map(JobId), step.map(StepId::from_raw));
            let (cluster, node, boot, stream) = (&*names[0], &*names[1], &*names[2], &*names[3]);
            let header = Header {
                stamp: Stamp { wall: timestamp, mono_us },
                severity, source, cluster, node, boot, stream, seq, job_id, step, task,
            };
            let wire = Wire {
                v: SCHEMA_VERSION, timestamp, event_type: "note",
                severity, source, cluster, node, boot, mono_us, stream, seq, job_id, step, task,
            };
            let mut out = Vec::new();
            append_head(&mut out, &header, "note");
            out.push(b'}');
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&wire).unwrap());
        }
    }

    /// serde's way to the same: a formatter that cuts every string at `bound` encoded bytes.
    struct Cutter<'a> {
        bound: usize,
        left: usize,
        cut: &'a mut bool,
    }

    impl Formatter for Cutter<'_> {
        fn begin_string<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
            self.left = self.bound;
            CompactFormatter.begin_string(w)
        }

        fn write_string_fragment<W: ?Sized + Write>(&mut self, w: &mut W, text: &str) -> io::Result<()> {
            let keep = text.floor_char_boundary(self.left);
            if keep < text.len() {
                *self.cut = true;
                self.left = 0;
            } else {
                self.left -= keep;
            }
            w.write_all(&text.as_bytes()[..keep])
        }

        fn write_char_escape<W: ?Sized + Write>(&mut self, w: &mut W, c: CharEscape) -> io::Result<()> {
            let width = if matches!(c, CharEscape::AsciiControl(_)) { 6 } else { 2 };
            if self.left < width {
                *self.cut = true;
                self.left = 0;
                return Ok(());
            }
            self.left -= width;
            CompactFormatter.write_char_escape(w, c)
        }
    }

    /// `,<fields>}` and a newline as serde writes it.
    fn body_of_serde(body: &Body, bound: usize) -> Vec<u8> {
        let (mut out, mut cut) = (Vec::new(), false);
        let formatter = Cutter { bound, left: bound, cut: &mut cut };
        body.serialize(&mut Serializer::with_formatter(&mut out, formatter)).unwrap();
        let fields = &out[1..out.len() - 1];
        let comma: &[u8] = if fields.is_empty() { b"" } else { b"," };
        let end: &[u8] = if cut { b",\"cut\":true}\n" } else { b"}\n" };
        [comma, fields, end].concat()
    }

    /// Text with much that is escaped or more than a byte long.
    fn odd_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[ -~]{0,12}",
            "[\u{0}-\u{20}\"\\\\\u{7f}]{0,4}",
            "[\u{80}-\u{800}\u{ffff}\u{10000}]{0,4}",
            any::<String>(),
        ];
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_body_by_hand_is_the_body_of_serde(
            texts in proptest::collection::vec(odd_text(), 12),
            list in proptest::collection::vec(odd_text(), 0..4),
            env in proptest::collection::btree_map(odd_text(), odd_text(), 0..4),
            numbers in proptest::collection::vec(any::<Option<u64>>(), 20),
            time in any::<Option<i64>>(), real in any::<Option<f64>>(), flag in any::<bool>(),
            level in proptest::sample::select(&[None, Some(Level::Task), Some(Level::Step), Some(Level::Job), Some(Level::Host)][..]),
            via in proptest::sample::select(&[None, Some(Via::Prolog), Some(Via::Epilog), Some(Via::Batch), Some(Via::Interactive), Some(Via::Step)][..]),
            bound in 30usize..90,
        ) {
            let text = |n: usize| Some(texts[n].clone()).filter(|_| numbers[n].is_some());
            let small = |n: usize| numbers[n].map(|x| x as u32);
            let tiny = |n: usize| numbers[n].map(|x| x as u8);
            let time = time.map(Timestamp);
            let memory = Memory {
                cgroup_peak_bytes: numbers[0], limit_bytes: numbers[1], limit_level: level, clipped: flag,
                limit_hits: numbers[2], largest_process_bytes: numbers[3], anon_peak_bytes: numbers[4],
                swap_peak_bytes: numbers[5], memsw_limit_bytes: numbers[6], ..Memory::default()
            };
            let victim = |n: usize| Victim {
                pid: small(n), command: text(n), anon_rss_bytes: numbers[n + 1], cgroup: text(n + 2), uid: small(n + 3),
            };
            let bodies: Vec<Body> = vec![
                JobStarted {
                    via, uid: small(0), name: text(1), work_dir: text(2), array_job_id: small(3).map(JobId),
                    memory_mib: numbers[4], end_limit: time, env: env.clone(), ..JobStarted::default()
                }.into(),
                StepStarted { name: text(0), argv: list, cgroup_version: tiny(1), env, ..StepStarted::default() }.into(),
                StepEnded {
                    duration_us: numbers[0], memory: memory.clone(),
                    pressure: Pressure { cpu_some_us: numbers[5], io_full_us: numbers[6], ..Pressure::default() },
                    ..StepEnded::default()
                }.into(),
                TaskExited { exit_code: tiny(7), signal: tiny(8), core: flag, memory, ..TaskExited::default() }.into(),
                OomKill {
                    level, victims: vec![victim(0), Victim::default(), victim(3)],
                    reported_by_slurm: numbers[9].map(|_| flag), ..OomKill::default()
                }.into(),
                MemoryHigh { pressure_some_percent: real, level, ..MemoryHigh::default() }.into(),
                NodeBooted { previous_boot: text(10), booted_at: time }.into(),
                Note { kind: text(4), text: text(5), percent: real, pid: small(6), file_end: numbers[7] }.into(),
            ];
            for body in bodies {
                for bound in [bound, 2048] {
                    let mut out = Vec::new();
                    if append_body(&mut out, &body, bound, false) {
                        prop_assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(body_of_serde(&body, bound)).unwrap());
                    } else {
                        prop_assert!(body_of_serde(&body, bound).len() > LINE_MAX);
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_body_is_still_an_object() {
        let mut out = Vec::new();
        encode(&mut out, &header(), &crate::JobEnded::default().into());
        assert!(out.ends_with(b"\"task\":0}\n"));
        assert!(Head::parse(&out[..out.len() - 1]).is_ok());
    }

    #[test]
    fn one_megabyte_of_variable_becomes_one_line() {
        let mut body = JobStarted { name: Some("short".into()), ..JobStarted::default() };
        body.env.insert("WANDB_RUN_GROUP".into(), "\u{1}".repeat(1 << 20));
        let mut out = Vec::new();
        encode(&mut out, &header(), &body.into());
        assert!(out.len() <= LINE_MAX);
        let back: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(back["name"], "short");
        assert_eq!(back["cut"], true);
        assert!(back["env"]["WANDB_RUN_GROUP"].as_str().unwrap().len() > 100);
    }

    proptest! {
        #[test]
        fn any_strings_make_one_whole_line(
            texts in proptest::collection::vec(any::<String>(), 0..40),
            long in proptest::collection::vec(".{0,3000}", 11),
            pairs in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..200),
        ) {
            let step = StepStarted {
                argv: texts,
                name: Some(long[0].clone()),
                cwd: Some(long[1].clone()),
                env: pairs.clone(),
                ..StepStarted::default()
            };
            let job = JobStarted {
                name: Some(long[2].clone()), account: Some(long[3].clone()), partition: Some(long[4].clone()),
                qos: Some(long[5].clone()), comment: Some(long[6].clone()), work_dir: Some(long[7].clone()),
                submit_dir: Some(long[8].clone()), stdout: Some(long[9].clone()), stderr: Some(long[10].clone()),
                node_list: Some(long[0].clone()), run: Some(long[1].clone()), env: pairs,
                ..JobStarted::default()
            };
            for body in [Body::from(step), job.into()] {
                let mut out = Vec::new();
                encode(&mut out, &header(), &body);
                prop_assert!(out.len() <= LINE_MAX, "{} bytes", out.len());
                prop_assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), 1);
                let line = &out[..out.len() - 1];
                let head = Head::parse(line).unwrap();
                prop_assert_eq!(head.seq, 3);
                let back = Body::parse(&head.event_type, line).unwrap().unwrap();
                let whole = serde_json::from_slice::<serde_json::Value>(line).unwrap()["cut"].is_null();
                prop_assert_eq!(whole, back == body, "a line is whole or says that it was cut");
            }
        }
    }
}
