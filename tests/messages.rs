//! What a person is told when something cannot be done: what, where, and what to do. Each row is a
//! command line and the very line it fails with; one without words succeeds. `docs/MESSAGES.md`
//! says how they are made.

#[path = "messages/mod.rs"]
mod rows;
mod support;

use rows::{Row, check};

const OPTIONS: &[Row] = &[
    ("fuse-plyfs -o ro mnt", "option lowerdir: must be given: DIR[:DIR...], topmost first"),
    ("fuse-plyfs -o lowerdir= mnt", "option lowerdir: must be given: DIR[:DIR...], topmost first"),
    (
        "fuse-plyfs -o lowerdir=lower: mnt",
        "option lowerdir: needs a path on both sides of each colon",
    ),
    ("fuse-plyfs -o lowerdir=none mnt", "cannot open lower layer none: no such file or directory"),
    ("fuse-plyfs -o lowerdir=file mnt", "cannot open lower layer file: not a directory"),
    (
        "fuse-plyfs -o lowerdir=lower,upperdir=upper mnt",
        "option workdir: must be given with upperdir",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,upperdir=none,workdir=work mnt",
        "cannot open upperdir none: no such file or directory",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,upperdir=upper,workdir=none mnt",
        "cannot open workdir none: no such file or directory",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,upperdir=upper,workdir=upper mnt",
        "option workdir: upperdir upper and it must lie beside each other",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,upperdir=lower,workdir=work mnt",
        "option upperdir: it is the same directory as the lower lower",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,redirect_dir=maybe mnt",
        "option redirect_dir: must be on, off, follow or nofollow, not \"maybe\"",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,metacopy=maybe mnt",
        "option metacopy: must be on or off, not \"maybe\"",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,timeout=-1 mnt",
        "option timeout: must be a number of seconds, not \"-1\"",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,uidmapping=0:1 mnt",
        "option uidmapping: must be DISK:SHOWN:COUNT[:...], not \"0:1\"",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,squash_to_uid=me mnt",
        "option squash_to_uid: must be a number, not \"me\"",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,xattr_permissions=9 mnt",
        "option xattr_permissions: must be 0, 1 or 2, not \"9\"",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,passthrough=maybe mnt",
        "option passthrough: must be auto, off or all, not \"maybe\"",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,join,until_stdin_ends mnt",
        "option until_stdin_ends: cannot be together with join, whose mount goes on",
    ),
    ("fuse-plyfs -o lowerdir=lower,stats_socket= mnt", "option stats_socket: needs a value"),
    (
        "fuse-plyfs -o lowerdir=lower,log_level=loud mnt",
        "option log level: must be error, warn, info, debug, trace or off, not loud",
    ),
    ("fuse-plyfs -o lowerdir=lower nowhere", "cannot mount on nowhere: no such file or directory"),
    ("fuse-plyfs -o lowerdir=lower file", "cannot mount on file: not a directory"),
    ("fuse-plyfs -o lowerdir=lower", "no mountpoint given (--help shows how)"),
    ("fuse-plyfs -x", "option -x: not known (--help shows what is)"),
];

const MOUNTS: &[Row] = &[
    ("fuse-plyfs -o lowerdir=lower,upperdir=upper,workdir=work mnt", ""),
    (
        "fuse-plyfs -o lowerdir=lower,upperdir=upper,workdir=work2 other",
        "upperdir upper is in use: another mount has it: unmount that one, or name another directory",
    ),
    (
        "fuse-plyfs -o lowerdir=lower,upperdir=upper2,workdir=work other",
        "workdir work is in use: another mount has it: unmount that one, or name another directory",
    ),
    ("plyfs stats --json mnt", ""),
    ("plyfs stats ./lower", "$DIR/lower is no mount of a PlyFS daemon"),
    ("plyfs stats lower", "$DIR/lower is no mount of a PlyFS daemon"),
    ("plyfs stats none", "no such container: none"),
    (
        "plyfs log-level mnt loud",
        "option log level: must be error, warn, info, debug, trace or off, not loud",
    ),
    ("plyfs umount lower", "nothing is mounted on $DIR/lower"),
    ("plyfs umount none", "no such container: none"),
    ("plyfs umount mnt", ""),
];

