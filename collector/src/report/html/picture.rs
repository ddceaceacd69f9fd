//! Pictures: bars over time, bars of memory, shares of classes.

use maud::{Markup, html};

use super::class_name;
use crate::units::{bytes, count, duration};
use crate::verdict::Class;

/// Width of every picture in its own units; it is scaled to the page.
const WIDTH: f64 = 960.0;

/// Rows with a name of their own; more of them are thin and have none.
const NAMED: usize = 48;

/// Rows that are drawn at all.
const DRAWN: usize = 400;

/// Bars of memory that are drawn.
const BARS: usize = 20;

/// Characters of a name.
const NAME: usize = 22;

/// Something that lasted.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who.
    pub name: String,
    /// From, in microseconds since the beginning of the picture.
    pub from_us: i64,
    /// To.
    pub to_us: i64,
    /// What became of it; it runs without.
    pub class: Option<Class>,
    /// Said when one points at it, and read by a screen reader.
    pub title: String,
    /// What happened in it.
    pub marks: Vec<Mark>,
}

/// Something that happened at a moment.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at_us: i64,
    /// What.
    pub title: String,
}

/// How much memory something took.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Who.
    pub name: String,
    /// Highest charge in bytes.
    pub peak: u64,
    /// Limit in bytes.
    pub limit: Option<u64>,
    /// What became of it.
    pub class: Option<Class>,
    /// The peak was cut off at the limit.
    pub clipped: bool,
}

fn short(name: &str) -> String {
    crate::report::wrap::cut(name, NAME)
}

/// Room for the longest name, as wide as its letters are.
fn margin<'a>(names: impl Iterator<Item = &'a String>) -> f64 {
    let longest = names.map(|n| n.chars().count().min(NAME)).max().unwrap_or(0);
    24.0 + 7.0 * longest as f64
}

/// Steps of an axis of time that people read, in seconds.
const STEPS: [i64; 19] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800, 604_800,
    2_592_000,
];

/// Five to ten places on an axis that is so many microseconds long.
fn ticks(length_us: i64) -> Vec<i64> {
    let step = if length_us < 4_000_000 {
        // Below the shortest step: tenths, hundredths or thousandths.
        [1_000, 10_000, 100_000, 500_000].into_iter().find(|s| length_us / s <= 10).unwrap_or(500_000)
    } else {
        STEPS.iter().map(|s| s * 1_000_000).find(|s| length_us / s <= 8).unwrap_or(length_us / 4)
    };
    (0..=length_us / step).map(|n| n * step).collect()
}

/// `+5 s`, `+1:30:00`, without the milliseconds that an axis does not need.
fn offset(us: i64) -> String {
    let text = duration(us);
    let text = text.strip_suffix(".000s").map_or(text.clone(), |s| format!("{s}s"));
    format!("+{text}")
}

/// Bars over time: who ran when and how it ended. `id` makes the names inside
/// the picture unique on its page.
pub fn timeline(id: &str, title: &str, rows: &[Row]) -> Markup {
    let left_out = rows.len().saturating_sub(DRAWN);
    let rows = chosen(rows);
    let named = rows.len() <= NAMED;
    let (step, thick) = if named { (22.0, 14.0) } else { (4.0, 3.0) };
    let left = if named { margin(rows.iter().map(|r| &r.name)) } else { 10.0 };
    let (top, right) = (24.0, 12.0);
    let height = top + step * rows.len() as f64 + 8.0;
    let length = rows.iter().map(|r| r.to_us).max().unwrap_or(0).max(1);
    let x = |us: i64| left + (WIDTH - left - right) * us.clamp(0, length) as f64 / length as f64;
    html! {
        figure {
            div class="scroll" tabindex="0" {
                svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-labelledby={ (id) "-t" } {
                    title id={ (id) "-t" } { (title) }
                    @for at in ticks(length) {
                        line class="grid" x1=(num(x(at))) x2=(num(x(at))) y1=(num(top - 4.0)) y2=(num(height)) {}
                        text x=(num(x(at))) y="13" text-anchor=(anchor(x(at), left)) { (offset(at)) }
                    }
                    @for (index, row) in rows.iter().enumerate() {
                        @let y = top + step * index as f64;
                        g class=(class_name(row.class)) {
                            title { (row.title) }
                            @if named {
                                text class="name" x=(num(left - 10.0)) y=(num(y + 11.0)) text-anchor="end" { (short(&row.name)) }
                            }
                            rect class="bar" x=(num(x(row.from_us))) y=(num(y)) height=(num(thick)) rx=(num(thick / 5.0))
                                width=(num((x(row.to_us) - x(row.from_us)).max(2.0))) {}
                            @for mark in row.marks.iter().take(20) {
                                path class="mark" d=(diamond(x(mark.at_us), y + thick / 2.0, if named { 5.0 } else { 2.0 })) {
                                    title { (mark.title) }
                                }
                            }
                        }
                    }
                }
            }
            (legend(rows.iter().map(|r| r.class)))
            @if left_out > 0 {
                figcaption { (count(left_out, "more is", "more are")) " not drawn; those that failed come first." }
            }
        }
    }
}

