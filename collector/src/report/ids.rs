//! Ids of many jobs as people write them.

use std::collections::BTreeMap;

use crate::slurm::target::fold_ranges;

/// `120_[1-3,7],130-132`: members of arrays by array, plain jobs in ranges.
/// An id is the job's own and, for a member of an array, the array's id and
/// the index in it.
pub fn fold(ids: impl IntoIterator<Item = (u32, Option<(u32, u32)>)>) -> String {
    let mut arrays: BTreeMap<Option<u32>, Vec<u32>> = BTreeMap::new();
    for (job, array) in ids {
        let (key, number) = array.map_or((None, job), |(id, index)| (Some(id), index));
        arrays.entry(key).or_default().push(number);
    }
    let part = |(array, numbers): (Option<u32>, Vec<u32>)| match (array, numbers.as_slice()) {
        (Some(id), [one]) => format!("{id}_{one}"),
        (Some(id), _) => format!("{id}_[{}]", fold_ranges(numbers)),
        (None, _) => fold_ranges(numbers),
    };
    arrays.into_iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn arrays_and_jobs() {
        let ids = [(7, None), (120, Some((120, 1))), (121, Some((120, 2))), (8, None), (130, Some((130, 4)))];
        assert_eq!(super::fold(ids), "7-8,120_[1-2],130_4");
    }
}
