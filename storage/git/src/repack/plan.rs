//! Selects the packs to merge: the fewest and smallest that leave a geometric progression.

use henge_types::PackId;

/// The properties of a pack that the plan uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSize {
    /// Its name.
    pub id: PackId,
    /// Number of objects.
    pub objects: u32,
    /// Bytes of the pack file.
    pub bytes: u64,
}

/// Limits on the packs after a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanLimits {
    /// The minimum ratio of the weight of a pack to that of the next smaller one.
    pub factor: u32,
    /// Total number of packs; at least one.
    pub packs_max: usize,
}

impl Default for PlanLimits {
    fn default() -> Self {
        Self {
            factor: 2,
            packs_max: 8,
        }
    }
}

/// The weight of a pack is its number of objects, as in git-repack(1), but at least one for so many
/// bytes: a pack of a few large files is not written again with every handful of small pushes.
const BYTES_PER_OBJECT: u64 = 64 * 1024;

fn weight(pack: &PackSize) -> u64 {
    u64::from(pack.objects.max(1)).max(pack.bytes / BYTES_PER_OBJECT)
}

/// The packs to merge into one, the smallest first; `None` when no merge is needed.
///
/// The result is the smallest set with these properties after the merge: every pack weighs at least
/// `factor` times the next smaller one, the merged pack is the smallest, and there are no more than
/// `packs_max` packs. See `--geometric` in git-repack(1). An object in several packs counts in each
/// of them. The merged pack is then smaller than computed, which keeps the progression.
pub fn plan(packs: &[PackSize], limits: PlanLimits) -> Option<Vec<PackId>> {
    let mut sorted: Vec<_> = packs.iter().map(|pack| (weight(pack), pack)).collect();
    sorted.sort_by_key(|(weight, pack)| (*weight, pack.bytes, pack.id));
    let factor = u64::from(limits.factor.max(1));
    // Start of the heaviest packs that are already in progression.
    let kept = sorted
        .windows(2)
        .rposition(|pair| pair[1].0 < factor.saturating_mul(pair[0].0))
        .map_or(0, |lighter| lighter + 2);
    let mut merged = kept;
    let mut total: u64 = sorted[..kept].iter().map(|(weight, _)| *weight).sum();
    while let Some((weight, _)) = sorted.get(merged) {
        let packs_after = sorted.len() - merged + usize::from(merged > 0);
        let fits = merged == 0 || *weight >= factor.saturating_mul(total);
        if fits && packs_after <= limits.packs_max.max(1) {
            break;
        }
        total = total.saturating_add(*weight);
        merged += 1;
    }
    (merged > 1).then(|| sorted[..merged].iter().map(|(_, pack)| pack.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::ObjectId;
    use proptest::prelude::*;

    fn pack(number: usize, objects: u32) -> PackSize {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        PackSize {
            id: PackId::new(ObjectId::Sha1(id)),
            objects,
            bytes: u64::from(objects) * 300,
        }
    }

    fn packs(objects: &[u32]) -> Vec<PackSize> {
        let numbered = objects.iter().enumerate();
        numbered
            .map(|(number, objects)| pack(number, *objects))
            .collect()
    }

    /// The sizes of the packs to merge.
    fn merged(objects: &[u32]) -> Option<Vec<u32>> {
        let packs = packs(objects);
        let size = |id: PackId| packs.iter().find(|pack| pack.id == id).unwrap().objects;
        let plan = plan(&packs, PlanLimits::default())?;
        Some(plan.into_iter().map(size).collect())
    }

    #[test]
    fn a_progression_is_left_alone() {
        for sizes in [
            &[][..],
            &[5],
            &[1, 2, 4, 8],
            &[100, 1, 10],
            &[3, 6, 12, 100_000],
        ] {
            assert_eq!(merged(sizes), None, "{sizes:?}");
        }
    }

    #[test]
    fn the_smallest_set_is_merged() {
        assert_eq!(merged(&[1000, 3, 3]), Some(vec![3, 3]));
        assert_eq!(merged(&[1000, 1, 1, 1]), Some(vec![1, 1, 1]));
        // The merged pack would be too close to the next one.
        assert_eq!(merged(&[3, 3, 10, 1000]), Some(vec![3, 3, 10]));
        assert_eq!(merged(&[7, 7]), Some(vec![7, 7]));
        assert_eq!(merged(&[1, 100, 150]), Some(vec![1, 100, 150]));
    }

    #[test]
    fn there_are_never_more_packs_than_allowed() {
        let sizes: Vec<u32> = (0..12).map(|power| 3_u32.pow(power)).collect();
        assert_eq!(merged(&sizes).unwrap().len(), 5);
        // Each merged pack is too close to the next one: only a merge of all packs suffices.
        let sizes: Vec<u32> = (0..12).map(|power| 1 << power).collect();
        assert_eq!(merged(&sizes).unwrap().len(), 12);
    }

    #[test]
    fn a_large_file_is_not_copied_for_a_few_small_pushes() {
        let mut packs = packs(&[1, 3, 3]);
        packs[0].bytes = 1 << 30;
        let plan = plan(&packs, PlanLimits::default()).unwrap();
        assert_eq!(plan, [packs[1].id, packs[2].id]);
    }

    fn is_progression(packs: &[PackSize], factor: u32) -> bool {
        let mut weights: Vec<_> = packs.iter().map(weight).collect();
        weights.sort_unstable();
        let mut pairs = weights.windows(2);
        pairs.all(|pair| pair[1] >= pair[0] * u64::from(factor))
    }

    fn apply(packs: &mut Vec<PackSize>, plan: &[PackId], number: usize) {
        let rolled = packs.iter().filter(|pack| plan.contains(&pack.id));
        let (objects, bytes) = rolled.fold((0, 0), |(objects, bytes), pack| {
            (objects + pack.objects, bytes + pack.bytes)
        });
        packs.retain(|pack| !plan.contains(&pack.id));
        let mut new = pack(number, objects);
        new.bytes = bytes;
        packs.push(new);
    }

    proptest! {
        #[test]
        fn one_merge_is_enough(
            sizes in proptest::collection::vec(1_u32..5000, 0..40), factor in 2_u32..4, packs_max in 1_usize..10,
        ) {
            let limits = PlanLimits { factor, packs_max };
            let mut all = packs(&sizes);
            let before = all.clone();
            match plan(&all, limits) {
                None => prop_assert!(is_progression(&all, factor) && all.len() <= packs_max),
                Some(chosen) => {
                    prop_assert!(chosen.len() > 1);
                    apply(&mut all, &chosen, 1000);
                    prop_assert!(is_progression(&all, factor), "{:?}", all);
                    prop_assert!(all.len() <= packs_max);
                    prop_assert_eq!(plan(&all, limits), None);
                    // No smaller set suffices, with the merged pack as the smallest.
                    let (last, fewer) = chosen.split_last().unwrap();
                    let merged = |set: &[PackId]| -> u64 {
                        let of_set = before.iter().filter(|pack| set.contains(&pack.id));
                        of_set.map(weight).sum()
                    };
                    let next = merged(std::slice::from_ref(last));
                    let rest: Vec<_> = before
                        .iter()
                        .filter(|pack| !fewer.contains(&pack.id))
                        .copied()
                        .collect();
                    let would_do = next >= u64::from(factor) * merged(fewer)
                        && is_progression(&rest, factor)
                        && rest.len() < packs_max;
                    prop_assert!(chosen.len() == 2 || !would_do);
                }
            }
        }

        #[test]
        fn pushes_leave_few_packs_and_are_copied_a_few_times(sizes in proptest::collection::vec(1_u32..60, 1..400)) {
            let limits = PlanLimits { packs_max: 64, ..PlanLimits::default() };
            let mut all = Vec::new();
            let (mut copied, mut total) = (0_u64, 0_u64);
            for (number, objects) in sizes.iter().enumerate() {
                all.push(pack(number, *objects));
                total += u64::from(*objects);
                if let Some(chosen) = plan(&all, limits) {
                    apply(&mut all, &chosen, 10_000 + number);
                    copied += u64::from(all.last().unwrap().objects);
                }
                let log = f64::from(u32::try_from(total).unwrap()).log2();
                prop_assert!(all.len() as f64 <= 1.0 + log, "{} packs of {total} objects", all.len());
            }
            let log = f64::from(u32::try_from(total).unwrap()).log2();
            prop_assert!(copied as f64 <= total as f64 * (2.0 + log), "{copied} copied of {total}");
        }
    }
}
