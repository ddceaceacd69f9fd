//! Sockets, connections and what every answer carries.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;

use super::identity::Peer;

/// Connections at one time; the next one waits.
const CONNECTIONS: usize = 256;

/// Those of one person; browsers open six at a time.
const OF_ONE: usize = 32;

/// Those behind which many may be: TCP, and the proxy on the socket.
const OF_MANY: usize = 128;

/// Said instead of an answer.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
    Content-Type: text/plain\r\nContent-Length: 63\r\n\r\n\
    too many connections of one user at a time; close some of them\n";

/// A client has so long to say what it wants.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);

/// A connection ends after so long whatever it does, so that nobody holds one
/// for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);

/// Headers of one request.
const HEADERS: usize = 64;

/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// What is under way may end within this time.
const GRACE: Duration = Duration::from_secs(5);

/// What every answer carries. No script but our own file, no style but our own
/// file, no frame, nothing from elsewhere.
const HARDENING: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Where the server answers.
#[derive(Debug)]
pub struct Listeners {
    unix: UnixListener,
    path: PathBuf,
    tcp: Option<TcpListener>,
}

impl Listeners {
    /// Binds the socket, and the loopback address when there is one. Has to be
    /// called inside the runtime.
    ///
    /// # Errors
    ///
    /// When one cannot be bound, another server answers there, or the address
    /// is not loopback.
    pub async fn bind(socket: &Path, listen: Option<SocketAddr>) -> anyhow::Result<Listeners> {
        let tcp = match listen {
            Some(at) if !at.ip().is_loopback() => anyhow::bail!(
                "serve.listen: {at} is not a loopback address; let a reverse proxy with TLS face the network"
            ),
            Some(at) => {
                Some(TcpListener::bind(at).await.map_err(|e| anyhow::anyhow!("cannot listen on {at}: {e}"))?)
            }
            None => None,
        };
        let unix = bind_unix(socket).map_err(|e| {
            anyhow::anyhow!(
                "cannot listen on {}: {e}; make its directory, or set serve.socket",
                socket.display()
            )
        })?;
        Ok(Listeners { unix, path: socket.to_owned(), tcp })
    }

    /// The TCP address, with the port that was chosen.
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|t| t.local_addr().ok())
    }

    /// Answers until `stop`, then ends what is under way and takes the socket
    /// away. Behind the connections of `proxy` are many people.
    pub async fn serve(self, app: Router, proxy: Option<u32>, stop: impl Future<Output = ()>) {
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let shares = Shares::default();
        let of_one = |uid: u32| if Some(uid) == proxy { OF_MANY } else { OF_ONE };
        let mut stop = pin!(stop);
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { break };
            let tcp = async {
                match &self.tcp {
                    Some(tcp) => tcp.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut stop => break,
                accepted = self.unix.accept() => match accepted {
                    Ok((stream, _)) => match stream.peer_cred().map(|who| who.uid()) {
                        Ok(uid) => match shares.take(Peer::Unix(uid), of_one(uid), permit) {
                            Some(share) => connection(stream, share, &app, &graceful),
                            None => drop(rustix::io::write(&stream, TOO_MANY)),
                        },
                        Err(_) => drop(stream),
                    },
                    Err(e) => pause(&e).await,
                },
                accepted = tcp => match accepted {
                    Ok((stream, _)) => match shares.take(Peer::Loopback, OF_MANY, permit) {
                        Some(share) => connection(stream, share, &app, &graceful),
                        None => drop(rustix::io::write(&stream, TOO_MANY)),
                    },
                    Err(e) => pause(&e).await,
                },
            }
        }
        let _ = std::fs::remove_file(&self.path);
        drop(self);
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    }
}

/// Out of descriptors, most likely: the next try must not spin.
async fn pause(error: &io::Error) {
    eprintln!("inquest serve: cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Takes a socket's place that no server holds any more.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there"));
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file, and no socket")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    // Everybody may ask; the kernel says who it is.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Connections by whose they are.
#[derive(Clone, Debug, Default)]
struct Shares(Arc<Mutex<HashMap<Peer, usize>>>);

/// One of them, until it is dropped.
struct Share {
    peer: Peer,
    of: Shares,
    _room: OwnedSemaphorePermit,
}

impl Shares {
    /// Another one of `peer`, who may have `most`.
    fn take(&self, peer: Peer, most: usize, room: OwnedSemaphorePermit) -> Option<Share> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(peer).or_default();
        (*count < most).then(|| {
            *count += 1;
            Share { peer, of: self.clone(), _room: room }
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.peer);
            }
        }
    }
}

fn connection<S>(stream: S, share: Share, app: &Router, graceful: &GracefulShutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = share.peer;
    let app = app.clone().map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        request.map(axum::body::Body::new)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // What a client does wrong is the client's affair.
        let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
        drop(share);
    });
}

/// Adds what every answer carries.
pub fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HARDENING {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        // What one person saw is not kept for the next one.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Whether the request is meant for this server. A name that somebody else's
/// DNS points at this machine is not ours, and a browser that follows it must
/// get nothing to read.
pub fn is_ours(headers: &HeaderMap, hosts: &[String]) -> bool {
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (values.next().and_then(|v| v.to_str().ok()), values.next()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.split(':').next().unwrap_or(""),
    };
    let own = ["localhost", "127.0.0.1", "::1", "inquest"];
    own.iter().any(|h| h.eq_ignore_ascii_case(name)) || hosts.iter().any(|h| h.eq_ignore_ascii_case(name))
}

/// Whether the request only reads, and carries nothing to read.
pub fn only_asks(request: &Request) -> Result<(), StatusCode> {
    let method = request.method();
    if method != axum::http::Method::GET && method != axum::http::Method::HEAD {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let headers = request.headers();
    let body = headers.get(header::CONTENT_LENGTH).is_some_and(|v| v.as_bytes() != b"0")
        || headers.contains_key(header::TRANSFER_ENCODING);
    if body {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    if request.uri().to_string().len() > 4096 {
        return Err(StatusCode::URI_TOO_LONG);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_names_are_not_ours() {
        let said = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            is_ours(&headers, &["jobs.site.example".into()])
        };
        for host in ["localhost", "localhost:8080", "127.0.0.1:9645", "[::1]:80", "Jobs.Site.Example"] {
            assert!(said(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "a:b:c"] {
            assert!(!said(host), "{host}");
        }
        assert!(!is_ours(&HeaderMap::new(), &[]));
    }
}
