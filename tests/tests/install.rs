//! What `make install` puts where, and what `make uninstall` leaves.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use inquest_tests::artefacts;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn files(dir: &Path) -> BTreeSet<String> {
    let listed = Command::new("find").current_dir(dir).args([".", "-type", "f"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().lines().map(|l| l[1..].to_owned()).collect()
}

#[test]
fn everything_has_its_place_and_settings_outlive_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    // As after `make`, from what the other tests try out.
    let (target, dest) = (dir.path().join("target"), dir.path().join("dest"));
    for (from, to) in [
        (artefacts::plugin(), "plugin/libspank_inquest.so"),
        (artefacts::plugin_of_jobs(), "plugin/libspank_inquest_job.so"),
        (artefacts::inquest(), "release/inquest"),
    ] {
        let to = target.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(from, to).unwrap();
    }
    let inquest = |arguments: &[&str]| {
        let output = Command::new(artefacts::inquest()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let man = target.join("share/man");
    fs::create_dir_all(target.join("share/completions")).unwrap();
    inquest(&["man", man.to_str().unwrap()]);
    for shell in ["bash", "zsh", "fish"] {
        fs::write(target.join("share/completions").join(shell), inquest(&["completions", shell])).unwrap();
    }
    let make = |goal: &str| {
        let mut make = Command::new("make");
        make.current_dir(root()).arg(goal).arg("prefix=/opt/inquest");
        make.arg(format!("DESTDIR={}", dest.display())).arg(format!("TARGET={}", target.display()));
        make.env_remove("MAKEFLAGS").env_remove("CARGO_TARGET_DIR");
        let output = make.output().unwrap();
        assert!(output.status.success(), "{goal}: {}", String::from_utf8_lossy(&output.stderr));
    };
    make("install");

    let prefix = "/opt/inquest";
    let mut wanted: BTreeSet<String> = [
        "lib/slurm/spank_inquest.so",
        "lib/slurm/spank_inquest_job.so",
        "bin/inquest",
        "share/bash-completion/completions/inquest",
        "share/zsh/site-functions/_inquest",
        "share/fish/vendor_completions.d/inquest.fish",
        "share/man/man8/spank_inquest.8",
        "share/inquest/prometheus/inquest.rules.yml",
    ]
    .map(|name| format!("{prefix}/{name}"))
    .into();
    let of = |dir: &str, to: &str| -> Vec<String> {
        let names = fs::read_dir(root().join("packaging").join(dir)).unwrap();
        names.map(|n| format!("{to}/{}", n.unwrap().file_name().to_str().unwrap())).collect()
    };
    // Where systemd looks: never below a prefix of one's own.
    let units = of("systemd", "/etc/systemd/system");
    wanted.extend(units.clone());
    for place in ["sysusers.d", "tmpfiles.d"] {
        wanted.extend(["inquest", "inquest-journal"].map(|name| format!("/etc/{place}/{name}.conf")));
    }
    wanted.extend(of("grafana", "/opt/inquest/share/inquest/grafana"));
    for page in fs::read_dir(&man).unwrap() {
        let page = page.unwrap().file_name().into_string().unwrap();
        let section = page.rsplit('.').next().unwrap().to_owned();
        wanted.insert(format!("{prefix}/share/man/man{section}/{page}"));
    }
    let settings = ["inquest/inquest.toml", "inquest/rules.toml", "slurm/plugstack.conf.d/inquest.conf"]
        .map(|s| format!("/etc/{s}"));
    wanted.extend(settings.clone());
    assert_eq!(files(&dest), wanted);
    for section in ["man1", "man5", "man8"] {
        assert!(wanted.iter().any(|f| f.contains(section)), "no {section}");
    }

    // What is installed names what is installed.
    let read = |path: &str| fs::read_to_string(dest.join(&path[1..])).unwrap();
    for unit in units {
        assert!(read(&unit).contains("\nExecStart=/opt/inquest/bin/inquest "), "{unit}");
    }
    let plugstack = read("/etc/slurm/plugstack.conf.d/inquest.conf");
    assert!(plugstack.contains("\noptional /opt/inquest/lib/slurm/spank_inquest.so"), "{plugstack}");

    // Again, as an upgrade does, and away.
    let ours = [&settings[..], &["/etc/systemd/system/inquest-ours.service".to_owned()]].concat();
    for path in &ours {
        fs::write(dest.join(&path[1..]), "# ours\n").unwrap();
    }
    wanted.extend(ours.iter().cloned());
    make("install");
    assert_eq!(files(&dest), wanted);
    make("uninstall");
    assert_eq!(files(&dest), ours.iter().cloned().collect());
    assert!(ours.iter().all(|path| read(path) == "# ours\n"));
}
