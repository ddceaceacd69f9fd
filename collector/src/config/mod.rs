/*!
The one configuration file, `/etc/inquest/inquest.toml`.

A flag or an environment variable comes before the file, the file before the
defaults. The file is strict: a key that nobody knows is an error that names
its line and the key that was meant, because a setting that is silently not
read is worse than a daemon that says so and does not start.
*/

mod check;
mod keys;
mod manual;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub use check::Problem;
pub use keys::{Agent, Collect, Jobs, Keep, Key, LogLevel, Serve, Site, Source};
pub use manual::{example, page};

/// Where the file is, unless told otherwise.
pub const PATH: &str = "/etc/inquest/inquest.toml";

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The keys before the first section.
    #[serde(flatten)]
    pub site: Site,
    /// `[collect]`
    pub collect: Collect,
    /// `[keep]`
    pub keep: Keep,
    /// `[agent]`
    pub agent: Agent,
    /// `[serve]`
    pub serve: Serve,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not there, or not for us to read.
    #[error("cannot read the configuration {path}: {source}; name another one with --config")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says something that makes no sense.
    #[error("{}", self.lines().join("\n"))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// What there is to say, a line each.
    pub fn lines(&self) -> Vec<String> {
        match self {
            ConfigError::Unreadable { .. } => vec![self.to_string()],
            ConfigError::Wrong { path, problems } => {
                problems.iter().map(|p| format!("{}:{p}", path.display())).collect()
            }
        }
    }
}

impl Config {
    /// Reads the file at `path`. Without a path it is the usual one, which
    /// need not be there.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or something in it is wrong.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let at = path.unwrap_or(Path::new(PATH));
        let text = match std::fs::read_to_string(at) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && path.is_none() => return Ok(Config::default()),
            Err(source) => return Err(ConfigError::Unreadable { path: at.to_owned(), source }),
        };
        Config::parse(&text).map_err(|problems| ConfigError::Wrong { path: at.to_owned(), problems })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Config, Vec<Problem>> {
        check::check(text)?;
        toml::from_str(text).map_err(|e| vec![Problem::of(text, &e)])
    }

    /// All keys, section by section.
    pub fn keys() -> Vec<Key> {
        [Site::keys(), Collect::keys(), Keep::keys(), Agent::keys(), Serve::keys()].concat()
    }

    /// The sections and what they are about.
    pub fn sections() -> [(&'static str, &'static str); 5] {
        [
            (Site::NAME, Site::ABOUT),
            (Collect::NAME, Collect::ABOUT),
            (Keep::NAME, Keep::ABOUT),
            (Agent::NAME, Agent::ABOUT),
            (Serve::NAME, Serve::ABOUT),
        ]
    }
}

/// The key of that name; there is one, which a test shows of every flag.
pub fn key(section: &str, name: &str) -> Option<&'static Key> {
    // Every flag of every command asks, whichever command it is.
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(Config::keys);
    KEYS.iter().find(|k| k.section == section && k.name == name)
}

/// Help of the flag of a key: what is first said of the key, and its default.
pub fn help(section: &str, name: &str) -> String {
    let Some(key) = key(section, name) else { return String::new() };
    let first = key.about.lines().map(str::trim).take_while(|l| !l.is_empty());
    let about = first.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    match &key.default {
        Some(toml::Value::String(text)) => format!("{about} [default: {text}]"),
        Some(value) => format!("{about} [default: {value}]"),
        None => about,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        Config::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_said_is_as_it_always_was() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        let config = Config::parse("store = \"/data\"\n[collect]\nquiet = 5\naccounting = \"off\"").unwrap();
        assert_eq!(config.site.store, Path::new("/data"));
        assert_eq!(config.site.journal, Site::default().journal);
        let collect = Collect { quiet: 5, accounting: Source::Off, ..Collect::default() };
        assert_eq!(config.collect, collect);
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line_and_the_one_that_was_meant() {
        assert_eq!(
            wrong("jornal = \"/x\"\n\n[collect]\ninterval = 50\nquite = 3\n"),
            [
                "1: there is no key jornal; did you mean journal?",
                "5: there is no key quite in [collect]; did you mean quiet?"
            ]
        );
        assert_eq!(
            wrong("[collect]\nzzzzzzzz = 3\n"),
            [
                "2: there is no key zzzzzzzz in [collect]; known are accounting, interval, quiet, checkpoint, index"
            ]
        );
        assert_eq!(wrong("[colect]\n"), ["1: there is no section [colect]; did you mean [collect]?"]);
        // Right, but in the wrong place.
        assert_eq!(
            wrong("[collect]\nstore = \"/data\"\n"),
            ["2: there is no key store in [collect]; write it before the first section"]
        );
        assert_eq!(
            wrong("interval = 3\n"),
            ["1: there is no key interval before the first section; write it in [collect]"]
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line_and_what_to_write() {
        assert_eq!(
            wrong("[collect]\n\nquiet = \"long\"\n"),
            ["3: collect.quiet: invalid type: string \"long\", expected u64; write for example quiet = 30"]
        );
        assert_eq!(
            wrong("[collect]\ninterval = 5\nquiet = 0\n"),
            [
                "2: collect.interval: 5 is outside of 10 to 60000; write for example interval = 100",
                "3: collect.quiet: 0 is outside of 1 to 86400; write for example quiet = 30"
            ]
        );
        assert_eq!(
            wrong("[collect]\naccounting = \"sacctt\"\n"),
            ["2: collect.accounting: unknown variant `sacctt`, expected one of `squeue`, `sacct`, `off`; \
              write for example accounting = \"squeue\""]
        );
        assert_eq!(wrong("collect = 3\n"), ["1: collect is a section; write it as [collect]"]);
        let broken = wrong("store = \"/data\n");
        assert!(broken[0].starts_with("1: "), "{broken:?}");
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let error = Config::load(Some(Path::new("/nonexistent/x.toml"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/x.toml") && error.contains("--config"), "{error}");
    }
}
