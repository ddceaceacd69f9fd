//! One file for every Slurm.
//!
//! Slurm refuses a plugin whose `plugin_version` is not of its own release. It
//! reads the symbol after the dynamic linker has run our constructors, so a
//! constructor fills in the release of the process that is loading us, from
//! the API number of `slurm_api_version()`.
//!
//! An API that this file does not know leaves the version 0, and Slurm says
//! `Incompatible plugin version`. An admin who wants to try the plugin on it
//! all the same writes Slurm's release, such as `27.05`, into a file beside
//! the plugin that is called like it with `.abi` behind
//! (`spank_inquest.so.abi`). A file, because a constructor has nothing else:
//! the arguments of plugstack.conf come later, and slurmd does not hand its
//! environment to everything that loads plugins. Beside the plugin, because
//! there it is on exactly the hosts, and for exactly the file, that it was
//! meant for. The release itself, because nothing in Slurm tells it in time.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::abi::{Host, look_up, spk_api_version_fn};
use crate::small::{Buf, Fixed, read_file, read_link};

/// API number, and the release it belongs to. (RELEASE notes and
/// META files of Slurm; the loader compares year and month.)
const RELEASES: &[(u32, u32, u32)] = &[
    (36, 20, 11),
    (37, 21, 8),
    (38, 22, 5),
    (39, 23, 2),
    (40, 23, 11),
    (41, 24, 5),
    (42, 24, 11),
    (43, 25, 5),
    (44, 25, 11),
    (45, 26, 5),
    (46, 26, 11),
];

/// `SLURM_VERSION_NUMBER` of year and month.
const fn version(year: u32, month: u32) -> u32 {
    year << 16 | month << 8
}

/// The release of this API number, as a version number; 0 when unknown.
fn known(api: u32) -> u32 {
    RELEASES.iter().find(|r| r.0 == api).map_or(0, |r| version(r.1, r.2))
}

/// `27.05` as a version number.
fn parse_release(text: &[u8]) -> Option<u32> {
    let (year, month) = std::str::from_utf8(text).ok()?.trim().split_once('.')?;
    if year.len() != 2 || month.len() != 2 {
        return None;
    }
    let (year, month) = (year.parse::<u8>().ok()?, month.parse::<u8>().ok()?);
    (1..=12).contains(&month).then(|| version(year.into(), month.into()))
}

/// What the loader compares with its own release. Writable: the constructor
/// sets it. Same size and layout as the `unsigned int` of spank.h.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub(crate) static plugin_version: AtomicU32 = AtomicU32::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    // An unwinding constructor would abort the process that loads us.
    let _ = std::panic::catch_unwind(|| {
        let Some(api) = look_up!("slurm_api_version" as spk_api_version_fn) else { return };
        // SAFETY: takes nothing, returns a constant.
        let api = (unsafe { api() } >> 16 & 0xff) as u32;
        let mut release = known(api);
        if release == 0 {
            let marker = marker();
            let mut text = Buf::<16>::new();
            let said = marker.as_ref().and_then(|m| read_file(m, &mut text)).and_then(parse_release);
            release = said.unwrap_or(0);
            if release == 0 {
                explain(api, marker.as_ref().map_or(c"spank_inquest.so.abi", |m| m.as_c_str()));
            }
        }
        plugin_version.store(release, Ordering::Relaxed);
    });
}

/// The path of this very file, with `.abi` behind.
fn marker() -> Option<Fixed<512>> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    let here: extern "C" fn() = constructor;
    // SAFETY: any address may be asked about; info is written when it succeeds.
    let info = unsafe {
        if libc::dladdr(here as *const c_void, info.as_mut_ptr()) == 0 {
            return None;
        }
        info.assume_init()
    };
    if info.dli_fname.is_null() {
        return None;
    }
    let mut path = Fixed::new();
    // SAFETY: a NUL-terminated name of the dynamic linker's own.
    path.push(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes())?;
    path.push(b".abi")?;
    Some(path)
}

/// Tells the admin, in slurmd's log and nowhere else: Slurm itself tells a
/// user's srun that the plugin is incompatible, and the user can do nothing.
fn explain(api: u32, marker: &CStr) {
    let mut exe = Buf::<256>::new();
    let Some(exe) = read_link(c"/proc/self/exe", &mut exe) else { return };
    let name = exe.rsplit(|&b| b == b'/').next().unwrap_or_default();
    if name != b"slurmd" && name != b"slurmstepd" {
        return;
    }
    Host::find().info(&format!(
        "inquest: this Slurm has API {api}, which this plugin does not know; jobs run, nothing is recorded. \
         Install a newer plugin, or, to use this one untested, write Slurm's release, such as 27.05, into {} \
         on every host.",
        marker.to_string_lossy()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_slurms_version_numbers() {
        assert_eq!(known(38), 0x16_05_00);
        assert_eq!(known(42), 0x18_0b_00);
        assert_eq!(known(45), 0x1a_05_00);
        assert_eq!(known(47), 0);
        assert_eq!(known(35), 0);
    }

    #[test]
    fn a_release_is_two_numbers_of_two_digits() {
        assert_eq!(parse_release(b"27.05\n"), Some(0x1b_05_00));
        for bad in ["", "yes", "27", "27.5", "27.13", "27.00", "2027.05", "27.05.1"] {
            assert_eq!(parse_release(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_marker_is_a_release_or_nothing(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..16),
            likely in "[0-9]{0,3}[.+-]?[0-9]{0,3}\n?",
        ) {
            for text in [&bytes[..], likely.as_bytes()] {
                if let Some(release) = parse_release(text) {
                    let (year, month) = (release >> 16, release >> 8 & 0xff);
                    proptest::prop_assert!(year < 100 && (1..=12).contains(&month) && release & 0xff == 0);
                }
            }
        }
    }
}
