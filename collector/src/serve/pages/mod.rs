/*!
The dashboard: pages drawn on the server, complete without a script.

Every string of a job goes through [`crate::report::clean`] and maud's escaping.
A page is a question in its address: it can be shared, and shows everybody what
they may see of it.
*/

mod fingerprint;
mod health;
mod lists;
mod nodes;
mod overview;
mod run;

use std::sync::Arc;

use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::{Router, routing::get};
use inquest_journal::Timestamp;
use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, html};

use super::access::Viewer;
use super::app::{App, now};
use super::counts::MEANING;
use super::data::{Problem, ROWS};
use super::question::{NAMES, Question};
use crate::report::html::{STYLE, class_name};
use crate::report::{clean, time};
use crate::store::index::CLASSES;
use crate::units::word;
use crate::verdict::Class;

/// The pairs of a URL.
type Pairs = Query<Vec<(String, String)>>;

/// A page, or why there is none.
type Answer = Result<Html<String>, Failed>;

/// A page that says why there is none.
#[derive(Debug)]
struct Failed(Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Failed {
        Failed(problem)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        self.0.log();
        problem(self.0.status(), &self.0.to_string()).into_response()
    }
}

/// The routes of the pages.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/failures", get(lists::failures))
        .route("/failures/newest", get(lists::newest))
        .route("/runs", get(lists::runs))
        .route("/runs/{cluster}/{user}/{run}", get(run::page))
        .route("/runs/{cluster}/{user}/{run}/jobs/{chunk}", get(run::job))
        .route("/nodes", get(nodes::page))
        .route("/fingerprints/{fingerprint}", get(fingerprint::page))
        .route("/health", get(health::page))
        .route("/static/inquest.css", get(style))
        .route("/static/inquest.js", get(script))
        .route("/static/icon.svg", get(icon))
}

const HOUR: &str = "public, max-age=3600";

async fn style() -> Response {
    let css = [STYLE, include_str!("../static/extra.css")].concat();
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, HOUR)], css).into_response()
}

async fn script() -> Response {
    let js = include_str!("../static/inquest.js");
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, HOUR)], js)
        .into_response()
}

async fn icon() -> Response {
    let svg = include_str!("../static/icon.svg");
    ([(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, HOUR)], svg).into_response()
}

/// The question of an address.
fn asked(Query(pairs): Pairs) -> Result<Question, Problem> {
    Question::read(pairs, &[], now())
}

/// A whole page. `here` is the entry of the menu that it belongs to.
fn page(viewer: &Viewer, here: &str, title: &str, body: &Markup) -> Html<String> {
    let menu = [("/", "Overview"), ("/failures", "Failures"), ("/runs", "Runs"), ("/nodes", "Nodes")];
    let operators = [("/health", "Collector")];
    let entries = menu.iter().chain(operators.iter().filter(|_| viewer.operator));
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            (head(title))
            body {
                a class="skip" href="#content" { "Skip to the content" }
                nav class="site" aria-label="Pages" {
                    a class="name" href="/" { "Inquest" }
                    div class="pages" {
                        @for (path, name) in entries {
                            a href=(path) aria-current=[(*path == here).then_some("page")] { (name) }
                        }
                    }
                    span class="who" { b { (clean(&viewer.name)) } " (" (viewer.role()) ")" }
                }
                div id="content" { (body) }
                footer {
                    p {
                        "inquest " (env!("CARGO_PKG_VERSION")) ". Times are those of " (zone_name()) "; dates of filters, UTC."
                        @if !viewer.sees_all() { " You see your own jobs" @if !viewer.accounts.is_empty() { " and those of accounts that you coordinate" } "." }
                    }
                }
            }
        }
    };
    Html(markup.into_string())
}

fn zone_name() -> String {
    TimeZone::system().iana_name().map_or_else(|| "the server".to_owned(), str::to_owned)
}

fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            title { (title) " - Inquest" }
            link rel="stylesheet" href="/static/inquest.css";
            link rel="icon" href="/static/icon.svg" type="image/svg+xml";
            script src="/static/inquest.js" defer {}
        }
    }
}

