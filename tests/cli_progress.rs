//! Progress: shown where standard error is a terminal, and nowhere else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod registries;
mod shell;
mod support;

use std::process::{Command, Stdio};

use registries::Registry;
use shell::Shell;
use support::require;

const BUSYBOX: &str = "localhost/plyfs/busybox:1.35";

/// What a verb writes to a terminal, which script(1) makes; `redirect` is added for a shell.
fn on_terminal(shell: &Shell, verb: &str, redirect: &str) -> String {
    let line = format!("'{}' {verb} {redirect}", env!("CARGO_BIN_EXE_plyfs"));
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("PLYFS_ROOT", shell.dir.path().join("root"))
        .env("TERM", "xterm")
        .env_remove("PLYFS_LOG")
        .current_dir(shell.dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{verb}: {said}");
    said
}

/// Whether anything was drawn: a cursor was moved, or a line taken back.
fn is_drawn(said: &str) -> bool {
    said.contains('\x1b')
}

/// Each verb, the word that it shows, and whether it has a flag that silences it.
fn verbs(registry: Option<&Registry>) -> Vec<(String, &'static str, bool)> {
    let archive = images::fixture("busybox-oci.tar").display().to_string();
    let mut verbs = vec![
        (format!("load -i {archive}"), "Unpacking", true),
        (format!("save -o saved.tar {BUSYBOX}"), "Saving", true),
        ("verify".to_owned(), "Verifying", true),
        (format!("create --name box {BUSYBOX}"), "", false),
        ("commit box made:1".to_owned(), "Committing", true),
    ];
    if let Some(registry) = registry {
        let name = registry.name("busybox:1");
        verbs.push((format!("push {BUSYBOX} {name}"), "Pushing", true));
        verbs.push((format!("rmi {BUSYBOX} made:1 --force"), "", false));
        verbs.push(("rm box".to_owned(), "", false));
        verbs.push(("prune -af".to_owned(), "", false));
        verbs.push((format!("pull {name}"), "Downloading", true));
    }
    verbs
}

fn registry() -> Option<Registry> {
    require("tool:docker-registry").then(Registry::start)
}

#[test]
fn progress_is_shown_on_a_terminal() {
    if !require("tool:script") {
        return;
    }
    let (shell, registry) = (Shell::new(), registry());
    for (verb, word, _) in verbs(registry.as_ref()) {
        let said = on_terminal(&shell, &verb, "");
        assert!(said.contains(word), "{verb}: {said:?}");
        assert_eq!(is_drawn(&said), !word.is_empty(), "{verb}: {said:?}");
        // What was drawn is taken back, and the result stays.
        let last = said.trim_end().rsplit("\x1b[2K").next().unwrap();
        assert!(!last.contains(word) || word.is_empty(), "{verb}: {last:?}");
    }
}

#[test]
fn progress_is_not_shown_elsewhere_or_where_it_is_not_wanted() {
    if !require("tool:script") {
        return;
    }
    let registry = registry();
    for redirect in ["2>/dev/null", "--quiet", ""] {
        let shell = Shell::new();
        for (verb, word, quiet) in verbs(registry.as_ref()) {
            let said = match redirect {
                // Neither standard output nor standard error is a terminal.
                "" => {
                    let words: Vec<&str> = verb.split(' ').collect();
                    let mut command = shell.command(&words);
                    let output = command.current_dir(shell.dir.path()).output().unwrap();
                    assert!(output.status.success() && output.stderr.is_empty(), "{verb}");
                    String::from_utf8(output.stdout).unwrap()
                }
                "--quiet" if !quiet => on_terminal(&shell, &verb, ""),
                redirect => on_terminal(&shell, &verb, redirect),
            };
            assert!(!is_drawn(&said), "{verb} {redirect}: {said:?}");
            assert!(word.is_empty() || !said.contains(word), "{verb} {redirect}: {said:?}");
        }
    }
}
