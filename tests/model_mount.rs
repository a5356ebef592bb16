//! Random operations on real trees, against the model: a plain directory and the kernel's
//! overlayfs show that the model is right, PlyFS that it is.

mod model;
mod support;

use model::generate::Breadth;
use model::mountpoint::{Mountpoint, Tree};
use model::run::{Effort, cases};
use model::threads::{self, Mounting};
use support::{Driver, Options, Scene, as_host_root, require, rootless};

const AS_THE_KERNEL_CAN: Breadth = Breadth { beyond_the_kernel: false, ..Breadth::ALL };

#[test]
fn the_model_agrees_with_a_plain_directory() {
    if !require("root") {
        return;
    }
    let breadth = Breadth { plain: true, ..AS_THE_KERNEL_CAN };
    cases(Effort::from_env(4), breadth, |spec, run| {
        let scene = Scene::from_spec(spec);
        run(&mut Tree::new(&scene.upper))
    });
}

#[test]
fn the_model_agrees_with_overlayfs() {
    if !require("root")
        || !require("overlayfs")
        || !as_host_root("overlayfs moves no directories and keeps no hard links there")
    {
        return;
    }
    cases(Effort::from_env(8), AS_THE_KERNEL_CAN, |spec, run| {
        let scene = Scene::from_spec(spec);
        run(&mut Mountpoint::new(scene.mount_by(Driver::Kernel, &Options::default())))
    });
}

fn plyfs(breadth: Breadth, options: &[&str]) {
    if !require("root") || !require("fuse") {
        return;
    }
    let options = Options::with(options);
    cases(Effort::from_env(10), breadth, |spec, run| {
        let scene = Scene::from_spec(spec);
        run(&mut Mountpoint::new(scene.mount_by(Driver::Plyfs, &options)))
    });
}

/// A descriptor that reads an executable of a lower through the kernel goes on reading the lower
/// after a copy-up; that is the price of one page cache for all containers.
#[test]
fn plyfs_agrees_with_the_model() {
    plyfs(Breadth { executables: false, ..Breadth::ALL }, &[]);
}

#[test]
fn plyfs_without_passthrough_agrees_with_the_model() {
    plyfs(Breadth::ALL, &["passthrough=off"]);
}

#[test]
fn plyfs_with_owners_in_xattrs_agrees_with_the_model() {
    plyfs(Breadth { executables: false, ..Breadth::ALL }, &["xattr_permissions=2"]);
}

/// Without root's rights overlayfs knows no redirects, so that it cannot show what was moved.
#[test]
fn threads_agree_with_their_models_and_overlayfs_with_them() {
    if !require("root") || !require("fuse") {
        return;
    }
    let breadth = Breadth { executables: false, beyond_the_kernel: false, ..Breadth::ALL };
    let kernel = ["redirect_dir=on", "index=on", "metacopy=on"];
    let mut mounting = Mounting { options: &[], kernel: None };
    if !rootless() && require("overlayfs") {
        mounting.kernel = Some(&kernel);
    }
    threads::cases(Effort::from_env(15), breadth, mounting);
}

#[test]
fn threads_without_passthrough_agree_with_their_models() {
    if !require("root") || !require("fuse") {
        return;
    }
    let mounting = Mounting { options: &["passthrough=off", "metacopy=on"], kernel: None };
    threads::cases(Effort::from_env(10), Breadth::ALL, mounting);
}