const IMAGES: &[Row] = &[
    ("plyfs --root file images", "cannot create directory file: not a directory"),
    ("plyfs load -i none.tar", "cannot open none.tar: no such file or directory"),
    ("plyfs load -i junk.tar", "junk.tar: the tar archive is cut off (at byte 0)"),
    (
        "plyfs load -i lower",
        "lower: neither a docker-archive (no manifest.json) nor an OCI archive (no index.json)",
    ),
    ("plyfs load", "standard input: no tar archive (at byte 0)"),
    ("plyfs import junk.tar", "junk.tar: the archive ends within a header (after 0 entries)"),
    ("plyfs load -q -i $FIXTURE", ""),
    ("plyfs history none", "no such image: none"),
    ("plyfs save -o x.tar none", "no such image: none"),
    (
        "plyfs save -o none/x.tar localhost/plyfs/busybox:1.35",
        "cannot write none/x.tar: no such file or directory",
    ),
    (
        "plyfs tag localhost/plyfs/busybox:1.35 A~B",
        "\"A B\" is not an image name: its parts may have lower-case letters and digits, joined by \
         . _ __ -",
    ),
    (
        "plyfs images --filter since=x",
        "option --filter: \"since=x\" is not KEY=VALUE with one of dangling, reference",
    ),
    (
        "plyfs images --format {{",
        "option --format: {{ without }}; {{.FIELD}}, text, and json, len, index, join, upper and \
         lower can be used",
    ),
    ("plyfs prune", "option --force: is needed where nobody can be asked"),
    (
        "plyfs save --format oci-dir localhost/plyfs/busybox:1.35",
        "option --output: oci-dir needs a directory to write",
    ),
    ("plyfs import none.tar", "cannot open none.tar: no such file or directory"),
    ("plyfs import --change FOO=1 junk.tar", "option --change: \"FOO=1\" has no argument"),
    ("plyfs rmi none", "no such image: none"),
    ("plyfs verify none", "no such image: none"),
    (
        "plyfs df --format {{.X}}",
        "option --format: there is no field \"X\", but Active, Reclaimable, Size, TotalCount, Type",
    ),
    ("plyfs apply -i junk.tar none", "cannot open directory none: no such file or directory"),
    ("plyfs apply -i none.tar mnt", "cannot open none.tar: no such file or directory"),
    ("plyfs apply -i junk.tar mnt", "junk.tar: the archive ends within a header (after 0 entries)"),
    ("sh -c touch~store/layers/junk", ""),
    ("plyfs check", "1 problem: see what plyfs check --repair does"),
    ("plyfs gc", ""),
    ("sh -c rm~-r~store/images/*", ""),
    (
        "plyfs images",
        "$DIR/store/images/bfd2404a434a3a2f502fd7356bb680663d1e4cc6a0444b47b2064d4e6a85a8bf/\
         config.json: it is missing: see what plyfs check --repair does",
    ),
    ("plyfs check --repair", ""),
    ("plyfs images", ""),
    ("sh -c echo~9~>store/format", ""),
    ("plyfs images", "$DIR/store/format: format 9, this version of plyfs knows 3; use a newer one"),
    ("sh -c echo~junk~>store/format", ""),
    ("plyfs images", "$DIR/store/format: not a store's format number"),
];

