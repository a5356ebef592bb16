//! Every path of a store.

use std::path::{Path, PathBuf};

use crate::image::{ChainId, Digest, ImageId};

use super::containers::ContainerId;
use super::snapshots::SnapshotId;

/// Where things are:
///
/// ```text
/// format                      the number of this layout
/// lock                        flock of the store
/// catalog.json                the images and their names
/// images/ID/config.json       the bytes of an image's config
/// layers/CHAIN/layer.json     what the layer is
/// layers/CHAIN/diff/          its tree, in overlayfs's form
/// blobs/sha256/DIGEST         a layer's archive, or an image's manifest, as it came
/// containers/ID/container.json
/// containers/ID/diff/         the writable layer (upperdir)
/// containers/ID/work/         the workdir
/// containers/ID/merged/       the default mount point
/// names/NAME                  leads to the container of that name; see [`super::names`]
/// snapshots/ID/snapshot.json  a snapshot of containerd; see [`super::snapshots`]
/// snapshots/ID/diff/          its own tree; a view has none
/// snapshots/ID/work/          the workdir of an active one
/// empty/                      the lower of images without layers
/// downloads/DIGEST            the part of a blob that came before its download broke off
/// staging/NAME/               transactions under way; see [`super::transaction`]
/// ```
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Layout {
        Layout { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The directories that every store has.
    pub(super) fn dirs(&self) -> [PathBuf; 8] {
        [
            self.images(),
            self.layers(),
            self.blobs(),
            self.containers(),
            self.names(),
            self.staging(),
            self.downloads(),
            self.empty(),
        ]
    }

    pub(super) fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn catalog(&self) -> PathBuf {
        self.root.join("catalog.json")
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(super) fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    pub(super) fn download(&self, digest: &Digest) -> PathBuf {
        self.downloads().join(digest.hex())
    }

    pub(super) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    pub(super) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(super) fn image(&self, id: &ImageId) -> PathBuf {
        self.images().join(id.0.hex())
    }

    pub(super) fn image_config(&self, id: &ImageId) -> PathBuf {
        self.image(id).join("config.json")
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn layer(&self, chain: &ChainId) -> PathBuf {
        self.layers().join(chain.0.hex())
    }

    pub(super) fn layer_record(&self, chain: &ChainId) -> PathBuf {
        self.layer(chain).join("layer.json")
    }

    pub(super) fn layer_tree(&self, chain: &ChainId) -> PathBuf {
        self.layer(chain).join("diff")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(super) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(super) fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    pub(super) fn name(&self, name: &str) -> PathBuf {
        self.names().join(name)
    }

    pub(super) fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.hex())
    }

    pub(super) fn container_record(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("container.json")
    }

    pub(super) fn upper(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("diff")
    }

    pub(super) fn work(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("work")
    }

    pub(super) fn merged(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("merged")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(super) fn snapshot(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots().join(id.as_str())
    }

    pub(super) fn snapshot_record(&self, id: &SnapshotId) -> PathBuf {
        self.snapshot(id).join("snapshot.json")
    }

    pub(super) fn snapshot_tree(&self, id: &SnapshotId) -> PathBuf {
        self.snapshot(id).join("diff")
    }

    pub(super) fn snapshot_work(&self, id: &SnapshotId) -> PathBuf {
        self.snapshot(id).join("work")
    }
}
