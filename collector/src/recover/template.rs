//! The name of a file that goes with an index of an array.

use std::str::FromStr;

/// `configs/config_%04d.json`: printf's `%d` with an optional width, for the
/// index in the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    before: String,
    after: String,
    width: usize,
    zeros: bool,
}

/// A template that names no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is no template: {reason}; write something like configs/config_%04d.json", .text.escape_debug())]
pub struct BadTemplate {
    text: String,
    reason: &'static str,
}

impl FromStr for Template {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<Template, BadTemplate> {
        let bad = |reason| BadTemplate { text: text.into(), reason };
        let mut parts = [String::new(), String::new()];
        let mut found: Option<(usize, bool)> = None;
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let part = &mut parts[usize::from(found.is_some())];
            part.push_str(&rest[..at]);
            let spec = &rest[at + 1..];
            let digits = spec.bytes().take_while(u8::is_ascii_digit).count();
            match spec.as_bytes().get(digits) {
                Some(b'%') if digits == 0 => part.push('%'),
                Some(b'd') if found.is_none() => {
                    let width = if digits == 0 { 0 } else { spec[..digits].parse().unwrap_or(usize::MAX) };
                    if width > 32 {
                        return Err(bad("the width is more than 32"));
                    }
                    found = Some((width, spec.starts_with('0')));
                }
                Some(b'd') => return Err(bad("there is more than one %d")),
                _ => return Err(bad("after % comes d, a width and d, or another %")),
            }
            rest = &spec[digits + 1..];
        }
        parts[usize::from(found.is_some())].push_str(rest);
        let (width, zeros) = found.ok_or_else(|| bad("it has no %d for the index in the array"))?;
        let [before, after] = parts;
        Ok(Template { before, after, width, zeros })
    }
}

impl Template {
    /// The name for this index.
    pub fn name(&self, index: u32) -> String {
        let (width, Template { before, after, .. }) = (self.width, self);
        if self.zeros {
            format!("{before}{index:0width$}{after}")
        } else {
            format!("{before}{index:width$}{after}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_printf_does() {
        for (template, name) in
            [("configs/config_%04d.json", "configs/config_0038.json"), ("%d", "38"), ("a%%b%3dé", "a%b 38é")]
        {
            assert_eq!(template.parse::<Template>().unwrap().name(38), name);
        }
        for bad in ["", "config.json", "%s", "%", "%d%d", "%99d", "%é", "%5"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }
}
