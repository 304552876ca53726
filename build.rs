//! Embeds the built-in definition files, so that a new check or playbook touches no Rust.

use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for (name, folder) in [("CHECKS", "checks"), ("PLAYBOOKS", "playbooks")] {
        println!("cargo::rerun-if-changed={folder}");
        let mut files = Vec::new();
        collect(&root.join(folder), &mut files);
        files.sort();
        writeln!(code, "pub(super) static {name}: &[(&str, &str)] = &[").expect("writing to a string");
        for file in files {
            let shown = file.strip_prefix(&root).expect("below the root").display().to_string();
            writeln!(code, "    ({shown:?}, include_str!({:?})),", file.display().to_string()).expect("writing to a string");
        }
        writeln!(code, "];").expect("writing to a string");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("embedded.rs"), code).expect("OUT_DIR can be written");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in std::fs::read_dir(folder).expect("definition folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
}
