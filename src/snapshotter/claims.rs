//! Who works on which snapshot. Names are claimed, not snapshots: a name that is only about to
//! exist can be claimed, too.

use std::collections::HashMap;

use parking_lot::{Condvar, Mutex};

/// How a name is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It must stay as it is; others may rely on that, too.
    Keep,
    /// It is about to change.
    Change,
}

/// The names that are claimed now.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// How many keep the name; `None` where one changes it.
    held: Mutex<HashMap<String, Option<usize>>>,
    released: Condvar,
}

/// Claims of one verb, given back when dropped.
#[derive(Debug)]
pub(super) struct Claimed<'a> {
    claims: &'a Claims,
    names: Vec<(String, Claim)>,
}

impl Claims {
    /// Claims all of these names, waiting until all can be had; each must be another one.
    pub(super) fn take(&self, wanted: &[(&str, Claim)]) -> Claimed<'_> {
        let mut held = self.held.lock();
        let free = |held: &HashMap<String, Option<usize>>| {
            wanted.iter().all(|(name, claim)| match held.get(*name) {
                None => true,
                Some(Some(_)) => *claim == Claim::Keep,
                Some(None) => false,
            })
        };
        while !free(&held) {
            self.released.wait(&mut held);
        }
        for (name, claim) in wanted {
            let entry = held.entry((*name).to_owned()).or_insert(Some(0));
            *entry = match claim {
                Claim::Keep => entry.map(|count| count + 1),
                Claim::Change => None,
            };
        }
        let names = wanted.iter().map(|(name, claim)| ((*name).to_owned(), *claim)).collect();
        Claimed { claims: self, names }
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        let mut held = self.claims.held.lock();
        for (name, claim) in &self.names {
            match (claim, held.get_mut(name)) {
                (Claim::Keep, Some(Some(count))) if *count > 1 => *count -= 1,
                _ => drop(held.remove(name)),
            }
        }
        self.claims.released.notify_all();
    }
}
