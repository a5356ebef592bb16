//! `pull` and `push` against Debian's docker-registry on loopback, beside skopeo and podman.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod registries;
mod shell;
mod support;

use std::fs;
use std::process::Command;

use images::{Image, docker_files, image};
use plyfs::image::Digest;
use registries::{Line, Registry, Then};
use serde_json::{Value, json};
use shell::Shell;
use support::require;

const ID: &str = "bfd2404a434a3a2f502fd7356bb680663d1e4cc6a0444b47b2064d4e6a85a8bf";
const BUSYBOX: &str = "localhost/plyfs/busybox:1.35";

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn skopeo(arguments: &[&str]) -> String {
    run("skopeo", &[&["--insecure-policy"], arguments].concat())
}

fn load(shell: &Shell, image: &Image) {
    let path = shell.dir.path().join("image.tar");
    fs::write(&path, images::archive(&docker_files(std::slice::from_ref(image)))).unwrap();
    shell.ok(&["load", "-q", "-i", path.to_str().unwrap()]);
}

/// An image whose only layer is larger than any buffer on its way.
fn large(name: &str) -> Image {
    let mut random = 1u64;
    let noise: String = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (random >> 33) as u8 % 90)
    })
    .take(6 << 20)
    .collect();
    image(name, &[&[("noise", &noise)]])
}

/// The digest that `push` says.
fn pushed_digest(said: &str) -> String {
    let line = said.lines().last().unwrap();
    line.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned()
}

#[test]
fn what_is_pushed_comes_back_as_the_very_same_image() {
    if !require("tool:docker-registry") {
        return;
    }
    let (registry, shell) = (Registry::start(), Shell::with_busybox());
    let name = registry.name("team/busybox:1");
    let said = shell.ok(&["push", BUSYBOX, &name]);
    assert!(said.contains("3 layers pushed, 0 were there already"), "{said}");
    let digest = pushed_digest(&said);
    let again = shell.ok(&["push", BUSYBOX, &name]);
    assert!(again.contains("0 layers pushed, 3 were there already"), "{again}");
    assert_eq!(pushed_digest(&again), digest);

    let other = Shell::new();
    let said = other.ok(&["pull", &name]);
    let status = format!("Status: Downloaded newer image for {name}");
    assert_eq!(said, format!("Digest: {digest}\n{status}\n{name}\n"));
    assert!(other.ok(&["pull", &name]).contains("Image is up to date for"));
    assert_eq!(other.ok(&["images", "-q", "--no-trunc"]), format!("sha256:{ID}\n"));
    let pinned = registry.name(&format!("team/busybox@{digest}"));
    assert_eq!(other.json(&["inspect", &name])[0]["RepoDigests"], json!([pinned]));
    assert_eq!(other.json(&["inspect", &pinned])[0]["Id"], format!("sha256:{ID}"));
    assert!(other.ok(&["verify"]).contains("Verified 1 images"));
    assert_eq!(other.ok(&["check"]), "");
    // And by its digest alone.
    let third = Shell::new();
    assert!(third.ok(&["pull", "-q", &pinned]).contains(&digest));
    assert_eq!(third.json(&["images", "--json"])[0]["references"], json!([]));
    // What was unpacked is what was loaded.
    let list = |shell: &Shell| {
        shell.ok(&["create", "--name", "box", &format!("sha256:{ID}")]);
        Digest::of(&shell.run(&["export", "box"]).stdout)
    };
    assert_eq!(list(&other), list(&shell));
}

#[test]
fn digests_stay_whoever_pushed_it_and_in_either_form() {
    if !require("tool:docker-registry") || !require("tool:skopeo") {
        return;
    }
    let registry = Registry::start();
    let archive = format!("oci-archive:{}", images::fixture("busybox-oci.tar").display());
    for (form, kind) in [
        ("v2s2", "application/vnd.docker.distribution.manifest.v2+json"),
        ("oci", "application/vnd.oci.image.manifest.v1+json"),
    ] {
        let name = registry.name(&format!("{form}:1"));
        let there = format!("docker://{name}");
        skopeo(&["copy", "--dest-tls-verify=false", "--format", form, &archive, &there]);
        let manifest = skopeo(&["inspect", "--raw", "--tls-verify=false", &there]);
        let digest = Digest::of(manifest.as_bytes()).to_string();
        let shell = Shell::new();
        assert!(shell.ok(&["pull", &name]).contains(&digest));
        let copy = registry.name(&format!("{form}-copy:2"));
        assert_eq!(pushed_digest(&shell.ok(&["push", &name, &copy])), digest);
        let copied = format!("docker://{copy}");
        assert_eq!(skopeo(&["inspect", "--raw", "--tls-verify=false", &copied]), manifest);
        assert_eq!(serde_json::from_str::<Value>(&manifest).unwrap()["mediaType"], kind);
        // An OCI manifest stays in OCI archives, too; docker's cannot stand there.
        let dir = shell.dir.path().join("layout");
        let path = dir.to_str().unwrap();
        shell.ok(&["save", "--format", "oci-dir", "-o", path, &name]);
        let index: Value =
            serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"] == json!(digest), form == "oci");
        run("umoci", &["stat", "--image", &format!("{path}:{name}")]);
    }
}

