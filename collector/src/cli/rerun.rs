use std::io::Write;
use std::process::Command;

use clap::Args;

use super::rules::Judging;
use super::{FAILURES, GOOD, NotYours, Output, Usage, Where, print, print_json};
use crate::recover::{self, Group, Plan, Scripts, Subject, Submitted, Template, Wishes};
use crate::report::{clean, csv, failures, rerun};
use crate::runs::RunState;
use crate::slurm::target::Target;
use crate::store::user_name;
use crate::verdict::Class;

const EXAMPLES: &str = "\
Examples:
  inquest rerun array-4700
  inquest rerun 4700 --class oom --mem 32G --script job.sh
  inquest rerun 4700 --exclude-bad --submit
  inquest rerun 4700 --csv failed.csv \\
      --config-template 'configs/config_%04d.json'

Jobs that were killed for memory get half as much again as they had; jobs that
were stopped at their time limit get half as much time again, or a fifth more
than the longest of their siblings that succeeded, whichever is more. Siblings
are the members of the same array, else jobs of the same name that asked for as
much memory. Options that you gave to sbatch on its command line are not
recorded: put them into the script, or add them to the printed command.

Jobs that somebody cancelled are left out unless --class cancelled asks for them.

Only your own jobs are submitted: the script of another user would run with
your rights. The plan says how that user submits them.

Exit status: 0 nothing failed or all was submitted, 1 there is something to run
again, 2 wrong usage, 3 not found or unreadable, 4 permission denied.";

/// Print the commands that run failed jobs again.
///
/// Prints one sbatch command per class of failure and array, with the exact
/// indices. Nothing is submitted without --submit and your yes.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Job id, members of an array (123_[1-3]), or run id.
    #[arg(value_name = "JOB|RUN")]
    target: String,
    /// Only jobs of this class (oom, timeout, infra, ...); may be repeated.
    #[arg(long = "class", value_name = "CLASS", value_delimiter = ',')]
    classes: Vec<String>,
    /// Memory per node for all of them, as sbatch takes it.
    #[arg(long, value_name = "SIZE", conflicts_with = "mem_factor")]
    mem: Option<String>,
    /// Memory for all of them: so many times what they had.
    #[arg(long, value_name = "FACTOR")]
    mem_factor: Option<f64>,
    /// Time limit for all of them, as sbatch takes it.
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Leave out nodes where jobs fail at least twice as often as elsewhere.
    #[arg(long)]
    exclude_bad: bool,
    /// The job script; asked of Slurm (scontrol) when not given.
    #[arg(long, value_name = "FILE")]
    script: Option<String>,
    /// Submit after asking.
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    submit: bool,
    /// Write the failed jobs as CSV, to standard output without a file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with = "json")]
    csv: Option<Output>,
    /// For the column config_file of the CSV: a name with %d or %04d for the
    /// index in the array.
    #[arg(long, value_name = "NAME", requires = "csv")]
    config_template: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    judging: Judging,
    #[command(flatten)]
    place: Where,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    let target: Target = arguments.target.parse()?;
    let wishes = arguments.wishes()?;
    let template = arguments.config_template.as_deref().map(str::parse::<Template>).transpose();
    let template = template.map_err(|e| Usage(e.to_string()))?;
    let found = arguments.place.judged(&target, &arguments.judging)?;
    // Those that succeeded show what it takes, whoever was asked for.
    let all: Vec<u32> = found.run.members.keys().copied().collect();
    let stories = super::why::stories_of(&found, &all)?;
    let subjects: Vec<Subject<'_>> = found
        .run
        .members
        .iter()
        .filter_map(|(number, member)| {
            let attempt = stories.get(&member.job_id)?.attempts.last()?;
            Some(Subject { member, attempt, wanted: found.members.contains(number) })
        })
        .collect();
    let given = arguments.script.clone().map(script_word);
    let mut scripts = Scripts::default();
    let plan = recover::plan(&found.run, &subjects, &wishes, |member| match &given {
        Some(script) => Submitted { script: Some(vec![script.clone()]), throttle: None },
        None => scripts.of(member.job_id),
    });
    if let Some(to) = &arguments.csv {
        let mut rows = Vec::new();
        for subject in subjects.iter().filter(|s| s.wanted) {
            let story = &stories[&subject.member.job_id];
            // What was put back into the queue and then ended well is done.
            let newest = failures::failures(&found.run, subject.member, story, true).pop();
            rows.extend(newest.filter(|f| f.attempt == story.attempts.len() && wishes.include(f.class)));
        }
        to.write(&csv::text(&rerun::CSV, &rerun::csv_rows(&found.run, &rows, template.as_ref())))?;
    }
    let other = other_owner(&found.run, arguments);
    if arguments.json {
        print_json(&rerun::json(&found.run, &plan))?;
    } else if arguments.csv.as_ref().is_none_or(|to| !to.is_stdout()) {
        let alone = !arguments.submit && arguments.csv.is_none() && !plan.groups.is_empty();
        let note = other.as_ref().filter(|_| alone);
        print(
            &(rerun::text(&plan) + &note.map_or(String::new(), |says| format!("Note: {}\n", clean(says)))),
        )?;
    }
    if plan.groups.is_empty() {
        let which = if wishes.classes.is_empty() { "" } else { " in this class" };
        let but = if plan.cancelled > 0 { " by itself" } else { "" };
        eprintln!("inquest: nothing failed{which}{but}, so there is nothing to run again");
        return Ok(GOOD);
    }
    match other {
        _ if !arguments.submit => Ok(FAILURES),
        Some(says) => Err(NotYours(format!("nothing was submitted: {says}")).into()),
        None => submit(&plan),
    }
}

