/*!
Who asks.

The kernel says it of the other end of a Unix socket (`SO_PEERCRED`); munged says
it of a credential; a reverse proxy says it of a person who has logged in there.
A name that anybody merely claims is never believed: the proxy's header counts
only when the site has named it, and then only from the proxy's own account on
the socket or from whoever shows the proxy's secret.
*/

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::slurm::command;
use crate::store::user_name;

/// Header of the proxy's secret.
pub const SECRET: &str = "x-inquest-secret";

/// What a MUNGE credential has to hold, before the request's method and target:
/// one that was made for another service proves nothing here.
pub const MUNGE_PREFIX: &str = "inquest ";

/// How long a name of a uid is remembered.
const REMEMBER: Duration = Duration::from_secs(60);

/// How many are.
const REMEMBERED: usize = 10_000;

/// How long munged is waited for: a few who answer questions wait with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A process of this uid, on the Unix socket.
    Unix(u32),
    /// Somebody on this machine, over TCP.
    Loopback,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Unix(uid) => write!(f, "uid {uid}"),
            Peer::Loopback => write!(f, "loopback"),
        }
    }
}

/// A person, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the account; that of the user's directory where there is none.
    pub name: String,
    /// What the store calls them.
    pub user: String,
    /// Sees everything.
    pub operator: bool,
}

/// Why a request is not answered. Says nothing about what there is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody has said who asks.
    #[error("who are you? Use the Unix socket, or log in at the site's proxy")]
    Unknown,
    /// Proof that proves nothing.
    #[error("that proof of identity is not valid; make a new one")]
    Invalid,
    /// Two answers to one question.
    #[error("the request says twice who asks")]
    Twice,
}

/// How people prove who they are.
#[derive(Debug, Default)]
pub struct Rules {
    /// Group whose members are operators.
    pub operators: String,
    /// The proxy's header, lower case.
    pub proxy_header: Option<String>,
    /// Uid of the proxy on the socket.
    pub proxy_uid: Option<u32>,
    /// The proxy's secret.
    pub proxy_secret: Option<Vec<u8>>,
    /// MUNGE credentials are accepted.
    pub munge: bool,
    known: Mutex<HashMap<u32, (Instant, Identity)>>,
}

/// What is to be done to know who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Look up a uid that the kernel vouches for.
    Uid(u32),
    /// Look up a name that the proxy vouches for.
    Name(String),
    /// Have munged decode a credential.
    Munge(String),
}

impl Rules {
    /// Rules as the configuration has them.
    pub fn new(operators: String, proxy_header: Option<String>, proxy_uid: Option<u32>) -> Rules {
        let proxy_header = proxy_header.map(|h| h.to_ascii_lowercase());
        Rules { operators, proxy_header, proxy_uid, ..Rules::default() }
    }

    /// What a request says of who asks, by whom it is vouched for. Pure.
    ///
    /// # Errors
    ///
    /// When nobody vouches for anybody.
    pub fn claim(&self, peer: Peer, headers: &HeaderMap) -> Result<Claim, Refused> {
        if self.is_proxy(peer, headers)? {
            let header = self.proxy_header.as_deref().ok_or(Refused::Unknown)?;
            let name = only(headers, header)?.ok_or(Refused::Unknown)?;
            return if plain_name(name) { Ok(Claim::Name(name.to_owned())) } else { Err(Refused::Invalid) };
        }
        if self.munge
            && let Some(value) = only(headers, AUTHORIZATION.as_str())?
        {
            let credential = value.strip_prefix("MUNGE ").ok_or(Refused::Invalid)?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"+/=:".contains(&b);
            let fine = credential.len() <= 8192 && credential.bytes().all(plain);
            return if fine { Ok(Claim::Munge(credential.to_owned())) } else { Err(Refused::Invalid) };
        }
        match peer {
            Peer::Unix(uid) => Ok(Claim::Uid(uid)),
            Peer::Loopback => Err(Refused::Unknown),
        }
    }

    fn is_proxy(&self, peer: Peer, headers: &HeaderMap) -> Result<bool, Refused> {
        if self.proxy_header.is_none() {
            return Ok(false);
        }
        if let (Peer::Unix(uid), Some(proxy)) = (peer, self.proxy_uid)
            && uid == proxy
        {
            return Ok(true);
        }
        let (Some(secret), Some(shown)) = (&self.proxy_secret, only(headers, SECRET)?) else {
            return Ok(false);
        };
        if same(secret, shown.as_bytes()) { Ok(true) } else { Err(Refused::Invalid) }
    }

    /// Settles a claim; asks the system's user database and munged, so it may
    /// take a while. `request` is the method and target that the credential
    /// has to be for.
    ///
    /// # Errors
    ///
    /// When there is no such person, or the proof is none.
    pub fn settle(&self, claim: &Claim, request: &str) -> Result<Identity, Refused> {
        match claim {
            Claim::Uid(uid) => Ok(self.of_uid(*uid)),
            Claim::Name(name) => {
                let user = uzers::get_user_by_name(name).ok_or(Refused::Unknown)?;
                // Nobody logs in at a web page as root.
                if user.uid() == 0 { Err(Refused::Invalid) } else { Ok(self.of_uid(user.uid())) }
            }
            Claim::Munge(credential) => {
                Ok(self.of_uid(unmunge(credential, request).ok_or(Refused::Invalid)?))
            }
        }
    }

    fn of_uid(&self, uid: u32) -> Identity {
        let lock = || self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = lock().get(&uid).filter(|(at, _)| at.elapsed() < REMEMBER).map(|(_, who)| who.clone());
        if let Some(known) = found {
            return known;
        }
        let identity = self.look_up(uid);
        let mut known = lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(uid, (Instant::now(), identity.clone()));
        identity
    }

