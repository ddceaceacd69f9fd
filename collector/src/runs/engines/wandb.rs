//! Weights & Biases. Runs of a sweep have `WANDB_SWEEP_ID`, runs that were put
//! together `WANDB_RUN_GROUP` (docs.wandb.ai, environment variables); a single `WANDB_RUN_ID`
//! is a link. Groups are named by people, so they belong to their project.

use crate::runs::evidence::Evidence;
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let run = at.env("WANDB_RUN_ID");
    for (variable, what) in [("WANDB_SWEEP_ID", "sweep"), ("WANDB_RUN_GROUP", "group")] {
        if let Some(id) = at.env(variable) {
            let place: Vec<&str> =
                [at.env("WANDB_ENTITY"), at.env("WANDB_PROJECT")].into_iter().flatten().collect();
            let place = if place.is_empty() { String::new() } else { format!(" of {}", place.join("/")) };
            let value = format!("{what} {id}{place}");
            return Some(Candidate::new(KeyKind::Env, value, format!("env:{variable}")).member(run));
        }
    }
    Some(Candidate::new(KeyKind::Link, run?, "env:WANDB_RUN_ID"))
}
