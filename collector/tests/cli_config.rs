//! The configuration file, as the command reads it.

use std::process::{Command, Output};

fn inquest(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inquest"));
    for name in ["INQUEST_JOURNAL", "INQUEST_STORE", "INQUEST_CONFIG"] {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
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
