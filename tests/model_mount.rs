//! Random operations on real trees, against the model: a plain directory and the kernel's
//! overlayfs show that the model is right, PlyFS that it is.

mod model;
mod support;

use model::generate::Breadth;
use model::mountpoint::{Mountpoint, Tree};
use model::run::{Effort, cases};
use support::{Driver, Options, Scene, require};

const AS_THE_KERNEL_CAN: Breadth =
    Breadth { plain: false, lower_links: true, beyond_the_kernel: false };

#[test]
fn the_model_agrees_with_a_plain_directory() {
    if !require("root") {
        return;
    }
    let breadth = Breadth { plain: true, lower_links: true, beyond_the_kernel: false };
    cases(Effort::from_env(4), breadth, |spec, run| {
        let scene = Scene::from_spec(spec);
        run(&mut Tree::new(&scene.upper))
    });
}

#[test]
fn the_model_agrees_with_overlayfs() {
    if !require("root") || !require("overlayfs") {
        return;
    }
    cases(Effort::from_env(8), AS_THE_KERNEL_CAN, |spec, run| {
        let scene = Scene::from_spec(spec);
        run(&mut Mountpoint::new(scene.mount_by(Driver::Kernel, &Options::default())))
    });
}

#[test]
fn plyfs_agrees_with_the_model() {
    if !require("root") || !require("fuse") {
        return;
    }
    cases(
        Effort::from_env(12),
        Breadth { plain: false, lower_links: false, beyond_the_kernel: true },
        |spec, run| {
            let scene = Scene::from_spec(spec);
            run(&mut Mountpoint::new(scene.mount_by(Driver::Plyfs, &Options::default())))
        },
    );
}
