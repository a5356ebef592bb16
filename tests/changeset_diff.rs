//! What a difference lists: by uppers written down, and by uppers that kernel overlayfs made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod archives;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use archives::shell;
use plyfs::archive::tar_write::export;
use plyfs::changeset::{Change, ChangeKind, FileKind, UpperDir, diff, diff_docker};
use support::{Driver, Entry, Kind, Options, Scene, Snapshot, require};

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::to_string).collect()
}

/// Checks the difference of a scene that is written down.
fn check(scene: &str, expected: &[&str]) {
    let scene = Scene::new(scene);
    let changes = diff(&scene.lowers, &scene.upper).expect("diff");
    assert_eq!(lines(&changes), expected);
}

#[test]
fn an_empty_upper_changes_nothing() {
    check("[upper]\n[lower]\nfile a/b \"x\"", &[]);
}

#[test]
fn without_lowers_everything_is_added() {
    check("[upper]\ndir d\nfile d/f \"x\"\nsymlink s d\nwhiteout w", &["A /d", "A /d/f", "A /s"]);
}

#[test]
fn a_copied_up_but_unchanged_file_is_not_listed() {
    let same = r#"dir d
        file d/f "content" mode=0600 uid=7 gid=8 xattr:user.a=1
        symlink d/s f
        fifo d/p
        char d/c 1:3"#;
    check(&format!("[upper]\n{same}\n[lower]\n{same}"), &[]);
}

#[test]
fn content_decides_where_size_and_time_are_equal() {
    check("[upper]\nfile d/f \"one\"\n[lower]\nfile d/f \"two\"", &["C /d", "C /d/f"]);
}

#[test]
fn content_is_compared_past_the_first_buffer() {
    let scene = Scene::new("[upper]\nfile f \"\"\n[lower]\nfile f \"\"");
    let mut content = vec![7u8; 400_000];
    let time = std::time::SystemTime::UNIX_EPOCH;
    for (dir, last) in [(&scene.upper, 1), (&scene.lowers[0], 1)] {
        *content.last_mut().unwrap() = last;
        std::fs::write(dir.join("f"), &content).unwrap();
        std::fs::File::open(dir.join("f")).unwrap().set_modified(time).unwrap();
    }
    assert!(diff(&scene.lowers, &scene.upper).expect("diff").is_empty());
    *content.last_mut().unwrap() = 2;
    std::fs::write(scene.upper.join("f"), &content).unwrap();
    std::fs::File::open(scene.upper.join("f")).unwrap().set_modified(time).unwrap();
    assert_eq!(lines(&diff(&scene.lowers, &scene.upper).expect("diff")), ["C /f"]);
}

#[test]
fn every_attribute_counts() {
    check(
        r#"[upper]
        file mode "x" mode=0600
        file uid "x" uid=1
        file gid "x" gid=1
        file mtime "x" mtime=1600000000.123456788
        file xattr "x" xattr:user.a=2
        file added-xattr "x" xattr:user.a=1
        file lost-xattr "x"
        symlink target b
        char device 1:5
        dir dir-mode mode=0700
        dir dir-owner uid=3
        dir dir-mtime mtime=5
        dir dir-xattr xattr:user.a=1
        dir dir-same
        [lower]
        file mode "x"
        file uid "x"
        file gid "x"
        file mtime "x"
        file xattr "x" xattr:user.a=1
        file added-xattr "x"
        file lost-xattr "x" xattr:user.a=1
        symlink target a
        char device 1:3
        dir dir-mode
        dir dir-owner
        dir dir-mtime
        dir dir-xattr
        dir dir-same
        file dir-same/x "x""#,
        &[
            "C /added-xattr",
            "C /device",
            "C /dir-mode",
            "C /dir-mtime",
            "C /dir-owner",
            "C /dir-xattr",
            "C /gid",
            "C /lost-xattr",
            "C /mode",
            "C /mtime",
            "C /target",
            "C /uid",
            "C /xattr",
        ],
    );
}

