//! Open files: locks, mappings, exec, holes, copies and space. Statements 28, 45 to 47.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;

use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::Errno;
use support::{Mapping, Scene, ready, refused};

fn read_write(path: std::path::PathBuf) -> fs::File {
    fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn locks_hold_over_copy_up() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f x\n");
    let mount = scene.mount();
    let reader = fs::File::open(mount.path("f")).unwrap();
    rustix::fs::flock(&reader, FlockOperation::LockExclusive).unwrap();
    let writer = read_write(mount.path("f"));
    writer.write_all_at(b"y", 0).unwrap();
    let taken = rustix::fs::flock(&writer, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused(taken), Errno::WOULDBLOCK);
    drop(reader);
    rustix::fs::flock(&writer, FlockOperation::NonBlockingLockExclusive).unwrap();
}

/// Statement 46: records that were locked for reading before the copy-up, of the process and of the
/// open file.
#[test]
fn record_locks_hold_over_copy_up() {
    if !ready() || !support::require("tool:python3") {
        return;
    }
    let scene = Scene::new("[lower]\nfile process 0123456789\nfile open-file 0123456789\n");
    let mount = scene.mount();
    // A shared lock of bytes 0 to 3 by a reader; the copy-up; then who else may lock what?
    let script = "import fcntl,os,struct,sys
path,ofd=sys.argv[1],sys.argv[2]=='open-file'
SETLK,GETLK=(37,36) if ofd else (fcntl.F_SETLK,fcntl.F_GETLK)
lock=lambda kind,start,n: struct.pack('hhqqi4x',kind,0,start,n,0)
reader=os.open(path,os.O_RDONLY)
fcntl.fcntl(reader,SETLK,lock(fcntl.F_RDLCK,0,4))
writer=os.open(path,os.O_RDWR); os.pwrite(writer,b'W',9)
def other(start):
    pid=os.fork()
    if pid==0:
        mine=os.open(path,os.O_RDWR)
        try: fcntl.fcntl(mine,SETLK,lock(fcntl.F_WRLCK,start,2)); os._exit(0)
        except OSError: os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid,0)[1])
assert other(2)==7, 'the lock is gone'
assert other(5)==0, 'more is locked than was'
fcntl.fcntl(reader,SETLK,lock(fcntl.F_UNLCK,0,4))
assert other(2)==0, 'it stays locked'
";
    for kind in ["process", "open-file"] {
        let mut python = Command::new("python3");
        let output = python.arg("-c").arg(script).arg(mount.path(kind)).arg(kind).output().unwrap();
        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn records_are_locked_between_processes() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f x\n");
    let mount = scene.mount();
    let file = read_write(mount.path("f"));
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\n\
        try: fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB)\nexcept OSError: sys.exit(7)\n";
    let attempt = || {
        let mut other = Command::new("python3");
        other.arg("-c").arg(script).arg(mount.path("f")).status().unwrap().code()
    };
    if support::require("tool:python3") {
        assert_eq!(attempt(), Some(7));
        rustix::fs::fcntl_lock(&file, FlockOperation::Unlock).unwrap();
        assert_eq!(attempt(), Some(0));
    }
}

#[test]
fn a_shared_mapping_and_reads_agree() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile low 0123456789\n[upper]\nfile up 0123456789\n");
    let mut mount = scene.mount();
    for name in ["low", "up"] {
        let file = read_write(mount.path(name));
        let mut map = Mapping::new(&file, 10, true);
        map.write(b"mapped");
        let mut seen = [0u8; 10];
        fs::File::open(mount.path(name)).unwrap().read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"mapped6789", "{name}");
        file.write_all_at(b"W", 9).unwrap();
        assert_eq!(map.bytes(), b"mapped678W", "{name}");
    }
    mount.remount();
    for name in ["low", "up"] {
        assert_eq!(fs::read(mount.path(name)).unwrap(), b"mapped678W", "{name}");
    }
}

#[test]
fn what_was_just_written_can_be_run() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile old \"#!/bin/sh\\necho old\\n\" mode=0755\n");
    let mount = scene.mount();
    for round in 0..20 {
        let path = mount.path(format!("program{round}"));
        fs::copy("/bin/true", &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        // Another test's child, just forked, may still hold the descriptor it was written by.
        let start = std::time::Instant::now();
        let status = loop {
            match Command::new(&path).status() {
                Err(e)
                    if e.raw_os_error() == Some(libc::ETXTBSY) && start.elapsed().as_secs() < 5 => {
                }
                other => break other.unwrap(),
            }
        };
        assert!(status.success());
    }
    let said = Command::new(mount.path("old")).output().unwrap();
    assert_eq!(said.stdout, b"old\n");
}

