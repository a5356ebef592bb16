//! A disk that remembers every write: a file in a FUSE filesystem of ours, below a loop device.
//!
//! The loop device hands each write and each flush of the filesystem above it to us, in order.
//! Any moment can be replayed: what was flushed by then is there, and of what was written since
//! all of it or, as on a disk with a cache, any part.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::mount::{MountFlags, UnmountFlags};

const BLOCK: usize = 4096;
const MAX_WRITE: usize = 1 << 20;

/// What a disk holds; blocks that were never written are zero. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image(HashMap<u64, Arc<[u8; BLOCK]>>);

impl Image {
    fn read(&self, offset: u64, into: &mut [u8]) {
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let inside = (at % BLOCK as u64) as usize;
            let n = rest.len().min(BLOCK - inside);
            let (part, more) = rest.split_at_mut(n);
            match self.0.get(&(at / BLOCK as u64)) {
                Some(block) => part.copy_from_slice(&block[inside..inside + n]),
                None => part.fill(0),
            }
            (rest, at) = (more, at + n as u64);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let inside = (at % BLOCK as u64) as usize;
            let n = rest.len().min(BLOCK - inside);
            let block = self.0.entry(at / BLOCK as u64).or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[inside..inside + n].copy_from_slice(&rest[..n]);
            (rest, at) = (&rest[n..], at + n as u64);
        }
    }

    /// Applies the first `cut` events of `log`. With `loses`, of those since the last flush only
    /// the ones that it lets stay.
    pub(crate) fn replayed(
        &self,
        log: &[Event],
        cut: usize,
        mut loses: Option<&mut dyn FnMut() -> bool>,
    ) -> Image {
        let mut image = self.clone();
        let flushed = log[..cut].iter().rposition(|event| matches!(event, Event::Flush));
        for (n, event) in log[..cut].iter().enumerate() {
            let Event::Write(offset, data) = event else { continue };
            let lost =
                flushed.is_none_or(|last| n > last) && loses.as_mut().is_some_and(|loses| loses());
            if !lost {
                image.write(*offset, data);
            }
        }
        image
    }
}

/// What happened on a disk.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Write(u64, Arc<[u8]>),
    /// What was written before is durable.
    Flush,
}

#[derive(Debug, Default)]
struct State {
    image: Image,
    log: Vec<Event>,
    /// Writes are answered with EIO.
    broken: bool,
}

/// A disk with its loop device; both go with the value.
#[derive(Debug)]
pub(crate) struct Disk {
    place: PathBuf,
    device: Option<String>,
    state: Arc<Mutex<State>>,
    server: Option<JoinHandle<()>>,
}

impl Disk {
    /// A disk of `size` bytes that holds `image`, served below the new directory `place`.
    pub(crate) fn new(place: &Path, size: u64, image: Image) -> Disk {
        std::fs::create_dir_all(place).unwrap();
        let fuse = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("plyfs-test-disk", place, "fuse", flags, &*options).unwrap();
        let state = Arc::new(Mutex::new(State { image, ..State::default() }));
        let shared = Arc::clone(&state);
        let server = std::thread::spawn(move || serve(&OwnedFd::from(fuse), size, &shared));
        let mut disk =
            Disk { place: place.to_path_buf(), device: None, state, server: Some(server) };
        disk.attach();
        disk
    }

