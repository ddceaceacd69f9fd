//! A document of commands and what they print, made by running them, and compared with what it said
//! before in everything but what is another every time.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::cluster::{Cluster, USERS};

/// The person of the document, who is a user of the tests in truth, and where they work.
const PERSON: &str = "user";
const HOME: &str = "/home/user";

/// A document in the making.
#[derive(Debug)]
pub struct Transcript<'a> {
    cluster: &'a Cluster,
    /// Where the commands are.
    bin: PathBuf,
    store: PathBuf,
    dir: PathBuf,
    text: String,
    /// Inside a block of commands.
    open: bool,
}

impl<'a> Transcript<'a> {
    /// Begins with a title and an introduction. `bin` goes before the PATH of the commands.
    pub fn new(cluster: &'a Cluster, bin: &Path, store: &Path, head: &str) -> Transcript<'a> {
        let text = format!("{}\n", head.trim_end());
        let (bin, store, dir) = (bin.to_owned(), store.to_owned(), cluster.work_dir());
        Transcript { cluster, bin, store, dir, text, open: false }
    }

    /// Goes to a directory below home, which is made, with files of these names.
    pub fn stage(&mut self, dir: &str, files: &[(&str, &str)]) {
        self.dir = self.cluster.work_dir().join(dir);
        fs::create_dir_all(&self.dir).expect("a new directory");
        for (name, text) in files {
            let path = self.dir.join(name);
            fs::create_dir_all(path.parent().expect("below the directory")).expect("a new directory");
            fs::write(path, text).expect("a file of the stage");
        }
        let owner = ["-R", USERS[0]].map(std::ffi::OsString::from);
        let done = std::process::Command::new("chown").args(owner).arg(&self.dir).status();
        assert!(done.is_ok_and(|status| status.success()), "chown {}", self.dir.display());
    }

    /// Where the commands run now.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A paragraph, or a heading.
    pub fn say(&mut self, text: &str) {
        self.close();
        let _ = write!(self.text, "\n{text}\n");
    }

    /// A file of the stage, as the reader would see it.
    pub fn show(&mut self, language: &str, name: &str) {
        self.close();
        let text = fs::read_to_string(self.dir.join(name)).expect("a file of the stage");
        let _ = write!(self.text, "\n`{name}`:\n\n```{language}\n{}\n```\n", text.trim_end());
    }

    /// A command line as the person gives it to her shell, and what comes back; both go to the document.
    pub fn run(&mut self, line: &str) -> String {
        let said = self.ask(line);
        if !self.open {
            self.text += "\n```console\n";
            self.open = true;
        }
        let shown = self.shown(&said);
        let blank = if shown.is_empty() { "" } else { "\n" };
        let _ = write!(self.text, "$ {}\n{}{blank}", self.shown(line), shown.trim_end());
        said
    }

    /// The same without a word in the document.
    pub fn ask(&self, line: &str) -> String {
        let mut command = self.cluster.command(Some(USERS[0]), "bash");
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.bin.display());
        command.env("PATH", path).env("INQUEST_STORE", &self.store).env("COLUMNS", "80").env("TZ", "UTC");
        let output = command.current_dir(&self.dir).args(["-c", line]).output().expect("bash");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        format!("{out}{err}")
    }

    /// The whole of it.
    pub fn finish(mut self) -> String {
        self.close();
        self.text
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.text += "```\n";
        }
    }

    /// With the person's name and home in place of the tests' own, in columns of the same width.
    fn shown(&self, text: &str) -> String {
        let home = self.cluster.work_dir().display().to_string();
        let column = format!("{:1$}  ", PERSON, USERS[0].len());
        let lab = Regex::new(r"\blab\d+\b").expect("a pattern of this file compiles");
        let text = text.replace(&home, HOME).replace(&format!("{}  ", USERS[0]), &column);
        lab.replace_all(&text.replace(USERS[0], PERSON), "lab").into_owned()
    }
}

