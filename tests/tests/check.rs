//! `inquest check` on a real cluster: quiet when all is well, and it names every one of a list of
//! deliberate misconfigurations, with its mend.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use inquest_tests::artefacts;
use inquest_tests::children::Ends;
use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// A site: a cluster with the plugin, a store, a configuration.
struct Site {
    cluster: Cluster,
    plugin: PathBuf,
    /// The account of the collector.
    account: (u32, u32),
}

impl Site {
    fn start() -> Site {
        let cluster = Cluster::start(Config::default()).unwrap();
        let plugin = cluster.place(&artefacts::plugin(), "spank_inquest.so").unwrap().into();
        let id = |flag: &str| {
            let output = Command::new("id").args([flag, USERS[1]]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
        };
        let account = (id("-u"), id("-g"));
        let site = Site { cluster, plugin, account };
        chown(site.journal(), Some(0), Some(account.1)).unwrap();
        fs::set_permissions(site.journal(), Permissions::from_mode(0o2750)).unwrap();
        fs::create_dir(site.store()).unwrap();
        chown(site.store(), Some(account.0), Some(account.1)).unwrap();
        site.write("plugstack.conf", &site.line());
        let (journal, store) = (site.journal(), site.store());
        site.write(
            "inquest.toml",
            &format!("journal = {journal:?}\nstore = {store:?}\n[agent]\nsocket = {:?}\n", site.socket()),
        );
        site
    }

    fn journal(&self) -> PathBuf {
        self.cluster.journal_dir()
    }

    fn store(&self) -> PathBuf {
        self.cluster.store()
    }

    fn socket(&self) -> PathBuf {
        self.cluster.dir().join("note.sock")
    }

    fn etc(&self, name: &str) -> PathBuf {
        self.cluster.dir().join("etc").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.etc(name), text).unwrap();
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.etc(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from}: {text}");
        self.write(name, &text.replace(from, to));
    }

    /// The plugin's line in plugstack.conf.
    fn line(&self) -> String {
        format!("optional {} journal={}\n", self.plugin.display(), self.journal().display())
    }

    fn inquest(&self, user: Option<&str>) -> Command {
        let mut command = self.cluster.inquest(user, &[]);
        command.env_remove("INQUEST_STORE").env("INQUEST_CONFIG", self.etc("inquest.toml"));
        command
    }

