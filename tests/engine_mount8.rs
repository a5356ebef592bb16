//! mount(8), fstab and umount(8) with `fuse-plyfs` installed as the package installs it, and the
//! lines that docs/ENGINES.md gives for them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod engines;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use engines::{PLYFS, Room, run, wait_until};
use support::{names, refused, require};

/// Where the document's examples keep their layers, and where they mount.
const LAYERS: &str = "/srv/layers";
const MERGED: &str = "/srv/merged";

/// A machine on which the package is installed.
struct Machine {
    room: Room,
}

impl Machine {
    fn new() -> Option<Machine> {
        let needs = ["root", "fuse", "overlayfs", "tool:mount", "tool:umount", "tool:findmnt"];
        if !needs.into_iter().all(require) {
            return None;
        }
        let room = Room::enter();
        room.own("/usr/bin");
        room.own("/usr/sbin");
        engines::room::install(Path::new(PLYFS), "/usr/bin/fuse-plyfs");
        run(Command::new("ln").args(["-s", "../bin/fuse-plyfs", "/usr/sbin/mount.fuse.plyfs"]));
        room.cover("/srv");
        for dir in ["base", "middle", "upper", "work"] {
            fs::create_dir_all(Path::new(LAYERS).join(dir)).unwrap();
        }
        fs::create_dir(MERGED).unwrap();
        fs::write(Path::new(LAYERS).join("base/from-base"), "base\n").unwrap();
        fs::write(Path::new(LAYERS).join("middle/from-middle"), "middle\n").unwrap();
        Some(Machine { room })
    }

    /// What the kernel's table says of the mount.
    fn column(&self, name: &str) -> String {
        let mut findmnt = Command::new("findmnt");
        run(findmnt.args(["--noheadings", "--output", name, "--mountpoint", MERGED]))
            .trim()
            .to_owned()
    }

    fn options(&self) -> Vec<String> {
        self.column("VFS-OPTIONS").split(',').map(str::to_owned).collect()
    }

    fn expect_unmounted(&self) {
        assert!(names(MERGED).is_empty(), "still mounted");
        wait_until("the daemon to end", || self.room.daemons().is_empty());
        assert!(names(Path::new(LAYERS).join("work")).is_empty());
    }

    /// A file like /etc/fstab.
    fn fstab(&self, lines: &str) -> PathBuf {
        let path = self.room.path("fstab");
        fs::write(&path, lines).unwrap();
        path
    }
}

fn mount(words: &[&str]) -> Output {
    Command::new("mount").args(words).stdin(Stdio::null()).output().unwrap()
}

fn writable() -> String {
    format!("lowerdir={LAYERS}/middle:{LAYERS}/base,upperdir={LAYERS}/upper,workdir={LAYERS}/work")
}

/// Writes through the mount, and sees where it went.
fn expect_writable(name: &str) {
    let merged = Path::new(MERGED);
    assert_eq!(fs::read_to_string(merged.join("from-base")).unwrap(), "base\n");
    fs::write(merged.join(name), "x\n").unwrap();
    assert_eq!(fs::read_to_string(Path::new(LAYERS).join("upper").join(name)).unwrap(), "x\n");
    assert!(!Path::new(LAYERS).join("middle").join(name).exists());
}

#[test]
fn the_documents_commands_mount_and_unmount() {
    let Some(machine) = Machine::new() else { return };
    let block = engines::documented_block("mount(8), fstab and systemd", "sh");
    let (before, after) = block.split_once("umount").unwrap();
    run(Command::new("sh").args(["-e", "-c", before]));
    assert_eq!(machine.column("FSTYPE"), "fuse.plyfs");
    assert_eq!(machine.column("SOURCE"), "plyfs");
    let options = machine.options();
    assert!(options.contains(&"rw".to_owned()), "{options:?}");
    assert!(!options.iter().any(|name| name == "nosuid" || name == "nodev"), "{options:?}");
    expect_writable("new");
    // Devices and set-user-ID programs are what containers have: root's mounts allow them.
    run(Command::new("mknod").arg(Path::new(MERGED).join("null")).args(["c", "1", "3"]));
    fs::write(Path::new(MERGED).join("null"), "swallowed").unwrap();
    run(Command::new("sh").args(["-e", "-c", &format!("umount{after}")]));
    machine.expect_unmounted();
}

