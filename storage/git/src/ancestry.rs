//! Topological order of commits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The numbers of `commits`, parents before their children. Among the commits that may come next,
/// the oldest comes first.
///
/// Each entry holds the numbers of the commit's parents, and its date.
pub(crate) fn parents_first(commits: &[(&[u32], i64)]) -> Vec<u32> {
    // The children of commit n are at starts[n]..starts[n + 1] of `children`.
    let mut starts = vec![0_u32; commits.len() + 1];
    for parent in commits.iter().flat_map(|(parents, _)| *parents) {
        starts[*parent as usize + 1] += 1;
    }
    for number in 1..starts.len() {
        starts[number] += starts[number - 1];
    }
    let mut filled = starts.clone();
    let mut children = vec![0_u32; starts.last().map_or(0, |count| *count as usize)];
    for (child, (parents, _)) in (0_u32..).zip(commits) {
        for parent in *parents {
            let slot = &mut filled[*parent as usize];
            children[*slot as usize] = child;
            *slot += 1;
        }
    }
    let mut open: Vec<usize> = commits.iter().map(|(parents, _)| parents.len()).collect();
    let mut ready: BinaryHeap<Reverse<(i64, u32)>> = (0_u32..)
        .zip(commits)
        .filter(|(_, (parents, _))| parents.is_empty())
        .map(|(number, (_, time))| Reverse((*time, number)))
        .collect();
    let mut order = Vec::with_capacity(commits.len());
    while let Some(Reverse((_, number))) = ready.pop() {
        order.push(number);
        let of = starts[number as usize] as usize..starts[number as usize + 1] as usize;
        for child in &children[of] {
            let left = &mut open[*child as usize];
            *left -= 1;
            if *left == 0 {
                ready.push(Reverse((commits[*child as usize].1, *child)));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parents_come_first_whatever_the_dates_say(
            commits in proptest::collection::vec((proptest::collection::vec(any::<u32>(), 0..4), any::<i8>()), 0..60),
        ) {
            // The parents of a commit stand behind it in the list.
            let count = u32::try_from(commits.len()).unwrap();
            let commits: Vec<(Vec<u32>, i64)> = (1..)
                .zip(&commits)
                .map(|(next, (parents, time))| {
                    let parents = parents.iter().filter(|_| next < count);
                    let parents = parents.map(|raw| next + raw % (count - next)).collect();
                    (parents, i64::from(*time))
                })
                .collect();
            let views: Vec<(&[u32], i64)> = commits
                .iter()
                .map(|(parents, time)| (&parents[..], *time))
                .collect();
            let order = parents_first(&views);
            let mut places = vec![usize::MAX; commits.len()];
            for (place, number) in order.iter().enumerate() {
                places[*number as usize] = place;
            }
            for (number, (parents, _)) in commits.iter().enumerate() {
                prop_assert!(places[number] < commits.len());
                prop_assert!(parents.iter().all(|parent| places[*parent as usize] < places[number]));
            }
        }
    }
}
