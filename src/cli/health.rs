//! Verbs that look after the store: verify, check, gc.

use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::store::Repair;

use super::json_flag::JsonFlag;
use super::progress::Bars;
use super::{Context, output};

/// Check the content of images against their digests
///
/// Every layer is unpacked anew from its archive and compared with the tree that is mounted; a
/// line names each file that differs. Exit code 1 where anything does.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs verify\n  plyfs verify busybox:1.35")]
pub(super) struct Verify {
    /// Names, ids or starts of ids [default: all images]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    json: JsonFlag,
}

impl Verify {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let is_json = self.json.is_json()?;
        let bars = Bars::new(self.quiet || is_json);
        let found = context.store()?.verify(&self.images, &bars)?;
        drop(bars);
        let shown = |path: &Option<Vec<u8>>| path.as_deref().map(output::escaped);
        if is_json {
            let damage = found.damage.iter().map(
                |damage| json!({ "of": damage.of, "path": shown(&damage.path), "what": damage.what }),
            );
            output::print_json(&json!({
                "images": found.images,
                "layers": found.layers,
                "damage": damage.collect::<Vec<_>>(),
            }))?;
        } else {
            for damage in &found.damage {
                output::print_line(&match shown(&damage.path) {
                    Some(path) => format!("{}: {path} {}", damage.of, damage.what),
                    None => format!("{}: {}", damage.of, damage.what),
                })?;
            }
        }
        match found.damage.len() {
            0 if is_json => Ok(()),
            0 => {
                let (images, layers) = (found.images, found.layers);
                output::print_line(&format!("Verified {images} images, {layers} layers"))
            }
            count => Err(Error::Refused(format!(
                "{count} differences: remove the images that are damaged and load them again"
            ))),
        }
    }
}

/// Look for what is broken or left over in the store
///
/// Contents are not read; that is verify. Exit code 1 where something is wrong and stays so.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs check --repair")]
pub(super) struct Check {
    /// Remove what is left over and forget images that are broken
    #[arg(long)]
    repair: bool,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let problems = if self.repair { store.repair() } else { store.check() }?;
        let mut open = 0;
        for problem in &problems {
            let done = match (problem.repair, self.repair) {
                (Repair::Sweep, true) => " (removed)",
                (Repair::Link, true) => " (done)",
                (Repair::Forget(_), true) => " (forgotten: load it again)",
                (Repair::ByHand, _) => " (export what it holds, then remove it)",
                (_, false) => "",
            };
            let is_done = self.repair && problem.repair != Repair::ByHand;
            open += usize::from(!is_done);
            output::print_line(&format!("{}: {}{done}", problem.what, problem.why))?;
        }
        match open {
            0 => Ok(()),
            1 if self.repair => Err(Error::Refused("1 problem is left".to_owned())),
            count if self.repair => Err(Error::Refused(format!("{count} problems are left"))),
            count => {
                let problems = if count == 1 { "problem" } else { "problems" };
                let advice = "see what plyfs check --repair does";
                Err(Error::Refused(format!("{count} {problems}: {advice}")))
            }
        }
    }
}

/// Remove what nothing leads to
///
/// Commands that were killed leave that behind, and the next change of the store removes it; this
/// does so at once.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs gc")]
pub(super) struct Gc {}

impl Gc {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let collected = context.store()?.collect_garbage()?;
        let space = output::size(collected.space);
        output::print_line(&format!("Removed {} objects, {space}", collected.objects))
    }
}
