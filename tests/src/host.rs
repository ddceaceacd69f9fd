//! Plays slurmstepd to the plugin: builds the host program and the plugin,
//! runs a script of hooks, and tells what happened.
//!
//! The script's language is described in `tests/host/host.c`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Numbers of items and contexts that scripts use, from `spank_abi.h`.
#[allow(missing_docs)]
pub mod item {
    pub const UID: u32 = 0;
    pub const GID: u32 = 1;
    pub const JOB: u32 = 2;
    pub const STEP: u32 = 3;
    pub const NODES: u32 = 4;
    pub const LOCAL_TASKS: u32 = 6;
    pub const TOTAL_TASKS: u32 = 7;
    pub const ARGV: u32 = 9;
    pub const ENV: u32 = 10;
    pub const VERSION: u32 = 20;
    pub const JOB_CORES: u32 = 25;
    pub const STEP_CORES: u32 = 27;
    pub const ARRAY: u32 = 30;
    pub const ARRAY_TASK: u32 = 31;
    pub const BATCH: u32 = 0xffff_fffb;
    pub const EXTERN: u32 = 0xffff_fffc;
    pub const INTERACTIVE: u32 = 0xffff_fffa;
    pub const NO_VAL: u32 = 0xffff_fffe;
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// A plugin: the file that a variable of the environment names, or, where none does, built now.
fn object(variable: &str, package: &str, faults: bool) -> PathBuf {
    if let Some(built) = std::env::var_os(variable) {
        return built.into();
    }
    let dir = if faults { target().join("faults") } else { target() };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args(["build", "--quiet", "--profile", "plugin", "-p", package]);
    cargo.arg("--target-dir").arg(&dir);
    if faults {
        cargo.args(["--features", "inject-faults"]);
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "{package} does not build");
    dir.join(format!("plugin/lib{}.so", package.replace('-', "_")))
}

/// The plugin as it is shipped: the file `INQUEST_PLUGIN`, or built now.
pub fn plugin() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| object("INQUEST_PLUGIN", "spank-inquest", false))
}

/// The plugin that panics where the argument `inject=HOOK` says: the file
/// `INQUEST_PLUGIN_FAULTS`, or built now.
pub fn faulty_plugin() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| object("INQUEST_PLUGIN_FAULTS", "spank-inquest", true))
}

/// The plugin of a job's prolog and epilog as it is shipped: the file `INQUEST_PLUGIN_JOB`, or built now.
pub fn plugin_of_jobs() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| object("INQUEST_PLUGIN_JOB", "spank-inquest-job", false))
}

/// The same with panics on demand: the file `INQUEST_PLUGIN_JOB_FAULTS`, or built now.
pub fn faulty_plugin_of_jobs() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| object("INQUEST_PLUGIN_JOB_FAULTS", "spank-inquest-job", true))
}

fn compile(name: &str, flags: &[&str]) -> PathBuf {
    let out = target().join(name);
    let sources = [workspace().join("tests/host/host.c"), workspace().join("include/spank_abi.h")];
    let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    if sources.iter().all(|source| changed(source) < changed(&out)) {
        return out;
    }
    fs::create_dir_all(target()).expect("the target directory can be made");
    // Several tests may build at once: each its own file, then one name.
    let mine = target().join(format!("{name}.{}", std::process::id()));
    let status = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-rdynamic", "-o"])
        .arg(&mine)
        .args(flags)
        .arg(&sources[0])
        .status()
        .expect("cc is installed (ci/setup)");
    assert!(status.success(), "tests/host/host.c does not compile");
    fs::rename(&mine, &out).expect("the target directory is writable");
    out
}

/// The host with everything that Slurm has.
pub fn program() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| compile("spank-host", &[]))
}

/// A host that has nothing but `slurm_api_version`.
pub fn bare_program() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| compile("spank-host-bare", &["-DBARE"]))
}

