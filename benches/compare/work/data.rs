//! Content: reading, writing and mapping files at length.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::meter::Meter;
use super::{Digest, Done, Job};
use crate::Res;
use crate::stacks::{Scale, noise};

pub(super) fn work(id: &str, job: &Job) -> Option<Res<Done>> {
    Some(match id {
        "seq-read-hot" => seq_read(job),
        "rand-read-hot" => rand_read(job),
        "mmap-hot" => mmap(job),
        "seq-write-fsync" => seq_write(job),
        "rand-write" => rand_write(job),
        "append-fsync" => append_fsync(job),
        "mmap-write" => mmap_write(job),
        _ => return None,
    })
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

/// Offsets of pages in an order that no read-ahead guesses.
fn shuffled(length: u64, count: u64) -> impl Iterator<Item = u64> {
    let pages = length / 4096;
    (0..count).map(move |n| (n.wrapping_mul(0x9e37_79b9) % pages) * 4096)
}

fn seq_read(job: &Job) -> Res<Done> {
    let path = job.path("data/read");
    let mut buffer = vec![0; 128 << 10];
    job.hot(|digest| {
        let mut file = File::open(&path).map_err(failed(&path))?;
        let mut blocks = 0;
        loop {
            let length = file.read(&mut buffer).map_err(failed(&path))?;
            if length == 0 {
                return Ok(blocks);
            }
            blocks += length as u64 / 4096;
            digest.bytes(&buffer[..64.min(length)]);
        }
    })
}

fn rand_read(job: &Job) -> Res<Done> {
    let path = job.path("data/read");
    let file = File::open(&path).map_err(failed(&path))?;
    let length = file.metadata().map_err(failed(&path))?.len();
    let mut buffer = [0; 4096];
    // Read once in order, so that all of it is in memory.
    let mut all = Vec::new();
    (&file).read_to_end(&mut all).map_err(failed(&path))?;
    job.hot(|digest| {
        for offset in shuffled(length, 4096) {
            file.read_exact_at(&mut buffer, offset).map_err(failed(&path))?;
            digest.bytes(&buffer[..8]);
        }
        Ok(4096)
    })
}

/// Maps the file anew and touches each page.
fn mmap(job: &Job) -> Res<Done> {
    let path = job.path("data/read");
    let length = std::fs::metadata(&path).map_err(failed(&path))?.len() as usize;
    job.hot(|digest| {
        let file = File::open(&path).map_err(failed(&path))?;
        let map = crate::map::Map::of(&file, length, false)?;
        let sum = map.bytes().iter().step_by(4096).map(|byte| u64::from(*byte)).sum();
        digest.number(sum);
        Ok(length as u64 / 4096)
    })
}

fn mmap_write(job: &Job) -> Res<Done> {
    let made = job.made("mmap-write")?;
    let path = job.path(&format!("{made}/file"));
    let length = (Scale::of(job.quick).data / 4) as usize;
    std::fs::write(&path, noise(3, length)).map_err(failed(&path))?;
    job.change(&made, || {
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed(&path))?;
        let mut map = crate::map::Map::of(&file, length, true)?;
        map.bytes_mut().iter_mut().step_by(4096).for_each(|byte| *byte = 7);
        file.sync_all().map_err(failed(&path))?;
        Ok(length as u64 / 4096)
    })
}

fn seq_write(job: &Job) -> Res<Done> {
    let made = job.made("seq-write")?;
    let path = job.path(&format!("{made}/file"));
    let block = noise(1, 1 << 20);
    let blocks = Scale::of(job.quick).data >> 20;
    let done = job.change(&made, || {
        let mut file = File::create(&path).map_err(failed(&path))?;
        for _ in 0..blocks {
            file.write_all(&block).map_err(failed(&path))?;
        }
        file.sync_all().map_err(failed(&path))?;
        Ok(blocks * 256)
    });
    std::fs::remove_file(&path).map_err(failed(&path))?;
    done
}

fn rand_write(job: &Job) -> Res<Done> {
    let made = job.made("rand-write")?;
    let path = job.path(&format!("{made}/file"));
    let length = Scale::of(job.quick).data / 2;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(failed(&path))?;
    file.write_all(&noise(2, length as usize)).map_err(failed(&path))?;
    file.sync_all().map_err(failed(&path))?;
    let block = [5; 4096];
    let meter = Meter::begin(job);
    let mut operations = 0;
    while meter.elapsed() < job.long_enough() {
        for offset in shuffled(length, 4096) {
            file.write_all_at(&block, offset).map_err(failed(&path))?;
        }
        operations += 4096;
    }
    let cost = meter.end();
    let mut digest = Digest::default();
    let mut all = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(failed(&path))?;
    file.read_to_end(&mut all).map_err(failed(&path))?;
    digest.bytes(&all);
    drop(file);
    std::fs::remove_file(&path).map_err(failed(&path))?;
    Ok(Done { cost, operations, digest: digest.text() })
}

/// A log: small appends, each made durable.
fn append_fsync(job: &Job) -> Res<Done> {
    let made = job.made("append-fsync")?;
    let path = job.path(&format!("{made}/log"));
    let mut file =
        OpenOptions::new().append(true).create(true).open(&path).map_err(failed(&path))?;
    let lines = if job.quick { 60 } else { 200 };
    job.change(&made, || {
        for n in 0..lines {
            file.write_all(&noise(n, 300)).map_err(failed(&path))?;
            file.sync_data().map_err(failed(&path))?;
        }
        Ok(lines)
    })
}