/// All rows where they can be drawn; else those that failed first of all, in
/// the order in which they were.
fn chosen(rows: &[Row]) -> Vec<&Row> {
    let mut left = DRAWN.saturating_sub(rows.iter().filter(|r| bad(r.class)).count());
    let keep = |r: &&Row| {
        bad(r.class) || {
            let room = left > 0;
            left = left.saturating_sub(1);
            room
        }
    };
    rows.iter().filter(keep).take(DRAWN).collect()
}

fn bad(class: Option<Class>) -> bool {
    class.is_some_and(|c| c != Class::Ok)
}

/// Peaks beside their limits, the highest first.
pub fn memory(id: &str, title: &str, bars: &[Bar]) -> Markup {
    let mut bars: Vec<&Bar> = bars.iter().collect();
    let share = |b: &Bar| b.limit.map_or(0.0, |l| b.peak as f64 / l.max(1) as f64);
    bars.sort_by(|a, b| share(b).total_cmp(&share(a)).then(b.peak.cmp(&a.peak)));
    let left_out = bars.len().saturating_sub(BARS);
    bars.truncate(BARS);
    let most = bars.iter().map(|b| b.peak.max(b.limit.unwrap_or(0))).max().unwrap_or(1).max(1);
    let (left, right, step, top) = (margin(bars.iter().map(|b| &b.name)), 190.0, 24.0, 4.0);
    let height = top + step * bars.len() as f64;
    let wide = |n: u64| (WIDTH - left - right) * n as f64 / most as f64;
    html! {
        figure {
            div class="scroll" tabindex="0" {
                svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-labelledby={ (id) "-t" } {
                    title id={ (id) "-t" } { (title) }
                    @for (index, bar) in bars.iter().enumerate() {
                        @let y = top + step * index as f64;
                        @let said = said(bar);
                        g class=(class_name(bar.class)) {
                            title { (bar.name) ": " (said) }
                            text class="name" x=(num(left - 10.0)) y=(num(y + 11.0)) text-anchor="end" { (short(&bar.name)) }
                            @if let Some(limit) = bar.limit {
                                rect class="rest" x=(num(left)) y=(num(y)) height="14" width=(num(wide(limit))) rx="3" {}
                            }
                            rect class="bar" x=(num(left)) y=(num(y)) height="14" width=(num(wide(bar.peak).max(2.0))) rx="3" {}
                            @if let Some(limit) = bar.limit {
                                line class="limit" x1=(num(left + wide(limit))) x2=(num(left + wide(limit))) y1=(num(y - 2.0))
                                    y2=(num(y + 16.0)) {}
                            }
                            text x=(num(left + wide(bar.peak.max(bar.limit.unwrap_or(0))) + 8.0)) y=(num(y + 11.0)) { (said) }
                        }
                    }
                }
            }
            (legend(bars.iter().map(|b| b.class)))
            figcaption {
                "Highest charge of memory, page cache included; the upright line is the limit."
                @if left_out > 0 { " " (left_out) " more used a smaller share of theirs." }
            }
        }
    }
}

fn said(bar: &Bar) -> String {
    let cut = if bar.clipped { ", cut off" } else { "" };
    match bar.limit {
        Some(limit) => format!("{} of {}{cut}", bytes(bar.peak), bytes(limit)),
        None => bytes(bar.peak),
    }
}

