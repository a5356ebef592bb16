//! Running random cases, with a seed that replays the one that fails.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Subject;
use super::generate::{self, Breadth};
use super::merge;
use super::op::{Data, Op, Outcome};
use super::rng::Rng;
use super::tree::Model;
use crate::support::{Policy, SceneSpec, What, differences};

/// How much to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// No new case begins after this time.
    pub(super) time: Duration,
    /// Operations of one case.
    operations: usize,
    /// Operations between two looks at the whole tree.
    look_every: usize,
    pub(super) first_seed: u64,
    /// Whether answers and trees are compared.
    checked: bool,
    /// One case alone, as `PLYFS_MODEL_SEED` names it.
    pub(super) replay: bool,
}

impl Effort {
    /// `PLYFS_MODEL_SECONDS` (`seconds` without it), `PLYFS_MODEL_OPS` (200), `PLYFS_MODEL_LOOK`
    /// (25; 1 finds the very operation) and `PLYFS_MODEL_SEED` (one case; without it a new one at
    /// each run).
    pub(crate) fn from_env(seconds: u64) -> Effort {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            let digits = text.strip_prefix("0x");
            let number = digits.map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
            Some(number.unwrap_or_else(|error| panic!("{name}={text}: {error}")))
        };
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = number("PLYFS_MODEL_SEED");
        Effort {
            time: Duration::from_secs(number("PLYFS_MODEL_SECONDS").unwrap_or(seconds)),
            operations: number("PLYFS_MODEL_OPS").unwrap_or(200) as usize,
            look_every: number("PLYFS_MODEL_LOOK").unwrap_or(25) as usize,
            first_seed: seed.unwrap_or_else(|| Rng::new(now).next()),
            checked: true,
            replay: seed.is_some(),
        }
    }

    /// The operations alone, without a comparison.
    pub(crate) fn unchecked(self) -> Effort {
        Effort { checked: false, ..self }
    }
}

/// Runs a case's operations on a subject; gives the model of the end.
pub(crate) type Runner<'a> = dyn Fn(&mut dyn Subject) -> Model + 'a;

/// Runs cases until the time is over: `case` makes a subject of the stack that it is given,
/// hands it to the runner and gives the model back as proof of that.
pub(crate) fn cases(
    effort: Effort,
    breadth: Breadth,
    case: impl Fn(&SceneSpec, &Runner<'_>) -> Model,
) {
    let start = Instant::now();
    let mut seeds = Rng::new(effort.first_seed);
    let mut seed = effort.first_seed;
    let mut count = 0;
    loop {
        let scene = generate::scene(&mut Rng::new(seed), breadth);
        let _replay = Replay { seed, operations: effort.operations };
        case(&scene, &|subject| one_case(seed, &scene, effort, breadth, subject));
        count += 1;
        if effort.replay || start.elapsed() >= effort.time {
            break;
        }
        seed = seeds.next();
    }
    println!("{count} cases of {} operations", effort.operations);
}

/// Says how to replay a case, if it fails.
pub(super) struct Replay {
    pub(super) seed: u64,
    pub(super) operations: usize,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Replay { seed, operations } = self;
            eprintln!("replay with PLYFS_MODEL_SEED={seed:#018x} PLYFS_MODEL_OPS={operations}");
        }
    }
}

fn one_case(
    seed: u64,
    scene: &SceneSpec,
    effort: Effort,
    breadth: Breadth,
    subject: &mut dyn Subject,
) -> Model {
    let mut run = Run::new(scene, effort);
    // The operations have a generator of their own, so that a change of one does not move both.
    let mut rng = Rng::new(seed ^ 0x5eed);
    run.look(subject);
    for number in 1..=effort.operations {
        if rng.chance(1) {
            run.log.push("remount".to_owned());
            subject.remount();
            run.model.held.clear();
            run.look(subject);
        }
        let op = generate::operation(&mut rng, &run.model, breadth);
        run.step(&op, subject);
        if number % effort.look_every == 0 {
            run.look(subject);
        }
    }
    subject.remount();
    run.model.held.clear();
    run.look(subject);
    run.model
}

/// A model beside a subject, and what was done to both.
pub(super) struct Run<'a> {
    scene: &'a SceneSpec,
    checked: bool,
    model: Model,
    log: Vec<String>,
}

impl<'a> Run<'a> {
    pub(super) fn new(scene: &'a SceneSpec, effort: Effort) -> Self {
        Run { scene, checked: effort.checked, model: merge::merged(scene), log: Vec::new() }
    }

    /// One operation that fits the model's present state.
    pub(super) fn random_step(
        &mut self,
        rng: &mut Rng,
        breadth: Breadth,
        subject: &mut dyn Subject,
    ) {
        let op = generate::operation(rng, &self.model, breadth);
        self.step(&op, subject);
    }

    /// Closes all files that are kept open, of the model and of a subject that stays mounted.
    pub(super) fn forget_held(&mut self, subject: &mut dyn Subject) {
        self.log.push("remount".to_owned());
        self.model.held.clear();
        subject.remount();
    }

    fn step(&mut self, op: &Op, subject: &mut dyn Subject) {
        let expected = self.model.apply(op);
        let observed = subject.apply(op);
        self.log.push(format!("{op:?} -> {}", shown(&expected)));
        let fits = match (&expected, &observed) {
            (Ok(model), Ok(seen)) => model.allows(seen),
            (model, seen) => model == seen,
        };
        if self.checked && !fits {
            let (expected, observed) = (shown(&expected), shown(&observed));
            self.fail(subject, &format!("the model says {expected}\nit is    {observed}"));
        }
        if let (Op::Rename { from, to, .. }, Err(_)) = (op, &expected)
            && subject.failed_rename_shows()
        {
            self.model.forget_times_above(from);
            self.model.forget_times_above(to);
        }
    }

    pub(super) fn look(&mut self, subject: &mut dyn Subject) {
        if !self.checked {
            return;
        }
        let observed = subject.snapshot();
        let expected = self.model.expected(&observed);
        let found = differences("the model", &expected, "it", &observed, Policy::SAME_TREE);
        if !found.is_empty() {
            self.fail(subject, &found[..found.len().min(20)].join("\n"));
        }
    }

    fn fail(&self, subject: &dyn Subject, difference: &str) -> ! {
        let tail = self.log.len().saturating_sub(12);
        let history = self.log[tail..].join("\n  ");
        panic!(
            "{} differs from the model after {} operations\n{difference}\n\
             the last operations:\n  {history}\nthe layers: {:#?}",
            subject.name(),
            self.log.len(),
            Brief(self.scene),
        );
    }
}

fn shown(answer: &Result<Outcome, Errno>) -> String {
    match answer {
        Ok(outcome) => format!("{outcome:?}"),
        Err(errno) => errno.to_string(),
    }
}

/// A stack without the content of its files.
struct Brief<'a>(&'a SceneSpec);

impl std::fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (layer, name) in std::iter::once(&self.0.upper)
            .chain(&self.0.lowers)
            .zip(["upper"].into_iter().chain(std::iter::repeat("lower")))
        {
            writeln!(f, "[{name}]")?;
            for entry in &layer.entries {
                match &entry.what {
                    What::File(content) => {
                        writeln!(f, "  {:?} File {:?}", entry.path, Data(content.clone()))?;
                    }
                    other => writeln!(f, "  {:?} {other:?}", entry.path)?,
                }
            }
        }
        Ok(())
    }
}