#[test]
fn others_read_what_was_committed_and_pushed() {
    if !require("tool:docker-registry") || !require("tool:podman") {
        return;
    }
    let (registry, shell) = (Registry::start(), Shell::with_busybox());
    shell.ok(&["create", "--name", "box", BUSYBOX]);
    let file = shell.dir.path().join("greeting");
    fs::write(&file, "hello\n").unwrap();
    shell.ok(&["cp", file.to_str().unwrap(), "box:/etc/greeting"]);
    shell.ok(&["commit", "-q", "--timestamp", "1000000000", "box", "greeter:1"]);
    for (form, kind) in [("gzip", "+gzip"), ("zstd", "+zstd"), ("none", ".tar")] {
        let name = registry.name(&format!("greeter:{form}"));
        let push = || shell.ok(&["push", "--compression-format", form, "greeter:1", &name]);
        let digest = pushed_digest(&push());
        assert_eq!(pushed_digest(&push()), digest, "equal layers give equal bytes");
        let there = format!("docker://{name}");
        let manifest = skopeo(&["inspect", "--raw", "--tls-verify=false", &there]);
        assert_eq!(Digest::of(manifest.as_bytes()).to_string(), digest);
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        assert!(manifest["layers"][3]["mediaType"].as_str().unwrap().ends_with(kind));
        let dir = shell.dir.path().join(format!("podman-{form}"));
        let (root, runroot) = (dir.join("root"), dir.join("run"));
        let podman = |arguments: &[&str]| {
            let own = ["--root", root.to_str().unwrap(), "--runroot", runroot.to_str().unwrap()];
            run("podman", &[&own, &["--storage-driver", "vfs"][..], arguments].concat())
        };
        podman(&["pull", "-q", "--tls-verify=false", &name]);
        let tree = podman(&["image", "mount", &name]);
        let greeting = fs::read_to_string(format!("{}/etc/greeting", tree.trim()));
        podman(&["image", "unmount", &name]);
        assert_eq!(greeting.unwrap(), "hello\n");
        // And the way back: what podman pushes is what we pull.
        let back = registry.name(&format!("back:{form}"));
        podman(&["push", "-q", "--tls-verify=false", &name, &back]);
        let other = Shell::new();
        other.ok(&["pull", "-q", &back]);
        let id = |shell: &Shell, name: &str| shell.json(&["inspect", name])[0]["Id"].clone();
        assert_eq!(id(&other, &back), id(&shell, "greeter:1"));
    }
}

#[test]
fn a_layer_that_another_repository_has_is_not_sent_again() {
    if !require("tool:docker-registry") {
        return;
    }
    let (registry, shell) = (Registry::start(), Shell::with_busybox());
    shell.ok(&["push", "-q", BUSYBOX, &registry.name("first:1")]);
    let said = shell.ok(&["push", BUSYBOX, &registry.name("second:1")]);
    assert!(said.contains("0 layers pushed, 3 were there already"), "{said}");
    let digestfile = shell.dir.path().join("digest");
    let path = digestfile.to_str().unwrap();
    shell.ok(&["push", "-q", "--digestfile", path, BUSYBOX, &registry.name("third:1")]);
    assert_eq!(fs::read_to_string(&digestfile).unwrap(), pushed_digest(&said));
}