    fn collector(&self) -> Ends {
        let mut command = self.inquest(Some(USERS[1]));
        command.arg("collect").stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = Ends(command.spawn().unwrap());
        self.until("the collector has merged", || self.store().join("health.json").exists());
        daemon
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !done() {
            assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a job on the first node and waits for its last event.
    fn record(&self) {
        let node = self.cluster.nodes()[0].clone();
        let mut srun = self.cluster.command(Some(USERS[0]), "srun");
        let output = srun.args(["-n1", "-w", &node, "sh", "-c", "echo $SLURM_JOB_ID"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let job = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let last = |e: &Value| e["job_id"] == job.as_str() && e["event_type"] == "step_ended";
        let ended = |events: &[Value]| events.iter().any(|e| last(e) && e["step"] == "extern");
        self.cluster.wait_events(SOON, ended).unwrap();
    }

    fn check(&self, role: &str) -> Output {
        self.inquest(None).args(["check", role, "--node", &self.cluster.nodes()[0]]).output().unwrap()
    }

    /// What is not ok, as (level, subject, sentence, mend), and the exit code.
    fn findings(&self, role: &str) -> (i32, Vec<[String; 4]>) {
        let output = self
            .inquest(None)
            .args(["check", role, "--json", "--node", &self.cluster.nodes()[0]])
            .output()
            .unwrap();
        let said: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        let findings = said["roles"][0]["findings"].as_array().unwrap().iter().map(|f| {
            ["level", "subject", "what", "mend"].map(|key| f[key].as_str().unwrap_or_default().to_owned())
        });
        (output.status.code().unwrap(), findings.filter(|f| f[0] != "ok").collect())
    }
}

/// Breaks something and gives back what mends it.
type Undo = Box<dyn FnOnce(&Site)>;

struct Case {
    name: &'static str,
    role: &'static str,
    level: &'static str,
    /// Words of the sentence, and of the mend.
    says: [&'static str; 2],
    harm: fn(&Site) -> Undo,
}

/// An edit of a file of the site's configuration, undone by writing it again.
fn edited(site: &Site, name: &'static str, change: impl FnOnce(&Site)) -> Undo {
    let before = fs::read_to_string(site.etc(name)).unwrap();
    change(site);
    Box::new(move |site| site.write(name, &before))
}

fn mode(path: PathBuf, mode: u32) -> Undo {
    let before = fs::metadata(&path).unwrap().permissions();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    Box::new(move |_| fs::set_permissions(&path, before).unwrap())
}

fn plugstack(site: &Site, line: impl FnOnce(&Site) -> String) -> Undo {
    edited(site, "plugstack.conf", |site| site.write("plugstack.conf", &line(site)))
}

/// The plugin's file replaced by another.
fn replaced(site: &Site, by: &Path) -> Undo {
    fs::rename(&site.plugin, site.plugin.with_extension("kept")).unwrap();
    fs::copy(by, &site.plugin).unwrap();
    fs::set_permissions(&site.plugin, Permissions::from_mode(0o755)).unwrap();
    Box::new(|site| fs::rename(site.plugin.with_extension("kept"), &site.plugin).unwrap())
}

/// The C library of this very process: surely a shared object, surely no plugin.
fn libc() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|l| l.split_whitespace().nth(5)).find(|p| p.ends_with("/libc.so.6"));
    path.expect("a test is linked with the C library").into()
}

fn moved(path: PathBuf) -> Undo {
    let kept = path.with_extension("kept");
    fs::rename(&path, &kept).unwrap();
    Box::new(move |_| {
        if path.symlink_metadata().is_ok_and(|m| m.is_symlink()) {
            fs::remove_file(&path).unwrap();
        }
        fs::rename(kept, path).unwrap();
    })
}

const CASES: &[Case] = &[
    Case {
        name: "nobody names the plugin",
        role: "node",
        level: "wrong",
        says: ["names the plugin: nothing is recorded", "inquest-plugin"],
        harm: |site| plugstack(site, |_| "# empty\n".into()),
    },
    Case {
        name: "the drop-in is not included",
        role: "node",
        level: "wrong",
        says: ["does not include", "include "],
        harm: |site| {
            let dir = site.etc("plugstack.conf.d");
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("inquest.conf"), site.line()).unwrap();
            let undo = plugstack(site, |_| String::new());
            Box::new(move |site| {
                fs::remove_dir_all(dir).unwrap();
                undo(site);
            })
        },
    },
    Case {
        name: "plugstack.conf is not there",
        role: "node",
        level: "wrong",
        says: ["cannot be read", "make it a file"],
        harm: |site| moved(site.etc("plugstack.conf")),
    },
    Case {
        name: "required",
        role: "node",
        level: "wrong",
        says: ["says required", "write optional"],
        harm: |site| plugstack(site, |site| site.line().replace("optional", "required")),
    },
    Case {
        name: "named twice",
        role: "node",
        level: "wrong",
        says: ["named twice", "remove all lines but one"],
        harm: |site| plugstack(site, |site| site.line() + &site.line()),
    },
    Case {
        name: "no absolute path",
        role: "node",
        level: "warning",
        says: ["without a directory", "absolute path"],
        harm: |site| {
            plugstack(site, |site| {
                format!("optional spank_inquest.so journal={}\n", site.journal().display())
            })
        },
    },
    Case {
        name: "the file is missing",
        role: "node",
        level: "wrong",
        says: ["No such file", "install the package"],
        harm: |site| moved(site.plugin.clone()),
    },
    Case {
        name: "everybody may replace the plugin",
        role: "node",
        level: "wrong",
        says: ["is root in every job", "chown root"],
        harm: |site| mode(site.plugin.clone(), 0o777),
    },
    Case {
        name: "not a shared object",
        role: "node",
        level: "wrong",
        says: ["no shared object for this machine", "architecture"],
        harm: |site| replaced(site, Path::new("/etc/passwd")),
    },
    Case {
        name: "a shared object that Slurm does not take",
        role: "node",
        level: "wrong",
        says: ["does not load the plugin", "slurmd's log"],
        harm: |site| replaced(site, &libc()),
    },
    Case {
        name: "an argument misspelt",
        role: "node",
        level: "wrong",
        says: ["jurnal=/x is no argument", "journal="],
        harm: |site| plugstack(site, |site| site.line().trim_end().to_owned() + " jurnal=/x\n"),
    },
    Case {
        name: "an argument without sense",
        role: "node",
        level: "wrong",
        says: ["sync=often", "abnormal, always or never"],
        harm: |site| plugstack(site, |site| site.line().trim_end().to_owned() + " sync=often\n"),
    },
    Case {
        name: "no journal directory",
        role: "node",
        level: "wrong",
        says: ["No such file", "install -d -o root"],
        harm: |site| moved(site.journal()),
    },
    Case {
        name: "the journal is a symbolic link",
        role: "node",
        level: "wrong",
        says: ["follows no symbolic link", "journal="],
        harm: |site| {
            let undo = moved(site.journal());
            symlink(site.journal().with_extension("kept"), site.journal()).unwrap();
            undo
        },
    },
    Case {
        name: "the journal is not root's",
        role: "node",
        level: "wrong",
        says: ["nobody but root", "chown root"],
        harm: |site| {
            chown(site.journal(), Some(site.account.0), None).unwrap();
            Box::new(|site| {
                chown(site.journal(), Some(0), None).unwrap();
                fs::set_permissions(site.journal(), Permissions::from_mode(0o2750)).unwrap();
            })
        },
    },
    Case {
        name: "the journal is open to writers",
        role: "node",
        level: "wrong",
        says: ["nobody but root", "go-w"],
        harm: |site| mode(site.journal(), 0o2770),
    },
    Case {
        name: "the journal is open to readers",
        role: "node",
        level: "warning",
        says: ["every user can read", "chmod o="],
        harm: |site| mode(site.journal(), 0o2755),
    },
    Case {
        name: "the journal's file system is full",
        role: "node",
        level: "wrong",
        says: ["is full", "make room"],
        harm: |site| {
            let dir = site.cluster.dir().join("small");
            fs::create_dir(&dir).unwrap();
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=64k,mode=0750", "small"])
                .arg(&dir)
                .status();
            assert!(mounted.unwrap().success());
            let undo = plugstack(site, |site| {
                site.line().replace(site.journal().to_str().unwrap(), dir.to_str().unwrap())
            });
            Box::new(move |site| {
                assert!(Command::new("umount").arg(&dir).status().unwrap().success());
                fs::remove_dir(dir).unwrap();
                undo(site);
            })
        },
    },
    Case {
        name: "the collector is told of another journal",
        role: "node",
        level: "warning",
        says: ["but the configuration says", "journal ="],
        harm: |site| {
            edited(site, "inquest.toml", |site| site.edit("inquest.toml", "/journal\"", "/elsewhere\""))
        },
    },
    Case {
        name: "no cgroup of a step",
        role: "node",
        level: "wrong",
        says: ["does not name task/cgroup", "TaskPlugin="],
        harm: |site| {
            edited(site, "slurm.conf", |site| {
                site.edit("slurm.conf", "TaskPlugin=task/cgroup", "TaskPlugin=task/none")
            })
        },
    },
    Case {
        name: "no cgroup to track",
        role: "node",
        level: "wrong",
        says: ["ProctrackType=proctrack/linuxproc", "restart slurmd"],
        harm: |site| {
            edited(site, "slurm.conf", |site| {
                site.edit("slurm.conf", "proctrack/cgroup", "proctrack/linuxproc")
            })
        },
    },
    Case {
        name: "no limit of memory",
        role: "node",
        level: "warning",
        says: ["does not say ConstrainRAMSpace=yes", "ConstrainRAMSpace=yes"],
        harm: |site| {
            edited(site, "cgroup.conf", |site| {
                site.edit("cgroup.conf", "ConstrainRAMSpace=yes", "ConstrainRAMSpace=no")
            })
        },
    },
    Case {
        name: "an agent that has died",
        role: "node",
        level: "wrong",
        says: ["nobody listens", "restart inquest-agent"],
        harm: |site| {
            // Bound, and closed again: the file stays.
            drop(UnixDatagram::bind(site.socket()).unwrap());
            Box::new(|site| fs::remove_file(site.socket()).unwrap())
        },
    },
    Case {
        name: "a key misspelt in the configuration",
        role: "collector",
        level: "wrong",
        says: ["did you mean store?", "--check-config"],
        harm: |site| {
            edited(site, "inquest.toml", |site| {
                site.write("inquest.toml", &format!("stor = \"/x\"\njournal = {:?}\n", site.journal()))
            })
        },
    },
    Case {
        name: "no store",
        role: "collector",
        level: "wrong",
        says: ["No such file", "install -d"],
        harm: |site| moved(site.store()),
    },
    Case {
        name: "a store that everybody may write to",
        role: "collector",
        level: "wrong",
        says: ["every user can replace", "chmod o-w"],
        harm: |site| mode(site.store(), 0o777),
    },
    Case {
        name: "a journal that the collector may not read",
        role: "collector",
        level: "wrong",
        says: ["cannot read", "chmod -R g+rX"],
        harm: |site| mode(site.journal().join(&site.cluster.nodes()[1]), 0o700),
    },
    Case {
        name: "a journal directory without journals",
        role: "collector",
        level: "wrong",
        says: ["no journal of any node", "is this the directory"],
        harm: |site| {
            let empty = site.cluster.dir().join("empty");
            fs::create_dir_all(&empty).unwrap();
            edited(site, "inquest.toml", |site| site.edit("inquest.toml", "/journal\"", "/empty\""))
        },
    },
    Case {
        name: "a node that never wrote",
        role: "collector",
        level: "warning",
        says: ["1 of 2 nodes have never written", "inquest check on one of them"],
        harm: |site| moved(site.journal().join(&site.cluster.nodes()[1])),
    },
    Case {
        name: "a clock that is ahead",
        role: "collector",
        level: "warning",
        says: ["from the future", "chrony"],
        harm: |site| {
            let dir = site.journal().join(&site.cluster.nodes()[0]);
            let file = fs::read_dir(&dir).unwrap().flatten().next().unwrap().path();
            let touch = |when: &str| {
                assert!(Command::new("touch").args(["-d", when]).arg(&file).status().unwrap().success())
            };
            touch("1 hour");
            let file = file.clone();
            Box::new(move |_| assert!(Command::new("touch").arg(file).status().unwrap().success()))
        },
    },
    Case {
        name: "the cluster's name is in a file that slurm.conf includes",
        role: "node",
        level: "wrong",
        says: ["names the cluster unknown, not", "add cluster="],
        harm: |site| {
            let text = fs::read_to_string(site.cluster.slurm_conf()).unwrap();
            let (name, rest): (Vec<&str>, Vec<&str>) =
                text.lines().partition(|l| l.starts_with("ClusterName="));
            site.write("name.conf", &(name.join("\n") + "\n"));
            site.write("slurm.conf", &(rest.join("\n") + "\nInclude name.conf\n"));
            site.record();
            Box::new(move |site| {
                site.write("slurm.conf", &text);
                site.record();
            })
        },
    },
    Case {
        name: "nobody can ask",
        role: "login",
        level: "wrong",
        says: ["No such file", "mount the collector's store"],
        harm: |site| moved(site.store()),
    },
];

#[test]
fn every_misconfiguration_is_named_with_its_mend() {
    let site = Site::start();
    let job = site.cluster.sbatch(USERS[0], &["-N2"], "#!/bin/sh\nsrun true\n").unwrap();
    site.cluster.wait_end(job, SOON).unwrap();
    let nodes = site.cluster.nodes();
    let ended = |events: &[Value]| {
        let of = |node: &String| {
            events.iter().any(|e| {
                e["event_type"] == "step_ended" && e["step"] == "extern" && e["node"] == node.as_str()
            })
        };
        nodes.iter().all(of)
    };
    site.cluster.wait_events(SOON, ended).unwrap();

    // Before the collector has ever run, and while it does not.
    let (code, wrong) = site.findings("collector");
    assert!(code == 1 && wrong.iter().any(|f| f[2].contains("has never run")), "{wrong:?}");
    assert!(wrong.iter().any(|f| f[1] == "index" && f[2].contains("there is no index")), "{wrong:?}");
    let collector = site.collector();
    site.until("a run is stored", || {
        fs::read_dir(site.store()).unwrap().flatten().any(|e| e.path().is_dir())
    });
    site.until("the index answers", || site.findings("collector").1.iter().all(|f| f[1] != "index"));

    for role in ["node", "collector", "login"] {
        assert_eq!(
            site.findings(role),
            (0, vec![]),
            "{role}: {}",
            String::from_utf8_lossy(&site.check(role).stdout)
        );
    }
    let mut missed = Vec::new();
    for case in CASES {
        let undo = (case.harm)(&site);
        let (code, found) = site.findings(case.role);
        let named = |f: &&[String; 4]| {
            f[0] == case.level && f[2].contains(case.says[0]) && f[3].contains(case.says[1])
        };
        if found.iter().find(named).is_none() || code != i32::from(found.iter().any(|f| f[0] == "wrong")) {
            missed.push(format!("{} (exit {code}): {found:#?}", case.name));
        }
        undo(&site);
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));

    // One that found a run's file gone in the midst of this has ended, and is started again by systemd.
    drop(collector);
    let collector = site.collector();

    // A line that is torn, and one that never came.
    let file = fs::read_dir(site.journal().join(&nodes[0])).unwrap().flatten().next().unwrap().path();
    let text = fs::read_to_string(&file).unwrap();
    let last = text.lines().last().unwrap();
    let at = last.find("\"seq\":").unwrap() + 6;
    let seq: u64 = last[at..].split(',').next().unwrap().parse().unwrap();
    let later = last.replace(&format!("\"seq\":{seq},"), &format!("\"seq\":{},", seq + 3));
    fs::write(&file, format!("{text}{{\"v\":1,\"torn\n{later}\n")).unwrap();
    site.until("the damage is counted", || {
        let (_, found) = site.findings("collector");
        found.iter().any(|f| f[2].contains("1 line is no event"))
            && found.iter().any(|f| f[2].contains("2 events were numbered but never came"))
    });

    // A person reads this.
    let shown = String::from_utf8(site.check("collector").stdout).unwrap();
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80 || line.split_whitespace().count() < 4),
        "{shown}"
    );
    drop(collector);
    let (code, wrong) = site.findings("collector");
    assert!(code == 1 && wrong.iter().any(|f| f[2].contains("does not run")), "{wrong:?}");
    site.cluster.stop().unwrap();
}

