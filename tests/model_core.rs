//! Random operations on the overlay core without a mount, against the model.

mod model;
mod support;

use model::core::Core;
use model::generate::Breadth;
use model::run::{Effort, cases};
use support::{Scene, require};

#[test]
fn the_core_agrees_with_the_model() {
    if !require("root") {
        return;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    cases(Effort::from_env(12), Breadth::ALL, |spec, run| {
        let scene = Scene::from_spec(spec);
        run(&mut Core::new(&scene))
    });
}
