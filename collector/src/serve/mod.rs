/*!
The site server: dashboard, API and metrics of what was collected, for people
who may see it.

One process, one thread for connections and a few for questions. It only reads:
the store, the index and `health.json`. A request passes, in this order:

| module | what it decides |
|---|---|
| [`http`] | sockets, bounds of connections and requests, what every answer carries |
| [`identity`] | who asks |
| [`access`] | what they may see |
| [`limit`] | how often |
| [`question`] | what they ask, as a bounded question to the index |
| [`data`] | the answer, bounded in time |
| [`api`], [`pages`], [`metrics`] | its form |

What somebody may not see does not exist for them: the same answer, word for
word, as for what is not there.
*/

pub mod access;
pub mod api;
mod app;
mod counts;
pub mod data;
pub mod http;
pub mod identity;
pub mod limit;
pub mod look;
pub mod metrics;
mod openapi;
pub mod pages;
pub mod pictures;
pub mod question;
pub mod site;
pub mod suspects;

pub use app::{Options, serve};
pub use openapi::document as openapi;