/// The plugin and the check must agree on what an argument may be.
#[test]
fn the_check_and_the_plugin_refuse_the_same_arguments() {
    let site = Site::start();
    for (argument, good) in [
        ("sync=always", true),
        ("sync=sometimes", false),
        ("cluster=a.b-c_1", true),
        ("cluster=a/b", false),
        ("env=A,B_2", true),
        ("env=A,,B", false),
        ("optout=yes", true),
        ("optout=true", false),
        ("note=/nowhere", true),
        ("note=nowhere", false),
        ("verbose", false),
        ("verbose=1", false),
        ("journal=relative", false),
    ] {
        let line = if argument.starts_with("journal") {
            format!("optional {} {argument}\n", site.plugin.display())
        } else {
            site.line().trim_end().to_owned() + " " + argument + "\n"
        };
        site.write("plugstack.conf", &line);
        let mut srun = site.cluster.command(Some(USERS[0]), "srun");
        let output = srun.args(["-n1", "sh", "-c", "echo $SLURM_JOB_ID"]).output().unwrap();
        assert!(output.status.success(), "{argument}: {output:?}");
        // The start of the step is written before the task runs.
        let job = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let recorded = site.cluster.events().iter().any(|e| e["job_id"] == job.as_str());
        let (_, found) = site.findings("node");
        let refused = found.iter().any(|f| f[2].contains("is no argument of the plugin"));
        assert_eq!((recorded, refused), (good, !good), "{argument}: {found:?}");
    }
    site.cluster.stop().unwrap();
}
