//! Slurm's accounting as sites have it: slurmdbd on a MariaDB, both of this cluster alone.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::process::Process;
use super::{Cluster, user_ids};

/// slurmdbd refuses a file that others can read.
pub(super) fn write_conf(path: &Path, text: &str, (uid, gid): (u32, u32)) -> Result<()> {
    user_ids("mysql").context("there is no user mysql: install mariadb-server, as ci/setup does")?;
    fs::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(chown(path, Some(uid), Some(gid))?)
}

impl Cluster {
    /// Start MariaDB in an empty directory, then slurmdbd, which makes its tables.
    pub(super) fn start_accounting(&mut self, (port, database): (u16, u16)) -> Result<()> {
        let at = |name: &str, file: &str| format!("--{name}={}/{file}", self.dir().display());
        // The system tables: without a place for its stored procedures, slurmdbd starts and then
        // leaves associations out of what it lists, and says nothing.
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--user=mysql", "--skip-test-db", "--skip-name-resolve"]);
        install.args(["--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"]);
        let output = install.arg(at("datadir", "database")).stdin(Stdio::null()).output();
        let output = output.context("cannot start mariadb-install-db: is it installed? Run ci/setup")?;
        if !output.status.success() {
            bail!("no database: {}", String::from_utf8_lossy(&output.stdout));
        }
        // Nobody's data: no grant tables, no waiting for the disk.
        let args = [
            "--no-defaults".to_owned(),
            at("datadir", "database"),
            at("socket", "database/socket"),
            at("pid-file", "database/pid"),
            format!("--port={database}"),
            "--bind-address=127.0.0.1".into(),
            "--skip-grant-tables".into(),
            "--performance-schema=OFF".into(),
            "--innodb-buffer-pool-size=32M".into(),
            "--innodb-log-file-size=8M".into(),
            "--innodb-flush-log-at-trx-commit=0".into(),
        ];
        self.daemon("mariadbd", &args.each_ref().map(String::as_str))?;
        self.wait_port(database, "mariadbd")?;
        self.daemon("slurmdbd", &["-D"])?;
        self.wait_port(port, "slurmdbd")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        let name = format!("lab{}", self.slot.number);
        loop {
            let output = self.command(None, "sacctmgr").args(["-i", "add", "cluster", &name]).output()?;
            if output.status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "slurmdbd does not take the cluster: {}{}",
                    String::from_utf8_lossy(&output.stderr),
                    self.logs()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The daemons of this name that run.
    pub fn processes_named(&self, name: &str) -> Vec<Process> {
        let is = |p: &Process| {
            fs::read_to_string(format!("/proc/{}/comm", p.pid)).is_ok_and(|comm| comm.trim_end() == name)
        };
        self.processes().into_iter().filter(is).collect()
    }

    fn wait_port(&mut self, port: u16, name: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(40);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            self.check_daemons()?;
            if Instant::now() > deadline {
                bail!("{name} does not listen on port {port}{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
