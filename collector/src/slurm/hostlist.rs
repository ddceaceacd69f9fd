//! Node names as Slurm folds them: `n[1-3,7]`.

/// Prefix, suffix and width of the number: what may share one bracket.
type Shape<'a> = (&'a str, &'a str, usize);

/// Folds names into a hostlist: the last number of a name is folded, its
/// width kept, in order of first appearance of the prefix.
pub fn fold<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut groups: Vec<(Shape<'a>, Vec<u32>)> = Vec::new();
    for name in names {
        let end = name.rfind(|c: char| c.is_ascii_digit()).map_or(0, |at| at + 1);
        let start = name[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
        let digits = &name[start..end];
        let (key, number) = match digits.parse::<u32>() {
            Ok(n) => ((&name[..start], &name[end..], width(digits)), Some(n)),
            Err(_) => ((name, "", 0), None),
        };
        let at = groups.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.extend(number);
    }
    let mut parts = Vec::new();
    for ((prefix, suffix, width), mut numbers) in groups {
        numbers.sort_unstable();
        numbers.dedup();
        parts.push(match numbers.as_slice() {
            [] => prefix.to_owned(),
            [one] => format!("{prefix}{one:0width$}{suffix}"),
            many => {
                let ranges = super::target::fold_ranges(many.iter().copied());
                let padded = ranges.split(',').map(|range| {
                    let ends = range.split('-').map(|n| format!("{n:0>width$}"));
                    ends.collect::<Vec<_>>().join("-")
                });
                format!("{prefix}[{}]{suffix}", padded.collect::<Vec<_>>().join(","))
            }
        });
    }
    parts.join(",")
}

/// Numbers with leading zeros fold only with their own width.
fn width(digits: &str) -> usize {
    if digits.starts_with('0') && digits.len() > 1 { digits.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn names_fold_as_slurm_folds_them() {
        let cases: [(&[&str], &str); 7] = [
            (&["n1"], "n1"),
            (&["n1", "n2", "n3", "n7"], "n[1-3,7]"),
            (&["n2", "n1", "n2"], "n[1-2]"),
            (&["n001", "n002", "n010"], "n[001-002,010]"),
            (&["n1-ib", "n2-ib"], "n[1-2]-ib"),
            (&["login", "n1"], "login,n1"),
            (&[], ""),
        ];
        for (names, folded) in cases {
            assert_eq!(fold(names.iter().copied()), folded);
        }
    }
}