/// A page that says why there is none.
pub fn problem(status: StatusCode, text: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("No answer");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            (head(title))
            body {
                main id="content" {
                    h1 class="page" { (title) }
                    section { p { (clean(text)) } p { a href="/" { "To the overview" } } }
                }
            }
        }
    };
    (status, Html(markup.into_string())).into_response()
}

/// The form of filters above a page. `without` are words that the page's
/// address has already.
fn filters(question: &Question, action: &str, without: &[&str]) -> Markup {
    let spans =
        [("1d", "24 hours"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"), ("365d", "1 year")];
    let since = question.word("since");
    let own = !since.is_empty() && !spans.iter().any(|(value, _)| *value == since);
    let shown =
        |name: &str| !without.contains(&name) && (COMMON.contains(&name) || !question.word(name).is_empty());
    html! {
        form class="filters" method="get" action=(action) role="search" aria-label="Filters" {
            label {
                "Since"
                select name="since" {
                    @if own { option value=(since) selected { (since) } }
                    @for (value, words) in spans {
                        option value=(value) selected[since == value || since.is_empty() && value == "7d"] { (words) }
                    }
                }
            }
            @for name in NAMES.iter().skip(1).filter(|n| shown(n)) {
                @if *name == "class" {
                    label {
                        "Class"
                        select name="class" {
                            option value="" { "any" }
                            @for class in CLASSES.iter().filter(|c| **c != Class::Ok) {
                                option value=(class) selected[question.classes == [*class]] { (class) }
                            }
                            @if question.classes.len() > 1 {
                                option value=(question.word("class")) selected { (question.word("class")) }
                            }
                        }
                    }
                } @else {
                    label { (title_case(name)) input type="text" name=(name) value=(question.word(name)) maxlength="256"; }
                }
            }
            button type="submit" { "Show" }
        }
    }
}

/// What is said when the index could not tell all of it by its sums.
/// `all` is the list of the failures.
fn cut_note(all: &str) -> Markup {
    html! {
        p class="note" {
            "There are more jobs than are read for one page: lists that the sums by day cannot give count the newest "
            (number(ROWS as i64)) " only. A shorter time, or fewer filters, counts all; "
            a href=(all) { "the failures themselves" } " are all there, page by page."
        }
    }
}

/// Filters that are always in the form.
const COMMON: [&str; 5] = ["cluster", "partition", "node", "user", "class"];

fn title_case(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or(String::new(), |c| c.to_uppercase().chain(letters).collect())
}

/// The server's local time to the second; `datetime` has it in UTC.
fn when(at: Timestamp) -> Markup {
    let zone = TimeZone::system();
    html! { time datetime=(at) { (time(at, &zone)) } }
}

/// A number with thin spaces between thousands.
fn number(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    if n < 0 { format!("-{out}") } else { out }
}

/// Such a number before the words for one or for many.
fn counted(n: i64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), word(n, one, many))
}

/// What figures count.
fn meaning() -> Markup {
    html! { p class="quiet" { (MEANING) } }
}

/// Microseconds on nodes as hours.
fn node_hours(us: i64) -> String {
    let hours = us as f64 / 3.6e9;
    if hours >= 100.0 { number(hours.round() as i64) } else { format!("{hours:.1}") }
}

/// `12.3 %`
fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The colours of the classes that are in a picture.
fn legend(classes: impl Iterator<Item = Class>) -> Markup {
    let mut classes: Vec<Class> = classes.collect();
    classes.sort_unstable();
    classes.dedup();
    html! {
        ul class="legend-row" {
            @for class in classes {
                li class=(class_name(Some(class))) {
                    svg viewBox="0 0 10 10" aria-hidden="true" { rect class="bar" width="10" height="10" rx="2" {} }
                    (class)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(number(0), "0");
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(number(-1000), "-1\u{202f}000");
        assert_eq!(node_hours(3_600_000_000), "1.0");
        assert_eq!(percent(0.1234), "12.3 %");
    }

    #[test]
    fn a_problem_says_nothing_as_markup() {
        let page = filters(&Question::default(), "/\"><script>", &[]).into_string();
        assert!(!page.contains("<script>"), "{page}");
    }
}
