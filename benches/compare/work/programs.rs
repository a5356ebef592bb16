//! Real programs.

use std::io::Read;
use std::process::{Command, Stdio};

use super::{Done, Job};
use crate::Res;
use crate::shell::run;

pub(super) fn work(id: &str, job: &Job) -> Option<Res<Done>> {
    Some(match id {
        "untar" => untar(job),
        "cp-a" => cp(job),
        "tar-hot" => printed(
            job,
            "tar",
            &["--create", "--sort=name", "--mtime=@0", "-C", &job.path(""), "tree"],
            length,
        ),
        "grep-hot" => printed(job, "grep", &["-rc", "needle", &job.path("tree")], matches),
        "du-hot" => printed(
            job,
            "du",
            &["-s", "--apparent-size", "--inodes", &job.path("tree")],
            first_word,
        ),
        "git-status-hot" => git_status(job),
        "git-checkout" => git_checkout(job),
        "process-start-hot" => process_start(job),
        "sqlite-rollback" => sqlite(job, "DELETE"),
        "sqlite-wal" => sqlite(job, "WAL"),
        "dpkg-i" => dpkg(job),
        "compile" => compile(job),
        _ => return None,
    })
}

fn untar(job: &Job) -> Res<Done> {
    let dir = job.made("untar")?;
    let archive = job.aside.join("files.tar");
    job.change(&dir, || {
        run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(job.path(&dir)))?;
        Ok(1)
    })
}

fn cp(job: &Job) -> Res<Done> {
    let dir = job.made("cp")?;
    job.change(&dir, || {
        for part in 0..5 {
            let from = job.path(&format!("tree/d{part:03}"));
            run(Command::new("cp").args(["-a", "--reflink=never"]).arg(from).arg(job.path(&dir)))?;
        }
        Ok(1)
    })
}

/// Runs a program for as long as a hot loop goes on; `of` says what of its output must agree.
fn printed(job: &Job, program: &str, arguments: &[&str], of: fn(&[u8]) -> u64) -> Res<Done> {
    job.hot(|digest| {
        let mut child = Command::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let mut output = Vec::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_end(&mut output).map_err(|error| format!("{program}: {error}"))?;
        }
        let status = child.wait().map_err(|error| format!("{program}: {error}"))?;
        if !status.success() {
            return Err(format!("{program} ended with {status}"));
        }
        digest.number(of(&output));
        Ok(1)
    })
}

fn length(output: &[u8]) -> u64 {
    output.len() as u64
}

/// The sum of the counts that `grep -c` prints.
fn matches(output: &[u8]) -> u64 {
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter(|line| !line.ends_with(b":0")).count() as u64
}

fn first_word(output: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(output);
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn git(job: &Job, arguments: &[&str]) -> Res<Vec<u8>> {
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "-c", "gc.auto=0", "-C", &job.path("repo")]);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/");
    Ok(run(command.args(arguments))?.stdout)
}

fn git_status(job: &Job) -> Res<Done> {
    // The first one writes what it learned of inodes into its index.
    for _ in 0..2 {
        git(job, &["status", "--porcelain"])?;
    }
    job.hot(|digest| {
        digest.bytes(&git(job, &["status", "--porcelain"])?);
        Ok(1)
    })
}

fn git_checkout(job: &Job) -> Res<Done> {
    git(job, &["checkout", "-qf", "main"])?;
    git(job, &["status", "--porcelain"])?;
    let done = job.change("repo/lib", || {
        git(job, &["checkout", "-q", "other"])?;
        Ok(1)
    });
    git(job, &["checkout", "-qf", "main"])?;
    done
}

/// Starts a program many times, in a chroot: what a shell script does.
fn process_start(job: &Job) -> Res<Done> {
    let root = job.path("root");
    rustix::process::chroot(root.as_str()).map_err(|errno| format!("chroot: {errno}"))?;
    rustix::process::chdir("/").map_err(|errno| format!("chdir: {errno}"))?;
    job.hot(|digest| {
        for _ in 0..10 {
            let status = Command::new("/bin/true").status();
            let status = status.map_err(|error| format!("/bin/true: {error}"))?;
            digest.number(u64::from(status.success()));
        }
        Ok(10)
    })
}

/// Many small transactions, each durable.
fn sqlite(job: &Job, mode: &str) -> Res<Done> {
    let dir = job.made(&format!("sqlite-{mode}"))?;
    let database = job.path(&format!("{dir}/db"));
    let transactions = if job.quick { 40 } else { 200 };
    let mut script =
        format!("PRAGMA journal_mode={mode};\nCREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT);\n");
    for n in 0..transactions {
        script.push_str(&format!("INSERT INTO t VALUES({n}, hex(zeroblob(100)));\n"));
    }
    script.push_str("SELECT count(*), sum(length(v)) FROM t;\n");
    let path = job.aside.join(format!("{mode}.sql"));
    crate::shell::write(&path, script)?;
    job.once(|digest| {
        let input = crate::shell::on(&path, std::fs::File::open(&path))?;
        let output = run(Command::new("sqlite3").arg("-batch").arg(&database).stdin(input))?;
        digest.bytes(&output.stdout);
        Ok(transactions)
    })
}

fn dpkg(job: &Job) -> Res<Done> {
    let dir = format!("made/dpkg-{}", job.round);
    crate::shell::make_dir(&job.root.join("made"))?;
    run(Command::new("cp").arg("-a").arg(job.path("dpkg")).arg(job.path(&dir)))?;
    let package = job.aside.join("files.deb");
    job.change(&format!("{dir}/usr"), || {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", job.path(&dir))).arg("--force-not-root");
        run(command.args(["--log=/dev/null", "-i"]).arg(&package))?;
        Ok(1)
    })
}

fn compile(job: &Job) -> Res<Done> {
    let dir = job.made("compile")?;
    let include = job.path("src/include");
    job.once(|digest| {
        let mut objects = Vec::new();
        for n in 0..4 {
            let (source, object) =
                (job.path(&format!("src/m{n}.c")), job.path(&format!("{dir}/m{n}.o")));
            run(Command::new("cc").args(["-c", "-O1", "-I", &include, "-o", &object, &source]))?;
            objects.push(object);
        }
        let program = job.path(&format!("{dir}/program"));
        run(Command::new("cc").arg("-o").arg(&program).args(&objects))?;
        run(&mut Command::new(&program))?;
        digest.number(std::fs::metadata(&program).map_err(|error| error.to_string())?.len());
        Ok(1)
    })
}
