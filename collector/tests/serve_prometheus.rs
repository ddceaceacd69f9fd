//! What Prometheus itself says of the metrics, the rules and the dashboards.

#[path = "support/server.rs"]
mod server;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;
use server::Server;
use support::{EPOCH, End, Job, Lab, finish};

fn packaging() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn described() -> String {
    let (code, text, _) = Lab::new().run(&["serve", "--metrics"]);
    assert_eq!(code, 0);
    text
}

/// Names of all samples.
fn names() -> BTreeSet<String> {
    let samples = described();
    let samples = samples.lines().filter(|l| !l.starts_with('#'));
    samples.filter_map(|l| l.split(['{', ' ']).next()).map(str::to_owned).collect()
}

#[test]
fn promtool_finds_nothing_wrong_with_metrics_and_rules() {
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]);
    let (code, said, errors) = finish(check, described().as_bytes());
    assert_eq!((code, said.as_str(), errors.as_str()), (0, "", ""));
    for arguments in [["check", "rules", "inquest.rules.yml"], ["test", "rules", "inquest.test.yml"]] {
        let mut command = Command::new("promtool");
        command.args(arguments).current_dir(packaging().join("prometheus"));
        let (code, said, errors) = finish(command, b"");
        assert_eq!(code, 0, "{arguments:?}: {said}{errors}");
    }
}

#[test]
fn rules_and_dashboards_name_metrics_that_exist() {
    let names = names();
    let word = Regex::new(r"\binquest_[a-z_]+").unwrap();
    let mut files = vec![packaging().join("prometheus/inquest.rules.yml")];
    let mut boards = 0;
    for entry in fs::read_dir(packaging().join("grafana")).unwrap().flatten() {
        let board: serde_json::Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        assert!(board["uid"].as_str().unwrap().starts_with("inquest-") && board["__inputs"].is_array());
        let panels = board["panels"].as_array().unwrap();
        let ids: BTreeSet<i64> = panels.iter().map(|p| p["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{entry:?}");
        for panel in panels {
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
        boards += 1;
        files.push(entry.path());
    }
    assert_eq!(boards, 3);
    let mut used = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for name in word.find_iter(&text).map(|m| m.as_str().to_owned()) {
            assert!(names.contains(&name), "{}: there is no {name}; there are {names:?}", file.display());
            used.insert(name);
        }
    }
    assert!(used.len() >= 15, "{used:?}");
}

/// For a site without a port: what node_exporter finds in its directory.
#[test]
fn a_file_of_metrics_for_node_exporter() {
    let lab = Lab::new();
    lab.job(&Job { name: "a-name".into(), ..Job::new(1, End::Oom(64)) });
    lab.merge(&[]);
    let dir = lab.path().join("node-exporter");
    fs::create_dir(&dir).unwrap();
    let file = dir.join("inquest.prom");
    // With the umask that the unit gives it.
    let settings = format!("textfile = {:?}", file.to_str().unwrap());
    let server = Server::with(lab.path(), &lab.store(), &settings, |command| {
        // SAFETY: umask is one system call.
        unsafe {
            command.pre_exec(|| {
                libc::umask(0o027);
                Ok(())
            })
        };
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    while !file.exists() {
        assert!(Instant::now() < deadline, "no {}", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\ninquest_index_up 1\n") && text.contains("class=\"oom\""), "{text}");
    assert!(!text.contains("a-name"), "{text}");
    // Another account reads it, and nothing half-written is beside it.
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o444, 0o444);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]);
    assert_eq!(finish(check, text.as_bytes()), (0, String::new(), String::new()));
    drop(server);
}

/// A private Prometheus, ended by its process id.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Scrapes and judges every second; what the rules wait for, it does not.
    fn start(lab: &Lab, server: &Server) -> Prometheus {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let rules = fs::read_to_string(packaging().join("prometheus/inquest.rules.yml")).unwrap();
        let rules = Regex::new(r"for: \w+").unwrap().replace_all(&rules, "for: 0s").into_owned();
        fs::write(lab.path().join("rules.yml"), rules).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n  \
             - job_name: inquest\n    static_configs: [{{targets: ['{}']}}]\n",
            server.tcp
        );
        let path = lab.path().join("prometheus.yml");
        fs::write(&path, config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", lab.path().join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Prometheus { child, port }
    }

    fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return String::new() };
        let mut text = String::new();
        let _ = stream.write_all(&server::request(path, &[]));
        let _ = stream.read_to_string(&mut text);
        text
    }

    fn wait_for(&self, path: &str, words: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let text = self.get(path);
            if words.iter().all(|w| text.contains(w)) {
                return;
            }
            assert!(Instant::now() < deadline, "{words:?} is not in {text}");
            std::thread::sleep(Duration::from_millis(250));
        }
    }
}

#[test]
fn a_real_prometheus_scrapes_and_an_alert_fires() {
    let lab = Lab::new();
    let now = jiff::Timestamp::now().as_microsecond() / 1_000_000;
    let start = now - EPOCH / 1_000_000 - 3000;
    let collect = |jobs: std::ops::Range<u32>, end: End| {
        for id in jobs {
            lab.job(&Job { start, ..Job::new(id, end) });
        }
        lab.merge(&[]);
    };
    collect(1..3, End::Code(1));
    let server = Server::start(lab.path(), &lab.store(), "requests = 100000");
    let prometheus = Prometheus::start(&lab, &server);
    let failed = "/api/v1/query?query=inquest_jobs_total%7Bclass%3D%22app_error%22%7D";
    prometheus.wait_for(failed, &["\"partition\":\"batch\"", "\"0\""]);
    collect(3..60, End::Code(1));
    prometheus.wait_for(failed, &["\"57\""]);
    prometheus.wait_for(
        "/api/v1/alerts",
        &["InquestFailureBurst", "\"state\":\"firing\"", "More than half of the jobs on lab fail"],
    );
    let targets = prometheus.get("/api/v1/targets");
    assert!(targets.contains("\"health\":\"up\"") && !targets.contains("\"lastError\":\"e"), "{targets}");
}
