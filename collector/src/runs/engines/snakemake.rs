//! Snakemake with its Slurm executor. Every job of a run is called by the run's
//! uuid, with a prefix if one was asked for (`--slurm-jobname-prefix`), has
//! `rule_<rule>_wildcards_<values>` as its comment and logs to
//! `<logs>/{rule,group}_<name>/<wildcards>/<job id>.log`
//! (`snakemake_executor_plugin_slurm/__init__.py`, `submit_string.py`).

use crate::runs::evidence::{Evidence, is_uuid};
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let uuid = at.name.get(at.name.len().checked_sub(36)?..).filter(|id| is_uuid(id))?;
    let prefix = &at.name[..at.name.len() - 36];
    if !(prefix.is_empty() || prefix.ends_with(['_', '-'])) {
        return None;
    }
    let ours = |part: &str| part.starts_with("rule_") || part.starts_with("group_");
    let comment = at.comment.filter(|c| ours(c)).map(str::to_owned);
    let member = comment.or_else(|| {
        let mut parts: Vec<&str> = at.stdout?.split('/').skip_while(|p| !ours(p)).collect();
        parts.pop();
        (!parts.is_empty()).then(|| parts.join("/"))
    });
    // A uuid alone is anybody's.
    member.map(|member| Candidate::new(KeyKind::Name, uuid, "name").member(Some(member)))
}
