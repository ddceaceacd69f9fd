//! Every key there is. The text beside a key is all there is to say of it: the
//! manual page and the example file are made from it, and the help of its flag
//! from the first paragraph; the rest is for those who set up the daemons.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A key of the file.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its section; empty for the keys before the first one.
    pub section: &'static str,
    /// Its name, which is also the name of the flag.
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
    /// What it is when nobody says it, as TOML.
    pub default: Option<toml::Value>,
    /// A value to begin with, as TOML, where there is no default.
    pub example: &'static str,
    /// Numbers that make sense.
    pub range: Option<RangeInclusive<i64>>,
}

/// A section: a struct that serde fills, and its keys.
macro_rules! section {
    (
        $(#[doc = $head:literal])*
        $section:ident $name:literal {
            $($(#[doc = $about:literal])* $key:ident: $type:ty = $default:expr, $example:literal $(, $range:expr)?;)*
        }
    ) => {
        $(#[doc = $head])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $section {
            $($(#[doc = $about])* pub $key: $type,)*
        }

        impl Default for $section {
            fn default() -> $section {
                $section { $($key: $default,)* }
            }
        }

        impl $section {
            /// Name of the section.
            pub const NAME: &str = $name;

            /// What the section is about.
            pub const ABOUT: &str = concat!($($head, "\n"),*);

            /// Its keys, in the order in which they are explained.
            pub fn keys() -> Vec<Key> {
                vec![$(Key {
                    section: $name,
                    name: stringify!($key),
                    about: concat!($($about, "\n"),*),
                    default: {
                        let default: $type = $default;
                        toml::Value::try_from(default).ok()
                    },
                    example: $example,
                    range: { let none: [RangeInclusive<i64>; 0] = []; none.into_iter()$(.chain([$range]))?.next() },
                }),*]
            }
        }
    };
}

section! {
    /// What everything shares.
    Site "" {
        /// Directory of the journals, one subdirectory per node.
        ///
        /// The plugin has an argument of its own for it, journal= in plugstack.conf. For
        /// another directory than the default, the agent, which writes there, needs it
        /// in ReadWritePaths= and RequiresMountsFor= in a drop-in of its unit.
        journal: PathBuf = "/var/spool/inquest".into(), "";
        /// Directory of the run stores.
        ///
        /// For another directory than the default, the collector needs it in
        /// ReadWritePaths= and RequiresMountsFor= in a drop-in of its unit (systemctl
        /// edit inquest-collect); to the units, all else is read-only.
        store: PathBuf = "/var/lib/inquest".into(), "";
        /// What a daemon says on standard error, which is the journal of systemd
        /// there: "error", "warn", "info" or "debug", each with all before it.
        log: LogLevel = LogLevel::Info, "";
        /// The site's own rules for verdicts, tried before the built-in ones; see
        /// inquest-rules(1). /etc/inquest/rules.toml, if it is there, when not set.
        rules: Option<PathBuf> = None, "\"/etc/inquest/rules.toml\"";
    }
}

section! {
    /// The collector, `inquest collect`.
    Collect "collect" {
        /// Whom to ask how Slurm itself saw the end of a job: "squeue", which works
        /// without slurmdbd; "sacct", which is squeue at once and slurmdbd later; or
        /// "off": verdicts rest on the facts of the nodes alone.
        accounting: Source = Source::Squeue, "";
        /// Milliseconds between two looks for news. All journals are looked at more
        /// seldom where that takes long, so that it costs a tenth of a core at most,
        /// and a fiftieth where the system tells which have changed (inotify).
        interval: u64 = 100, "", 10..=60_000;
        /// Seconds of silence after which a job without script and extern step
        /// counts as ended when its steps have.
        quiet: u64 = 30, "", 1..=86_400;
        /// KiB of events after which a checkpoint is made even inside a pass: the
        /// bound of memory.
        checkpoint: u64 = 65_536, "", 16..=1_048_576;
        /// Keep the index, index.db in the store. Without, commands read the
        /// stores, and questions over many runs take their time.
        index: bool = true, "";
    }
}

section! {
    /// What the collector keeps, and for how long; looked at every hour. A run that
    /// has not ended is never touched. `inquest gc --dry-run` says what would be done.
    Keep "keep" {
        /// Hours after its newest event after which a run's events are compressed.
        /// Every command reads them as before, and zstd -dc does.
        compress_hours: u32 = 24, "", 0..=1_000_000;
        /// Days after its newest event after which a run is removed. Not set: never.
        days: Option<u32> = None, "400", 0..=u32::MAX as i64;
        /// Bytes on disk that the runs of one user may take; the oldest ones beyond
        /// are removed.
        user_bytes: Option<u64> = None, "50_000_000_000", 0..=i64::MAX;
        /// Bytes on disk that all runs may take; the oldest ones beyond are removed.
        total_bytes: Option<u64> = None, "2_000_000_000_000", 0..=i64::MAX;
        /// Other days or bytes for some users: "ann days=900", "bob days=30 bytes=1000000000".
        users: Vec<String> = Vec::new(), "";
    }
}

section! {
    /// The agent on a compute node, `inquest agent`.
    Agent "agent" {
        /// Name of this node in Slurm; the hostname up to its first dot if not set.
        node: Option<String> = None, "\"n001\"";
        /// Name of the cluster, as the plugin writes it; from slurm.conf if not set.
        cluster: Option<String> = None, "\"lab\"";
        /// Directory of what the agent remembers from life to life.
        ///
        /// For another directory than the default: ReadWritePaths= in a drop-in of its
        /// unit.
        state: PathBuf = "/var/lib/inquest-agent".into(), "";
        /// Socket on which jobs send notes.
        ///
        /// In another directory than the default: ReadWritePaths= in a drop-in of the
        /// agent's unit, and INQUEST_NOTE_SOCKET in the environment of jobs.
        socket: PathBuf = crate::agent::note::SOCKET.into(), "";
        /// Delete this node's journal files of days longer ago than this. They
        /// must have been merged by then: what no collector has read is lost.
        /// Where all files of past days are that old, none goes: it may be the
        /// clock. Nor does any within an hour of the boot.
        keep_days: Option<u32> = None, "60", 0..=u32::MAX as i64;
        /// Delete this node's oldest journal files until the rest is no larger, in
        /// bytes. Today's file, and any written to within the last hour, stay.
        max_bytes: Option<u64> = None, "1_000_000_000", 0..=i64::MAX;
    }
}

section! {
    /// The site server, `inquest serve`.
    Serve "serve" {
        /// Unix socket on which it answers; who asks is told by the kernel. A browser
        /// gets there with: ssh -L 8080:/run/inquest-serve/http.sock LOGIN-NODE
        socket: PathBuf = "/run/inquest-serve/http.sock".into(), "";
        /// Loopback address on which it answers too: metrics to everyone, the rest
        /// to the reverse proxy.
        listen: Option<std::net::SocketAddr> = None, "\"127.0.0.1:9645\"";
        /// Unix group whose members see everything, as operators of Slurm do. Root
        /// and the server's own account do, too.
        operators: String = "inquest".into(), "";
        /// Whose jobs people see who are no operators: "own" and those of accounts that
        /// they coordinate; "all"; or "slurm": all when scontrol says that PrivateData
        /// lacks jobs and the store holds no other cluster, else own. A change of
        /// PrivateData is known within 60 seconds; while Slurm does not answer, what it
        /// said stands for 3 minutes.
        jobs: Jobs = Jobs::Slurm, "";
        /// Ask sacctmgr who coordinates which accounts; coordinators see the jobs of
        /// their accounts. Who is added or removed there is known within 60 seconds;
        /// without an answer for 3 minutes, nobody is one.
        coordinators: bool = false, "";
        /// Header in which a reverse proxy says who has logged in. Believed from
        /// proxy_user on the socket, and from whoever knows proxy_secret.
        proxy_header: Option<String> = None, "\"X-Remote-User\"";
        /// Unix user that the reverse proxy runs as.
        proxy_user: Option<String> = None, "\"www-data\"";
        /// File with the secret that the reverse proxy sends in X-Inquest-Secret;
        /// nobody but root and the server may read it.
        proxy_secret: Option<PathBuf> = None, "\"/etc/inquest/proxy.secret\"";
        /// Accept MUNGE credentials (Authorization: MUNGE ...) made for one request. Over
        /// TCP, requests counts for all who show one together.
        munge: bool = false, "";
        /// Names of this server in addresses, beside localhost.
        hosts: Vec<String> = Vec::new(), "";
        /// Requests of one person within a minute.
        requests: u64 = 600, "", 10..=1_000_000;
        /// Tell Prometheus the names of suspect and silent nodes, not only how many.
        node_metrics: bool = false, "";
        /// Write the metrics to this file every 30 seconds, for node_exporter's
        /// textfile collector. The server's account has to be let write to the
        /// directory, by its mode and by ReadWritePaths= in a drop-in of the unit; with
        /// UMask=0022 there, node_exporter may read the file.
        textfile: Option<PathBuf> = None, "\"/var/lib/prometheus/node-exporter/inquest.prom\"";
    }
}

/// How much a daemon says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What it cannot go on without.
    Error,
    /// What somebody should look at.
    Warn,
    /// Beginnings, ends and long work.
    Info,
    /// Everything.
    Debug,
}

/// Whose jobs people see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Jobs {
    /// As Slurm's PrivateData has it.
    Slurm,
    /// Their own, and those of accounts that they coordinate.
    Own,
    /// Everybody's.
    All,
}

/// Whom to ask for Slurm's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The squeue command; works without slurmdbd.
    Squeue,
    /// squeue at once, and what slurmdbd knows when it does.
    Sacct,
    /// Nobody: verdicts rest on the facts of the nodes alone.
    Off,
}
