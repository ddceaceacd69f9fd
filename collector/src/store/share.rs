//! Whose a user's directory is: the user may read it, operators may (the
//! group), nobody else.
//!
//! The collector has no capability, so it cannot give files away; it names the
//! user in a POSIX ACL instead, which what is made below inherits. The directory
//! of the cluster can be entered by all but listed by operators only: one finds
//! what one may read by one's own name.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{XattrFlags, setxattr};
use xxhash_rust::xxh3::xxh3_64;

use crate::runs::path_id;

/// Name of a user's directory: the user's own, as this machine knows it, where
/// that can be a name of a directory.
pub fn user_name(uid: u32) -> String {
    let name = uzers::get_user_by_uid(uid).and_then(|u| u.name().to_str().map(str::to_owned));
    match name {
        Some(name) if path_id(&name) == name => name,
        Some(name) => format!("uid-{uid}-{:08x}", xxh3_64(name.as_bytes()) >> 32),
        None => format!("uid-{uid}"),
    }
}

/// Names that the directories of a user may have: a collector that could not resolve the account took the number.
pub fn user_names(uid: u32) -> BTreeSet<String> {
    [user_name(uid), format!("uid-{uid}")].into()
}

/// Name of the directory of the user whom people call `name`, which may be that of the directory itself.
pub fn user_called(name: &str) -> String {
    uzers::get_user_by_name(name).map_or_else(|| name.to_owned(), |user| user_name(user.uid()))
}

/// Makes a user's directory and lets the user read it. Done again, it changes
/// nothing.
///
/// # Errors
///
/// When a directory cannot be made, or the file system has no ACLs
/// ([`io::ErrorKind::Unsupported`]).
pub fn share(store: &Path, cluster: &str, user: &str, uid: u32) -> io::Result<()> {
    make_cluster(store, cluster)?;
    let dir = store.join(cluster).join(user);
    match DirBuilder::new().mode(0o750).create(&dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let acl = read_acl(uid);
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        setxattr(&dir, name, &acl, XattrFlags::empty())?;
    }
    Ok(())
}

/// Makes the directory of a cluster, which all may enter. One that is there is as its admin wants it.
///
/// # Errors
///
/// When it cannot be made.
pub fn make_cluster(store: &Path, cluster: &str) -> io::Result<()> {
    let dir = store.join(cluster);
    match DirBuilder::new().mode(0o751).create(&dir) {
        // A daemon's umask takes the last bit away.
        Ok(()) => std::fs::set_permissions(&dir, Permissions::from_mode(0o751)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes a database, for its owner and the group to read: it knows all users.
/// What SQLite makes beside it gets the same mode.
///
/// # Errors
///
/// When it cannot be made.
pub fn for_operators(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(path)?;
    if file.metadata()?.mode() & 0o007 != 0 {
        file.set_permissions(Permissions::from_mode(0o640))?;
    }
    Ok(())
}

/// `u::rwx,u:UID:r-x,g::r-x,m::r-x,o::---` in the kernel's own form
/// (linux/posix_acl_xattr.h): a version, then tag, permissions and id of each.
fn read_acl(uid: u32) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] =
        [(0x01, 7, NOBODY), (0x02, 5, uid), (0x04, 5, NOBODY), (0x10, 5, NOBODY), (0x20, 0, NOBODY)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}
