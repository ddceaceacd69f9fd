/*!
Pages without scripts and without anything from elsewhere.

Every string goes into a page through [`maud`], which escapes it, and every
string of a job through [`super::clean`] before that. Colours are the names of
classes of failure, given in one style sheet for light and dark; nothing is
told by colour alone.
*/

mod picture;

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub use picture::{Bar, Mark, Row, classes, memory, timeline};

use crate::verdict::Class;

/// The style sheet.
pub const STYLE: &str = include_str!("style.css");

/// What a browser may load for a page that stands alone: nothing but its own
/// style sheet.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// A whole page that stands alone.
pub fn page(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                meta name="generator" content=(concat!("inquest ", env!("CARGO_PKG_VERSION")));
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// The name of a class as the style sheet has it; of a job that runs without.
pub fn class_name(class: Option<Class>) -> String {
    class.map_or("running".into(), |c| c.to_string())
}

/// A small label in the colour of its class.
pub fn pill(class: Option<Class>, text: &str) -> Markup {
    html! { span class={ "pill " (class_name(class)) } { (text) } }
}