/// What there is to say where the jobs are not the caller's.
fn other_owner(run: &RunState, arguments: &Arguments) -> Option<String> {
    let caller = rustix::process::geteuid().as_raw();
    if user_name(caller) == run.user {
        return None;
    }
    // As sudo takes it: a name, or a number where nobody has one.
    let number = || run.key.uid.map_or("USER".to_owned(), |uid| format!("#{uid}"));
    let named = uzers::get_user_by_name(&run.user).is_some();
    let user = if named { run.user.clone() } else { number() };
    let mut words = ["sudo", "-u", &user, "inquest"].map(str::to_owned).to_vec();
    // What was asked for, and nothing else; sudo hands no variable on.
    words.extend(std::env::args().skip(1).filter(|word| word != "--submit"));
    if let Some(store) = &arguments.place.store
        && !words.iter().any(|word| word == "--store" || word.starts_with("--store="))
    {
        words.extend(["--store".to_owned(), store.to_string_lossy().into_owned()]);
    }
    words.push("--submit".to_owned());
    Some(format!(
        "these are jobs of {}, whose script would run with your rights; submit them as that user: {}",
        run.user,
        recover::line(&words).unwrap_or_default()
    ))
}

impl Arguments {
    fn wishes(&self) -> Result<Wishes, Usage> {
        let classes = classes(&self.classes)?;
        if let Some(mem) = self.mem.as_ref().filter(|m| !recover::is_memory(m)) {
            return Err(Usage(format!(
                "'{}' is no memory size; write 24G, 500M or 2000",
                mem.escape_debug()
            )));
        }
        if let Some(time) = self.time.as_ref().filter(|t| !recover::is_time(t)) {
            return Err(Usage(format!(
                "'{}' is no time limit; write 90, 1:30:00 or 1-12:00:00",
                time.escape_debug()
            )));
        }
        if let Some(factor) = self.mem_factor.filter(|f| !(0.01..=100.0).contains(f)) {
            return Err(Usage(format!(
                "a factor of {factor} makes no sense; write one between 0.01 and 100"
            )));
        }
        Ok(Wishes {
            classes,
            memory: self.mem.clone(),
            memory_factor: self.mem_factor,
            time: self.time.clone(),
            exclude_bad: self.exclude_bad,
        })
    }
}

/// Classes by their names.
pub(super) fn classes(words: &[String]) -> Result<Vec<Class>, Usage> {
    let class = |word: &String| {
        let known = serde_json::from_value::<Class>(serde_json::Value::String(word.clone())).ok();
        known.filter(|c| *c != Class::Ok).ok_or_else(|| {
            Usage(format!(
                "there is no class '{}'; choose from oom, timeout, app_error, crash, infra, dependency, \
                 validation, cancelled, preempted, unknown",
                word.escape_debug()
            ))
        })
    };
    words.iter().map(class).collect()
}

/// A script whose name begins with a dash is no option of sbatch.
fn script_word(script: String) -> String {
    if script.starts_with('-') { format!("./{script}") } else { script }
}

/// Asks, and runs the commands word by word, without a shell.
fn submit(plan: &Plan) -> anyhow::Result<u8> {
    let known = |g: &&Group| g.command.is_some();
    let (ready, unknown): (Vec<&Group>, Vec<&Group>) = plan.groups.iter().partition(known);
    if let Some(group) = unknown.first() {
        return Err(Usage(format!(
            "the job script of {} is not known; give it with --script, nothing was submitted",
            group.members
        ))
        .into());
    }
    let jobs: usize = ready.iter().map(|g| g.jobs).sum();
    eprint!("Submit {} command(s) for {jobs} job(s)? [y/N] ", ready.len());
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        eprintln!("inquest: nothing was submitted");
        return Ok(FAILURES);
    }
    for group in ready {
        let status = Command::new(&group.argv[0]).args(&group.argv[1..]).status();
        let reason = match status {
            Ok(status) if status.success() => continue,
            Ok(status) => format!("sbatch ended with {status}"),
            Err(e) => format!("sbatch could not be started: {e}"),
        };
        anyhow::bail!("{reason}; {} and what follows was not submitted", group.members);
    }
    Ok(GOOD)
}