/// What differs from one run of the same commands to the next, and what stands for it.
static OTHER: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let pattern = |(pattern, stands): (&str, &'static str)| {
        (Regex::new(pattern).expect("a pattern of this file compiles"), stands)
    };
    [
        (r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d)?", "DATE"),
        (r"\b\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
        (r"\+?\b(\d+-)?\d+:\d\d(:\d\d)?\b|\+?\b\d+(\.\d+)?s\b", "SPAN"),
        (r"\bpid \d+", "pid PID"),
        (r"StepId=\d+", "StepId=ID"),
        // Cut by the edge of the page, or not, as the values before it have it.
        (r", peak [\d.]+ ?[KMGiB]*\+?", ", peak SIZE"),
        (r"\bn\d-[0-9a-f]{8}-\d+-\d+#", "STREAM#"),
        (r"(limit of |limit )?\b\d+(\.\d+)? ?[KMG]iB", "SIZE"),
        (r" \(\d+\)", " (ID)"),
        (r"\b\d+%", "SHARE"),
        (r"slurm_script: line \d+: +\d+", "slurm_script: line N: PID"),
        (r"job0*\d+/slurm_script", "jobN/slurm_script"),
    ]
    .into_iter()
    .map(pattern)
    .collect()
});

/// The document without what is another every time: values are masked, and blanks and line ends, which
/// follow from how long the values are, are one blank. Of commands that print in the order of time, the
/// words are sorted.
pub fn masked(document: &str) -> String {
    let mut out = String::new();
    let mut block: Option<(String, String)> = None;
    let flush = |block: &mut Option<(String, String)>, out: &mut String| {
        if let Some((line, said)) = block.take() {
            let mut words: Vec<String> = mask(&said).split_whitespace().map(str::to_owned).collect();
            if ["inquest timeline", "inquest top"].iter().any(|verb| line.contains(verb)) {
                words.sort_unstable();
            }
            let _ = write!(out, "{line}\n{}\n", words.join(" "));
        }
    };
    for line in document.lines() {
        if line.starts_with("$ ") {
            flush(&mut block, &mut out);
            block = Some((line.to_owned(), String::new()));
        } else if line.starts_with("```") {
            flush(&mut block, &mut out);
            let _ = writeln!(out, "{line}");
        } else if let Some((_, said)) = &mut block {
            let _ = writeln!(said, "{line}");
        } else {
            let _ = writeln!(out, "{line}");
        }
    }
    flush(&mut block, &mut out);
    out
}

fn mask(text: &str) -> String {
    // Blanks first: where a line ends follows from the values before it.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    OTHER.iter().fold(text, |text, (pattern, stands)| {
        let replace = |found: &Captures<'_>| match found.get(1) {
            // A limit is what was asked for, and the same every time.
            Some(limit) if limit.as_str().starts_with("limit") => found[0].to_owned(),
            _ => (*stands).to_owned(),
        };
        pattern.replace_all(&text, replace).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::{mask, masked};

    #[test]
    fn only_what_is_another_every_time_is_masked() {
        for (a, b) in [
            ("14:30:01.234  +1.335s step 0", "09:00:00.001 +12:01 step 0"),
            (
                "killed, pid 17,\n  peak 58.9 MiB of a limit of 64.0 MiB",
                "killed, pid 312343, peak 60 MiB of a limit of 64.0 MiB",
            ),
            ("Job 4_1 (7)  n1-4814f374-15839-9508199701#5", "Job 4_1 (88) n2-00000000-1-2#5"),
            ("started 2026-11-21 11:09:44, took 0.582s", "started 2027-01-01 00:00:00, took 1:02"),
        ] {
            assert_eq!(mask(a), mask(b));
        }
        for (a, b) in [
            ("exit code 3", "exit code 4"),
            ("a limit of 64.0 MiB", "a limit of 48.0 MiB"),
            ("sbatch --array=1,3 --mem=72M", "sbatch --array=1,3 --mem=73M"),
            ("#5", "#6"),
            ("4_1", "4_2"),
        ] {
            assert_ne!(mask(a), mask(b));
        }
    }

    #[test]
    fn prose_keeps_its_order_and_a_timeline_its_words() {
        let page = |verb: &str, said: &str| masked(&format!("text\n```console\n$ {verb}\n{said}\n```\n"));
        assert_eq!(page("inquest timeline 3", "b\na"), page("inquest timeline 3", "a b"));
        assert_ne!(page("inquest timeline 3", "b\na"), page("inquest timeline 3", "a a b"));
        assert_ne!(page("inquest why 3", "b\na"), page("inquest why 3", "a b"));
        assert_eq!(page("inquest why 3", "b\na"), page("inquest why 3", "b  a"));
        assert_ne!(page("inquest why 3", "b"), page("inquest why 4", "b"));
    }
}