#[test]
fn the_image_for_the_machine_is_taken_from_an_index() {
    if !require("tool:docker-registry") {
        return;
    }
    let (registry, shell) = (Registry::start(), Shell::new());
    let mut entries = Vec::new();
    for (name, architecture) in [("one", "amd64"), ("two", "arm64"), ("three", "s390x")] {
        load(&shell, &image(name, &[&[("machine", architecture)]]));
        let said = shell.ok(&["push", name, &registry.name(&format!("multi:{name}"))]);
        let size: u64 = said.split_whitespace().last().unwrap().parse().unwrap();
        entries.push(json!({
            "mediaType": images::MANIFEST, "digest": pushed_digest(&said), "size": size,
            "platform": { "architecture": architecture, "os": "linux" },
        }));
    }
    entries.truncate(2);
    let index = json!({ "schemaVersion": 2, "mediaType": images::INDEX, "manifests": entries });
    let index = index.to_string();
    let status = registry.put("/v2/multi/manifests/all", images::INDEX, index.as_bytes());
    assert!(status.contains("201"), "{status}");
    let name = registry.name("multi:all");
    let digest = Digest::of(index.as_bytes());
    for (machine, id) in [("linux/amd64", "one"), ("arm64", "two"), ("linux/arm64/v8", "two")] {
        let said = shell.ok(&["pull", "--platform", machine, &name]);
        assert!(said.contains(&digest.to_string()), "the digest of the index: {said}");
        let id_of = |name: &str| shell.json(&["inspect", name])[0]["Id"].clone();
        assert_eq!(id_of(&name), id_of(id), "{machine}");
    }
    let refusal = shell.fails(&["pull", "--platform", "linux/s390x", &name]);
    assert!(refusal.contains("linux/amd64, linux/arm64"), "{refusal}");
}

