//! A snapshotter as a program, a client of it, and mounts as containerd makes them.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support;
use plyfs::snapshotter::api;
use rustix::process::{Pid, Signal};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running `plyfs snapshotter` with a store of its own.
pub(crate) struct Server {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) child: Option<Child>,
    driver: String,
}

impl Server {
    pub(crate) fn start(driver: &str) -> Server {
        let dir = tempfile::Builder::new().prefix("plyfs-test-").tempdir().unwrap();
        let mut server = Server { dir, child: None, driver: driver.to_owned() };
        server.up();
        server
    }

    /// The program on this store, not started.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command.arg("--root").arg(self.root()).arg("snapshotter");
        command.arg("--address").arg(self.socket()).args(["--driver", &self.driver]);
        command.stdin(Stdio::null());
        command
    }

    /// Starts it, again.
    pub(crate) fn up(&mut self) {
        assert!(self.child.is_none());
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        self.child = Some(self.program().stderr(log).spawn().unwrap());
        wait_until("the socket", || std::os::unix::net::UnixStream::connect(self.socket()).is_ok());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends it as systemd does, and tells its exit code.
    pub(crate) fn down(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.take().unwrap().wait().unwrap().code()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().unwrap().wait().unwrap();
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/s.sock")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket())
    }

    /// A directory to mount on.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        let place = self.dir.path().join(name);
        std::fs::create_dir_all(&place).unwrap();
        place
    }

    /// The names in a directory of the store.
    pub(crate) fn listing(&self, of: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root().join(of)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let below = |line: &&str| {
            line.split(' ').nth(1).map(Path::new).unwrap().starts_with(self.dir.path())
        };
        for line in table.lines().rev().filter(below) {
            let place = line.split(' ').nth(1).unwrap();
            rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH).ok();
        }
    }
}

