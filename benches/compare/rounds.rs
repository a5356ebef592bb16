//! The rounds: each workload by each contender in turn, another one first each time.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Res;
use crate::arena::{Arena, stack_of};
use crate::catalog::{Setting, Workload};
use crate::contender::{Contender, Kind, drop_names};
use crate::options::Options;
use crate::outcome::{Outcome, Sample};
use crate::work::Done;

/// How long one sample may take before its contender has failed.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(
    arena: &Arena,
    options: &Options,
    workloads: &[Workload],
    outcome: &mut Outcome,
) -> Res<()> {
    outcome.contenders = arena.contenders.iter().map(|c| c.name.clone()).collect();
    outcome.absent.clone_from(&arena.absent);
    for (pass, pinned) in options.pin.passes().iter().enumerate() {
        for round in 0..options.rounds {
            eprintln!(
                "round {} of {}{}",
                round + 1,
                options.rounds,
                if *pinned { ", one CPU" } else { "" }
            );
            for (n, workload) in workloads.iter().enumerate() {
                if *pinned && !workload.pinned {
                    continue;
                }
                let count = arena.contenders.len();
                let began = Instant::now();
                for turn in 0..count {
                    let contender = &arena.contenders[(turn + n + round as usize) % count];
                    let mounts = matches!(workload.setting, Setting::Mount(_));
                    // A plain directory has nothing to mount.
                    let absent = mounts && contender.kind == Kind::Native;
                    if absent || outcome.has_failed(workload.id, &contender.name, *pinned) {
                        continue;
                    }
                    let turn = Turn { arena, options, contender, workload, pinned: *pinned };
                    let sample = turn.take(pass as u32 * options.rounds + round);
                    outcome.note(workload.id, &contender.name, *pinned, round, sample);
                }
                *outcome.seconds.entry(workload.id.to_owned()).or_default() +=
                    began.elapsed().as_secs_f64();
            }
        }
    }
    Ok(())
}

/// One contender doing one workload.
struct Turn<'a> {
    arena: &'a Arena,
    options: &'a Options,
    contender: &'a Contender,
    workload: &'a Workload,
    pinned: bool,
}

impl Turn<'_> {
    fn take(&self, round: u32) -> Res<Sample> {
        let stack = stack_of(self.workload.setting);
        let (arena, contender) = (self.arena, self.contender);
        let done = match self.workload.setting {
            Setting::Mounted => {
                arena.mount(contender, &stack)?;
                self.work(&stack, round)
            }
            Setting::Cold => {
                arena.unmount(contender, &stack)?;
                arena.mount(contender, &stack)?;
                drop_names()?;
                self.work(&stack, round)
            }
            Setting::ColdLayers(_) => {
                arena.mount(contender, &stack)?;
                drop_names()?;
                let done = self.work(&stack, round);
                arena.unmount(contender, &stack)?;
                done
            }
            Setting::Big => {
                contender.forget(&arena.place(contender, &stack))?;
                arena.mount(contender, &stack)?;
                let done = self.work(&stack, round);
                arena.unmount(contender, &stack)?;
                contender.forget(&arena.place(contender, &stack))?;
                done
            }
            Setting::Mount(_) => self.time_mount(&stack),
        };
        if done.is_err() && self.workload.setting != Setting::Mounted {
            // Whatever state it is in: the next workload starts from nothing.
            arena.unmount(contender, &stack)?;
        }
        done
    }

    /// From the call of the mount program until the root of the mount answers.
    fn time_mount(&self, stack: &str) -> Res<Sample> {
        let place = self.arena.place(self.contender, stack);
        self.contender.forget(&place)?;
        let start = Instant::now();
        self.arena.mount(self.contender, stack)?;
        let seen = std::fs::metadata(place.merged());
        let nanos = start.elapsed().as_nanos() as f64;
        seen.map_err(|error| format!("the mount does not answer: {error}"))?;
        self.arena.unmount(self.contender, stack)?;
        self.contender.forget(&place)?;
        Ok(Sample { nanos, ..Sample::default() })
    }

    fn work(&self, stack: &str, round: u32) -> Res<Sample> {
        let place = self.arena.place(self.contender, stack);
        let daemon = if self.contender.has_daemon() { self.contender.daemon(&place) } else { None };
        if let Some(daemon) = daemon.filter(|_| self.pinned) {
            crate::shell::call("taskset", &["-apc", "0", &daemon.to_string()])?;
        }
        let root = place.merged().display().to_string();
        let done = self.worker(&root, stack, round, daemon.unwrap_or(0))?;
        let each = |sum: u64| sum as f64 / done.operations.max(1) as f64;
        Ok(Sample {
            nanos: each(done.cost.nanos),
            digest: done.digest,
            client_nanos: Some(each(done.cost.client_nanos)),
            daemon_nanos: done.cost.daemon_nanos.map(each),
            requests: done.cost.requests.map(each),
        })
    }

    /// Runs the work in a process of its own.
    fn worker(&self, root: &str, stack: &str, round: u32, daemon: u32) -> Res<Done> {
        let exe = std::env::current_exe().map_err(|error| error.to_string())?;
        let aside = self.arena.dir.join("aside");
        let mut command = match &self.arena.namespace {
            Some(namespace) if self.contender.is_rootless() => {
                let mut enter = namespace.enter(&self.arena.dir);
                enter.arg(exe);
                enter
            }
            _ => Command::new(exe),
        };
        command.args(["worker", self.workload.id, root, &round.to_string()]);
        command.arg(if self.options.quick { "quick" } else { "full" });
        command.arg(aside).args([stack, if self.pinned { "pinned" } else { "free" }]);
        command.arg(daemon.to_string());
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("cannot start a worker: {error}"))?;
        let start = Instant::now();
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None if start.elapsed() > PATIENCE => {
                    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
                    return Err(format!("took longer than {} s", PATIENCE.as_secs()));
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let (mut out, mut said) = (String::new(), String::new());
        if let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) {
            stdout.read_to_string(&mut out).map_err(|error| error.to_string())?;
            stderr.read_to_string(&mut said).map_err(|error| error.to_string())?;
        }
        if !status.success() {
            return Err(said.trim().trim_start_matches("bench: ").to_owned());
        }
        serde_json::from_str(&out).map_err(|error| format!("the worker said {out:?}: {error}"))
    }
}