#[test]
fn space_is_given_taken_and_found() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f x\n");
    let mount = scene.mount();
    let file = read_write(mount.path("f"));
    file.set_len(0).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    assert!(file.metadata().unwrap().blocks() >= 2048);
    file.write_all_at(&[1; 65536], 0).unwrap();
    file.write_all_at(&[2; 65536], 1 << 19).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 0, 65536).unwrap();
    let mut start = [9u8; 16];
    file.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start, [0; 16]);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 4 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);

    let holes = fs::File::create_new(mount.path("holes")).unwrap();
    holes.set_len(1 << 22).unwrap();
    holes.write_all_at(b"data", 1 << 20).unwrap();
    assert_eq!(rustix::fs::seek(&holes, SeekFrom::Data(0)).unwrap(), 1 << 20);
    assert_eq!(rustix::fs::seek(&holes, SeekFrom::Hole(1 << 20)).unwrap(), (1 << 20) + 4096);
    assert_eq!(refused(rustix::fs::seek(&holes, SeekFrom::Data(3 << 20))), Errno::NXIO);
}

#[test]
fn ranges_are_copied_inside() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile from 0123456789\nfile to abcdefghij\n");
    let mount = scene.mount();
    let from = fs::File::open(mount.path("from")).unwrap();
    let to = read_write(mount.path("to"));
    let (mut here, mut there) = (2, 5);
    let n = rustix::fs::copy_file_range(&from, Some(&mut here), &to, Some(&mut there), 4).unwrap();
    assert_eq!(n, 4);
    assert_eq!(fs::read(mount.path("to")).unwrap(), b"abcde2345j");
}

#[test]
fn data_is_spliced_in_and_out() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile from 0123456789\nfile to abcdefghij\n");
    let mount = scene.mount();
    let from = fs::File::open(mount.path("from")).unwrap();
    let to = read_write(mount.path("to"));
    let (out, into) = rustix::pipe::pipe().unwrap();
    let flags = rustix::pipe::SpliceFlags::empty();
    let (mut here, mut there) = (3, 8);
    assert_eq!(rustix::pipe::splice(&from, Some(&mut here), &into, None, 5, flags), Ok(5));
    assert_eq!(rustix::pipe::splice(&out, None, &to, Some(&mut there), 5, flags), Ok(5));
    assert_eq!(fs::read(mount.path("to")).unwrap(), b"abcdefgh34567");
    let mut sent = 0;
    assert_eq!(rustix::fs::sendfile(&into, &to, Some(&mut sent), 4), Ok(4));
    let mut text = [0; 4];
    rustix::io::read(&out, &mut text).unwrap();
    assert_eq!(&text, b"abcd");
}

/// Every mode of fallocate, beside the filesystem below: the same, or what FUSE does not let
/// through.
#[test]
fn space_is_managed_as_on_the_filesystem_below() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\ndir d\n");
    let plain = scene.place("plain");
    fs::create_dir(&plain).unwrap();
    let mount = scene.mount();
    let keep = FallocateFlags::KEEP_SIZE;
    let inner = FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE;
    for (name, mode) in [
        ("extend", FallocateFlags::empty()),
        ("keep", keep),
        ("punch", FallocateFlags::PUNCH_HOLE | keep),
        ("punch alone", FallocateFlags::PUNCH_HOLE),
        ("zero", FallocateFlags::ZERO_RANGE),
        ("zero and keep", FallocateFlags::ZERO_RANGE | keep),
        ("collapse", FallocateFlags::COLLAPSE_RANGE),
        ("insert", FallocateFlags::INSERT_RANGE),
        ("nonsense", FallocateFlags::from_bits_retain(0x8000)),
    ] {
        for (offset, length) in [(4096, 8192), (8192, 1 << 20), (0, 0)] {
            let [below, here] = [plain.as_path(), mount.root()].map(|root| {
                let path = root.join("file");
                fs::write(&path, vec![7; 65536]).unwrap();
                let file = read_write(path.clone());
                let answer = rustix::fs::fallocate(&file, mode, offset, length);
                let (size, blocks) =
                    (file.metadata().unwrap().len(), file.metadata().unwrap().blocks());
                (answer, size, blocks, fs::read(path).unwrap())
            });
            let fuse = mode.intersects(inner) && support::Driver::under_test().is_fuse();
            if fuse && length > 0 {
                assert_eq!(here.0, Err(Errno::OPNOTSUPP), "{name}");
                assert_eq!(here.3, vec![7; 65536], "{name} changes nothing");
            } else {
                assert!(here == below, "{name} {offset} {length}: {:?}, {:?}", here.0, below.0);
            }
        }
    }
}

#[test]
fn syncing_works_on_all_that_can_be_opened() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f x\ndir d\n");
    let mount = scene.mount();
    let reader = fs::File::open(mount.path("f")).unwrap();
    reader.sync_all().unwrap();
    let mut writer = fs::OpenOptions::new().append(true).open(mount.path("f")).unwrap();
    writer.write_all(b"y").unwrap();
    writer.sync_data().unwrap();
    reader.sync_all().unwrap();
    let dir = fs::File::open(mount.path("d")).unwrap();
    dir.sync_all().unwrap();
    rustix::fs::syncfs(&dir).unwrap();
}

#[test]
fn figures_are_those_of_the_uppers_filesystem() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\ndir d\n");
    let mount = scene.mount();
    let (shown, real) =
        (rustix::fs::statvfs(mount.root()).unwrap(), rustix::fs::statvfs(&scene.upper).unwrap());
    assert_eq!(
        (shown.f_blocks, shown.f_bsize, shown.f_files),
        (real.f_blocks, real.f_bsize, real.f_files)
    );
    assert_eq!(shown.f_namemax, 255);
}
