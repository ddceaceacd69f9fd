//! File systems that a test mounts, gone with their value.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system in memory, or of a [`Disk`]. A small one is full soon.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// In memory, with these options, on a directory that is made where it is missing.
    pub fn tmpfs(at: &Path, options: &str) -> Mounted {
        fs::create_dir_all(at).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("mode=0755,{options}"), "inquest-test"], at);
        Mounted(at.to_owned())
    }
}

fn mount(arguments: &[&str], at: &Path) {
    let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
    assert!(status.success(), "cannot mount on {}: {arguments:?}", at.display());
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

/// A disk of its own that can be made to stand still. It moves again when dropped, whatever happened.
#[derive(Debug)]
pub struct Disk {
    _mounted: Mounted,
    root: fs::File,
}

// linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int).
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

impl Disk {
    /// A small one, in a file, on a directory.
    pub fn mount(image: &Path, at: &Path) -> Disk {
        let file = fs::File::create(image).unwrap();
        file.set_len(16 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image).status().unwrap();
        assert!(made.success(), "mkfs.ext4 ended with {made}");
        mount(&["-o", "loop", &image.to_string_lossy()], at);
        Disk { root: fs::File::open(at).unwrap(), _mounted: Mounted(at.to_owned()) }
    }

    /// Lets it stand still: who writes there, waits. Says whether it does.
    pub fn freeze(&self) -> bool {
        self.call(FIFREEZE)
    }

    /// Lets it move again.
    pub fn thaw(&self) -> bool {
        self.call(FITHAW)
    }

    fn call(&self, request: libc::c_ulong) -> bool {
        // SAFETY: the descriptor is open; neither request reads its argument.
        unsafe { libc::ioctl(self.root.as_raw_fd(), request, 0) == 0 }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.call(FITHAW);
    }
}