/// How many of each class, as one bar.
pub fn classes(id: &str, counts: &[(Option<Class>, usize)]) -> Markup {
    let all: usize = counts.iter().map(|(_, n)| n).sum();
    let mut at = 0.0;
    let parts: Vec<(Option<Class>, usize, f64, f64)> = counts
        .iter()
        .map(|&(class, n)| {
            let wide = WIDTH * n as f64 / all.max(1) as f64;
            at += wide;
            (class, n, at - wide, wide)
        })
        .collect();
    let words: Vec<String> = counts.iter().map(|(c, n)| format!("{n} {}", class_name(*c))).collect();
    html! {
        figure {
            svg viewBox=(format!("0 0 {WIDTH} 14")) role="img" aria-labelledby={ (id) "-t" } {
                title id={ (id) "-t" } { (words.join(", ")) }
                @for (class, n, from, wide) in parts {
                    g class=(class_name(class)) {
                        title { (n) " " (class_name(class)) }
                        rect class="bar" x=(num(from)) y="0" height="14" width=(num((wide - 2.0).max(1.0))) rx="2" {}
                    }
                }
            }
            ul class="legend" {
                @for (class, n) in counts { li { (swatch(*class)) (n) " " (class_name(*class)) } }
            }
        }
    }
}

fn swatch(class: Option<Class>) -> Markup {
    html! {
        svg class=(class_name(class)) viewBox="0 0 10 10" aria-hidden="true" {
            rect class="bar" width="10" height="10" rx="2" {}
        }
    }
}

fn legend(of: impl Iterator<Item = Option<Class>>) -> Markup {
    let mut classes: Vec<Option<Class>> = of.collect();
    classes.sort_unstable();
    classes.dedup();
    html! { ul class="legend" { @for class in classes { li { (swatch(class)) (class_name(class)) } } } }
}

fn diamond(x: f64, y: f64, r: f64) -> String {
    let (l, t, rt, b) = (num(x - r), num(y - r), num(x + r), num(y + r));
    let (x, y) = (num(x), num(y));
    format!("M{x} {t}L{rt} {y}L{x} {b}L{l} {y}Z")
}

/// The first and the last label of an axis stay inside the picture.
fn anchor(x: f64, left: f64) -> &'static str {
    match () {
        () if x > WIDTH - 60.0 => "end",
        () if x < left + 1.0 => "start",
        () => "middle",
    }
}

/// A coordinate; a tenth of a unit cannot be seen.
fn num(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_few_places_that_people_read() {
        for length in
            [0, 1, 999, 1_600, 50_000, 1_600_000, 3_999_999, 90_000_000, 3_600_000_000, 90_000_000_000_000]
        {
            let ticks = ticks(length);
            assert!((1..=11).contains(&ticks.len()), "{length}: {ticks:?}");
        }
        assert_eq!(ticks(90_000_000).into_iter().map(offset).collect::<Vec<_>>().last().unwrap(), "+0:01:30");
        assert_eq!(offset(5_000_000), "+5s");
    }

    #[test]
    fn failures_are_drawn_before_all_else() {
        let row = |n: i64, class| Row {
            name: n.to_string(),
            from_us: n,
            to_us: n + 1,
            class,
            title: String::new(),
            marks: Vec::new(),
        };
        let rows: Vec<Row> =
            (0..2000).map(|n| row(n, Some(if n > 1900 { Class::Oom } else { Class::Ok }))).collect();
        let kept = chosen(&rows);
        assert_eq!(kept.len(), DRAWN);
        assert_eq!(kept.iter().filter(|r| r.class == Some(Class::Oom)).count(), 99);
        assert!(timeline("a", "t", &rows).into_string().contains("1600 more are not drawn"));
    }

    #[test]
    fn no_number_is_wild() {
        let row = Row {
            name: "x".into(),
            from_us: i64::MIN,
            to_us: i64::MAX,
            class: None,
            title: "<&\">".into(),
            marks: vec![Mark { at_us: -5, title: "]]>".into() }],
        };
        let bar = Bar { name: "b".into(), peak: 0, limit: Some(0), class: None, clipped: true };
        let text = timeline("a", "t", &[row]).into_string() + &memory("b", "t", &[bar]).into_string();
        assert!(
            !text.contains("NaN") && !text.contains("inf") && text.contains("&lt;&amp;&quot;&gt;"),
            "{text}"
        );
    }
}
