//! When a rule of a site holds.

use serde::Deserialize;
use toml::Spanned;

use crate::slurm::signal_name;
use crate::story::Facts;
use crate::verdict::{Class, Verdict};

/// What a rule says of the facts of a job, and of its log; all of it must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct When {
    pub(super) exit_code: Vec<u8>,
    pub(super) signal: Vec<Signal>,
    pub(super) class: Vec<Class>,
    pub(super) partition: Vec<String>,
    pub(super) node: Vec<String>,
    pub(super) job_name: Vec<String>,
    pub(super) log: Option<Spanned<String>>,
}

/// A signal, by number or name.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Signal {
    Number(u8),
    Name(String),
}

impl When {
    pub(super) fn is_empty(&self) -> bool {
        let names = [&self.partition, &self.node, &self.job_name];
        self.exit_code.is_empty()
            && self.signal.is_empty()
            && self.class.is_empty()
            && names.iter().all(|n| n.is_empty())
    }

    pub(super) fn holds(&self, facts: &Facts, nodes: &[&str], verdict: &Verdict) -> bool {
        let death = verdict.first_failure.as_ref();
        let code = death.filter(|d| d.signal.is_none()).and_then(|d| d.exit_code);
        let signal = death.and_then(|d| d.signal);
        let here = death.map(|d| d.at.node.as_ref());
        (self.exit_code.is_empty() || code.is_some_and(|c| self.exit_code.contains(&c)))
            && (self.signal.is_empty()
                || signal.is_some_and(|s| self.signal.iter().any(|w| w.number() == Some(s))))
            && (self.class.is_empty() || self.class.contains(&verdict.class))
            && any(&self.partition, facts.partition.as_deref())
            && any(&self.job_name, facts.name.as_deref())
            && match here {
                Some(node) => any(&self.node, Some(node)),
                None => self.node.is_empty() || nodes.iter().any(|n| any(&self.node, Some(n))),
            }
    }
}

impl Signal {
    pub(super) fn number(&self) -> Option<u8> {
        match self {
            Signal::Number(n) => (1..=64).contains(n).then_some(*n),
            Signal::Name(name) => (1..=64).find(|n| signal_name(*n) == *name),
        }
    }
}

/// Whether one of the globs is the name; none at all is no condition.
pub(super) fn any(globs: &[String], name: Option<&str>) -> bool {
    globs.is_empty() || name.is_some_and(|name| globs.iter().any(|g| glob(g.as_bytes(), name.as_bytes())))
}

/// `*` and `?`, without a step back further than the last star.
fn glob(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => (g, n) = (g + 1, n + 1),
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (g, n) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, holds) in [
            ("*", "", true),
            ("n*", "n12", true),
            ("n?", "n12", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), holds, "{pattern} {name}");
        }
    }
}
