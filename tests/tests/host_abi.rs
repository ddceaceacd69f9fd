//! Our declaration of the SPANK interface against the one of the machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use inquest_tests::skip::skip;

#[test]
fn our_header_says_what_slurms_says() {
    if !Path::new("/usr/include/slurm/spank.h").exists() {
        return skip("no slurm/spank.h here (ci/setup installs libslurm-dev)");
    }
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/spank_abi.h");
    let mut c = format!(
        "#include <stddef.h>\n#include <slurm/slurm.h>\n#include <slurm/spank.h>\n#include \"{}\"\n",
        ours.display()
    );
    // Every SPK_CTX_X is Slurm's S_CTX_X, every other SPK_X is S_X.
    let header = fs::read_to_string(&ours).unwrap();
    let mut checked = 0;
    for line in header.lines() {
        let Some((name, _)) = line.trim().split_once(" = ") else { continue };
        if let Some(rest) = name.strip_prefix("SPK_") {
            c += &format!("_Static_assert((int) {name} == (int) S_{rest}, \"{name}\");\n");
            checked += 1;
        }
    }
    assert!(checked >= 28, "only {checked} names were found in {}", ours.display());
    c += "_Static_assert(SPK_NO_VAL == NO_VAL, \"NO_VAL\");\n\
          _Static_assert(sizeof(struct spk_option) == sizeof(struct spank_option), \"option\");\n";
    for field in ["name", "arginfo", "usage", "has_arg", "val", "cb"] {
        c += &format!(
            "_Static_assert(offsetof(struct spk_option, {field}) == offsetof(struct spank_option, {field}), \"{field}\");\n"
        );
    }
    // The calling conventions: same parameters, and results of the same width.
    c += "_Static_assert(sizeof(spank_context_t) == sizeof(unsigned), \"context\");\n\
          _Static_assert(sizeof(spank_err_t) == sizeof(int), \"error\");\n\
          _Static_assert(sizeof(spank_item_t) == sizeof(unsigned), \"item\");\n\
          _Static_assert(__builtin_types_compatible_p(__typeof__(&slurm_api_version), spk_api_version_fn), \"api\");\n\
          _Static_assert(__builtin_types_compatible_p(spk_option_callback, spank_opt_cb_f), \"callback\");\n\
          static spk_log_fn info = slurm_info, error = slurm_error;\n\
          static spk_hook hook = (spk_hook) (spank_f *) 0;\n\
          int main(void) { return !info || !error || hook; }\n";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("check.c");
    fs::write(&file, c).unwrap();
    let out = Command::new("cc")
        .args(["-std=gnu11", "-fsyntax-only"])
        .arg(&file)
        .output()
        .expect("cc is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
