//! Questions to the index and the stores, bounded in time and number.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::{Semaphore, oneshot};

use crate::report::clean;
use crate::store::index::{Index, IndexError, Standing};
use crate::store::{ReadError, Store};

/// Questions that are answered at one time; also the threads for them.
pub const AT_ONCE: usize = 4;

/// Questions that wait for their turn. More are sent away.
const WAITING: usize = 64;

/// A question that takes longer is given up.
const WITHIN: Duration = Duration::from_secs(10);

/// Attempts that are looked at for one answer where the sums by day do not
/// tell, and the newest of which are enough to see by.
pub const ROWS: usize = 20_000;

/// An index is opened anew after so long: it may have been built meanwhile.
const REOPEN: Duration = Duration::from_secs(5);

/// Why a question has no answer. What a person may not see is not found.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is not there, or not for the one who asks.
    #[error("there is nothing here for you to see; check the name")]
    NotFound,
    /// The question cannot be meant so.
    #[error("{0}")]
    Bad(String),
    /// Only operators may.
    #[error("this is for operators")]
    Denied,
    /// It cannot be said at the moment.
    #[error("{0}")]
    Unavailable(&'static str),
    /// Something broke; the reason is for the server's own log.
    #[error("the server could not answer; its operator finds the reason in the log")]
    Broken(String),
}

impl Problem {
    /// Writes to the server's log what nobody else is told.
    pub fn log(&self) {
        if let Problem::Broken(reason) = self {
            eprintln!("inquest serve: {}", clean(reason));
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Problem::NotFound => StatusCode::NOT_FOUND,
            Problem::Bad(_) => StatusCode::BAD_REQUEST,
            Problem::Denied => StatusCode::FORBIDDEN,
            Problem::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Problem::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<IndexError> for Problem {
    fn from(e: IndexError) -> Problem {
        match e {
            IndexError::Building => standing(Standing::Building),
            e => Problem::Broken(e.to_string()),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(e: ReadError) -> Problem {
        match e {
            ReadError::NotFound(_) => Problem::NotFound,
            e => Problem::Broken(e.to_string()),
        }
    }
}

/// The store, for questions.
#[derive(Clone, Debug)]
pub struct Data {
    store: PathBuf,
    turn: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// What a question may look at.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Lists and sums.
    pub index: &'a Index,
    /// Runs and their events.
    pub store: &'a Store,
    /// Where the store is.
    pub root: &'a Path,
}

thread_local! {
    static OPEN: RefCell<Option<(PathBuf, Instant, Index, Store)>> = const { RefCell::new(None) };
}

impl Data {
    /// Asks the store at `store`.
    pub fn new(store: PathBuf) -> Data {
        let turn = Arc::new(Semaphore::new(AT_ONCE));
        Data { store, turn, waiting: Arc::new(Semaphore::new(WAITING)) }
    }

    /// Where the store is.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Asks a question on a thread of its own.
    ///
    /// # Errors
    ///
    /// When there are too many questions, it takes too long, or there is no
    /// answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(Sources<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        const BUSY: Problem = Problem::Unavailable("too many questions at one time; ask again in a moment");
        const LONG: Problem =
            Problem::Unavailable("that takes too long to answer; ask for a shorter time or fewer things");
        let _place = self.waiting.clone().try_acquire_owned().map_err(|_| BUSY)?;
        let turn = tokio::time::timeout(WITHIN, self.turn.clone().acquire_owned()).await.map_err(|_| BUSY)?;
        let Ok(turn) = turn else { return Err(BUSY) };
        let (give, take) = oneshot::channel();
        let store = self.store.clone();
        let mut task = tokio::task::spawn_blocking(move || {
            let _turn = turn; // Until the thread is free, not until nobody waits any more.
            with_index(&store, |sources| {
                let _ = give.send(sources.index.interrupter());
                question(sources)
            })
        });
        match tokio::time::timeout(WITHIN, &mut task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(Problem::Broken(panic.to_string())),
            Err(_) => {
                if let Ok(handle) = take.await {
                    handle.interrupt();
                }
                Err(LONG)
            }
        }
    }
}

fn with_index<T>(
    root: &Path,
    question: impl FnOnce(Sources<'_>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    OPEN.with_borrow_mut(|open| {
        if open.as_ref().is_none_or(|(path, at, ..)| path != root || at.elapsed() > REOPEN) {
            let store = Store::open(root)?;
            let index = Index::open(root).map_err(standing)?;
            *open = Some((root.to_owned(), Instant::now(), index, store));
        }
        let Some((_, _, index, store)) = open else { return Err(Problem::NotFound) };
        let answer = question(Sources { index, store, root });
        if matches!(answer, Err(Problem::Broken(_))) {
            *open = None;
        }
        answer
    })
}

fn standing(standing: Standing) -> Problem {
    match standing {
        Standing::Building => Problem::Unavailable("the index is being built; ask again in a few minutes"),
        Standing::Version(_) => Problem::Unavailable(
            "the index is of another version; the collector of this version makes it anew when it starts, as does \
             'inquest index rebuild'",
        ),
        Standing::Absent => Problem::Unavailable("there is no index yet; 'inquest index rebuild' makes it"),
        other => Problem::Broken(other.to_string()),
    }
}
