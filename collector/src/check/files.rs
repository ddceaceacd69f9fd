//! Owners, modes, space and kind of file systems.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;
use crate::units;

/// Less than this is full: a busy node writes it in an hour.
const FULL: u64 = 64 << 20;
/// Less than this much of a file system is nearly full, in percent.
const NEARLY: u64 = 5;

/// File systems of other machines, by their number in statfs(2) (the kernel's
/// magic.h; Lustre's and GPFS's own headers).
const NETWORK: [(u64, &str); 7] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x00c3_6400, "Ceph"),
    (0x1983_0326, "BeeGFS"),
];

/// A user with its groups.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) name: String,
    uid: u32,
    groups: Vec<u32>,
}

impl Account {
    /// The user of that number.
    pub(super) fn of(uid: u32) -> Option<Account> {
        let user = uzers::get_user_by_uid(uid)?;
        let name = user.name().to_string_lossy().into_owned();
        let groups = uzers::get_user_groups(&name, user.primary_group_id()).unwrap_or_default();
        let groups = groups.iter().map(uzers::Group::gid).chain([user.primary_group_id()]).collect();
        Some(Account { name, uid, groups })
    }

    /// Whether the mode lets it do `bits` (4 read, 2 write, 1 enter) there. An
    /// ACL may say more; it shows in the group's bits.
    pub(super) fn may(&self, bits: u32, meta: &Metadata) -> bool {
        let shift = match () {
            () if self.uid == 0 => return true,
            () if self.uid == meta.uid() => 6,
            () if self.groups.contains(&meta.gid()) => 3,
            () => 0,
        };
        meta.mode() >> shift & bits == bits
    }
}

/// `0750`.
pub(super) fn mode(meta: &Metadata) -> String {
    format!("{:04o}", meta.mode() & 0o7777)
}

/// Whether root trusts it: its own, and nobody else writes to it.
pub(super) fn is_roots(meta: &Metadata) -> bool {
    meta.uid() == 0 && meta.mode() & 0o022 == 0
}

/// Room for what is to be written there.
pub(super) fn space(subject: &'static str, dir: &Path) -> Vec<Finding> {
    let Ok(fs) = rustix::fs::statvfs(dir) else { return Vec::new() };
    let shown = dir.display();
    if fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        let mend = format!("mount -o remount,rw {shown}, or name another directory");
        return vec![Finding::wrong(subject, format!("{shown} is on a file system that is read-only"), mend)];
    }
    let (free, size) = (fs.f_bavail * fs.f_frsize, fs.f_blocks * fs.f_frsize);
    let mend = format!("make room there; du -x --max-depth=2 {shown} | sort -n says what is large");
    if free < FULL && size > 0 {
        return vec![Finding::wrong(
            subject,
            format!("the file system of {shown} is full: {} left", units::bytes(free)),
            mend,
        )];
    }
    if fs.f_files > 0 && fs.f_favail < 100 {
        return vec![Finding::wrong(
            subject,
            format!("the file system of {shown} has {} inodes left", fs.f_favail),
            mend,
        )];
    }
    if free.saturating_mul(100) < size.saturating_mul(NEARLY) {
        return vec![Finding::warning(
            subject,
            format!("the file system of {shown} is nearly full: {} left", units::bytes(free)),
            mend,
        )];
    }
    Vec::new()
}

/// What kind of another machine's file system this is, if it is one.
pub(super) fn network(dir: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(dir).ok()?.f_type as u64;
    NETWORK.iter().find(|(number, _)| *number == kind & 0xffff_ffff).map(|(_, name)| *name)
}