#[test]
fn overlays_own_xattrs_do_not_count() {
    check(
        r#"[upper]
        dir d xattr:trusted.overlay.impure=y xattr:user.fuseoverlayfs.opaque=n
        file d/f "x" xattr:trusted.overlay.origin=whatever xattr:trusted.overlay.nlink=U+1
        [lower]
        dir d
        file d/f "x""#,
        &[],
    );
}

#[test]
fn a_deleted_directory_is_one_line() {
    check(
        "[upper]\nwhiteout d\nwhiteout e/f\n[lower]\nfile d/a/b \"x\"\nfile e/f \"x\"\nfile e/g \"x\"",
        &["D /d", "C /e", "D /e/f"],
    );
}

#[test]
fn a_whiteout_of_nothing_is_nothing() {
    check("[upper]\nwhiteout gone\nfile .wh.also \"\"\n[lower]\nfile a \"x\"", &[]);
    // Hidden by a layer between.
    check("[upper]\nwhiteout a\n[lower]\nwhiteout a\n[lower]\nfile a \"x\"", &[]);
}

#[test]
fn every_encoding_of_a_whiteout_is_a_deletion() {
    let lower = "[lower]\nfile d/a \"x\"\nfile d/b \"x\"";
    for upper in [
        "dir d\nwhiteout d/a",
        "dir d\nfile d/.wh.a \"\"",
        "dir d xattr:trusted.overlay.opaque=x\nfile d/a \"\" xattr:trusted.overlay.whiteout=y",
        "dir d xattr:user.overlay.opaque=x\nfile d/a \"\" xattr:user.overlay.whiteout=y",
    ] {
        check(&format!("[upper]\n{upper}\n{lower}"), &["C /d", "D /d/a"]);
    }
}

#[test]
fn every_encoding_of_opaque_hides_the_lower_children() {
    let lower = "[lower]\nfile d/a \"x\"\nfile d/b \"x\"\nfile d/s/c \"x\"";
    for upper in [
        "opaque d",
        "dir d xattr:user.overlay.opaque=y",
        "dir d xattr:user.fuseoverlayfs.opaque=y",
        "dir d\nfile d/.wh..wh..opq \"\"",
    ] {
        check(
            &format!("[upper]\n{upper}\nfile d/a \"y\"\nfile d/new \"x\"\n{lower}"),
            &["C /d", "C /d/a", "D /d/b", "A /d/new", "D /d/s"],
        );
    }
}

#[test]
fn an_opaque_root_hides_everything_below() {
    check(
        "[upper]\nopaque .\nfile a \"y\"\n[lower]\nfile a \"x\"\nfile d/b \"x\"",
        &["C /a", "D /d"],
    );
    check("[upper]\nwhiteout a\n[lower]\nopaque .\nfile b \"x\"\n[lower]\nfile a \"x\"", &[]);
}

#[test]
fn an_equal_replacement_lists_only_what_differs() {
    check(
        "[upper]\nopaque d\nfile d/a \"x\"\n[lower]\nfile d/a \"x\"\nfile d/b \"x\"",
        &["C /d", "D /d/b"],
    );
    check("[upper]\nopaque d\nfile d/a \"x\"\n[lower]\nfile d/a \"x\"", &[]);
}

#[test]
fn a_type_change_is_a_change() {
    check(
        r#"[upper]
        file dir-to-file "x"
        dir file-to-dir
        file file-to-dir/in "x"
        symlink dir-to-link x
        fifo file-to-fifo
        [lower]
        file dir-to-file/a/b "x"
        file file-to-dir "x"
        file dir-to-link/f "x"
        file file-to-fifo "x""#,
        &[
            "C /dir-to-file",
            "C /dir-to-link",
            "C /file-to-dir",
            "A /file-to-dir/in",
            "C /file-to-fifo",
        ],
    );
}

