//! The copy of the core that has all bugs in it, and the build of the simulator with it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_dir as symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bug::{Bug, plant, root};

/// Name of the variable that says which bug is on; without it none is.
pub(crate) const ON: &str = "SYNCLAYER_PLANTED";

/// Makes or refreshes the copy in `target/planted`, builds this program with it, and returns the
/// path of what was built. The profile is that of the running program.
pub(crate) fn build(bugs: &[Bug]) -> Result<PathBuf, String> {
    let copy = root().join("target/planted");
    write(&copy, bugs)?;
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo.current_dir(&copy).args(["build", "--quiet", "-p", "synclayer-planted"]);
    cargo.args(["--target-dir", "target"]);
    // bodies with a bug in them have code that is never reached
    cargo.env("RUSTFLAGS", "--cap-lints=allow");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    if profile == "release" {
        cargo.arg("--release");
    }
    match cargo.status() {
        Ok(status) if status.success() => {
            Ok(copy.join("target").join(profile).join("synclayer-planted"))
        }
        Ok(status) => Err(format!("the core with bugs could not be built: {status}")),
        Err(error) => Err(format!("cargo could not be started: {error}")),
    }
}

/// A workspace of its own: the core copied, the tests as they are.
fn write(copy: &Path, bugs: &[Bug]) -> Result<(), String> {
    let said = |error: std::io::Error| format!("{}: {error}", copy.display());
    let mut kept = BTreeSet::new();
    copy_core(&root().join("core"), &copy.join("core"), bugs, &mut kept)?;
    remove_others(&copy.join("core"), &kept).map_err(said)?;
    let manifest = fs::read_to_string(root().join("Cargo.toml")).map_err(said)?;
    let keeps = |line: &&str| !line.starts_with("default-members") && !line.starts_with("exclude");
    let lines = manifest.lines().filter(keeps).map(|line| match line.starts_with("members") {
        true => r#"members = ["core", "tests/planted", "tests/sim"]"#,
        false => line,
    });
    refresh(&copy.join("Cargo.toml"), &lines.collect::<Vec<_>>().join("\n")).map_err(said)?;
    // the same versions of everything else
    fs::copy(root().join("Cargo.lock"), copy.join("Cargo.lock")).map_err(said)?;
    if !copy.join("tests").exists() {
        symlink("../../tests", copy.join("tests")).map_err(said)?;
    }
    Ok(())
}

fn copy_core(
    from: &Path,
    to: &Path,
    bugs: &[Bug],
    kept: &mut BTreeSet<PathBuf>,
) -> Result<(), String> {
    let said = |error: std::io::Error| format!("{}: {error}", from.display());
    fs::create_dir_all(to).map_err(said)?;
    for entry in fs::read_dir(from).map_err(said)? {
        let path = entry.map_err(said)?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_core(&path, &target, bugs, kept)?;
            continue;
        }
        let mut text = fs::read_to_string(&path).map_err(said)?;
        if let Ok(file) = path.strip_prefix(root().join("core/src")) {
            let file = file.to_string_lossy();
            text = plant(&file, &text, bugs).map_err(|misplaced| misplaced.join("\n\n"))?;
            if file == "lib.rs" {
                text += &switch(bugs);
            }
        }
        refresh(&target, &text).map_err(said)?;
        kept.insert(target);
    }
    Ok(())
}

/// Writes a file if that changes it, so that it is not built again for nothing.
fn refresh(path: &Path, text: &str) -> std::io::Result<()> {
    match fs::read_to_string(path) {
        Ok(old) if old == text => Ok(()),
        _ => fs::write(path, text),
    }
}

/// Removes what has no original any more.
fn remove_others(folder: &Path, kept: &BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The module that tells which bug is on. Only the copy has it.
fn switch(bugs: &[Bug]) -> String {
    let mut module = String::from(
        "\nmod planted {
    extern crate std;

    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Bug {\n",
    );
    for bug in bugs {
        let _ = writeln!(module, "        {},", bug.name);
    }
    let _ = write!(
        module,
        "    }}

    pub(crate) fn on() -> Option<Bug> {{
        static ON: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
        *ON.get_or_init(|| match &*std::env::var(\"{ON}\").ok()? {{\n"
    );
    for bug in bugs {
        let _ = writeln!(module, "            \"{0}\" => Some(Bug::{0}),", bug.name);
    }
    module + "            name => panic!(\"no bug is called {name}\"),\n        })\n    }\n}\n"
}