    fn look_up(&self, uid: u32) -> Identity {
        let account = uzers::get_user_by_uid(uid);
        let own = uid == 0 || uid == rustix::process::geteuid().as_raw();
        let member = || {
            let groups =
                account.as_ref().and_then(|a| uzers::get_user_groups(a.name(), a.primary_group_id()));
            groups.unwrap_or_default().iter().any(|g| g.name().to_str() == Some(&self.operators))
        };
        let operator = own || (!self.operators.is_empty() && member());
        // Who has no account here may have jobs all the same: the kernel says whose they are.
        let user = user_name(uid);
        let name = account.as_ref().and_then(|a| a.name().to_str()).unwrap_or(&user).to_owned();
        Identity { name, user, operator }
    }
}

/// The only value of a header.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refused> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refused::Twice);
    }
    first.to_str().map(Some).map_err(|_| Refused::Invalid)
}

/// A name that can be one of an account.
fn plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@\\".contains(&b))
}

/// Compares without telling by the time taken where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

/// Has munged decode a credential, which it does once: a second use is a
/// replay. Gives the uid that made it for this very request.
fn unmunge(credential: &str, request: &str) -> Option<u32> {
    let text = command::tell("unmunge", &["--keys", "STATUS,UID"], credential.as_bytes(), PATIENCE).ok()?;
    let (head, payload) = text.split_once("\n\n")?;
    let value = |key: &str| {
        let line = head.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    };
    let good = value("STATUS")?.starts_with("Success")
        && payload.strip_prefix(MUNGE_PREFIX).map(str::trim_end) == Some(request);
    let uid = value("UID")?;
    // "inquest-test1 (1001)"
    good.then(|| uid.rsplit_once('(')?.1.strip_suffix(')')?.parse().ok()).flatten()
}

/// The secret in a file.
///
/// # Errors
///
/// When it cannot be read, is short, or others could read it.
pub fn read_secret(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path)
        .map_err(|e| anyhow::anyhow!("cannot read proxy_secret {}: {e}", path.display()))?;
    if meta.mode() & 0o077 & !0o040 != 0 {
        anyhow::bail!("proxy_secret {} is readable for others; chmod 640 it", path.display());
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| anyhow::anyhow!("cannot read proxy_secret {}: {e}", path.display()))?;
    let secret = text.trim().as_bytes().to_vec();
    if secret.len() < 16 {
        anyhow::bail!("the secret in {} has less than 16 bytes; write a longer one", path.display());
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn proxied() -> Rules {
        let mut rules = Rules::new("ops".into(), Some("X-Remote-User".into()), Some(33));
        rules.proxy_secret = Some(b"sixteen bytes or more".to_vec());
        rules
    }

    #[test]
    fn without_the_sites_word_a_header_is_noise() {
        let rules = Rules::new("ops".into(), None, Some(33));
        let forged = headers(&[("x-remote-user", "root"), (SECRET, "x")]);
        assert_eq!(rules.claim(Peer::Unix(7), &forged), Ok(Claim::Uid(7)));
        assert_eq!(rules.claim(Peer::Unix(33), &forged), Ok(Claim::Uid(33)));
        assert_eq!(rules.claim(Peer::Loopback, &forged), Err(Refused::Unknown));
    }

    #[test]
    fn the_proxy_is_its_account_or_its_secret() {
        let rules = proxied();
        let ann = Ok(Claim::Name("ann".into()));
        let said = headers(&[("x-remote-user", "ann")]);
        assert_eq!(rules.claim(Peer::Unix(33), &said), ann);
        assert_eq!(rules.claim(Peer::Unix(7), &said), Ok(Claim::Uid(7)));
        assert_eq!(rules.claim(Peer::Loopback, &said), Err(Refused::Unknown));
        let secret = headers(&[("x-remote-user", "ann"), (SECRET, "sixteen bytes or more")]);
        assert_eq!(rules.claim(Peer::Loopback, &secret), ann);
        let guessed = headers(&[("x-remote-user", "ann"), (SECRET, "sixteen bytes or most")]);
        assert_eq!(rules.claim(Peer::Loopback, &guessed), Err(Refused::Invalid));
        assert_eq!(rules.claim(Peer::Unix(7), &guessed), Err(Refused::Invalid));
        assert_eq!(rules.claim(Peer::Unix(33), &headers(&[])), Err(Refused::Unknown));
    }

    #[test]
    fn two_answers_and_impossible_names_are_refused() {
        let rules = proxied();
        let twice = headers(&[("x-remote-user", "ann"), ("x-remote-user", "root")]);
        assert_eq!(rules.claim(Peer::Unix(33), &twice), Err(Refused::Twice));
        for name in ["", "a b", "../x", "-x", "a/b", "a\tb", "ann,root"] {
            let said = headers(&[("x-remote-user", name)]);
            assert_eq!(rules.claim(Peer::Unix(33), &said), Err(Refused::Invalid), "{name}");
        }
        assert_eq!(rules.settle(&Claim::Name("root".into()), ""), Err(Refused::Invalid));
    }

    #[test]
    fn munge_is_off_until_it_is_on() {
        let mut rules = Rules::new("ops".into(), None, None);
        let said = headers(&[("authorization", "MUNGE AwQFAAC:")]);
        assert_eq!(rules.claim(Peer::Unix(7), &said), Ok(Claim::Uid(7)));
        rules.munge = true;
        assert_eq!(rules.claim(Peer::Loopback, &said), Ok(Claim::Munge("AwQFAAC:".into())));
        for bad in ["MUNGE a b", "Basic eDp5", "MUNGE $(id)"] {
            let said = headers(&[("authorization", bad)]);
            assert_eq!(rules.claim(Peer::Loopback, &said), Err(Refused::Invalid), "{bad}");
        }
    }
}
