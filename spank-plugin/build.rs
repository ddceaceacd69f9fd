//! Rust's view of `include/spank_abi.h`, and how the plugin is linked.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    // This file is also that of spank-plugin/job, one directory deeper.
    let headers = ["../include/spank_abi.h", "../../include/spank_abi.h"];
    let header = headers.into_iter().find(|path| Path::new(path).exists()).expect("include/spank_abi.h");
    println!("cargo::rerun-if-changed={header}");

    let bindings = bindgen::Builder::default()
        .header(header)
        .allowlist_type("spk_.*")
        .allowlist_var("SPK_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .layout_tests(true)
        .generate()
        .expect("bindgen reads include/spank_abi.h (it needs libclang)");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    bindings.write_to_file(out.join("spank_abi.rs")).expect("OUT_DIR is writable");

    // slurmstepd unloads plugins right after slurm_spank_exit. Staying mapped
    // costs nothing in a process that is about to end, and nothing that the
    // Rust runtime registered there can ever point to unmapped code.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // No undefined symbol may be left: on another release of Slurm it could
    // be missing, and then the whole plugin would not load.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
}