#[test]
fn a_redirected_directory_is_a_deletion_and_additions() {
    let lowers = r#"[lower]
        file old/mid "x"
        whiteout old/gone
        [lower]
        file old/gone "x"
        file old/sub/f "x"
        file stays/other/f "x""#;
    let all = ["A /new", "A /new/mid", "A /new/sub", "A /new/sub/f", "D /old"];
    for redirect in ["old", "/old"] {
        let upper =
            format!("[upper]\nwhiteout old\ndir new xattr:trusted.overlay.redirect={redirect}");
        check(&format!("{upper}\n{lowers}"), &all);
    }
    check(
        &format!(
            "[upper]\ndir into/deep\nwhiteout stays/other\n\
             dir into/deep/moved xattr:trusted.overlay.redirect=/stays/other\n\
             file into/deep/moved/f2 \"new\"\n{lowers}"
        ),
        &[
            "A /into",
            "A /into/deep",
            "A /into/deep/moved",
            "A /into/deep/moved/f",
            "A /into/deep/moved/f2",
            "C /stays",
            "D /stays/other",
        ],
    );
}

#[test]
fn a_redirect_that_leads_astray_is_an_error() {
    let scene = Scene::new(
        "[upper]\ndir d xattr:trusted.overlay.redirect=/../../etc\n[lower]\nfile d/f \"x\"",
    );
    let error = diff(&scene.lowers, &scene.upper).expect_err("refused").to_string();
    assert!(error.contains("upper/d") && error.contains("invalid"), "{error}");
}

#[test]
fn what_a_path_was_and_is_comes_along() {
    let scene = Scene::new(
        "[upper]\nsymlink a target uid=5\nwhiteout b\nchar c 1:3 mode=0640\n\
         [lower]\nfile a \"four\" mode=4755\nfile b \"x\"",
    );
    let changes = diff(&scene.lowers, &scene.upper).expect("diff");
    let [a, b, c] = changes.as_slice() else { panic!("{changes:?}") };
    let (old, new) = (a.old.unwrap(), a.new.unwrap());
    assert_eq!(
        (a.kind, old.kind, new.kind),
        (ChangeKind::Changed, FileKind::File, FileKind::Symlink)
    );
    assert_eq!((old.mode, old.size, new.uid, new.size), (0o4755, 4, 5, 6));
    assert_eq!((b.kind, b.new), (ChangeKind::Deleted, None));
    assert_eq!((c.kind, c.old), (ChangeKind::Added, None));
    assert_eq!(c.new.unwrap().device, Some((1, 3)));
    assert_eq!(c.new.unwrap().mode, 0o640);
}

#[test]
fn a_missing_layer_is_named() {
    let scene = Scene::new("[upper]\n[lower]\nfile a \"x\"");
    let missing = scene.place("missing");
    let error = diff(std::slice::from_ref(&missing), &scene.upper).expect_err("missing");
    assert!(error.to_string().contains("missing"), "{error}");
    let error = diff(&scene.lowers, &missing).expect_err("missing").to_string();
    assert!(error.contains("open upper layer") && error.contains("missing"), "{error}");
}

/// The difference by comparing two mounted trees path by path: slow, and simple enough to trust.
fn naive(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let is_dir = |tree: &Snapshot, path: &Path| {
        tree.entries.get(path).is_some_and(|entry| entry.kind == Kind::Dir)
    };
    let differ = |one: &Entry, two: &Entry| {
        let key = |e: &Entry| (e.kind.clone(), e.mode, e.uid, e.gid, e.mtime, e.xattrs.clone());
        key(one) != key(two)
    };
    let mut listed: Vec<(PathBuf, char)> = Vec::new();
    let paths: BTreeSet<_> = before.entries.keys().chain(after.entries.keys()).collect();
    for path in paths {
        let Some(parent) = path.parent() else { continue };
        match (before.entries.get(path), after.entries.get(path)) {
            (None, Some(_)) => listed.push((path.clone(), 'A')),
            (Some(_), None) if is_dir(after, parent) => listed.push((path.clone(), 'D')),
            (Some(old), Some(new)) if differ(old, new) => listed.push((path.clone(), 'C')),
            _ => {}
        }
    }
    let parents: BTreeSet<PathBuf> = listed
        .iter()
        .flat_map(|(path, _)| path.ancestors().skip(1).map(Path::to_path_buf))
        .filter(|path| path.parent().is_some() && before.entries.contains_key(path))
        .collect();
    for parent in parents {
        if listed.iter().all(|(path, _)| *path != parent) {
            listed.push((parent, 'C'));
        }
    }
    let mut lines: Vec<String> =
        listed.iter().map(|(path, kind)| format!("{kind} /{}", path.display())).collect();
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
    lines
}

