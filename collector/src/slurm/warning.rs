//! The warning signal that a job may ask for before its time limit (`--signal` of sbatch, salloc and srun).

use super::SIGNALS;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Number of the signal.
    pub signal: u8,
    /// How long before the time limit, in seconds.
    pub seconds: u32,
    /// The batch script gets it; else only the steps do.
    pub script: bool,
}

impl Warning {
    /// Reads `[R|B|RB:]SIGNAL[@SECONDS]`, as `get_signal_opts` of Slurm does: the signal by number or by name,
    /// 60 seconds where none are given.
    pub fn parse(text: &str) -> Option<Warning> {
        let (who, rest) = text.split_once(':').unwrap_or(("", text));
        if !matches!(who.to_ascii_uppercase().as_str(), "" | "R" | "B" | "RB" | "BR") {
            return None;
        }
        let (signal, seconds) = match rest.split_once('@') {
            Some((signal, seconds)) => (signal, seconds.parse::<u16>().ok()?),
            None => (rest, 60),
        };
        let name = signal.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let named = || SIGNALS.iter().position(|n| !n.is_empty() && *n == name);
        let signal = signal.parse().ok().or_else(|| u8::try_from(named()?).ok()).filter(|&n| n > 0)?;
        Some(Warning { signal, seconds: seconds.into(), script: who.to_ascii_uppercase().contains('B') })
    }
}

/// The value of `--signal` in the command line that a job was submitted with, as slurmdbd keeps it. What stands
/// behind the script's name is the script's own; behind an option that may have a value of its own, as `-n 4`, a
/// word is taken for that.
pub fn of_submit_line(line: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (mut found, mut value_may_follow) = (None, false);
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            if !std::mem::take(&mut value_may_follow) {
                break;
            }
            continue;
        }
        value_may_follow = word.len() == 2 || word.starts_with("--") && !word.contains('=');
        let value = match word.strip_prefix("--signal") {
            _ if word == "--" || word.starts_with("--wrap") => break,
            Some("") => {
                value_may_follow = false;
                words.next()
            }
            Some(rest) => rest.strip_prefix('='),
            None => continue,
        };
        found = value.filter(|v| Warning::parse(v).is_some()).or(found);
    }
    found.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read_as_slurm_does() {
        let warning = |signal, seconds, script| Some(Warning { signal, seconds, script });
        for (text, read) in [
            ("USR1", warning(10, 60, false)),
            ("10", warning(10, 60, false)),
            ("SIGUSR2@5", warning(12, 5, false)),
            ("B:term@120", warning(15, 120, true)),
            ("RB:USR1@0", warning(10, 0, true)),
            ("R:INT", warning(2, 60, false)),
            (":HUP", warning(1, 60, false)),
        ] {
            assert_eq!(Warning::parse(text), read, "{text}");
        }
        for bad in
            ["", "B:", "0", "NOPE", "USR1@", "USR1@x", "USR1@70000", "X:USR1", "300", "SIG", "USR1@5@6"]
        {
            assert_eq!(Warning::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_read_up_to_the_script() {
        let of = |line: &str| of_submit_line(line);
        assert_eq!(of("sbatch -n1 --signal=B:USR1@50 --time=1 job.sh").as_deref(), Some("B:USR1@50"));
        assert_eq!(of("sbatch --signal USR1 job.sh").as_deref(), Some("USR1"));
        assert_eq!(of("sbatch -n 4 --time 1 --signal=USR2 job.sh --signal=USR1").as_deref(), Some("USR2"));
        assert_eq!(of("sbatch job.sh"), None);
        assert_eq!(of("sbatch -n4 job.sh --signal=USR1"), None);
        assert_eq!(of("sbatch --wrap=srun --signal=USR1 x"), None);
        assert_eq!(of("sbatch --signal=$(x)"), None);
        assert_eq!(of(""), None);
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in any::<String>(), likely in "[RB]{0,3}:?(SIG)?[A-Z0-9]{0,5}@?[0-9]{0,6}") {
            for text in [text, likely] {
                if let Some(read) = Warning::parse(&text) {
                    prop_assert!(read.signal > 0);
                }
                let _ = of_submit_line(&text);
            }
        }
    }
}
