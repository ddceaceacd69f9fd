//! What somebody may try who wants to see what is not theirs: each attempt is a
//! line of a table. Against whichever store, none may show a word of it.

use super::server::{Server, request};

/// An attempt: what it is, the address, further headers.
pub(crate) type Attempt = (&'static str, String, Vec<(&'static str, String)>);

/// Who tries, and what of somebody else they must not see.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) me: &'a str,
    pub(crate) owner: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) run: &'a str,
    pub(crate) account: &'a str,
    pub(crate) node: &'a str,
    pub(crate) name: &'a str,
}

pub(crate) fn attempts(wanted: &Wanted<'_>) -> Vec<Attempt> {
    let Wanted { me, owner, cluster, run: id, account, node, name } = *wanted;
    let run = format!("{cluster}/{owner}/{id}");
    let plain = |what, path: String| (what, path, Vec::new());
    let with =
        |what, name, value: &str| (what, format!("/api/v1/runs/{run}"), vec![(name, value.to_owned())]);
    vec![
        plain("the run of another", format!("/runs/{run}")),
        plain("a job of it", format!("/runs/{run}/jobs/1")),
        plain("the run by the API", format!("/api/v1/runs/{run}")),
        plain("its verdict", format!("/api/v1/runs/{run}/jobs/1")),
        plain("its events", format!("/api/v1/runs/{run}/events")),
        plain("its events from the middle", format!("/api/v1/runs/{run}/events?from=1")),
        plain("encoded slashes", format!("/runs/{cluster}%2F{owner}%2F{id}")),
        plain("up and down again", format!("/runs/{cluster}/{me}/..%2F..%2F{owner}%2Fruns%2F{id}")),
        plain("dots as they are", format!("/runs/{cluster}/{me}/../{owner}/{id}")),
        plain("twice encoded dots", format!("/runs/{cluster}/{me}/%252e%252e%252f{owner}/jobs/1")),
        plain("the file system by a cluster", "/runs/..%2F..%2F..%2Fetc/passwd/x".into()),
        plain("a file as static", "/static/..%2F..%2Findex.db".into()),
        plain("a file as static, plainly", "/static/../../../../etc/passwd".into()),
        plain("a NUL in a name", format!("/runs/{cluster}/{owner}%00/{id}")),
        plain("no UTF-8 in a name", format!("/runs/{cluster}/{owner}%ff/{id}")),
        plain("another case", format!("/runs/{}/{}/{id}", cluster.to_uppercase(), owner.to_uppercase())),
        plain("two slashes", format!("//runs/{run}")),
        plain("the whole address", format!("http://localhost/runs/{run}")),
        plain("jobs of a user", format!("/api/v1/jobs?user={owner}")),
        plain("jobs of an account", format!("/api/v1/jobs?account={account}")),
        plain("jobs of a node", format!("/api/v1/jobs?node={node}")),
        plain("jobs of a name", format!("/api/v1/jobs?name={name}")),
        plain("counts of a user", format!("/api/v1/failures?by=name&user={owner}")),
        plain("counts by node", "/api/v1/failures?by=node".into()),
        plain("counts by account", "/api/v1/failures?by=account".into()),
        plain("nodes beside their peers", "/api/v1/nodes".into()),
        plain("runs of a user", format!("/api/v1/runs?user={owner}&status=failed")),
        plain(
            "a page before the first",
            "/api/v1/jobs?before=9223372036854775807.9223372036854775807".into(),
        ),
        plain("SQL in a name", format!("/api/v1/jobs?user={owner}%27%20OR%20%271%27%3D%271")),
        plain("SQL in a class", "/api/v1/jobs?class=oom)%20OR%20(1%3D1".into()),
        plain("SQL in a cursor", "/api/v1/jobs?before=1.1%20OR%201%3D1".into()),
        plain("a parameter twice", format!("/api/v1/jobs?user={me}&user={owner}")),
        plain("a parameter of the server's own", "/api/v1/jobs?visible=all&operator=true".into()),
        plain("the collector's health", "/health".into()),
        plain("the collector's health by the API", "/api/v1/health".into()),
        plain("the metrics", "/metrics".into()),
        plain("the search of a fingerprint", "/fingerprints/1-0000000000000000".into()),
        with("a header of a proxy", "X-Remote-User", owner),
        with("a header of a proxy for root", "X-Remote-User", "root"),
        with("another proxy's header", "X-Forwarded-User", "root"),
        with("a guessed secret", "X-Inquest-Secret", "guess"),
        with("a password", "Authorization", "Basic cm9vdDpyb290"),
        with("an invented credential", "Authorization", "MUNGE AwQFAAC1jz8:"),
        with("a cookie", "Cookie", "user=root; session=1"),
        with("another method by header", "X-HTTP-Method-Override", "DELETE"),
        with("another address by header", "X-Original-URL", "/health"),
        with("a host of somebody else", "Host", "evil.example"),
    ]
}

/// Makes all attempts as this user, over the socket and over TCP, and demands
/// that no answer holds any of the `secrets`.
pub(crate) fn try_all(server: &Server, uid: u32, wanted: &Wanted<'_>, secrets: &[&str]) {
    let nothing = server.get(uid, &format!("/runs/{}/nobody/nothing", wanted.cluster));
    let attempts = attempts(wanted);
    assert!(attempts.len() >= 30);
    let theirs = format!("/runs/{}/{}/{}", wanted.cluster, wanted.owner, wanted.run);
    for (what, path, headers) in attempts {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        for (answer, how) in
            [(server.ask(uid, &path, &headers), "socket"), (server.tcp(&path, &headers), "TCP")]
        {
            assert!((200..500).contains(&answer.status), "{what} by {how}: {answer:?}");
            for secret in secrets {
                assert!(!answer.body.contains(secret), "{what} by {how} shows {secret}: {}", answer.body);
            }
            assert!(
                !answer.body.contains("root:") && !answer.body.contains("SQLite"),
                "{what}: {}",
                answer.body
            );
        }
        // Not theirs and not there are the same, word for word.
        if path == theirs {
            assert_eq!(server.get(uid, &path).body, nothing.body);
        }
    }
    // Raw bytes that are no polite request.
    let huge = request("/", &[("X-Big", &"x".repeat(100_000))]);
    let many: Vec<(&str, &str)> = vec![("X-Many", "1"); 200];
    for (what, bytes) in [
        ("no HTTP", b"hello\r\n\r\n".to_vec()),
        ("a header too long", huge),
        ("too many headers", request("/", &many)),
        ("two requests as one", b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a body", b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello".to_vec()),
        ("DELETE", format!("DELETE {theirs} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()),
        ("POST", b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()),
        ("two hosts", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_vec()),
        ("an address too long", request(&format!("/?user={}", "x".repeat(9000)), &[])),
        ("a header in the address", b"GET /?a=b%0d%0aX-Remote-User:%20root HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec()),
    ] {
        let answer = server.send(uid, &bytes);
        assert!(answer.status == 0 || (400..500).contains(&answer.status), "{what}: {answer:?}");
        assert!(secrets.iter().all(|s| !answer.body.contains(s)), "{what}: {answer:?}");
    }
}