#[test]
fn the_source_and_the_subtype_are_those_named() {
    let Some(machine) = Machine::new() else { return };
    let options = format!("{},fsname=named", writable());
    for (source, options, shown) in [("mine", writable(), "mine"), ("mine", options, "named")] {
        run(Command::new("mount").args(["-t", "fuse.plyfs", "-o", &options, source, MERGED]));
        assert_eq!(machine.column("FSTYPE"), "fuse.plyfs");
        assert_eq!(machine.column("SOURCE"), shown);
        // umount finds it by what findmnt shows, too.
        run(Command::new("umount").arg(shown));
        machine.expect_unmounted();
    }
}

#[test]
fn options_of_mount_reach_the_kernel() {
    let Some(machine) = Machine::new() else { return };
    let options = format!("ro,nosuid,nodev,noexec,noatime,{}", writable());
    run(Command::new("mount").args(["-t", "fuse.plyfs", "-o", &options, "plyfs", MERGED]));
    let shown = machine.options();
    for name in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(shown.contains(&name.to_owned()), "{name} is not in {shown:?}");
    }
    let error = refused(fs::write(Path::new(MERGED).join("new"), "x"));
    assert_eq!(error, rustix::io::Errno::ROFS);
    assert!(names(Path::new(LAYERS).join("upper")).is_empty());
    run(Command::new("umount").arg(MERGED));
    machine.expect_unmounted();

    // Without an upper it is read-only whatever mount(8) asks for.
    let options = format!("lowerdir={LAYERS}/middle:{LAYERS}/base");
    run(Command::new("mount").args(["-r", "-t", "fuse.plyfs", "-o", &options, "plyfs", MERGED]));
    assert_eq!(names(MERGED), ["from-base", "from-middle"]);
    let error = refused(fs::write(Path::new(MERGED).join("new"), "x"));
    assert_eq!(error, rustix::io::Errno::ROFS);
    run(Command::new("umount").arg(MERGED));
    machine.expect_unmounted();
}