const LOWERS: &str = r#"
    [lower]
    file top/only "x"
    whiteout hidden
    opaque replaced
    file replaced/now "x"
    file both/from-top "x"
    [lower]
    file hidden/f "x"
    file replaced/before "x"
    file both/from-bottom "x"
    file both/sub/f "x"
    file append "x"
    file same-size "abcd"
    file chmod "x"
    file chown "x"
    file xattr "x" xattr:user.a=1
    file touch "x"
    file open-only "x"
    file truncate "content"
    file suid "x" mode=4755
    file links/one "x"
    hardlink links/two links/one
    file links/alone "x"
    symlink link append
    symlink dirlink tree
    fifo fifo
    file dir-to-file/f "x"
    file dir-to-link/f "x"
    file file-to-dir "x"
    file tree/a/b/c/f "x"
    file tree/a/g "x"
    file rename-me/x "x"
    file rename-me/sub/y "x"
    file swap1/a "1"
    file swap2/b "2"
    file empty-me/1 "x"
    file empty-me/2 "x"
    file gone/deep/f "x"
    file recreated "same" mtime=1700000000
    file over-from "abc"
    file over-to "def"
    file old-name "x"
"#;

const SCRIPT: &str = r#"
    echo new > added; mkdir -p added-dir/sub; echo x > added-dir/sub/f
    echo more >> append
    t=$(stat -c %y same-size); printf wxyz > same-size; touch -d "$t" same-size
    chmod 600 chmod; chown 5:6 chown; setfattr -n user.a -v 2 xattr
    touch -d 2020-01-01 touch
    python3 -c 'import os; os.close(os.open("open-only", os.O_RDWR))'
    : > truncate
    chmod u-s suid
    ln links/alone links/third; rm links/two
    rm link; ln -s chmod link
    rm -r dir-to-file; echo x > dir-to-file
    rm -r dir-to-link; ln -s tree dir-to-link
    rm file-to-dir; mkdir file-to-dir; echo x > file-to-dir/in
    echo x >> tree/a/b/c/f
    rename() { python3 -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$1" "$2"; }
    move() { rename "$1" "$2" 2> /dev/null || mv "$1" "$2"; }
    move rename-me renamed; echo x > renamed/sub/new; rm renamed/x
    move renamed/sub tree/a/moved
    move both/sub both/sub2
    move swap1 swap-tmp; move swap2 swap1; move swap-tmp swap2
    rm empty-me/1 empty-me/2
    rm -r gone
    t=$(stat -c %y recreated); rm recreated; printf same > recreated; touch -d "$t" recreated
    mv over-from over-to
    mv old-name new-name
    rm -r top; mkdir top; echo x > top/else
    echo x > replaced/more
    mkdir hidden; echo x > hidden/g
    mkfifo fifo2; mknod null c 1 3
    echo x > temporary; rm temporary
"#;

fn kernel_made(script: &str, options: &[&str]) {
    if !require("root") || !require("overlayfs") {
        return;
    }
    let scene = Scene::new(&format!("[upper]\n{LOWERS}"));
    let mut mount = scene.mount_by(Driver::Kernel, &Options::with(options));
    let before = mount.snapshot();
    shell(mount.root(), script);
    mount.remount();
    let after = mount.snapshot();
    mount.unmount();
    let changes = diff(&scene.lowers, &scene.upper).expect("diff");
    assert_eq!(lines(&changes), naive(&before, &after), "{options:?}");
}

#[test]
fn uppers_of_kernel_overlayfs() {
    kernel_made(SCRIPT, &["redirect_dir=off", "metacopy=off", "index=off"]);
}

#[test]
fn uppers_of_kernel_overlayfs_with_redirects() {
    kernel_made(SCRIPT, &["redirect_dir=on", "metacopy=off", "index=off"]);
}

#[test]
fn uppers_of_kernel_overlayfs_with_metadata_only_copies() {
    kernel_made(SCRIPT, &["redirect_dir=on", "metacopy=on", "index=off"]);
    let renamed = "chmod 600 append; mv append a2; chown 1:1 tree/a/g; mv tree/a/g g; mv tree t2; \
                   mv t2/a t2/a2; chmod 640 t2/a2/b/c/f; mv swap1/a swap2/c; chmod 755 swap2/c";
    kernel_made(renamed, &["redirect_dir=on", "metacopy=on", "index=off"]);
}

#[test]
fn docker_lists_by_its_own_rule() {
    if !require("root") || !require("overlayfs") {
        return;
    }
    let scene = Scene::new(&format!("[upper]\n{LOWERS}"));
    let mount = scene.mount_by(Driver::Kernel, &Options::with(&["redirect_dir=on", "index=off"]));
    shell(
        mount.root(),
        "chmod 600 chmod; touch -d 2020-01-01 touch; setfattr -n user.a -v 2 xattr
         touch -d 2020-01-01 tree; echo x >> links/one; ln append linked
         t=$(stat -c %y same-size); printf wxyz > same-size; touch -d \"$t\" same-size
         printf abcd > over-from; mv both/sub both/sub2; rm -r gone; rm empty-me/1
         setcap cap_chown+ep old-name || setfattr -n security.capability \
            -v 0x0100000201000000000000000000000000000000 old-name
         echo x > temporary; rm temporary; rm -r swap1; mkdir swap1; rm -r swap2; echo > swap2",
    );
    drop(mount);
    let changes = diff_docker(&scene.lowers, &scene.upper).expect("diff");
    assert_eq!(
        lines(&changes),
        [
            "C /both",
            "D /both/sub",
            "A /both/sub2",
            "A /both/sub2/f",
            "C /chmod",
            "C /empty-me",
            "D /empty-me/1",
            "D /gone",
            "A /linked",
            "C /links",
            "C /links/one",
            "C /old-name",
            "C /over-from",
            "C /swap1",
            "D /swap1/a",
            "C /swap2",
            "C /touch",
        ]
    );
}

#[test]
fn trees_deeper_than_any_path_are_compared() {
    let scene = Scene::new("[upper]\n[lower]\nfile a \"x\"");
    let nest = "import os\nfor n in range(3000):\n  os.mkdir('d'); fd = os.open('d', os.O_PATH)\n  \
                os.fchdir(fd); os.close(fd)";
    shell(&scene.upper, &format!("python3 -c \"{nest}\""));
    plyfs::sys::process::raise_open_files().expect("setrlimit");
    let changes = diff(&scene.lowers, &scene.upper);
    let mut tar = Vec::new();
    let exported = export(std::slice::from_ref(&scene.upper), None, &mut tar);
    // Removed by rm, which does not recurse: the standard library does.
    shell(&scene.upper, "rm -rf d");
    assert_eq!(changes.expect("diff").len(), 3000);
    exported.expect("export");
    let last = "d/".repeat(3000);
    assert!(tar.windows(last.len()).any(|window| window == last.as_bytes()));
}

#[test]
fn wide_directories_hold_few_descriptors() {
    let scene = Scene::new("[upper]\n[lower]\nfile a \"x\"");
    shell(&scene.upper, "mkdir d{1..3000}");
    // Its own process, because the limit belongs to all threads.
    let output = std::process::Command::new("bash")
        .args(["-c", "ulimit -n 64; exec \"$0\" --exact compares_with_few_descriptors --ignored"])
        .arg(std::env::current_exe().unwrap())
        .env("PLYFS_TEST_UPPER", &scene.upper)
        .env("PLYFS_TEST_LOWER", &scene.lowers[0])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "the other half of wide_directories_hold_few_descriptors, which runs it"]
fn compares_with_few_descriptors() {
    let [upper, lower] = ["PLYFS_TEST_UPPER", "PLYFS_TEST_LOWER"]
        .map(|name| PathBuf::from(std::env::var_os(name).unwrap()));
    assert_eq!(diff(std::slice::from_ref(&lower), &upper).expect("diff").len(), 3000);
    let mut tar = Vec::new();
    export(&[lower], Some(UpperDir::from(&upper)), &mut tar).expect("export");
}