/// One run of the host.
pub struct Host {
    /// Private directory; the journal is below it.
    pub dir: tempfile::TempDir,
    program: PathBuf,
    plugin: PathBuf,
    script: String,
    env: Vec<(String, String)>,
    wrapper: Vec<String>,
}

/// What a run left behind.
#[derive(Debug)]
pub struct Outcome {
    /// The lines that the host reported.
    pub report: Vec<String>,
    /// Every line of the journal, in the order of the file.
    pub events: Vec<Value>,
    /// Whatever was written to descriptor 1 and 2.
    pub output: Vec<u8>,
}

/// What is written to descriptor 0 and must still be there at the end.
const STDIN: &[u8] = b"untouched";

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Host {
    /// A host with an empty script and a journal directory of its own.
    pub fn new() -> Host {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("journal")).expect("a fresh directory is writable");
        Host {
            dir,
            program: program().to_owned(),
            plugin: plugin().to_owned(),
            script: String::new(),
            env: vec![("SLURMD_NODENAME".into(), "n1".into())],
            wrapper: Vec::new(),
        }
    }

    /// Takes another plugin file.
    pub fn plugin(mut self, path: &Path) -> Host {
        self.plugin = path.to_owned();
        self
    }

    /// Takes another host program.
    pub fn program(mut self, path: &Path) -> Host {
        self.program = path.to_owned();
        self
    }

    /// Runs the host through another command, such as valgrind.
    pub fn wrapper(mut self, words: &[&str]) -> Host {
        self.wrapper = words.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    /// Sets a variable of slurmstepd itself.
    pub fn env(mut self, key: &str, value: &str) -> Host {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Adds lines to the script; `@dir@` is the private directory.
    pub fn script(mut self, lines: &str) -> Host {
        let dir = self.dir.path().to_str().expect("a UTF-8 path");
        self.script.push_str(&lines.replace("@dir@", dir));
        self.script.push('\n');
        self
    }

    /// What slurmstepd would know about a step of job 7 with one task.
    pub fn step(self, step: u32) -> Host {
        use item::*;
        self.script(&format!(
            "context 2\narg journal=@dir@/journal\narg cluster=lab\nu32 {UID} 1000\nu32 {GID} 1000\n\
             u32 {JOB} 7\nu32 {STEP} {step}\nu32 {NODES} 1\nu32 5 0\nu32 {LOCAL_TASKS} 1\n\
             u32 {TOTAL_TASKS} 1\nu32 {ARRAY} 7\nu32 {ARRAY_TASK} {NO_VAL}\nstr {VERSION} 22.05.8\n\
             str {JOB_CORES} 0-3\nstr {STEP_CORES} 0\nu64 26 100\nu64 28 100\nargv /bin/app\nargv --size\nargv 3\n\
             env SLURM_JOB_NAME=name\nenv SLURM_JOB_ID=7"
        ))
    }

    /// What slurmd would let a prolog or epilog of job 7 know, with the plugin of these hooks.
    pub fn job(self) -> Host {
        use item::*;
        self.plugin(plugin_of_jobs()).script(&format!(
            "context 5\narg journal=@dir@/journal\narg cluster=lab\nu32 {UID} 1000\nu32 {GID} 1000\nu32 {JOB} 7\n\
             str {VERSION} 22.05.8\nown SLURM_JOB_ACCOUNT=acc\nown SLURM_JOB_RESTART_COUNT=0\n\
             own SLURM_JOB_EXIT_CODE=768"
        ))
    }

    /// Starts it and leaves it to the caller, who kills it or waits for it. Several may run at once
    /// on one journal, each with a report of its own.
    pub fn start(&self, report: &Path) -> Child {
        let null = Stdio::null;
        let started = self.command(report).stdin(null()).stdout(null()).stderr(null()).spawn();
        started.expect("the host runs")
    }

    fn command(&self, report: &Path) -> Command {
        let script = self.dir.path().join("script");
        fs::write(&script, &self.script).expect("the private directory is writable");
        let mut words: Vec<&std::ffi::OsStr> = self.wrapper.iter().map(|w| w.as_ref()).collect();
        words.extend([
            self.program.as_os_str(),
            self.plugin.as_os_str(),
            script.as_os_str(),
            report.as_os_str(),
        ]);
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env_remove("SLURM_CONF")
            .env_remove("SLURMD_NODENAME")
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs it. Asserts what must hold whatever the script does: the host
    /// lives, every hook returned 0, and descriptors 0, 1 and 2 are as they were.
    pub fn run(&self) -> Outcome {
        let report = self.dir.path().join("report");
        let (mut stdin_reader, mut stdin_writer) = std::io::pipe().expect("a pipe");
        stdin_writer.write_all(STDIN).expect("a pipe takes a few bytes");
        drop(stdin_writer);
        let output = self
            .command(&report)
            .stdin(Stdio::from(stdin_reader.try_clone().expect("a descriptor")))
            .output()
            .expect("the host runs");
        let report = fs::read_to_string(&report).unwrap_or_default();
        let context = format!("script:\n{}\nreport:\n{report}\noutput: {output:?}", self.script);
        assert!(output.status.success(), "{context}");
        let mut left = Vec::new();
        std::io::Read::read_to_end(&mut stdin_reader, &mut left).expect("a pipe can be read");
        assert_eq!(left, STDIN, "the plugin read descriptor 0; {context}");

        let report: Vec<String> = report.lines().map(str::to_owned).collect();
        for line in &report {
            if let Some(rc) = line.strip_prefix("rc ") {
                assert!(rc.ends_with(" 0"), "a hook did not return 0: {line}; {context}");
            }
            for bad in ["error ", "spank_log ", "forbidden ", "clone status "] {
                // slurm_error is right in slurmd, and nowhere else.
                let allowed = bad == "error " && self.script.contains("context 4");
                assert!(allowed || !line.starts_with(bad), "{line}; {context}");
            }
        }
        assert_eq!(report.last().map(String::as_str), Some("done"), "{context}");
        let mut output_bytes = output.stdout;
        output_bytes.extend_from_slice(&output.stderr);
        assert!(output_bytes.is_empty(), "something was written to descriptor 1 or 2; {context}");
        Outcome { report, events: self.events(), output: output_bytes }
    }

    /// The journal as it is now; every line must be JSON, 4096 bytes at most.
    pub fn events(&self) -> Vec<Value> {
        let mut events = Vec::new();
        let Ok(nodes) = fs::read_dir(self.dir.path().join("journal")) else { return events };
        // Not through links: what a test has put there is not ours.
        for node in nodes.flatten().filter(|n| n.file_type().is_ok_and(|t| t.is_dir())) {
            for file in fs::read_dir(node.path()).into_iter().flatten().flatten() {
                let bytes = fs::read(file.path()).expect("the journal can be read");
                for line in bytes.split_inclusive(|&b| b == b'\n') {
                    assert!(line.len() <= inquest_journal::LINE_MAX, "{} bytes", line.len());
                    let event = serde_json::from_slice(line);
                    events.push(event.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(line))));
                }
            }
        }
        events
    }
}

impl Outcome {
    /// The types of all events, in order.
    pub fn types(&self) -> Vec<&str> {
        self.events.iter().filter_map(|e| e["event_type"].as_str()).collect()
    }

    /// The events of one type.
    pub fn of(&self, event_type: &str) -> Vec<&Value> {
        self.events.iter().filter(|e| e["event_type"] == event_type).collect()
    }

    /// What follows `word` in the report, for every line that starts with it.
    pub fn said(&self, word: &str) -> Vec<&str> {
        self.report.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
    }

    /// Asserts that sequence numbers run from 0 without a gap in every stream.
    pub fn assert_gapless(&self) {
        let mut next = std::collections::BTreeMap::new();
        for event in &self.events {
            let next = next.entry(event["stream"].as_str().expect("a stream")).or_insert(0);
            assert_eq!(event["seq"].as_u64(), Some(*next), "{event}");
            *next += 1;
        }
    }
}