#[test]
fn credentials_come_from_files_and_helpers() {
    if !require("tool:docker-registry") {
        return;
    }
    let (registry, shell) = (Registry::start_guarded(), Shell::with_busybox());
    let (name, host) = (registry.name("guarded:1"), registry.name("").replace('/', ""));
    let home = shell.dir.path().join("home");
    let ran = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = shell.command(arguments);
        for name in ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        let output = command.env("HOME", &home).envs(environment.iter().copied()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let (ok, said) = ran(&["push", BUSYBOX, &name], &[]);
    assert!(!ok && said.contains(&format!("plyfs login {host}")), "{said}");
    let (ok, said) = ran(&["login", "-u", "me", "-p", "wrong", &host], &[]);
    assert!(!ok && said.contains("the user or the password is wrong"), "{said}");
    assert!(!home.join(".docker/config.json").exists());
    let (ok, said) = ran(&["login", "-u", "me", "-p", "secret", &host], &[]);
    assert!(ok && said.contains("Login Succeeded"), "{said}");
    let config = fs::read_to_string(home.join(".docker/config.json")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(home.join(".docker/config.json")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert!(ran(&["push", BUSYBOX, &name], &[]).0);
    // skopeo reads the same file.
    let there = format!("docker://{name}");
    let auth = home.join(".docker/config.json");
    skopeo(&["inspect", "--tls-verify=false", "--authfile", auth.to_str().unwrap(), &there]);
    let (ok, said) = ran(&["logout", &host], &[]);
    assert!(ok && said.contains("Removed"), "{said}");
    assert!(!ran(&["pull", &name], &[]).0);
    assert!(ran(&["pull", "--creds", "me:secret", &name], &[]).0);

    // podman's file, and the variable that names it.
    let podman = shell.dir.path().join("auth.json");
    fs::write(&podman, &config).unwrap();
    let variable = [("REGISTRY_AUTH_FILE", podman.to_str().unwrap())];
    assert!(ran(&["pull", &name], &variable).0);
    assert!(ran(&["pull", "--authfile", podman.to_str().unwrap(), &name], &[]).0);

    // A credential helper, for one registry or for all.
    let bin = shell.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$server\" = {host} ] || {{ echo credentials not found in \
         native keychain; exit 1; }}\necho '{{\"Username\":\"me\",\"Secret\":\"secret\"}}'\n"
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for text in [
        format!("{{\"credHelpers\":{{\"{host}\":\"test\"}}}}"),
        "{\"credsStore\":\"test\"}".to_owned(),
    ] {
        let dir = shell.dir.path().join("docker");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.json"), text).unwrap();
        let variables = [("DOCKER_CONFIG", dir.to_str().unwrap()), ("PATH", &path)];
        let (ok, said) = ran(&["pull", &name], &variables);
        assert!(ok, "{said}");
    }
}

#[test]
fn what_is_not_there_is_said_in_words() {
    if !require("tool:docker-registry") {
        return;
    }
    let (registry, shell) = (Registry::start(), Shell::with_busybox());
    let refusal = shell.fails(&["pull", &registry.name("nobody:1")]);
    assert!(refusal.starts_with("no such image in the registry"), "{refusal}");
    shell.ok(&["push", "-q", BUSYBOX, &registry.name("a:1")]);
    let refusal = shell.fails(&["pull", &registry.name("a:2")]);
    assert!(refusal.starts_with("no such image in the registry"), "{refusal}");
    let refusal = shell.fails(&["pull", "--tls-verify", &registry.name("a:1")]);
    assert!(refusal.starts_with("registry 127.0.0.1"), "{refusal}");
    let refusal = shell.fails(&["push", ID, "--tls-verify=false"]);
    assert!(refusal.contains("needs a destination"), "{refusal}");
    let refusal = shell.fails(&["pull", "Not A Name"]);
    assert!(refusal.contains("not an image name"), "{refusal}");
    assert_eq!(shell.ok(&["check"]), "");
}

#[test]
fn a_registry_that_forges_is_found_out() {
    if !require("tool:docker-registry") {
        return;
    }
    let (registry, shell) = (Registry::start(), Shell::new());
    load(&shell, &image("app", &[&[("etc/passwd", "root")], &[("b", "2")]]));
    let name = registry.name("app:1");
    shell.ok(&["push", "-q", "app", &name]);
    let there = format!("docker://{name}");
    let manifest = skopeo(&["inspect", "--raw", "--tls-verify=false", &there]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    for descriptor in [&manifest["layers"][1], &manifest["config"]] {
        let hex = descriptor["digest"].as_str().unwrap().replace("sha256:", "");
        let file = registry.blob_file(&hex);
        let honest = fs::read(&file).unwrap();
        let mut forged = honest.clone();
        let at = forged.len() - 30;
        forged[at] ^= 1;
        fs::write(&file, &forged).unwrap();
        let other = Shell::new();
        let refusal = other.fails(&["pull", &name]);
        assert!(refusal.contains("expected sha256:"), "{refusal}");
        assert_eq!(other.json(&["images", "--json"]), json!([]));
        assert_eq!(other.ok(&["check"]), "");
        // A download that was wrong once does not stand in the way of a right one.
        fs::write(&file, &honest).unwrap();
        other.ok(&["pull", "-q", &name]);
    }
}

#[test]
fn a_line_that_breaks_is_taken_up_where_it_broke() {
    if !require("tool:docker-registry") {
        return;
    }
    let (registry, shell) = (Registry::start(), Shell::new());
    load(&shell, &large("large"));
    shell.ok(&["push", "-q", "--compression-format", "none", "large", &registry.name("large:1")]);
    let line = Line::to(&registry, 3 << 20, Then::Break);
    let other = Shell::new();
    other.ok(&["pull", "-q", &line.name("large:1")]);
    let [range] = line.ranges().try_into().unwrap();
    let from: u64 = range.split(['=', '-']).nth(1).unwrap().parse().unwrap();
    assert!((2 << 20..=3 << 20).contains(&from), "{range}");
    assert!(line.carried() < 7 << 20, "{} bytes came", line.carried());
    assert!(other.ok(&["verify"]).contains("Verified 1 images"));
}

#[test]
fn a_pull_that_was_killed_is_taken_up_by_the_next_one() {
    if !require("tool:docker-registry") {
        return;
    }
    let (registry, shell) = (Registry::start(), Shell::new());
    load(&shell, &large("large"));
    shell.ok(&["push", "-q", "--compression-format", "none", "large", &registry.name("large:1")]);
    let line = Line::to(&registry, 4 << 20, Then::Stall);
    let other = Shell::new();
    let mut first = other.command(&["pull", "-q", &line.name("large:1")]).spawn().unwrap();
    let downloads = other.dir.path().join("root/downloads");
    let came = || {
        let part = fs::read_dir(&downloads).ok()?.next()?.ok()?;
        Some(part.metadata().ok()?.len())
    };
    while !line.is_stalled() || came().is_none_or(|came| came < 2 << 20) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    line.repair();
    assert_eq!(other.json(&["images", "--json"]), json!([]));
    let came = came().unwrap();
    other.ok(&["pull", "-q", &line.name("large:1")]);
    assert_eq!(line.ranges(), [format!("range: bytes={came}-")]);
    assert!(line.carried() < 5 << 20, "{} bytes came again", line.carried());
    assert!(other.ok(&["verify"]).contains("Verified 1 images"));
    assert_eq!(images::list(&downloads), [""; 0]);
    assert_eq!(images::list(&other.dir.path().join("root/staging")), [""; 0]);
}

#[test]
fn two_pulls_at_once_give_one_image() {
    if !require("tool:docker-registry") {
        return;
    }
    let (registry, shell) = (Registry::start(), Shell::new());
    load(&shell, &large("large"));
    let name = registry.name("large:1");
    shell.ok(&["push", "-q", "large", &name]);
    let other = Shell::new();
    other.ok(&["images"]);
    let start = || other.command(&["pull", "-q", &name]).spawn().unwrap();
    let both = [start(), start(), start()];
    for mut pull in both {
        assert!(pull.wait().unwrap().success());
    }
    assert_eq!(other.json(&["images", "--json"]).as_array().unwrap().len(), 1);
    assert!(other.ok(&["verify"]).contains("Verified 1 images"));
    assert_eq!(images::list(&other.dir.path().join("root/downloads")), [""; 0]);
}
