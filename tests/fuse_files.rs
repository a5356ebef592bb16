//! Open files on a real mount: what the kernel reads and writes by itself, and what becomes of
//! it when a file is copied up, by statements of the contract.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FallocateFlags, IFlags, Mode, OFlags, SeekFrom, StatxFlags};
use support::{Driver, MountedOverlay, Options, Scene, Snapshot, require};

const LAYERS: &str = r##"
[lower]
file     data    "lower data\n"
file     program "#!/bin/sh\necho lower\n" mode=0755
file     elf     "\x7fELF\x01\x01__________\x02\x00" mode=0755
file     lib.so.6 "\x7fELF\x01\x01__________\x02\x00"
file     linked  "\x7fELF\x01\x01__________\x02\x00" mode=0755
hardlink other   linked
file     suid    "privileged\n" mode=6755
sparse   holes   1048576 524288:middle
dir      dir
"##;

/// Runs `test` on a mount with each policy of passthrough, and checks afterwards that no byte of
/// the lower changed.
fn with_each_policy(test: impl Fn(&MountedOverlay<'_>)) {
    if !(require("root") && require("fuse")) {
        return;
    }
    for policy in ["auto", "off", "all"] {
        let scene = Scene::new(LAYERS);
        let before = Snapshot::of(&scene.lowers[0]);
        let options = Options::with(&[&format!("passthrough={policy}")]);
        let mut mount = scene.mount_by(Driver::Plyfs, &options);
        eprintln!("passthrough={policy}");
        test(&mount);
        mount.unmount();
        let after = Snapshot::of(&scene.lowers[0]);
        for (path, entry) in &before.entries {
            assert_eq!(after.entries[path], *entry, "{path:?} of the lower changed");
        }
    }
}

fn for_writing(path: impl AsRef<Path>) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn start_of(file: &File, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let n = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(n);
    bytes
}

/// Statement 29: with a reader of the lower open, every way to open it for writing works and
/// writes to the upper alone.
#[test]
fn no_write_reaches_a_lower_whose_reader_is_open() {
    with_each_policy(|mount| {
        for name in ["program", "elf", "lib.so.6", "data", "suid"] {
            let path = mount.path(name);
            let number = fs::metadata(&path).unwrap().ino();
            let reader = File::open(&path).unwrap();
            let old = start_of(&reader, 8);
            let writer = for_writing(&path);
            writer.write_all_at(b"NEW", 0).unwrap();
            assert_eq!(&start_of(&writer, 3), b"NEW", "{name}");
            assert_eq!(&fs::read(&path).unwrap()[..3], b"NEW", "{name}");
            assert_eq!(&fs::read(mount.scene().upper.join(name)).unwrap()[..3], b"NEW", "{name}");
            assert_eq!(fs::metadata(&path).unwrap().ino(), number, "{name}");
            assert_eq!(writer.metadata().unwrap().ino(), number, "{name}");
            let mut appender = OpenOptions::new().append(true).open(&path).unwrap();
            appender.write_all(b"END").unwrap();
            assert!(fs::read(&path).unwrap().ends_with(b"END"), "{name}");
            fs::write(&path, "cut").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"cut", "{name}");
            // The reader still works; what it sees is another statement.
            assert!(start_of(&reader, 8).len() <= old.len(), "{name}");
        }
    });
}

/// Statement 27: for ordinary data the old descriptor sees what is written.
#[test]
fn a_reader_of_data_sees_what_is_written_after_copy_up() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    // Whether it may be executed does not make it a program.
    for (name, old) in [("data", b"lower"), ("program", b"#!/bi")] {
        let reader = File::open(mount.path(name)).unwrap();
        assert_eq!(start_of(&reader, 5), old);
        for_writing(mount.path(name)).write_all_at(b"UPPER", 0).unwrap();
        assert_eq!(start_of(&reader, 5), b"UPPER");
    }
}

/// Two names of one file, both with the reader's node in the kernel's cache.
#[test]
fn hard_links_follow_a_renewed_node() {
    with_each_policy(|mount| {
        let (one, two) = (mount.path("linked"), mount.path("other"));
        let number = fs::metadata(&two).unwrap().ino();
        let reader = File::open(&one).unwrap();
        for_writing(&one).write_all_at(b"#!/bin/false", 0).unwrap();
        assert!(fs::read(&two).unwrap().starts_with(b"#!/bin/false"));
        for_writing(&two).write_all_at(b"#!/bin/true_", 0).unwrap();
        drop(reader);
        assert!(fs::read(&one).unwrap().starts_with(b"#!/bin/true_"));
        assert_eq!(fs::metadata(&one).unwrap().ino(), number);
        assert_eq!(fs::metadata(&two).unwrap().ino(), number);
        assert_eq!(fs::metadata(&one).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(&two).unwrap().nlink(), 2);
    });
}

