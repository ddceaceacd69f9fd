//! Counts by class: over time, and as shares of one bar.

use std::collections::BTreeMap;

use inquest_journal::Timestamp;
use maud::{Markup, html};

use crate::report::html::class_name;
use crate::verdict::Class;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 8.0;

/// What ended in one part of the time.
#[derive(Clone, Debug, PartialEq)]
pub struct Bin {
    /// Where the part begins.
    pub at: Timestamp,
    /// Its name, `21 Nov`.
    pub name: String,
    /// Failures by class.
    pub failures: BTreeMap<Class, i64>,
    /// All that ended.
    pub total: i64,
    /// Where a closer look is.
    pub link: String,
}

/// Failures by class over time, as stacked bars.
pub fn over_time(bins: &[Bin], title: &str) -> Markup {
    let most = bins.iter().map(|b| b.failures.values().sum::<i64>()).max().unwrap_or(0);
    let top = round_up(most as f64);
    let step = (WIDTH - LEFT) / bins.len().max(1) as f64;
    let y = |count: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - count / top);
    // As many names as there is room for.
    let every = bins.len().div_ceil(10).max(1);
    html! {
        div class="scroll" tabindex="0" {
            svg class="picture" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="group" aria-label=(title) {
                @for part in 0..=4 {
                    @let count = top * f64::from(part) / 4.0;
                    line class="grid" x1=(n(LEFT)) x2=(n(WIDTH)) y1=(n(y(count))) y2=(n(y(count))) {}
                    text class="tick" x=(n(LEFT - 6.0)) y=(n(y(count) + 4.0)) text-anchor="end" { (n(count)) }
                }
                @for (at, bin) in bins.iter().enumerate() {
                    @let x = LEFT + step * at as f64;
                    a href=(bin.link) tabindex="-1" {
                        title { (bin_words(bin)) }
                        rect class="hit" x=(n(x)) y=(n(TOP)) width=(n(step)) height=(n(HEIGHT - TOP - BOTTOM)) {}
                        @for (class, from, to) in stacked(&bin.failures) {
                            g class=(class_name(Some(class))) {
                                rect class="bar" x=(n(x + step * 0.1)) width=(n(step * 0.8)) y=(n(y(to)))
                                    height=(n(y(from) - y(to))) {}
                            }
                        }
                    }
                    @if at % every == 0 {
                        text class="tick" x=(n(x + step / 2.0)) y=(n(HEIGHT - 6.0)) text-anchor="middle" { (bin.name) }
                    }
                }
            }
        }
    }
}

fn bin_words(bin: &Bin) -> String {
    let failed: i64 = bin.failures.values().sum();
    let classes: Vec<String> = bin.failures.iter().map(|(c, n)| format!("{c} {n}")).collect();
    format!("{}: {failed} of {} failed; {}", bin.name, bin.total, classes.join(", "))
}

fn stacked(failures: &BTreeMap<Class, i64>) -> Vec<(Class, f64, f64)> {
    let mut at = 0.0;
    let mut parts = Vec::new();
    for (class, count) in failures {
        let to = at + *count as f64;
        parts.push((*class, at, to));
        at = to;
    }
    parts
}

/// One bar of shares, as long as its part of `most`.
pub fn share(parts: &BTreeMap<Class, i64>, most: i64) -> Markup {
    let total: i64 = parts.values().sum();
    let words: Vec<String> = parts.iter().map(|(c, n)| format!("{c} {n}")).collect();
    let scale = 100.0 / most.max(1) as f64;
    let words = if total == 0 { "none".to_owned() } else { words.join(", ") };
    html! {
        svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none" role="img"
            aria-label=(words) {
            title { (words) }
            @if total > 0 {
                @for (class, from, to) in stacked(parts) {
                    g class=(class_name(Some(class))) {
                        rect class="bar" x=(n(from * scale)) y="0" height="10" width=(n(((to - from) * scale).max(0.4))) {}
                    }
                }
            }
        }
    }
}

/// Numbers of SVG, short.
fn n(x: f64) -> String {
    let text = format!("{x:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A round number at or above.
fn round_up(x: f64) -> f64 {
    if x <= 4.0 {
        return 4.0;
    }
    let unit = 10f64.powf(x.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|s| s * unit).find(|s| *s >= x).unwrap_or(10.0 * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_numbers() {
        for (x, up) in [(0.0, 4.0), (3.0, 4.0), (9.0, 10.0), (11.0, 20.0), (401.0, 600.0), (1000.0, 1000.0)] {
            assert!((round_up(x) - up).abs() < 1e-9, "{x}");
        }
        assert_eq!((n(3.0), n(0.26)), ("3".into(), "0.3".into()));
    }

    #[test]
    fn a_picture_says_in_words_what_it_shows_and_escapes_them() {
        let bin = Bin {
            at: Timestamp(0),
            name: "<21>".into(),
            failures: [(Class::Oom, 3), (Class::Crash, 1)].into(),
            total: 9,
            link: "/?a=1&b=\"".into(),
        };
        let svg = over_time(&[bin], "failures \"by\" <day>").into_string();
        assert!(svg.contains("&lt;21&gt;: 4 of 9 failed; oom 3, crash 1"), "{svg}");
        assert!(svg.contains("href=\"/?a=1&amp;b=&quot;\"") && svg.contains("class=\"oom\""), "{svg}");
        assert!(svg.contains("aria-label=\"failures &quot;by&quot; &lt;day&gt;\""), "{svg}");
        assert!(!svg.contains("style="), "{svg}");
        assert!(over_time(&[], "nothing").into_string().contains("svg"));
    }

    #[test]
    fn shares_are_parts_of_the_longest() {
        let svg = share(&[(Class::Oom, 5)].into(), 10).into_string();
        assert!(svg.contains("width=\"50\""), "{svg}");
    }
}
