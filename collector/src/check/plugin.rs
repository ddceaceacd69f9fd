//! The plugin's file and its line in plugstack.conf.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Finding;
use super::files::{is_roots, mode};
use super::plugstack::{Line, Plugstack};

/// Where journals go when the line says nothing.
pub(super) const JOURNAL: &str = "/var/spool/inquest";

/// What a line may say, and whether a value makes sense; as the plugin itself
/// reads it, which is held to this by a test of both.
type Sense = fn(&str) -> bool;
const ARGUMENTS: [(&str, Sense, &str); 6] = [
    ("journal", |v| v.starts_with('/'), "an absolute path"),
    ("cluster", is_name, "1 to 64 letters, digits, dots, dashes or underscores"),
    ("sync", |v| ["abnormal", "always", "never"].contains(&v), "abnormal, always or never"),
    ("env", |v| v.split(',').all(is_variable), "names of variables with commas between"),
    ("optout", |v| ["yes", "no"].contains(&v), "yes or no"),
    ("note", |v| v.starts_with('/') && v.len() <= 256, "an absolute path of no more than 256 bytes"),
];

fn is_name(value: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&value.len()) && value.bytes().all(good)
}

fn is_variable(value: &str) -> bool {
    (1..=64).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The lines that name the plugin.
pub(super) fn lines(stack: &Plugstack) -> Vec<Finding> {
    let (path, subject) = (stack.path.display(), "plugstack");
    let drop_in = stack.path.with_file_name("plugstack.conf.d").join("inquest.conf");
    let mut findings = Vec::new();
    for unreadable in &stack.unreadable {
        findings.push(Finding::wrong(
            subject,
            format!("cannot be read: {unreadable}"),
            format!("make it a file that all may read, with the line: include {path}.d/*.conf"),
        ));
    }
    match stack.lines.as_slice() {
        [] if drop_in.exists() => findings.push(Finding::wrong(
            subject,
            format!("{path} does not include {}: nothing is recorded", drop_in.display()),
            format!("echo 'include {path}.d/*.conf' >>{path}"),
        )),
        [] => findings.push(Finding::wrong(
            subject,
            format!("no line of {path} names the plugin: nothing is recorded"),
            format!(
                "install the package inquest-plugin, or write: optional /usr/lib/slurm/{}",
                super::plugstack::FILE
            ),
        )),
        [_] => {}
        [first, others @ ..] => {
            let others: Vec<&str> = others.iter().map(|l| l.place.as_str()).collect();
            findings.push(Finding::wrong(
                subject,
                format!(
                    "the plugin is named twice: {} and {}; every event would be recorded twice",
                    first.place,
                    others.join(", ")
                ),
                "remove all lines but one",
            ));
        }
    }
    findings.extend(job_lines(stack));
    for line in stack.lines.iter().chain(&stack.job_lines) {
        let place = &line.place;
        if !line.optional {
            findings.push(Finding::wrong(
                subject,
                format!("{place} says required: on a node without the file no job would start"),
                "write optional instead",
            ));
        }
        findings.extend(arguments(line));
    }
    if findings.is_empty() {
        let places: Vec<&str> =
            stack.lines.iter().chain(&stack.job_lines).map(|l| l.place.as_str()).collect();
        findings.push(Finding::ok(subject, places.join(" and ")));
    }
    findings
}

/// The second object adds to what the first one records, in the same place.
fn job_lines(stack: &Plugstack) -> Vec<Finding> {
    let subject = "plugstack";
    let mut findings = Vec::new();
    if let [first, second, ..] = stack.job_lines.as_slice() {
        findings.push(Finding::wrong(
            subject,
            format!(
                "{} is named twice: {} and {}; every event would be recorded twice",
                super::plugstack::JOB_FILE,
                first.place,
                second.place
            ),
            "remove all lines but one",
        ));
    }
    if let (Some(line), Some(job)) = (stack.lines.first(), stack.job_lines.first())
        && journal(line) != journal(job)
    {
        findings.push(Finding::wrong(
            subject,
            format!(
                "{} writes to {}, and {} to {}: nobody reads both",
                line.place,
                journal(line).display(),
                job.place,
                journal(job).display()
            ),
            "write the same journal= into both lines",
        ));
    }
    findings
}

/// One wrong argument, and the plugin records nothing.
fn arguments(line: &Line) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for argument in &line.arguments {
        let known: Vec<&str> = ARGUMENTS.iter().map(|(key, ..)| *key).collect();
        let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
        let wrong = match ARGUMENTS.iter().find(|(k, ..)| *k == key) {
            _ if seen.contains(&key) => format!("{key}= is there twice; remove one"),
            None => format!("the plugin takes {}=; correct or remove it", known.join("=, ")),
            Some((_, sense, want)) if !sense(value) => format!("{key}= must be {want}"),
            Some(_) => {
                seen.push(key);
                continue;
            }
        };
        findings.push(Finding::wrong(
            "plugstack",
            format!(
                "{}: {argument} is no argument of the plugin: it is off, nothing is recorded",
                line.place
            ),
            wrong,
        ));
    }
    findings
}

/// Where this line has the journals written.
pub(super) fn journal(line: &Line) -> PathBuf {
    line.arguments.iter().find_map(|a| a.strip_prefix("journal=")).unwrap_or(JOURNAL).into()
}

/// The file that a line names.
pub(super) fn file(line: &Line) -> Vec<Finding> {
    let (path, subject) = (&line.path, "plugin");
    let shown = path.display();
    if !path.is_absolute() {
        return vec![Finding::warning(
            subject,
            format!(
                "{} names {shown} without a directory: it is looked for in Slurm's PluginDir, which changes with Slurm",
                line.place
            ),
            "write the absolute path",
        )];
    }
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) => {
            return vec![Finding::wrong(
                subject,
                format!("{shown}, which {} names: {e}; jobs run, nothing is recorded", line.place),
                "install the package inquest-plugin, or correct the path",
            )];
        }
    };
    if !is_roots(&meta) {
        return vec![Finding::wrong(
            subject,
            format!(
                "{shown} belongs to user {} with mode {}: whoever may write to it is root in every job",
                meta.uid(),
                mode(&meta)
            ),
            format!(
                "install it again from a source that you trust, then chown root: {shown} && chmod 0755 {shown}"
            ),
        )];
    }
    if !is_for_this_machine(path) {
        return vec![Finding::wrong(
            subject,
            format!("{shown} is no shared object for this machine"),
            "install the package inquest-plugin for this architecture",
        )];
    }
    vec![Finding::ok(subject, shown.to_string())]
}

/// The head of the file is that of this very program, up to the machine.
fn is_for_this_machine(path: &Path) -> bool {
    // ELF magic, class, byte order at 0; machine at 18 (elf(5)).
    let head = |path: &Path| {
        let mut head = [0_u8; 20];
        let mut file = std::fs::File::open(path).ok()?;
        std::io::Read::read_exact(&mut file, &mut head).ok()?;
        Some((head[..6].to_owned(), head[18..].to_owned()))
    };
    match std::env::current_exe().ok().and_then(|exe| head(&exe)) {
        Some(own) => head(path) == Some(own),
        None => true,
    }
}