/// Statement 44: descriptors outlive names, on the old and the new node.
#[test]
fn an_open_file_goes_on_without_its_name() {
    with_each_policy(|mount| {
        for name in ["program", "elf"] {
            goes_on_without_its_name(&mount.path(name));
        }
    });
}

fn goes_on_without_its_name(path: &Path) {
    let reader = File::open(path).unwrap();
    let writer = for_writing(path);
    fs::remove_file(path).unwrap();
    fs::write(path, "another file").unwrap();
    writer.write_all_at(b"gone", 0).unwrap();
    writer.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    writer.set_len(4).unwrap();
    assert_eq!(start_of(&writer, 100), b"gone");
    assert_eq!(writer.metadata().unwrap().nlink(), 0);
    assert_eq!(writer.metadata().unwrap().mode() & 0o777, 0o600);
    assert!(reader.metadata().is_ok());
    assert_eq!(fs::read(path).unwrap(), b"another file");
    assert_ne!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
}

/// What a program prints. A process of a test beside this one, between its fork and its exec, holds
/// what was open for writing a little longer, and nobody can run that meanwhile.
fn output_of(program: &Path) -> Vec<u8> {
    let start = Instant::now();
    loop {
        match Command::new(program).output() {
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy
                    && start.elapsed() < Duration::from_secs(20) =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other.unwrap().stdout,
        }
    }
}

/// Statement 47, and the page cache of a file that was executed before it was changed.
#[test]
fn programs_run_before_and_after_they_are_changed() {
    with_each_policy(|mount| {
        let path = mount.path("program");
        let says = || output_of(&path);
        assert_eq!(says(), b"lower\n");
        let reader = File::open(&path).unwrap();
        fs::write(&path, "#!/bin/sh\necho upper\n").unwrap();
        assert_eq!(says(), b"upper\n");
        drop(reader);
        fs::write(mount.path("made"), "#!/bin/sh\necho made\n").unwrap();
        fs::set_permissions(mount.path("made"), fs::Permissions::from_mode(0o755)).unwrap();
        let made = output_of(&mount.path("made"));
        assert_eq!(made, b"made\n");
    });
}

/// Statement 50: a write by somebody without privileges clears suid and sgid, also where the
/// kernel writes by itself; root's own does what it does on the upper's filesystem (nothing, but
/// root of a user namespace has no CAP_FSETID that counts there).
#[test]
fn a_write_by_another_user_clears_suid() {
    with_each_policy(|mount| {
        let mode = || fs::metadata(mount.path("suid")).unwrap().mode() & 0o7777;
        let path = mount.path("suid");
        let plain = mount.scene().place("plain");
        for path in [&plain, &path] {
            OpenOptions::new().create(true).append(true).open(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o6755)).unwrap();
            for_writing(path).write_all_at(b"root", 0).unwrap();
        }
        assert_eq!(mode(), fs::metadata(&plain).unwrap().mode() & 0o7777);
        assert!(support::rootless() || mode() == 0o6755);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
        fs::set_permissions(mount.root(), fs::Permissions::from_mode(0o755)).unwrap();
        let script = format!("echo changed >> '{}'", path.display());
        let wrote = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script])
            .status()
            .unwrap();
        assert!(wrote.success());
        assert_eq!(mode(), 0o777);
    });
}

/// Statement 45.
#[test]
fn sparse_files_unnamed_files_and_inode_flags_work() {
    with_each_policy(|mount| {
        let holes = File::open(mount.path("holes")).unwrap();
        let seek = |from| rustix::fs::seek(&holes, from).unwrap();
        assert_eq!(seek(SeekFrom::Data(0)), 524_288);
        assert_eq!(seek(SeekFrom::Hole(0)), 0);
        assert!(seek(SeekFrom::Hole(524_288)) > 524_288);

        let file = for_writing(mount.path("holes"));
        let modes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, modes, 524_288, 65_536).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        let mut middle = [1; 6];
        file.read_exact_at(&mut middle, 524_288).unwrap();
        assert_eq!(middle, [0; 6]);

        let dir = File::open(mount.path("dir")).unwrap();
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let unnamed =
            File::from(rustix::fs::openat(&dir, ".", flags, Mode::from_raw_mode(0o640)).unwrap());
        unnamed.write_all_at(b"unnamed", 0).unwrap();
        assert_eq!(unnamed.metadata().unwrap().nlink(), 0);
        let name = CString::new(format!("/proc/self/fd/{}", unnamed.as_raw_fd())).unwrap();
        rustix::fs::linkat(CWD, name, &dir, "named", AtFlags::SYMLINK_FOLLOW).unwrap();
        assert_eq!(fs::read(mount.path("dir/named")).unwrap(), b"unnamed");
        assert_eq!(unnamed.metadata().unwrap().nlink(), 1);

        let file = File::open(mount.path("dir/named")).unwrap();
        let before = rustix::fs::ioctl_getflags(&file).unwrap();
        rustix::fs::ioctl_setflags(&file, before | IFlags::NODUMP).unwrap();
        assert!(rustix::fs::ioctl_getflags(&file).unwrap().contains(IFlags::NODUMP));
        rustix::fs::ioctl_getflags(&dir).unwrap();
    });
}

