/*!
One event to one line of at most [`LINE_MAX`] bytes.

The head comes first and is never cut: it is identity. The strings of the body
belong to jobs and may be of any length; they are cut to the longest bound that
makes the line fit, and the line then says `"cut":true`.
*/

use std::io::{self, Write};

use serde::Serialize as _;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};

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
        if append_body(out, body, bound) && out.len() - start <= LINE_MAX {
            return;
        }
        out.truncate(head_end);
    }
    let mut short = body.clone();
    short.drop_lists();
    if !append_body_cut(out, &short, BOUNDS[BOUNDS.len() - 1]) || out.len() - start > LINE_MAX {
        out.truncate(head_end);
        out.extend_from_slice(b",\"cut\":true}\n");
    }
}

/// Appends `{<fields of the head>`, without a brace at the end: the body
/// follows in the same object. By hand, because a hook of the plugin runs this
/// once, with cold caches, and the machinery of serde for fourteen fields is
/// then a third of what the line costs.
fn append_head(out: &mut Vec<u8>, header: &Header<'_>, event_type: &str) {
    out.extend_from_slice(b"{\"v\":");
    append_number(out, u64::from(SCHEMA_VERSION));
    out.extend_from_slice(b",\"timestamp\":");
    match header.stamp.wall.text() {
        Some(text) => {
            out.push(b'"');
            out.extend_from_slice(&text);
            out.push(b'"');
        }
        None => append_json(out, &header.stamp.wall),
    }
    append_text(out, b",\"event_type\":", event_type);
    append_text(out, b",\"severity\":", header.severity.word());
    append_text(out, b",\"source\":", header.source.word());
    append_text(out, b",\"cluster\":", header.cluster);
    append_text(out, b",\"node\":", header.node);
    append_text(out, b",\"boot\":", header.boot);
    out.extend_from_slice(b",\"mono_us\":");
    append_number(out, header.stamp.mono_us);
    append_text(out, b",\"stream\":", header.stream);
    out.extend_from_slice(b",\"seq\":");
    append_number(out, header.seq);
    if let Some(JobId(id)) = header.job_id {
        out.extend_from_slice(b",\"job_id\":\"");
        append_number(out, u64::from(id));
        out.push(b'"');
    }
    match header.step {
        None => {}
        Some(StepId::Number(id)) => {
            out.extend_from_slice(b",\"step\":\"");
            append_number(out, u64::from(id));
            out.push(b'"');
        }
        Some(step) => {
            out.extend_from_slice(b",\"step\":");
            append_json(out, &step);
        }
    }
    if let Some(task) = header.task {
        out.extend_from_slice(b",\"task\":");
        append_number(out, u64::from(task));
    }
}

/// Appends a key, as it is given, and a JSON string.
fn append_text(out: &mut Vec<u8>, key: &[u8], text: &str) {
    out.extend_from_slice(key);
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        append_json(out, text);
    }
}

fn append_number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Whatever is not worth a way of its own.
fn append_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing to memory and serialising a string cannot fail.
    let _ = serde_json::to_writer(&mut *out, value);
}

fn append_body(out: &mut Vec<u8>, body: &Body, bound: usize) -> bool {
    write_body(out, body, bound, false)
}

fn append_body_cut(out: &mut Vec<u8>, body: &Body, bound: usize) -> bool {
    write_body(out, body, bound, true)
}

/// Appends `,<fields>}` and a newline; gives up early when it grows past a line.
fn write_body(out: &mut Vec<u8>, body: &Body, bound: usize, mut cut: bool) -> bool {
    let at = out.len();
    let mut target = Capped { out, room: LINE_MAX };
    let formatter = Cutter { bound, left: bound, cut: &mut cut };
    if body.serialize(&mut Serializer::with_formatter(&mut target, formatter)).is_err() {
        return false;
    }
    if out.get(at..) == Some(b"{}") {
        out.truncate(at);
        out.push(b'}');
    } else {
        out[at] = b','; // In place of the body's own opening brace.
    }
    if cut {
        out.pop();
        out.extend_from_slice(b",\"cut\":true}");
    }
    out.push(b'\n');
    true
}

/// A buffer that refuses to grow by more than a line, so that a body with a
/// huge list costs a bounded amount of memory and time.
struct Capped<'a> {
    out: &'a mut Vec<u8>,
    room: usize,
}

impl Write for Capped<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.room.checked_sub(buf.len()) {
            Some(room) => {
                self.room = room;
                self.out.extend_from_slice(buf);
                Ok(buf.len())
            }
            None => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A compact JSON formatter that cuts every string at `bound` encoded bytes,
/// never inside a character or an escape.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Head, JobStarted, Memory, StepStarted, TaskExited};
    use proptest::prelude::*;

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
