//! A stack of layers on disk with a place to mount it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::build::build_layer;
use super::mounted::{Driver, MountedOverlay, Options};
use super::require::rootless;
use super::spec::{SceneSpec, What};

/// The layers, upper, workdir and mountpoint of one test, in a directory of its own.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Topmost first.
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) mountpoint: PathBuf,
    base: tempfile::TempDir,
}

impl Scene {
    /// Makes the layers of a text in the form of [`super::spec`].
    pub(crate) fn new(text: &str) -> Scene {
        Scene::from_spec(&SceneSpec::parse(text))
    }

    /// Makes the layers of `fixtures/trees/NAME.txt`; in a user namespace, where nobody may make
    /// them, without the devices.
    pub(crate) fn from_fixture(name: &str) -> Scene {
        let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/trees");
        let path = trees.join(format!("{name}.txt"));
        let text = fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut spec = SceneSpec::parse(&text);
        if rootless() {
            for layer in std::iter::once(&mut spec.upper).chain(&mut spec.lowers) {
                layer.entries.retain(|e| !matches!(e.what, What::Char(..) | What::Block(..)));
            }
        }
        Scene::from_spec(&spec)
    }

    /// Makes the layers of `spec`.
    pub(crate) fn from_spec(spec: &SceneSpec) -> Scene {
        Scene::build(spec, scratch())
    }

    /// As [`Scene::new`], in memory unless `PLYFS_TEST_DIR` says where: for tests that make
    /// thousands, to which durability means nothing.
    pub(crate) fn in_memory(text: &str) -> Scene {
        let place = std::env::var_os("PLYFS_TEST_DIR").unwrap_or_else(|| "/dev/shm".into());
        Scene::build(&SceneSpec::parse(text), scratch_in(&PathBuf::from(place)))
    }

    fn build(spec: &SceneSpec, base: tempfile::TempDir) -> Scene {
        let scene = Scene::empty_in(spec.lowers.len(), base);
        build_layer(&scene.upper, &spec.upper);
        for (root, layer) in scene.lowers.iter().zip(&spec.lowers) {
            build_layer(root, layer);
        }
        scene
    }

    /// Makes an upper and `lowers` empty lowers.
    pub(crate) fn empty(lowers: usize) -> Scene {
        Scene::empty_in(lowers, scratch())
    }

    /// As [`Scene::empty`], in `base`.
    fn empty_in(lowers: usize, base: tempfile::TempDir) -> Scene {
        let make = |name: String| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
            path
        };
        Scene {
            lowers: (0..lowers).map(|n| make(format!("lower{n}"))).collect(),
            upper: make("upper".to_owned()),
            work: make("work".to_owned()),
            mountpoint: make("merged".to_owned()),
            base,
        }
    }

    /// The same lowers with an upper and a mountpoint of its own; it must go before `self` does.
    pub(crate) fn beside(&self) -> Scene {
        Scene { lowers: self.lowers.clone(), ..Scene::empty(0) }
    }

    /// Mounts it by the driver under test, with its default options.
    pub(crate) fn mount(&self) -> MountedOverlay<'_> {
        self.mount_by(Driver::under_test(), &Options::default())
    }

    /// Mounts it.
    pub(crate) fn mount_by(&self, driver: Driver, options: &Options) -> MountedOverlay<'_> {
        MountedOverlay::new(self, driver, options)
    }

    /// A path in the mounted tree.
    pub(crate) fn merged(&self, path: &str) -> PathBuf {
        self.mountpoint.join(path)
    }

    /// A place for other things of the test, on the filesystem of the layers.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// The lowers as the `lowerdir` option takes them.
    pub(crate) fn lowerdir(&self) -> OsString {
        let mut joined = OsString::new();
        for (n, lower) in self.lowers.iter().enumerate() {
            if n > 0 {
                joined.push(":");
            }
            joined.push(lower);
        }
        joined
    }
}

/// A new directory that goes away with its value, in `PLYFS_TEST_DIR` or the system's place for
/// temporary files; it must be able to be an overlayfs upper.
pub(crate) fn scratch() -> tempfile::TempDir {
    let place = std::env::var_os("PLYFS_TEST_DIR").map(PathBuf::from);
    scratch_in(&place.unwrap_or_else(std::env::temp_dir))
}

fn scratch_in(place: &Path) -> tempfile::TempDir {
    let made = tempfile::Builder::new()
        .prefix("plyfs-test-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(place);
    made.unwrap_or_else(|error| panic!("no scratch directory in {}: {error}", place.display()))
}
