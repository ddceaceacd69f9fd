//! Hydra with its submitit launcher: jobs of one sweep log below
//! `multirun/<date>/<time>/.submitit/` (`hydra_plugins/hydra_submitit_launcher/config.py`,
//! `submitit_folder`).

use super::submitit;
use crate::runs::evidence::{Evidence, around};
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let argument = submitit::folder(at).map(|folder| (KeyKind::Name, "argv", folder));
    let log = at.stdout.map(|path| (KeyKind::Path, "stdout", path));
    argument.into_iter().chain(log).find_map(|(kind, from, path)| {
        let (sweep, _) = around(path, "/.submitit/")?;
        let member = at.array.and_then(|(_, task)| task).map(|n| n.to_string());
        Some(Candidate::new(kind, sweep, from).member(member))
    })
}
