//! The zone of local time.

use std::env::VarError;
use std::path::{Path, PathBuf};
use std::{env, fs};

use jiff::tz::TimeZone;

/// Where the zones are.
const ZONES: &str = "/usr/share/zoneinfo";

/// What says which one is local; its link tells the name.
const LOCAL: &str = "/etc/localtime";

/// The zone of local time, as [`TimeZone::system`] finds it: but that one reads every directory of the zones
/// first, which is most of what a command does that answers at once.
pub(crate) fn local() -> TimeZone {
    let elsewhere = env::var_os("TZDIR").is_some();
    let known = if elsewhere { None } else { known(&env::var("TZ"), Path::new(LOCAL), Path::new(ZONES)) };
    known.unwrap_or_else(TimeZone::system)
}

/// The zone, when it takes one file to know it.
fn known(named: &Result<String, VarError>, local: &Path, zones: &Path) -> Option<TimeZone> {
    let name = match named {
        Ok(name) => name.clone(),
        Err(VarError::NotPresent) => {
            let link = fs::read_link(local).ok()?;
            link.to_str()?.rsplit_once("/zoneinfo/")?.1.to_owned()
        }
        Err(VarError::NotUnicode(_)) => return None,
    };
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    // Not a rule as POSIX has it, no other file, and none of the zones that count leap seconds.
    let plain = |part: &str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_uppercase())
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
    };
    let path: PathBuf = name.split('/').all(plain).then(|| zones.join(&name))?;
    TimeZone::tzif(&name, &fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_is_the_one_that_jiff_finds_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("localtime");
        symlink("/usr/share/zoneinfo/Europe/Berlin", &link).unwrap();
        let zones = Path::new(ZONES);
        let summer = "2026-07-01T12:00:00Z".parse::<jiff::Timestamp>().unwrap();
        for (named, wanted) in [
            (Ok("Europe/Berlin"), Some("Europe/Berlin")),
            (Ok("UTC"), Some("UTC")),
            (Ok("America/Argentina/Buenos_Aires"), Some("America/Argentina/Buenos_Aires")),
            (Err(VarError::NotPresent), Some("Europe/Berlin")),
            (Ok(""), None),
            (Ok("CET-1CEST,M3.5.0,M10.5.0/3"), None),
            (Ok("right/Europe/Berlin"), None),
            (Ok("../../etc/passwd"), None),
            (Ok("Europe/Nowhere"), None),
        ] {
            let named = named.map(str::to_owned);
            let zone = known(&named, &link, zones);
            assert_eq!(zone.as_ref().and_then(TimeZone::iana_name), wanted, "{named:?}");
            if let (Some(zone), Some(name)) = (zone, wanted) {
                let same = TimeZone::get(name).unwrap();
                assert_eq!(zone.to_offset(summer), same.to_offset(summer), "{name}");
            }
        }
        assert!(known(&Err(VarError::NotPresent), Path::new("/nonexistent"), zones).is_none());
    }
}