/// What fstab has for others (systemd, mount(8) itself) is no option of ours, and draws no word.
#[test]
fn options_for_others_are_taken_in_silence() {
    let Some(machine) = Machine::new() else { return };
    let others = "defaults,nofail,_netdev,noauto,user,comment=x,x-systemd.automount,\
                  x-systemd.requires=foo.service,x-gvfs-hide,lazytime";
    let options = format!("{others},{}", writable());
    let output = mount(&["-t", "fuse.plyfs", "-o", &options, "plyfs", MERGED]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // `user` means these, as for any type.
    for name in ["nosuid", "nodev", "noexec"] {
        assert!(machine.options().contains(&name.to_owned()), "{:?}", machine.options());
    }
    run(Command::new("umount").arg(MERGED));
    machine.expect_unmounted();
}

/// `mount -o remount`: the same daemon, read-only and writable again.
#[test]
fn a_mount_is_made_read_only_and_writable_again() {
    let Some(machine) = Machine::new() else { return };
    let options = format!("nosuid,{}", writable());
    run(Command::new("mount").args(["-t", "fuse.plyfs", "-o", &options, "plyfs", MERGED]));
    let daemons = machine.room.daemons();
    let held = fs::File::create(Path::new(MERGED).join("held")).unwrap();
    let busy = mount(&["-o", "remount,ro", MERGED]);
    assert!(!busy.status.success(), "a file is open for writing");
    assert!(String::from_utf8_lossy(&busy.stderr).contains("busy"), "{busy:?}");
    drop(held);
    wait_until("the file to be closed", || mount(&["-o", "remount,ro", MERGED]).status.success());
    for name in ["ro", "nosuid"] {
        assert!(machine.options().contains(&name.to_owned()), "{:?}", machine.options());
    }
    let error = refused(fs::write(Path::new(MERGED).join("new"), "x"));
    assert_eq!(error, rustix::io::Errno::ROFS);
    run(Command::new("mount").args(["-o", "remount,rw,noatime", MERGED]));
    for name in ["rw", "nosuid", "noatime"] {
        assert!(machine.options().contains(&name.to_owned()), "{:?}", machine.options());
    }
    expect_writable("new");
    assert_eq!(machine.room.daemons(), daemons);
    run(Command::new("umount").arg(MERGED));
    machine.expect_unmounted();
}

#[test]
fn the_documents_line_of_fstab_mounts() {
    let Some(machine) = Machine::new() else { return };
    let fstab = machine.fstab(&engines::documented_block("mount(8), fstab and systemd", "fstab"));
    let fstab = fstab.to_str().unwrap();
    for (round, words) in [
        // By its mountpoint, by its source, and as the boot does it.
        ["--fstab", fstab, MERGED],
        ["--fstab", fstab, "plyfs"],
        ["--fstab", fstab, "--all"],
    ]
    .iter()
    .enumerate()
    {
        run(Command::new("mount").args(words));
        assert_eq!(machine.column("FSTYPE"), "fuse.plyfs");
        expect_writable(&format!("round-{round}"));
        // What is mounted is not mounted again.
        run(Command::new("mount").args(["--fstab", fstab, "--all"]));
        assert_eq!(machine.room.daemons().len(), 1);
        run(Command::new("umount").arg(MERGED));
        machine.expect_unmounted();
    }
    let verified = Command::new("findmnt").args(["--verify", "--tab-file", fstab]).output();
    let said = String::from_utf8(verified.unwrap().stderr).unwrap();
    assert!(said.contains("0 parse errors, 0 errors"), "{said}");
}

/// The unit that the document gives has the options of its line for fstab.
#[test]
fn the_documents_unit_mounts_the_same() {
    let Some(machine) = Machine::new() else { return };
    let section = "mount(8), fstab and systemd";
    let unit = engines::documented_block(section, "ini");
    let value = |key: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
        found.unwrap_or_else(|| panic!("no {key} in {unit}")).to_owned()
    };
    assert_eq!(value("Where"), MERGED);
    let fstab = engines::documented_block(section, "fstab");
    assert_eq!(fstab.split_whitespace().nth(3).unwrap(), value("Options"));
    if require("tool:systemd-analyze") {
        let path = machine.room.path("srv-merged.mount");
        fs::write(&path, &unit).unwrap();
        run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
    }
    // systemd starts exactly this.
    let (kind, options) = (value("Type"), value("Options"));
    run(Command::new("mount").args([&value("What"), MERGED, "-t", &kind, "-o", &options]));
    expect_writable("by-unit");
    run(Command::new("umount").args([MERGED, "-c"]));
    machine.expect_unmounted();
}

#[test]
fn what_cannot_be_mounted_is_said_by_mount() {
    let Some(machine) = Machine::new() else { return };
    let output =
        mount(&["-t", "fuse.plyfs", "-o", &format!("lowerdir={LAYERS}/absent"), "plyfs", MERGED]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("{LAYERS}/absent")), "{said}");
    machine.expect_unmounted();
}

/// Where the program alone is there, mount.fuse finds it by its name.
#[test]
fn mount_fuse_finds_the_program_in_its_path() {
    if !require("tool:mount.fuse3") {
        return;
    }
    let Some(machine) = Machine::new() else { return };
    fs::remove_file("/usr/sbin/mount.fuse.plyfs").unwrap();
    let words = ["-t", "fuse.fuse-plyfs", "-o", &writable(), "plyfs", MERGED];
    run(Command::new("mount").args(words));
    assert!(machine.column("FSTYPE").starts_with("fuse."), "{}", machine.column("FSTYPE"));
    assert_eq!(machine.column("SOURCE"), "plyfs");
    expect_writable("new");
    run(Command::new("umount").arg(MERGED));
    machine.expect_unmounted();
}
