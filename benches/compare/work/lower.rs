//! The first change of what lies in a lower layer: copy-ups, whiteouts, renamed directories.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;

use super::change::{chmod, each};
use super::meter::Meter;
use super::{Digest, Done, Job};
use crate::Res;
use crate::shell::{on, run};
use crate::stacks::Scale;

pub(super) fn work(id: &str, job: &Job) -> Option<Res<Done>> {
    Some(match id {
        "unlink-lower" => files(job, "unlink", |path| fs::remove_file(path)),
        "append-small" => files(job, "append", append),
        "chmod-small" => files(job, "chmod", chmod),
        "rm-rf-lower" => rm_rf(job),
        "mv-lower-dirs" => mv(job),
        "append-large" => large(job, append),
        "chmod-large" => large(job, chmod),
        _ => return None,
    })
}

fn append(path: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(b"more")
}

fn used(job: &Job, kind: &str) -> String {
    format!("used/{kind}/{}", job.round)
}

/// Does `one` to each file that this round may use up.
fn files(job: &Job, kind: &str, one: impl Fn(&str) -> std::io::Result<()>) -> Res<Done> {
    let dir = used(job, kind);
    let count = Scale::of(job.quick).used_up;
    let paths: Vec<String> = (0..count).map(|n| job.path(&format!("{dir}/f{n:03}"))).collect();
    job.change(&dir, || each(&paths, &one))
}

fn rm_rf(job: &Job) -> Res<Done> {
    let dir = used(job, "rm-rf");
    job.change("used/rm-rf", || {
        run(Command::new("rm").arg("-rf").arg(job.path(&dir)))?;
        Ok(u64::from(Scale::of(job.quick).used_up))
    })
}

/// Moves directories as mv does: by rename, or where that is refused by copying.
fn mv(job: &Job) -> Res<Done> {
    let dir = used(job, "mv");
    job.change(&dir, || {
        for n in 0..10 {
            let (from, to) = (format!("{dir}/d{n:02}"), format!("{dir}/moved{n:02}"));
            run(Command::new("mv").arg(job.path(&from)).arg(job.path(&to)))?;
        }
        Ok(10)
    })
}

/// The first change of one large file, whose data is in memory.
fn large(job: &Job, one: impl Fn(&str) -> std::io::Result<()>) -> Res<Done> {
    let path = job.path("big");
    on(
        path.as_ref(),
        std::io::copy(&mut on(path.as_ref(), fs::File::open(&path))?, &mut std::io::sink()),
    )?;
    let meter = Meter::begin(job);
    on(path.as_ref(), one(&path))?;
    let cost = meter.end();
    let mut digest = Digest::default();
    let mut head = [0; 64];
    let file = on(path.as_ref(), fs::File::open(&path))?;
    on(path.as_ref(), std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 4096))?;
    digest.bytes(&head);
    Ok(Done { cost, operations: 1, digest: digest.text() })
}