/// `chattr +a`, as it is set on logs: who appends may, others may not.
#[test]
fn an_append_only_file_is_appended_to() {
    if !support::as_host_root("CAP_LINUX_IMMUTABLE") {
        return;
    }
    with_each_policy(|mount| {
        let log = mount.path("data");
        let flags = |set| {
            let file = File::open(&log).unwrap();
            let others = rustix::fs::ioctl_getflags(&file).unwrap() - IFlags::APPEND;
            rustix::fs::ioctl_setflags(&file, others | set).unwrap();
        };
        let append = |text: &str| {
            let mut file = OpenOptions::new().append(true).open(&log).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.sync_all().unwrap();
        };
        append("before\n");
        flags(IFlags::APPEND);
        append("one\n");
        append("two\n");
        let overwritten = OpenOptions::new().write(true).open(&log);
        let written = overwritten.and_then(|file| file.write_at(b"lower DATA", 0));
        let refusals = [
            written.map(drop),
            OpenOptions::new().write(true).truncate(true).open(&log).map(drop),
            fs::remove_file(&log),
            fs::rename(&log, mount.path("renamed")),
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
        assert_eq!(fs::read_to_string(&log).unwrap(), "lower data\nbefore\none\ntwo\n");
        flags(IFlags::empty());
        append("after\n");
        for_writing(&log).write_all_at(b"LOWER", 0).unwrap();
        let content = fs::read_to_string(&log).unwrap();
        assert_eq!(content, "LOWER data\nbefore\none\ntwo\nafter\n");
    });
}

#[test]
fn direct_io_and_copying_inside_the_kernel_work() {
    with_each_policy(|mount| {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).custom_flags(direct);
        let file = options.open(mount.path("direct")).unwrap();
        let mut buffer = vec![7_u8; 8192 + 4096];
        let start = buffer.as_ptr().align_offset(4096);
        let page = &mut buffer[start..start + 8192];
        assert_eq!(file.write_at(page, 0).unwrap(), 8192);
        page.fill(0);
        assert_eq!(file.read_at(page, 0).unwrap(), 8192);
        assert!(page.iter().all(|byte| *byte == 7));

        let source = File::open(mount.path("data")).unwrap();
        let target = File::create(mount.path("copy")).unwrap();
        let copied =
            rustix::fs::copy_file_range(&source, Some(&mut 6), &target, Some(&mut 0), 100).unwrap();
        assert_eq!(copied, 5);
        assert_eq!(fs::read(mount.path("copy")).unwrap(), b"data\n");
    });
}

#[test]
fn statx_tells_the_time_of_creation() {
    with_each_policy(|mount| {
        fs::write(mount.path("new"), "").unwrap();
        let of = |path: &Path| {
            let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
            rustix::fs::statx(CWD, path, AtFlags::empty(), flags).unwrap()
        };
        let (shown, real) = (of(&mount.path("new")), of(&mount.scene().upper.join("new")));
        assert_ne!(shown.stx_mask & StatxFlags::BTIME.bits(), 0);
        assert_eq!(shown.stx_btime.tv_sec, real.stx_btime.tv_sec);
        assert_eq!(shown.stx_btime.tv_nsec, real.stx_btime.tv_nsec);
    });
}

/// What was read into the page cache before a file was changed by another way is not shown.
#[test]
fn cached_pages_are_never_out_of_date() {
    with_each_policy(|mount| {
        for name in ["data", "program"] {
            let path = mount.path(name);
            for round in 0..4_u8 {
                let mut seen = Vec::new();
                File::open(&path).unwrap().read_to_end(&mut seen).unwrap();
                let text = vec![b'0' + round; 5000];
                for_writing(&path).write_all_at(&text, 0).unwrap();
                assert_eq!(fs::read(&path).unwrap()[..5000], text, "{name}");
                // From cached to passed through and back: a writer of a privileged file is
                // never passed through.
                let mode = if round % 2 == 0 { 0o4755 } else { 0o755 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    });
}
