//! The configuration file, as the command reads it.

use std::process::Output;

use inquest_tests::children::apart;

fn inquest(arguments: &[&str]) -> Output {
    apart(env!("CARGO_BIN_EXE_inquest")).args(arguments).output().unwrap()
}

#[test]
fn a_wrong_file_is_explained_line_by_line_and_nothing_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("inquest.toml");
    let store = dir.path().join("store");
    std::fs::write(&file, format!("store = {store:?}\njornal = \"/x\"\n[collect]\nquiet = 0\n")).unwrap();
    for verb in [&["collect", "--check-config"][..], &["collect", "--once"], &["agent"]] {
        let output = inquest(&[verb, &["--config", file.to_str().unwrap()]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {said}");
        let at = file.display();
        assert!(said.contains(&format!("{at}:2: there is no key jornal; did you mean journal?\n")), "{said}");
        assert!(said.contains(&format!("{at}:4: collect.quiet: 0 is outside of 1 to 86400")), "{said}");
    }
    assert!(!store.exists());
}

#[test]
fn a_flag_comes_before_the_file_and_the_file_before_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("inquest.toml");
    std::fs::write(&file, "journal = \"/of/the/file\"\n[collect]\nquiet = 7\ninterval = 20\n").unwrap();
    let output =
        inquest(&["collect", "--check-config", "--config", file.to_str().unwrap(), "--interval", "40"]);
    assert!(output.status.success());
    let used: toml::Table = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    assert_eq!(used["journal"].as_str(), Some("/of/the/file"));
    let collect = used["collect"].as_table().unwrap();
    let [interval, quiet, checkpoint] = ["interval", "quiet", "checkpoint"].map(|k| collect[k].as_integer());
    assert_eq!((interval, quiet, checkpoint), (Some(40), Some(7), Some(65_536)));
    let output = inquest(&["collect", "--check-config", "--interval", "1"]);
    assert_eq!(output.status.code(), Some(2));
    let output = inquest(&["collect", "--check-config", "--config", "/nonexistent/inquest.toml"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn every_variable_of_the_help_is_in_the_manual() {
    let dir = tempfile::tempdir().unwrap();
    assert!(inquest(&["man", dir.path().to_str().unwrap()]).status.success());
    let mut seen = std::collections::BTreeSet::new();
    for page in std::fs::read_dir(dir.path()).unwrap() {
        let page = page.unwrap().file_name().into_string().unwrap();
        let Some(verb) = page.strip_suffix(".1").and_then(|name| name.strip_prefix("inquest-")) else {
            continue;
        };
        let words: Vec<&str> = verb.split('-').chain(["--help"]).collect();
        let help = String::from_utf8(inquest(&words).stdout).unwrap();
        let page = std::fs::read_to_string(dir.path().join(&page)).unwrap();
        for variable in help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap()) {
            assert!(page.contains(&format!("\\fB{variable}\\fR environment variable")), "{verb}: {variable}");
            seen.insert(variable.to_owned());
        }
    }
    for variable in
        ["INQUEST_CONFIG", "INQUEST_JOURNAL", "INQUEST_NOTE_SOCKET", "INQUEST_RULES", "INQUEST_STORE"]
    {
        assert!(seen.contains(variable), "{variable}: {seen:?}");
    }
}

#[test]
fn a_store_that_is_read_only_to_the_service_says_what_its_unit_needs() {
    let dir = tempfile::tempdir().unwrap();
    // As under ProtectSystem=strict: the directory is there, and is the collector's own.
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && \
                  exec \"$2\" collect --once --accounting off --journal / --store \"$1$3\"";
    for below in ["", "/store"] {
        let mut command = apart("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(dir.path());
        let output = command.arg(env!("CARGO_BIN_EXE_inquest")).arg(below).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{said}");
        for part in ["cannot make the store", "Read-only file system", "ReadWritePaths="] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
    }
}
