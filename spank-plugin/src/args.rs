//! The arguments behind the plugin's path in plugstack.conf.
//!
//! Strict: `key=value` with known keys only, each once. A plugin that guesses
//! what an admin meant records the wrong thing for weeks; one that says so at
//! the first step is corrected at once.

use std::fmt;
use std::path::PathBuf;

use inquest_journal::looks_secret;

/// Where the journal is when nothing else is said.
pub(crate) const DEFAULT_JOURNAL: &str = "/var/spool/inquest";

/// When the end of a step waits for the disk (about 4 ms).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// After a step in which something died.
    Abnormal,
    /// After every step.
    Always,
    /// Never.
    Never,
}

/// What the admin wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Directory that holds one directory per node.
    pub(crate) journal: PathBuf,
    /// The cluster's name, instead of the one in slurm.conf.
    pub(crate) cluster: Option<String>,
    pub(crate) sync: Sync,
    /// Further environment keys to record.
    pub(crate) env: Vec<String>,
    /// Keys of `env=` that are not recorded because they look like secrets.
    pub(crate) refused: Vec<String>,
    /// Users may say `--inquest=off`.
    pub(crate) opt_out: bool,
    /// Directory of the files in which jobs leave notes.
    pub(crate) note: Option<PathBuf>,
    /// The hook that panics, in builds for tests.
    #[cfg(feature = "inject-faults")]
    pub(crate) inject: Option<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            journal: PathBuf::from(DEFAULT_JOURNAL),
            cluster: None,
            sync: Sync::Abnormal,
            env: Vec::new(),
            refused: Vec::new(),
            opt_out: false,
            note: None,
            #[cfg(feature = "inject-faults")]
            inject: None,
        }
    }
}

/// An argument that cannot be taken, with what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadArgument {
    arg: String,
    want: &'static str,
}

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The argument is quoted and cut: it goes into a log line.
        let shown: String = self.arg.chars().take(80).collect();
        write!(f, "argument {shown:?} in plugstack.conf: {}", self.want)
    }
}

const KNOWN: &str = "unknown, the plugin takes journal=, cluster=, sync=, env=, optout= and note=";

/// More keys than anybody has, and few enough that looking each variable of a
/// job up among them costs nothing.
const ENV_KEYS_MAX: usize = 64;

/// Longest path of a directory of notes.
const NOTE_MAX: usize = 256;

impl Config {
    /// Reads the arguments.
    pub(crate) fn parse<'a>(args: impl Iterator<Item = &'a [u8]>) -> Result<Config, BadArgument> {
        let mut config = Config::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        for arg in args {
            let bad = |want| BadArgument { arg: String::from_utf8_lossy(arg).into_owned(), want };
            let text = std::str::from_utf8(arg).map_err(|_| bad("not UTF-8"))?;
            let (key, value) = text.split_once('=').ok_or_else(|| bad("not of the form key=value"))?;
            if seen.contains(&key.as_bytes()) {
                return Err(bad("given twice"));
            }
            seen.push(key.as_bytes());
            match key {
                "journal" => {
                    if !value.starts_with('/') {
                        return Err(bad("must be an absolute path"));
                    }
                    config.journal = PathBuf::from(value);
                }
                "note" => {
                    if !value.starts_with('/') || value.len() > NOTE_MAX {
                        return Err(bad("must be an absolute path of no more than 256 bytes"));
                    }
                    config.note = Some(PathBuf::from(value));
                }
                "cluster" => {
                    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
                    if value.is_empty() || value.len() > 64 || !value.bytes().all(good) {
                        return Err(bad("must be 1 to 64 letters, digits, dots, dashes or underscores"));
                    }
                    config.cluster = Some(value.to_owned());
                }
                "sync" => {
                    config.sync = match value {
                        "abnormal" => Sync::Abnormal,
                        "always" => Sync::Always,
                        "never" => Sync::Never,
                        _ => return Err(bad("must be abnormal, always or never")),
                    }
                }
                "env" => {
                    for name in value.split(',') {
                        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                        if name.is_empty() || name.len() > 64 || !name.bytes().all(good) {
                            return Err(bad("must be names of environment variables with commas between"));
                        }
                        let list = if looks_secret(name) { &mut config.refused } else { &mut config.env };
                        list.push(name.to_owned());
                    }
                    if config.env.len() > ENV_KEYS_MAX {
                        return Err(bad("more than 64 names"));
                    }
                }
                "optout" => {
                    config.opt_out = match value {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(bad("must be yes or no")),
                    }
                }
                #[cfg(feature = "inject-faults")]
                "inject" => config.inject = Some(value.to_owned()),
                _ => return Err(bad(KNOWN)),
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, String> {
        Config::parse(args.iter().map(|a| a.as_bytes())).map_err(|e| e.to_string())
    }

    #[test]
    fn no_arguments_is_a_whole_configuration() {
        assert_eq!(parse(&[]), Ok(Config::default()));
    }

    #[test]
    fn every_key_is_taken() {
        let config =
            parse(&["journal=/j", "cluster=lab-1", "sync=always", "env=A_ID,MY_TOKEN", "optout=yes"])
                .unwrap();
        assert_eq!(config.journal, PathBuf::from("/j"));
        assert_eq!(config.cluster.as_deref(), Some("lab-1"));
        assert_eq!(config.sync, Sync::Always);
        assert_eq!(config.env, ["A_ID"]);
        assert_eq!(config.refused, ["MY_TOKEN"]);
        assert!(config.opt_out);
    }

    #[test]
    fn anything_else_is_an_error_that_names_it() {
        for (args, part) in [
            (&["jurnal=/j"][..], "unknown"),
            (&["journal"], "key=value"),
            (&["journal=j"], "absolute"),
            (&["journal="], "absolute"),
            (&["journal=/a", "journal=/b"], "twice"),
            (&["cluster="], "1 to 64"),
            (&["cluster=a/b"], "1 to 64"),
            (&["sync=yes"], "abnormal, always or never"),
            (&["env="], "names"),
            (&["env=A,,B"], "names"),
            (&["env=A B"], "names"),
            (&["optout=maybe"], "yes or no"),
            (&["=x"], "unknown"),
            (&[""], "key=value"),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.contains(part), "{args:?}: {error}");
            assert!(error.contains(&format!("{:?}", args[args.len() - 1])), "{args:?}: {error}");
        }
        assert!(Config::parse([b"journal=/\xff".as_slice()].into_iter()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_arguments_are_taken_or_refused(
            raw in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40), 0..6),
            likely in proptest::collection::vec("(journal|cluster|sync|env|optout|note)?=?[/a-zA-Z_,=]{0,80}", 0..6),
        ) {
            let raw = Config::parse(raw.iter().map(Vec::as_slice));
            let likely = Config::parse(likely.iter().map(String::as_bytes));
            for parsed in [raw, likely] {
                match parsed {
                    Ok(config) => {
                        proptest::prop_assert!(config.journal.is_absolute());
                        proptest::prop_assert!(config.env.iter().all(|k| !looks_secret(k) && k.len() <= 64));
                    }
                    // One line for a log.
                    Err(e) => {
                        let e = e.to_string();
                        proptest::prop_assert!(e.len() < 2048 && !e.contains('\n'), "{}", e);
                    }
                }
            }
        }
    }

    #[test]
    fn the_test_argument_is_unknown_in_a_release() {
        assert_eq!(parse(&["inject=exit"]).is_ok(), cfg!(feature = "inject-faults"));
    }
}
