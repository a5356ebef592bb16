//! The options of a mount: what podman, docker, mount(8) and people write after `-o`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfs::overlay::options::{
    CpuLatencyPolicy, IdRange, Options, PassthroughPolicy, RedirectDir, UpperOption,
};

fn parse(text: &str) -> Options {
    Options::parse([text]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    match Options::parse([text]) {
        Ok(options) => panic!("{text} was taken as {options:?}"),
        Err(error) => error.to_string(),
    }
}

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn podmans_line_is_understood() {
    let options = parse(
        "lowerdir=l/AAA:l/BBB,upperdir=id/diff,workdir=id/work,,volatile,\
         uidmapping=:0:100000:1000,gidmapping=:0:1000:1:1:100000:65536,xattr_permissions=2",
    );
    assert_eq!(options.lowerdirs, paths(&["l/AAA", "l/BBB"]));
    let upper = UpperOption { upperdir: "id/diff".into(), workdir: "id/work".into() };
    assert_eq!(options.upper, Some(upper));
    assert!(options.volatile);
    assert!(!options.read_only);
    assert_eq!(options.uid_map, [IdRange { outside: 0, inside: 100_000, count: 1000 }]);
    let groups = [
        IdRange { outside: 0, inside: 1000, count: 1 },
        IdRange { outside: 1, inside: 100_000, count: 65536 },
    ];
    assert_eq!(options.gid_map, groups);
    assert_eq!(options.xattr_permissions, 2);
}

#[test]
fn without_an_upper_the_mount_is_read_only() {
    assert!(parse("lowerdir=/a").read_only);
    assert!(parse("lowerdir=/a").upper.is_none());
    // podman leaves the workdir where it takes the upper away.
    assert!(parse("lowerdir=/a,workdir=/w").read_only);
    let both = parse("lowerdir=/a,upperdir=/u,workdir=/w,ro");
    assert!(both.read_only && both.upper.is_some());
    assert!(!parse("lowerdir=/a,upperdir=/u,workdir=/w,ro,rw").read_only);
}

#[test]
fn several_strings_are_one_list_and_the_last_word_counts() {
    let options = Options::parse(["lowerdir=/a,nosuid", "suid,nodev", "lowerdir=/b", ""]).unwrap();
    assert_eq!(options.lowerdirs, paths(&["/b"]));
    assert!(!options.mount.nosuid);
    assert!(options.mount.nodev);
}

#[test]
fn separators_in_paths_are_escaped() {
    let options = parse(r"lowerdir=/a\:b:/c\,d:/e\\f:/g\h,upperdir=/u\,v,workdir=/w\\");
    assert_eq!(options.lowerdirs, paths(&["/a:b", "/c,d", r"/e\f", r"/g\h"]));
    let upper = options.upper.unwrap();
    assert_eq!(upper.upperdir, Path::new("/u,v"));
    assert_eq!(upper.workdir, Path::new(r"/w\"));
}

#[test]
fn a_quoted_label_may_contain_commas() {
    let options = parse(r#"context="system_u:object_r:container_file_t:s0:c1,c2",lowerdir=/a"#);
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    assert_eq!(options.mount.context.as_deref(), Some(label));
    assert_eq!(options.lowerdirs, paths(&["/a"]));
    // Quotes inside a path are just that.
    assert_eq!(parse(r#"lowerdir=/a"b"#).lowerdirs, paths(&[r#"/a"b"#]));
}

#[test]
fn five_hundred_layers_and_more_than_a_page_are_fine() {
    let layers: Vec<String> =
        (0..500).map(|n| format!("/var/lib/containers/storage/overlay/l/{n:026}")).collect();
    let text = format!("lowerdir={}", layers.join(":"));
    assert!(text.len() > 4096);
    assert_eq!(parse(&text).lowerdirs.len(), 500);
}

#[test]
fn paths_are_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let options = Options::parse([OsStr::from_bytes(b"lowerdir=/\xff\xfe")]).unwrap();
    assert_eq!(options.lowerdirs[0].as_os_str().as_bytes(), b"/\xff\xfe");
}

#[test]
fn kernel_overlay_options_are_understood() {
    let options = parse("lowerdir=/a,redirect_dir=off,metacopy=on,index=off,xino=on,userxattr");
    assert_eq!(options.redirect_dir, RedirectDir::Follow);
    assert_eq!((options.metacopy, options.index), (Some(true), Some(false)));
    assert_eq!(options.xino, Some(true));
    assert!(options.userxattr);
    assert_eq!(parse("lowerdir=/a").redirect_dir, RedirectDir::On);
    assert_eq!(parse("lowerdir=/a,redirect_dir=nofollow").redirect_dir, RedirectDir::NoFollow);
    assert_eq!(parse("lowerdir=/a,xino=auto").xino, None);
}

#[test]
fn caching_threads_and_passthrough_are_understood() {
    let options = parse("lowerdir=/a,timeout=1.5,threaded=0,passthrough=off,noacl");
    assert_eq!(options.timeout, Some(Duration::from_millis(1500)));
    assert_eq!(options.threads, Some(1));
    assert_eq!(options.passthrough, PassthroughPolicy::Off);
    assert!(options.noacl);
    assert_eq!(parse("lowerdir=/a").timeout, None);
    assert_eq!(parse("lowerdir=/a").cpu_latency, CpuLatencyPolicy::Auto);
    assert_eq!(parse("lowerdir=/a,cpu_latency=off").cpu_latency, CpuLatencyPolicy::Off);
    assert_eq!(parse("lowerdir=/a,cpu_latency=9").cpu_latency, CpuLatencyPolicy::Most(9));
    assert!(parse("lowerdir=/a,look_ahead=off").no_look_ahead);
    assert!(!parse("lowerdir=/a,look_ahead=on").no_look_ahead);
    assert_eq!(parse("lowerdir=/a,threaded=1,max_threads=8").threads, Some(8));
    assert_eq!(parse("lowerdir=/a,timeout=1e30").timeout, Some(Duration::MAX));
}

#[test]
fn options_of_other_drivers_are_taken() {
    let line = "rw,fsync=1,fast_ino=1,writeback=1,plugins=x,ino32_t=1,static_nlink,noxattrs=1,\
                allow_other,allow_root,default_permissions,max_idle_threads=4,clone_fd,dev,exec,\
                atime,sync,squash_to_uid=7,squash_to_gid=8,squash_to_root";
    let options = parse(&format!("lowerdir=/a,{line}"));
    assert!(options.static_nlink && options.noxattrs && options.squash_to_root);
    assert_eq!((options.squash_to_uid, options.squash_to_gid), (Some(7), Some(8)));
    assert_eq!(options.mount.allow_other, Some(true));
    assert!(options.mount.sync);
}

#[test]
fn an_unknown_option_does_not_fail() {
    assert_eq!(parse("lowerdir=/a,frobnicate=7,wibble").lowerdirs, paths(&["/a"]));
}

#[test]
fn refusals_name_the_option() {
    assert_eq!(refusal("ro"), "option lowerdir: must be given: DIR[:DIR...], topmost first");
    assert_eq!(refusal("lowerdir=/a,upperdir=/u"), "option workdir: must be given with upperdir");
    for (text, option) in [
        ("lowerdir=", "lowerdir"),
        ("lowerdir=/a::/b", "lowerdir"),
        ("lowerdir=/a,upperdir=,workdir=/w", "upperdir"),
        ("lowerdir=/a,uidmapping=0:1", "uidmapping"),
        ("lowerdir=/a,gidmapping=0:x:1", "gidmapping"),
        ("lowerdir=/a,uidmapping=0:4294967295:2", "uidmapping"),
        ("lowerdir=/a,xattr_permissions=3", "xattr_permissions"),
        ("lowerdir=/a,squash_to_uid=-1", "squash_to_uid"),
        ("lowerdir=/a,timeout=soon", "timeout"),
        ("lowerdir=/a,timeout=-1", "timeout"),
        ("lowerdir=/a,max_threads=0", "max_threads"),
        ("lowerdir=/a,passthrough=maybe", "passthrough"),
        ("lowerdir=/a,cpu_latency=-1", "cpu_latency"),
        ("lowerdir=/a,look_ahead=far", "look_ahead"),
        ("lowerdir=/a,metacopy=perhaps", "metacopy"),
        ("lowerdir=/a,redirect_dir=sideways", "redirect_dir"),
    ] {
        let words = refusal(text);
        assert!(words.starts_with(&format!("option {option}: ")), "{text}: {words}");
        assert!(!words.contains('\n'), "{text}: {words}");
    }
}
