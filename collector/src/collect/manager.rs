/*!
What the service manager is told: ready, alive, what it does, that it ends.

The protocol is a line of text in a datagram to the socket that systemd names
in `NOTIFY_SOCKET` (sd_notify(3)). Nobody listening is nothing wrong.
*/

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager, if one listens.
#[derive(Debug, Default)]
pub struct Manager {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often it must hear that we are alive, and when it heard it last.
    watchdog: Option<(Duration, Instant)>,
}

impl Manager {
    /// The one of this process' environment.
    pub fn of_environment() -> Manager {
        let variable = |name: &str| std::env::var(name).ok();
        let of_us = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let period = variable("WATCHDOG_USEC").filter(|_| of_us).and_then(|us| us.parse().ok());
        let to = std::env::var_os("NOTIFY_SOCKET").and_then(|path| {
            let address = match path.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                _ => SocketAddr::from_pathname(&path),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        Manager::new(to, period.map(Duration::from_micros))
    }

    fn new(to: Option<(UnixDatagram, SocketAddr)>, period: Option<Duration>) -> Manager {
        if let Some((socket, _)) = &to {
            // A manager that does not read must not stop us.
            let _ = socket.set_nonblocking(true);
        }
        // Twice as often as it asks for; the first time at once.
        let watchdog = period.and_then(|p| Some((p / 2, Instant::now().checked_sub(p / 2)?)));
        Manager { to, watchdog }
    }

    /// Everything is open, and work begins.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// What `systemctl status` shows.
    pub fn status(&self, text: &str) {
        self.say(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Work goes on. Cheap, so it can be called often: it speaks only when
    /// that is due.
    pub fn alive(&mut self) {
        if let Some((every, last)) = &mut self.watchdog
            && last.elapsed() >= *every
        {
            *last = Instant::now();
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.to {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_what_it_waits_for_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        ear.set_nonblocking(true).unwrap();
        let heard = || {
            let mut buffer = [0; 100];
            let mut all = Vec::new();
            while let Ok(n) = ear.recv(&mut buffer) {
                all.push(String::from_utf8(buffer[..n].to_vec()).unwrap());
            }
            all
        };
        let address = || SocketAddr::from_pathname(&path).unwrap();
        let to = Some((UnixDatagram::unbound().unwrap(), address()));
        let mut manager = Manager::new(to, Some(Duration::from_secs(3600)));
        manager.ready();
        (0..1000).for_each(|_| manager.alive());
        manager.status("at\nwork");
        manager.stopping();
        assert_eq!(heard(), ["READY=1", "WATCHDOG=1", "STATUS=at work", "STOPPING=1"]);
        // Nobody listens, nobody asks.
        drop(ear);
        manager.ready();
        Manager::default().alive();
    }
}
