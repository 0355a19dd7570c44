//! Which binary is under test.

use std::{path::PathBuf, sync::OnceLock};

/// The binary under test: built once per test run, or the one that `TIDEGATE_BINARY` names.
#[must_use]
pub fn binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build_binary).clone()
}

fn build_binary() -> PathBuf {
    if let Some(named) = std::env::var_os("TIDEGATE_BINARY") {
        return named.into();
    }
    let tests = std::env::current_exe().expect("the test's own path");
    let folder = tests.parent().expect("an executable lies in a folder");
    // Tests lie in target/<profile>/deps, the bench beside the binary.
    let in_deps = folder.file_name().is_some_and(|name| name == "deps");
    let profile = if in_deps { folder.parent().expect("target/<profile>") } else { folder };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--quiet", "--package", "tidegate", "--bin", "tidegate"]);
    // What the outer cargo tells its tests would make the inner one build dependencies anew.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_")) {
            build.env_remove(name);
        }
    }
    if profile.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo").success(), "the binary does not build");
    profile.join("tidegate")
}
