//! The words of `fuse-plyfs --help`, of which its manual page is made, too.

/// What `fuse-plyfs --help` prints.
pub const FUSE_PLYFS_HELP: &str = "\
Mounts read-only layers and one writable layer as one merged tree.

Usage: fuse-plyfs -o lowerdir=A:B:C[,upperdir=U,workdir=W][,OPTION...] MOUNTPOINT
       fuse-plyfs SOURCE MOUNTPOINT -o OPTIONS        (as mount(8) calls it)

  -o OPTIONS      mount options, separated by commas; may be repeated
  -f              stay in the foreground
  -d, --debug     stay in the foreground and log every request
  -V, --version   print the version
  -h, --help      print this help

Options:
  lowerdir=A:B:C            the read-only layers, topmost first
  upperdir=U,workdir=W      the writable layer, and an empty directory beside it;
                            without them the mount is read-only
  ro, nosuid, nodev, noexec, noatime, ...   as for any mount
  volatile                  changes need not survive a crash; fsync does nothing
  redirect_dir=on|off|follow|nofollow, metacopy=on|off, index=on|off, xino=on|off|auto,
  userxattr                 as for the kernel's overlayfs
  uidmapping=DISK:SHOWN:COUNT[:...], gidmapping=..., squash_to_root, squash_to_uid=N,
  squash_to_gid=N, xattr_permissions=0|1|2       owners
  noacl, noxattrs, static_nlink                  what is left out
  timeout=SECONDS           how long the kernel may cache names and attributes (for ever)
  passthrough=auto|off|all  which files the kernel reads and writes without asking
  cpu_latency=auto|off|US   how fast idle processors wake up while requests come
  look_ahead=on|off         whether names are found before they are asked for
  max_threads=N, threaded=0|1                    serving threads
  log_level=LEVEL           error, warn, info, debug or trace, else PLYFS_LOG says it
  stats_socket=PATH         unix socket with statistics as Prometheus text
  join                      where a mount of the same source has the upper already, bind that one
  until_stdin_ends          unmount when standard input ends, as where who holds a pipe to it dies
  fsname=NAME, subtype=NAME, allow_other, allow_root, context=LABEL

In paths, write \\, for a comma, \\: for a colon and \\\\ for a backslash.
SIGUSR1 logs what `plyfs stats MOUNTPOINT` shows; SIGUSR2 makes the log more detailed, step by step.";
