//! `inquest top`: one frame for a pipe, and a screen that comes back as it was.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{End, Job, Lab};

const TIMEOUT: Duration = Duration::from_secs(20);

fn lab() -> Lab {
    let member = |n, end| Job { array: Some((50, n)), start: i64::from(n), ..Job::new(50 + n, end) };
    Lab::with([
        member(0, End::Code(0)),
        member(1, End::Oom(64)),
        member(2, End::Code(3)),
        Job { name: "evil\u{1b}[2J\nname".into(), start: 100, ..Job::new(70, End::Signal(11)) },
    ])
}

#[test]
fn one_frame_for_a_pipe() {
    let lab = lab();
    let (code, out, err) = lab.run(&["top", "--once"]);
    assert_eq!((code, err.as_str()), (1, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("inquest top  ") && lines[0].contains("2 runs in all, 3 jobs failed"),
        "{out}"
    );
    for line in [
        "RUN           NAME       USER     PROGRESS            OK FAIL LIVE  ELAPSED PEAK",
        "job-70        evil\\u{1b+ uid-429+ [!!!!!!!!!!!!!!!]    0    1    0      10s  10%",
        "array-50      fit        uid-429+ [#####!!!!!!!!!!]    1    2    0      12s 100%",
        "14:00:12  app_error  x1    array-50      50_2    step batch task 0 on n1 ended +",
        "14:00:11  OOM     n1         50_1      out of memory: 1 process killed in step +",
    ] {
        assert!(lines.contains(&line), "{line:?} is not in\n{out}");
    }
    assert!(lines.iter().all(|l| l.chars().count() <= 80) && !out.contains('\u{1b}'), "{out}");

    let json = lab.json(&["top", "--json"]);
    let run = &json["runs"][1];
    assert_eq!((&run["run_id"], &run["ok"], &run["failed"]), (&"array-50".into(), &1.into(), &2.into()));
    assert_eq!((&run["peak_bytes"], &run["limit_bytes"]), (&(64 << 20).into(), &(64 << 20).into()));
    let (_, out, _) = lab.run(&["top", "--once", "51"]);
    assert!(out.contains("array-50") && !out.contains("job-70"), "{out}");
    // Another user's run of the same name is another run.
    let named = |id, uid, end| Job { run: Some("nightly"), uid, ..Job::new(id, end) };
    let two = Lab::with([named(11, 4_123_456, End::Code(0)), named(12, 4_123_457, End::Code(3))]);
    let (code, out, _) = two.run(&["top", "--once", "11"]);
    assert_eq!((code, out.matches("nightly ").count()), (0, 1), "{out}");
    lab.refuses(&["top"], 2, &["no terminal", "--once"]);
    lab.refuses(&["top", "--once", "99"], 3, &["no job 99"]);
    assert_eq!(lab.run(&["top", "-i", "0"]).0, 2);
}

/// `top` on a terminal of its own.
struct Screen {
    child: Child,
    keys: File,
    output: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Screen {
    fn new(lab: &Lab) -> Screen {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: openpty writes two descriptors and reads a size that outlives the call.
        let got =
            unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size) };
        assert_eq!(got, 0, "no terminal to be had: {}", std::io::Error::last_os_error());
        // SAFETY: both were just opened and belong to nobody else.
        let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child =
            lab.command(&["top", "-i", "1"]).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(slave);
        let keys = File::from(master);
        let mut read = keys.try_clone().unwrap();
        let (to, output) = mpsc::channel();
        // Ends when the last holder of the other side does.
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(n @ 1..) = read.read(&mut block) {
                if to.send(block[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Screen { child, keys, output, seen: String::new() }
    }

    /// Waits until all of these were written since the last wait.
    fn shows(&mut self, parts: &[&str]) {
        let deadline = Instant::now() + TIMEOUT;
        while !parts.iter().all(|p| self.seen.contains(p)) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(e) => panic!("{e}: {parts:?} is not in {:?}", self.seen),
            }
        }
        self.seen.clear();
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

#[test]
fn keys_choose_explain_filter_and_quit() {
    let lab = lab();
    let mut screen = Screen::new(&lab);
    screen.shows(&[ENTER, "array-50", "Recent events"]);
    screen.press("j\r");
    screen.shows(&["Run array-50", "2 of 3 jobs failed"]);
    screen.press("q");
    screen.shows(&["Recent events"]);
    screen.press("/oom\r");
    screen.shows(&[" (Esc clears it)"]);
    screen.press("?");
    screen.shows(&["Press"]);
    screen.press("xq");
    screen.shows(&[LEAVE]);
    assert_eq!(screen.code(), Some(1));
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let lab = lab();
    let mut screen = Screen::new(&lab);
    screen.shows(&[ENTER, "Recent events"]);
    let pid = rustix::process::Pid::from_child(&screen.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    screen.shows(&[LEAVE]);
    assert_eq!(screen.code(), Some(1));
}
