//! The routes, and the gate before them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderName, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use inquest_journal::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::access::{Access, Viewer};
use super::data::{AT_ONCE, Data, Problem};
use super::http::{Listeners, harden, is_ours, only_asks};
use super::identity::{Claim, Peer, Refused, Rules, read_secret};
use super::limit::Limiter;
use super::metrics::Meters;
use super::{api, metrics, pages};
use crate::config;

/// Between two writings of the textfile.
const TEXTFILE_EVERY: Duration = Duration::from_secs(30);

/// How the server runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the run stores.
    pub store: PathBuf,
    /// `[serve]`
    pub serve: config::Serve,
}

/// What all requests share.
#[derive(Debug)]
pub struct App {
    /// The store.
    pub data: Data,
    /// What is counted of the site and of the server itself.
    pub meters: Meters,
    rules: Rules,
    access: Access,
    limiter: Mutex<Limiter>,
    hosts: Vec<String>,
}

/// The time, as handlers take it.
pub(super) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

impl App {
    fn new(options: &Options) -> anyhow::Result<App> {
        let said = &options.serve;
        let proxy_uid = match &said.proxy_user {
            Some(name) => Some(
                uzers::get_user_by_name(name)
                    .ok_or_else(|| anyhow::anyhow!("serve.proxy_user: there is no account {name}"))?
                    .uid(),
            ),
            None => None,
        };
        if said.proxy_header.is_some() && proxy_uid.is_none() && said.proxy_secret.is_none() {
            anyhow::bail!(
                "serve.proxy_header is believed of nobody; set serve.proxy_user or serve.proxy_secret"
            );
        }
        if let Some(header) = &said.proxy_header
            && HeaderName::from_bytes(header.as_bytes()).is_err()
        {
            anyhow::bail!("serve.proxy_header: {header} is no name of a header; X-Remote-User is one");
        }
        let mut rules = Rules::new(said.operators.clone(), said.proxy_header.clone(), proxy_uid);
        rules.proxy_secret = said.proxy_secret.as_ref().map(read_secret).transpose()?;
        rules.munge = said.munge;
        Ok(App {
            data: Data::new(options.store.clone()),
            meters: Meters::new(said.node_metrics),
            rules,
            access: Access::new(said.coordinators, said.jobs, &options.store),
            limiter: Mutex::new(Limiter::new(said.requests)),
            hosts: said.hosts.clone(),
        })
    }

    fn take(&self, who: &str) -> Result<(), Duration> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner).take(who, Instant::now())
    }
}

/// Serves until SIGTERM or SIGINT. `ready` is told where, once it answers.
///
/// # Errors
///
/// When the configuration makes no sense or a socket cannot be bound.
pub fn serve(options: &Options, ready: impl FnOnce(&str)) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Questions, and room for whoever has to be looked up meanwhile.
        .max_blocking_threads(AT_ONCE + 4)
        .build()?;
    let app = Arc::new(App::new(options)?);
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listeners = Listeners::bind(&options.serve.socket, options.serve.listen).await?;
        let tcp = listeners.tcp().map_or(String::new(), |at| format!(" and http://{at}/metrics"));
        ready(&format!("{}{tcp}", options.serve.socket.display()));
        if let Some(path) = options.serve.textfile.clone() {
            let app = Arc::clone(&app);
            tokio::spawn(async move {
                loop {
                    if let Err(e) = metrics::textfile(&app, &path).await {
                        eprintln!("inquest serve: cannot write the metrics to {}: {e}", path.display());
                    }
                    tokio::time::sleep(TEXTFILE_EVERY).await;
                }
            });
        }
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let proxy = app.rules.proxy_uid;
        listeners.serve(router(app), proxy, stop).await;
        anyhow::Ok(())
    })?;
    // A question that nobody waits for any more must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(pages::routes())
        .nest("/api/v1", api::routes())
        .route("/metrics", get(metrics::scrape))
        .fallback(nothing)
        .layer(from_fn_with_state(Arc::clone(&app), gate))
        .with_state(app)
}

async fn nothing(request: Request) -> Response {
    refuse(&request, StatusCode::NOT_FOUND, &Problem::NotFound.to_string())
}

/// What everybody may have: nothing of it is about a person or a job.
fn is_open(path: &str) -> bool {
    path == "/metrics" || path.starts_with("/static/")
}

async fn gate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route =
        request.extensions().get::<MatchedPath>().map_or("other".to_owned(), |p| p.as_str().to_owned());
    let response = match admit(&app, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(response) => *response,
    };
    app.meters.answered(&route, response.status(), start.elapsed());
    harden(response)
}

/// Lets a request in, with its viewer; or says why not.
async fn admit(app: &Arc<App>, request: &mut Request) -> Result<(), Box<Response>> {
    let refusal = |request: &Request, status, text: &str| Box::new(refuse(request, status, text));
    if let Err(status) = only_asks(request) {
        return Err(refusal(request, status, "this server only answers GET requests of a sensible size"));
    }
    if !is_ours(request.headers(), &app.hosts) {
        let text = "that is not a name of this server; the operator can add it to serve.hosts";
        return Err(refusal(request, StatusCode::MISDIRECTED_REQUEST, text));
    }
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::Loopback);
    let wait = |request: &Request, wait: Duration| {
        let mut response = refuse(
            request,
            StatusCode::TOO_MANY_REQUESTS,
            "that was too much within a minute; wait a little",
        );
        let seconds = HeaderValue::from(wait.as_secs() + 1);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
        Box::new(response)
    };
    if is_open(request.uri().path()) {
        return app.take(&peer.to_string()).map_err(|left| wait(request, left));
    }
    let unknown = |request: &Request, e: Refused| refusal(request, StatusCode::UNAUTHORIZED, &e.to_string());
    let claim = app.rules.claim(peer, request.headers()).map_err(|e| unknown(request, e))?;
    // A program is started for each credential, before it is known whose it is.
    if matches!(claim, Claim::Munge(_)) {
        app.take(&format!("munge {peer}")).map_err(|left| wait(request, left))?;
    }
    let asked = format!("{} {}", request.method(), request.uri());
    let worker = Arc::clone(app);
    let settled = tokio::task::spawn_blocking(move || {
        worker.rules.settle(&claim, &asked).map(|who| worker.access.viewer(who, Instant::now()))
    });
    let viewer = settled.await.unwrap_or(Err(Refused::Unknown)).map_err(|e| unknown(request, e))?;
    app.take(&viewer.name).map_err(|left| wait(request, left))?;
    request.extensions_mut().insert::<Viewer>(viewer);
    Ok(())
}

/// A refusal in the form of what was asked for.
fn refuse(request: &Request, status: StatusCode, text: &str) -> Response {
    if request.uri().path().starts_with("/api/") {
        api::problem(status, text)
    } else {
        pages::problem(status, text).into_response()
    }
}