const CONTAINERS: &[Row] = &[
    ("plyfs load -q -i $FIXTURE", ""),
    ("plyfs create --name box none", "no such image: none"),
    (
        "plyfs create --name a/b localhost/plyfs/busybox:1.35",
        "option --name: \"a/b\" is not a container name: 1 to 128 letters, digits, _ . -, starting \
         with a letter or digit",
    ),
    ("plyfs create --name box localhost/plyfs/busybox:1.35", ""),
    ("plyfs mount box mnt", ""),
    ("plyfs rm box", "container box is in use: mounted on $DIR/mnt: plyfs umount box frees it"),
    ("plyfs umount box", ""),
    ("plyfs create --name other localhost/plyfs/busybox:1.35", ""),
    ("plyfs cp box:/none x", "cannot copy /none: no such file or directory"),
    ("plyfs cp none box:/", "cannot copy $DIR/none: no such file or directory"),
    (
        "plyfs cp box:/ other:/",
        "cannot copy from container to container: go through a directory of this machine",
    ),
    ("plyfs inspect none", "no such container or image: none"),
    ("plyfs mount none", "no such container: none"),
    ("plyfs mount box nowhere", "cannot open mount point nowhere: no such file or directory"),
    ("plyfs mount box file", "cannot mount on $DIR/file: not a directory"),
    ("plyfs rename none x", "no such container: none"),
    ("plyfs export none", "no such container: none"),
    ("plyfs export -o none/x box", "cannot write none/x: no such file or directory"),
    ("plyfs diff box none", "no such container or image: none"),
    ("plyfs layer-tar none", "no such container: none"),
    (
        "plyfs ps --filter status",
        "option --filter: \"status\" is not KEY=VALUE with one of name, id, ancestor, status",
    ),
    (
        "plyfs inspect --format {{.None}} box",
        "option --format: there is no field \"None\", but Config, Created, GraphDriver, Id, Image, \
         ImageName, MountPoints, Name, State",
    ),
    ("plyfs commit --change ENV~x box", "option --change: \"x\" is not KEY=VALUE"),
    ("plyfs umount box", "container box is not mounted"),
    ("plyfs stats box", "container box is not mounted"),
    ("plyfs diff none", "no such container: none"),
    ("plyfs diff --lowerdir lower", "option --upperdir: must be given beside --lowerdir"),
    ("plyfs cp a b", "one of the two must be in a container, as CONTAINER:PATH"),
    (
        "plyfs commit box A~B",
        "\"A B\" is not an image name: its parts may have lower-case letters and \
                             digits, joined by . _ __ -",
    ),
    (
        "plyfs commit --change FROM~x box",
        "option --change: \"FROM\" cannot change an image; what can is CMD, ENTRYPOINT, ENV, EXPOSE, \
         LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR",
    ),
    ("plyfs rename box none", ""),
    ("plyfs rm box", "no such container: box"),
];

const REGISTRIES: &[Row] = &[
    (
        "plyfs pull A~B",
        "\"A B\" is not an image name: its parts may have lower-case letters and digits, joined by \
         . _ __ -",
    ),
    (
        "plyfs pull 127.0.0.1:1/x",
        "registry 127.0.0.1:1: it cannot be reached: Connection refused (os error 111)",
    ),
    ("plyfs push none", "no such image: none"),
    ("plyfs pull --creds me x", "option --creds: must be USER:PASSWORD"),
    (
        "plyfs login --username me 127.0.0.1:1",
        "no user or no password was given: see --username and --password-stdin",
    ),
    ("sh -c echo~{~>auth.json", ""),
    (
        "plyfs pull --authfile auth.json 127.0.0.1:1/x",
        "auth.json: EOF while parsing an object at line 2 column 0",
    ),
    ("sh -c echo~'{\"auths\":{\"127.0.0.1:1\":{\"auth\":\"@\"}}}'~>auth.json", ""),
    (
        "plyfs pull --authfile auth.json 127.0.0.1:1/x",
        "auth.json: the credentials of 127.0.0.1:1 are not base64 of user:password",
    ),
    ("sh -c echo~'{\"auths\":{\"127.0.0.1:1\":{\"identitytoken\":\"x\"}}}'~>auth.json", ""),
    (
        "plyfs pull --authfile auth.json 127.0.0.1:1/x",
        "registry 127.0.0.1:1: what is known is an identity token, which plyfs cannot use: log in \
         with a password or an access token",
    ),
    ("sh -c echo~'{\"credHelpers\":{\"127.0.0.1:1\":\"none\"}}'~>auth.json", ""),
    (
        "plyfs pull --authfile auth.json 127.0.0.1:1/x",
        "cannot run docker-credential-none: no such file or directory",
    ),
    ("plyfs pull --cert-dir none 127.0.0.1:1/x", "cannot read none: no such file or directory"),
    (
        "plyfs login --password-stdin 127.0.0.1:1",
        "option --username: is needed beside --password-stdin",
    ),
    ("plyfs logout nowhere", "option REGISTRY: \"nowhere\" is no host of a registry"),
];

#[test]
fn options_of_a_mount() {
    check(OPTIONS);
}

#[test]
fn mounts_and_their_daemons() {
    check(MOUNTS);
}

#[test]
fn archives_and_images() {
    check(IMAGES);
}

#[test]
fn containers() {
    check(CONTAINERS);
}

#[test]
fn registries() {
    check(REGISTRIES);
}
