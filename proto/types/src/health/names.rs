//! Names of groups for people.

use crate::ids::GroupId;

/// `meta` or `shard 3`: also the subject of conditions that are about a group.
pub fn group_name(group: GroupId) -> String {
    if group.is_meta() {
        "meta".to_owned()
    } else {
        format!("shard {group}")
    }
}

/// `meta, shards 1-3, 7`; the groups in their order.
pub fn group_names(groups: &[GroupId]) -> String {
    let mut texts = Vec::new();
    if groups.iter().any(|group| group.is_meta()) {
        texts.push("meta".to_owned());
    }
    let shards: Vec<u32> = groups
        .iter()
        .filter(|group| !group.is_meta())
        .map(|group| group.get())
        .collect();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &shard in &shards {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == shard => *last = shard,
            _ => runs.push((shard, shard)),
        }
    }
    let label = if shards.len() == 1 {
        "shard "
    } else {
        "shards "
    };
    for (place, (first, last)) in runs.into_iter().enumerate() {
        let label = if place == 0 { label } else { "" };
        texts.push(if first == last {
            format!("{label}{first}")
        } else {
            format!("{label}{first}-{last}")
        });
    }
    texts.join(", ")
}

/// The group that a subject names.
pub(super) fn group_of(subject: &str) -> Option<GroupId> {
    if subject == "meta" {
        return Some(GroupId::META);
    }
    let number = subject.strip_prefix("shard ")?;
    number.parse().ok().map(GroupId::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_in_runs() {
        let groups = |numbers: &[u32]| {
            group_names(
                &numbers
                    .iter()
                    .copied()
                    .map(GroupId::new)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(groups(&[0]), "meta");
        assert_eq!(groups(&[5]), "shard 5");
        assert_eq!(groups(&[0, 1, 2, 3, 7, 9, 10]), "meta, shards 1-3, 7, 9-10");
    }
}
