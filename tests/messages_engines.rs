//! What engines show of us, and who runs the snapshotter: `fuse-plyfs` as podman and docker call it,
//! `plyfs snapshotter`, and what containerd is answered. See `docs/MESSAGES.md`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

#[path = "messages/mod.rs"]
mod rows;
mod snapshots;
mod support;

use rows::{Row, check};
use snapshots::{Mounted, Server};
use support::require;
use tonic::{Code, Status};

/// podman and docker put their own words before ours, and show the last line.
const PROGRAM: &[Row] = &[
    (
        "fuse-overlayfs -o lowerdir=l/GONE:lower,upperdir=upper,workdir=work mnt",
        "cannot open lower layer l/GONE: no such file or directory",
    ),
    (
        "fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work,context=\"a:b:c\" gone",
        "cannot mount on gone: no such file or directory",
    ),
    ("fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work mnt", ""),
    (
        "fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work other",
        "workdir work is in use: another mount has it: unmount that one, or name another directory",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,upperdir=upper,workdir=work,join other",
        "option join: needs a source or fsname=, the same for each mount",
    ),
    ("fuse-plyfs -o remount,ro mnt", ""),
    ("fuse-plyfs -o remount,ro other", "nothing is mounted on other"),
    ("fuse-plyfs -o remount,ro", "no mountpoint given (--help shows how)"),
    ("sh -c umount~mnt", ""),
    (
        "fuse-overlayfs -o lowerdir=lower,uidmapping=0:4294967295:10 mnt",
        "option uidmapping: must stay below 4294967296, not \"0:4294967295:10\"",
    ),
    (
        "nodevice -o lowerdir=lower mnt",
        "there is no /dev/fuse: load the kernel's module (modprobe fuse), or let the container have \
         the device",
    ),
    (
        "limited --nofile=4:4 -f -o lowerdir=lower mnt",
        "cannot handle signals: Too many open files (os error 24)",
    ),
    // Not even a process to leave behind.
    (
        "few 1 -o lowerdir=lower mnt",
        "cannot start a thread: Resource temporarily unavailable (os error 11)",
    ),
    (
        "few 1 -f -o lowerdir=lower mnt",
        "cannot start a thread: Resource temporarily unavailable (os error 11)",
    ),
    // The process is begun, and not one that serves.
    (
        "few 2 -o lowerdir=lower mnt",
        "cannot start a thread: Resource temporarily unavailable (os error 11)",
    ),
    (
        "nobody -o lowerdir=lower mnt",
        "fusermount3 is needed to mount without privilege: install the package fuse3",
    ),
    (
        "nobody -o lowerdir=lower,upperdir=upper,workdir=work mnt",
        "cannot create directory in workdir work: permission denied",
    ),
    ("sh -c mkdir~-p~work2/work/incompat/volatile", ""),
    (
        "fuse-overlayfs -o lowerdir=lower,upperdir=upper2,workdir=work2 mnt",
        "workdir work2: a volatile mount of it did not end cleanly, and files of its upper may be \
         damaged; start with a new upper, or remove work/incompat in the workdir to use this one \
         all the same",
    ),
    ("sh -c rm~-r~work2/work;~mkdir~upper2/in~shm;~mount~-t~tmpfs~x~shm", ""),
    (
        "fuse-overlayfs -o lowerdir=lower,upperdir=upper2,workdir=work2 upper2/in",
        "option upperdir: the mountpoint $DIR/upper2/in lies inside it",
    ),
    (
        "fuse-overlayfs -o lowerdir=lower,upperdir=upper2,workdir=shm mnt",
        "option workdir: shm is not on the filesystem of upperdir",
    ),
    ("sh -c umount~shm", ""),
    (
        "fuse-overlayfs -o lowerdir=lower,stats_socket=file mnt",
        "cannot listen on file: address already in use",
    ),
    ("fuse-overlayfs -o", "option -o: needs a value"),
    ("fuse-overlayfs -o lowerdir=lower mnt more most", "most: one mountpoint at a time"),
];

/// What whoever starts the snapshotter is told.
const SNAPSHOTTER: &[Row] = &[
    ("plyfs --root file snapshotter --address s", "cannot create directory file: not a directory"),
    ("plyfs snapshotter --address file", "cannot listen at file: file exists"),
    ("plyfs snapshotter --address file/s", "cannot create directory file: file exists"),
    ("sh -c echo~9~>store/format", ""),
    (
        "plyfs snapshotter --address s",
        "$DIR/store/format: format 9, this version of plyfs knows 3; use a newer one",
    ),
];

#[test]
fn the_program_that_engines_mount_with() {
    check(PROGRAM);
}

#[test]
fn starting_the_snapshotter() {
    check(SNAPSHOTTER);
}

/// containerd shows the message behind its own, and acts by the code.
#[test]
fn containerd_is_told_which_snapshot_and_why() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let server = Server::start("fuse");
    let client = server.client();
    let refused = |answer: Result<(), Status>, code: Code, message: &str| {
        let status = answer.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    };
    let active = client.prepare("active", "").unwrap();
    client.commit("base", "active").unwrap();
    drop(active);
    let none = "snapshot none: not found";
    refused(client.prepare("x", "none").map(drop), Code::NotFound, none);
    refused(client.mounts("none").map(drop), Code::NotFound, none);
    refused(client.remove("none"), Code::NotFound, none);
    refused(client.commit("x", "none"), Code::NotFound, none);
    let taken = "snapshot base: already exists";
    refused(client.prepare("base", "").map(drop), Code::AlreadyExists, taken);
    let empty = "the key of a snapshot must not be empty";
    refused(client.prepare("", "").map(drop), Code::InvalidArgument, empty);
    let why = "snapshot base: it is committed: only views and active ones mount";
    refused(client.mounts("base").map(drop), Code::FailedPrecondition, why);
    client.view("view", "base").unwrap();
    let why = "snapshot view: it is not active";
    refused(client.commit("x", "view"), Code::FailedPrecondition, why);
    let why = "snapshot view: only a committed one can be a parent";
    refused(client.prepare("x", "view").map(drop), Code::InvalidArgument, why);
    let why = "snapshot base: others lie on it: remove them first";
    refused(client.remove("base"), Code::FailedPrecondition, why);
    let map = [("containerd.io/snapshot/uidmapping", "0:1")];
    let why = "label containerd.io/snapshot/uidmapping: 0:1 is not CONTAINER:HOST:COUNT";
    refused(client.prepare_with("x", "base", &map).map(drop), Code::InvalidArgument, why);
    let long = "v".repeat(5000);
    let why = "label l: key and value are longer than 4096 bytes";
    refused(
        client.prepare_with("x", "base", &[("l", &long)]).map(drop),
        Code::InvalidArgument,
        why,
    );
    let why = "filter name~=: expected a value";
    let answer = client.list(&["name~="]).map(drop).unwrap_err();
    assert_eq!(answer.code(), Code::InvalidArgument, "{why}: {answer}");
    assert!(answer.message().starts_with("filter name~=: "), "{answer}");

    let place = server.place("mounted");
    let mounted = Mounted::new(&client.prepare("busy", "base").unwrap(), &place);
    let why = format!("the snapshot is in use: mounted on {}", place.display());
    refused(client.remove("busy"), Code::FailedPrecondition, &why);
    drop(mounted);
    client.remove("busy").unwrap();
}
