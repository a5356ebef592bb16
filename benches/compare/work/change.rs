//! Making, renaming and removing names that the upper alone has.

use std::fs;
use std::io::Write;

use super::{Done, Job};
use crate::Res;

pub(super) fn work(id: &str, job: &Job) -> Option<Res<Done>> {
    Some(match id {
        "create-4k" => made(job, "create", create),
        "symlink" => made(job, "symlink", |path| std::os::unix::fs::symlink("some/where", path)),
        "mkdir" => made(job, "mkdir", |path| fs::create_dir(path)),
        "rename" => prepared(job, "rename", |path| fs::rename(path, format!("{path}.new"))),
        "link" => prepared(job, "link", |path| fs::hard_link(path, format!("{path}.link"))),
        "unlink" => prepared(job, "unlink", |path| fs::remove_file(path)),
        "chmod-upper" => prepared(job, "chmod-upper", chmod),
        "two-create-4k" => two(job),
        _ => return None,
    })
}

fn create(path: &str) -> std::io::Result<()> {
    fs::File::create_new(path)?.write_all(&[b'x'; 4096])
}

pub(super) fn chmod(path: &str) -> std::io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
}

/// Does `one` to each of the names in a new directory.
fn made(job: &Job, name: &str, one: impl Fn(&str) -> std::io::Result<()>) -> Res<Done> {
    let dir = job.made(name)?;
    let paths: Vec<String> = (0..job.count()).map(|n| job.path(&format!("{dir}/{n:05}"))).collect();
    job.change(&dir, || each(&paths, &one))
}

/// As [`made`], with files there already.
fn prepared(job: &Job, name: &str, one: impl Fn(&str) -> std::io::Result<()>) -> Res<Done> {
    let dir = job.made(name)?;
    let paths: Vec<String> = (0..job.count()).map(|n| job.path(&format!("{dir}/{n:05}"))).collect();
    each(&paths, &|path: &str| fs::write(path, "x"))?;
    job.change(&dir, || each(&paths, &one))
}

pub(super) fn each(paths: &[String], one: &impl Fn(&str) -> std::io::Result<()>) -> Res<u64> {
    for path in paths {
        one(path).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(paths.len() as u64)
}

/// Two clients, each in a directory of its own.
fn two(job: &Job) -> Res<Done> {
    let dir = job.made("two-create")?;
    let paths = ["a", "b"].map(|client| {
        let of = |n| job.path(&format!("{dir}/{client}/{n:05}"));
        (0..job.count() / 2).map(of).collect::<Vec<String>>()
    });
    for client in ["a", "b"] {
        crate::shell::make_dir(&job.root.join(&dir).join(client))?;
    }
    job.change(&dir, || {
        std::thread::scope(|scope| {
            let clients = paths.each_ref().map(|own| scope.spawn(|| each(own, &create)));
            let mut all = 0;
            for client in clients {
                all += client.join().map_err(|_| "a client ended in a panic".to_owned())??;
            }
            Ok(all)
        })
    })
}