/// What a verb answered.
pub(crate) type Answer<T> = Result<T, Status>;

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(answer: Answer<T>) -> Code {
    answer.expect_err("it is refused").code()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A client, as containerd is one.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        Client { runtime, channel }
    }

    pub(crate) fn call<Q, A>(&self, verb: &str, request: Q) -> Answer<A>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/{}/{verb}", api::SERVICE)).unwrap();
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        self.runtime.block_on(async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            Ok(grpc.unary(tonic::Request::new(request), path, codec).await?.into_inner())
        })
    }

    fn start(
        &self,
        verb: &str,
        key: &str,
        parent: &str,
        pairs: &[(&str, &str)],
    ) -> Answer<Vec<api::Mount>> {
        let request = api::StartRequest {
            snapshotter: "plyfs".to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels(pairs),
        };
        self.call(verb, request).map(|answer: api::MountsResponse| answer.mounts)
    }

    pub(crate) fn prepare(&self, key: &str, parent: &str) -> Answer<Vec<api::Mount>> {
        self.start("Prepare", key, parent, &[])
    }

    pub(crate) fn prepare_with(
        &self,
        key: &str,
        parent: &str,
        pairs: &[(&str, &str)],
    ) -> Answer<Vec<api::Mount>> {
        self.start("Prepare", key, parent, pairs)
    }

    pub(crate) fn view(&self, key: &str, parent: &str) -> Answer<Vec<api::Mount>> {
        self.start("View", key, parent, &[])
    }

    pub(crate) fn view_with(
        &self,
        key: &str,
        parent: &str,
        pairs: &[(&str, &str)],
    ) -> Answer<Vec<api::Mount>> {
        self.start("View", key, parent, pairs)
    }

    fn key(key: &str) -> api::KeyRequest {
        api::KeyRequest { snapshotter: "plyfs".to_owned(), key: key.to_owned() }
    }

    pub(crate) fn mounts(&self, key: &str) -> Answer<Vec<api::Mount>> {
        self.call("Mounts", Client::key(key)).map(|answer: api::MountsResponse| answer.mounts)
    }

    pub(crate) fn commit(&self, name: &str, key: &str) -> Answer<()> {
        self.commit_with(name, key, &[])
    }

    pub(crate) fn commit_with(&self, name: &str, key: &str, pairs: &[(&str, &str)]) -> Answer<()> {
        let request = api::CommitRequest {
            snapshotter: "plyfs".to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: labels(pairs),
        };
        self.call("Commit", request).map(|_: api::Empty| ())
    }

    pub(crate) fn remove(&self, key: &str) -> Answer<()> {
        self.call("Remove", Client::key(key)).map(|_: api::Empty| ())
    }

    pub(crate) fn stat(&self, key: &str) -> Answer<api::Info> {
        self.call("Stat", Client::key(key)).map(|answer: api::InfoResponse| answer.info.unwrap())
    }

    pub(crate) fn usage(&self, key: &str) -> Answer<api::UsageResponse> {
        self.call("Usage", Client::key(key))
    }

    pub(crate) fn cleanup(&self) -> Answer<()> {
        let request = api::CleanupRequest { snapshotter: "plyfs".to_owned() };
        self.call("Cleanup", request).map(|_: api::Empty| ())
    }

    pub(crate) fn update(
        &self,
        name: &str,
        pairs: &[(&str, &str)],
        paths: &[&str],
    ) -> Answer<api::Info> {
        let info = api::Info { name: name.to_owned(), labels: labels(pairs), ..Default::default() };
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = api::UpdateRequest {
            snapshotter: "plyfs".to_owned(),
            info: Some(info),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        self.call("Update", request).map(|answer: api::InfoResponse| answer.info.unwrap())
    }

    /// All batches of List.
    pub(crate) fn list(&self, filters: &[&str]) -> Answer<Vec<Vec<api::Info>>> {
        let path = PathAndQuery::try_from(format!("/{}/List", api::SERVICE)).unwrap();
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let request = api::ListRequest { snapshotter: "plyfs".to_owned(), filters };
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        self.runtime.block_on(async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<api::ListRequest, api::ListResponse>::default();
            let answer = grpc.server_streaming(tonic::Request::new(request), path, codec).await?;
            let (mut stream, mut batches) = (answer.into_inner(), Vec::new());
            while let Some(batch) = stream.message().await? {
                batches.push(batch.info);
            }
            Ok(batches)
        })
    }

    /// The names that List gives.
    pub(crate) fn names(&self, filters: &[&str]) -> Vec<String> {
        let infos = self.list(filters).unwrap().into_iter().flatten();
        infos.map(|info| info.name).collect()
    }

    /// A committed snapshot of what `change` did in the mounted one.
    pub(crate) fn layer(
        &self,
        server: &Server,
        name: &str,
        parent: &str,
        change: impl FnOnce(&Path),
    ) {
        let key = format!("making {name}");
        let mounts = self.prepare(&key, parent).unwrap();
        let place = server.place("making");
        let mounted = Mounted::new(&mounts, &place);
        change(&place);
        drop(mounted);
        self.commit(name, &key).unwrap();
    }
}

/// What containerd mounts, until dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Mounts as containerd does: a type `fuse.X` by the program `mount.fuse`, `-t X`.
    pub(crate) fn new(mounts: &[api::Mount], place: &Path) -> Mounted {
        let [mount] = mounts else { panic!("one mount is expected: {mounts:?}") };
        let mut options = mount.options.join(",");
        let mut command = match mount.r#type.split_once('.') {
            Some((helper, program)) => {
                let mut command = Command::new(format!("mount.{helper}"));
                command.arg(&mount.source).arg(place).args(["-t", program]);
                command
            }
            None => {
                let mut command = Command::new("mount");
                command.arg(&mount.source).arg(place);
                if mount.r#type != "bind" {
                    command.args(["-t", &mount.r#type]);
                }
                // The kernel takes one page of options; containerd shortens them like this.
                let lower = mount.options[0].trim_start_matches("lowerdir=");
                if let Some((root, _)) = lower.split_once("/snapshots/") {
                    let common = format!("{root}/snapshots/");
                    options = options.replace(&common, "");
                    command.current_dir(common);
                }
                command
            }
        };
        let output = command.arg("-o").arg(options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
        Mounted(place.to_path_buf())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(problem) = support::unmount_patiently(&self.0)
            && !std::thread::panicking()
        {
            panic!("{problem}");
        }
    }
}

impl Server {
    /// The same store, served by another driver.
    pub(crate) fn driven_again_by(mut self, driver: &str) -> Server {
        self.driver = driver.to_owned();
        self.up();
        self
    }
}