    fn attach(&mut self) {
        let file = self.place.join("disk");
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.device = Some(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }

    fn detach(&mut self) {
        let Some(device) = self.device.take() else { return };
        let status = Command::new("losetup").args(["--detach", &device]).status().unwrap();
        assert!(status.success(), "{device} does not go");
        // The kernel takes a device off in its own time.
        let start = std::time::Instant::now();
        while std::fs::read_to_string(format!(
            "/sys/block/{}/loop/backing_file",
            device.trim_start_matches("/dev/")
        ))
        .is_ok_and(|file| Path::new(file.trim()).starts_with(&self.place))
        {
            assert!(start.elapsed().as_secs() < 60, "{device} stays in use");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Another disk in its place, as if it had been pulled out.
    pub(crate) fn replace(&mut self, image: Image) {
        self.detach();
        *self.state.lock().unwrap() = State { image, ..State::default() };
        self.attach();
    }

    /// The block device.
    pub(crate) fn device(&self) -> &str {
        self.device.as_deref().unwrap()
    }

    /// How many events there were since the last [`Disk::rewind`].
    pub(crate) fn moment(&self) -> u64 {
        self.state.lock().unwrap().log.len() as u64
    }

    /// From now on events are counted from nothing; returns what the disk holds.
    pub(crate) fn rewind(&self) -> Image {
        let mut state = self.state.lock().unwrap();
        state.log.clear();
        state.image.clone()
    }

    /// The events so far.
    pub(crate) fn log(&self) -> Vec<Event> {
        self.state.lock().unwrap().log.clone()
    }

    /// From now on writes fail with EIO, or not.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.state.lock().unwrap().broken = broken;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.set_broken(false);
        self.detach();
        if let Err(error) = rustix::mount::unmount(&self.place, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.place.display());
        }
        if let Some(server) = self.server.take() {
            drop(server.join());
        }
    }
}

const ROOT: u64 = 1;
const DISK: u64 = 2;
const HEADER: usize = 40;

/// Answers the kernel until the filesystem is unmounted.
fn serve(fuse: &OwnedFd, size: u64, state: &Mutex<State>) {
    let mut device = File::from(fuse.try_clone().unwrap());
    let mut buffer = vec![0_u8; MAX_WRITE + BLOCK];
    loop {
        let n = match device.read(&mut buffer) {
            Ok(n) => n,
            // The one that asked was interrupted.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(_) => return,
        };
        let request = Request(&buffer[..n]);
        let Some(answer) = request.answer(size, state) else { continue };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut reply = Bytes::default();
        reply.u32(16 + body.len() as u32).u32(error as u32).u64(request.u64(8));
        reply.0.extend(body);
        // A request that was given up has nobody who waits.
        drop(device.write_all(&reply.0));
    }
}

struct Request<'a>(&'a [u8]);

impl Request<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    /// The reply's body; nothing where none is expected. Numbers are those of
    /// `include/uapi/linux/fuse.h`.
    fn answer(&self, size: u64, state: &Mutex<State>) -> Option<Result<Vec<u8>, i32>> {
        let node = self.u64(16);
        let mut body = Bytes::default();
        match self.u32(4) {
            1 if &self.0[HEADER..] == b"disk\0" => {
                body.u64(DISK).u64(0).u64(3600).u64(3600).u64(0).attributes(DISK, size);
            }
            1 => return Some(Err(libc::ENOENT)),
            2 | 36 | 42 => return None,
            3 | 4 => {
                body.u64(3600).u64(0).attributes(node, size);
            }
            // Direct I/O: no second page cache.
            14 | 27 => {
                body.u64(0).u32(u32::from(node == DISK)).u32(0);
            }
            15 => {
                let mut data = vec![0; self.u32(HEADER + 16) as usize];
                state.lock().unwrap().image.read(self.u64(HEADER + 8), &mut data);
                return Some(Ok(data));
            }
            16 => {
                let mut state = state.lock().unwrap();
                if state.broken {
                    return Some(Err(libc::EIO));
                }
                let (offset, data) = (self.u64(HEADER + 8), &self.0[HEADER + 40..]);
                state.image.write(offset, data);
                state.log.push(Event::Write(offset, data.into()));
                body.u32(data.len() as u32).u32(0);
            }
            17 => body.0.extend([0; 80]),
            18 | 25 | 29 | 38 => {}
            20 => {
                let mut state = state.lock().unwrap();
                if state.broken {
                    return Some(Err(libc::EIO));
                }
                state.log.push(Event::Flush);
            }
            26 => {
                const BIG_WRITES: u32 = 1 << 5;
                const MAX_PAGES: u32 = 1 << 22;
                body.u32(7).u32(31).u32(0).u32(BIG_WRITES | MAX_PAGES).u32(12 | 8 << 16);
                body.u32(MAX_WRITE as u32).u32(1).u32((MAX_WRITE / BLOCK) as u32).u64(0);
                body.u64(0).u64(0).u64(0);
            }
            43 => return Some(Err(libc::EOPNOTSUPP)),
            _ => return Some(Err(libc::ENOSYS)),
        }
        Some(Ok(body.0))
    }
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(&mut self, value: u32) -> &mut Bytes {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Bytes {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// `struct fuse_attr`.
    fn attributes(&mut self, node: u64, size: u64) -> &mut Bytes {
        let mode = if node == ROOT { 0o040_700 } else { 0o100_600 };
        self.u64(node).u64(size).u64(size / 512).u64(0).u64(0).u64(0);
        self.u32(0).u32(0).u32(0).u32(mode).u32(1).u32(0).u32(0).u32(0).u32(4096).u32(0)
    }
}
