//! Random operations on the log, compared with a naive model, with clean closes and kills, on a
//! disk that never fails.

use henge_storage::disk::sim::SimDisk;
use henge_types::GroupId;
use proptest::prelude::*;

use crate::wal_driver::{Dice, Driver, Model, contents, open, same};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_log_holds_what_the_model_holds(
        seed in any::<u64>(),
        lives in proptest::collection::vec((1_u64..120, any::<bool>()), 1..6),
    ) {
        let mut dice = Dice(seed);
        let disk = SimDisk::new();
        let mut driver = Driver::new(&disk).expect("opens");
        for (changes, clean) in lives {
            for _ in 0..changes {
                prop_assert!(driver.change(&mut dice));
                if dice.roll(4) == 0 {
                    prop_assert!(driver.turn());
                    driver.take_acknowledged();
                    in_memory(&driver)?;
                }
            }
            // Submitted entries are readable at once, acknowledged or not.
            let found = contents(&driver.wal).map_err(TestCaseError::fail)?;
            prop_assert!(same(&found, &driver.ahead));
            if clean {
                driver.wal.close().expect("closes");
                while driver.turn() {}
            } else {
                prop_assert!(driver.turn());
            }
            let possible = driver.possible();
            prop_assert_eq!(possible.len(), 1, "everything is acknowledged");
            let (wal, stepper) = open(&disk).expect("opens");
            let found = contents(&wal).map_err(TestCaseError::fail)?;
            prop_assert!(same(&found, &possible[0]));
            driver = driver.resume(wal, stepper, possible[0].clone());
            in_memory(&driver)?;
        }
    }
}

/// The counters in memory, after all submitted steps were acknowledged.
fn in_memory(driver: &Driver) -> Result<(), TestCaseError> {
    let model: &Model = &driver.model;
    for (group, state) in model {
        let bytes_after = |index: u64| -> u64 {
            let entries = state.entries.range(index + 1..);
            entries.map(|(_, payload)| 48 + payload.len() as u64).sum()
        };
        prop_assert_eq!(driver.wal.durable_index(*group), state.last());
        for index in [0, state.last() / 2, state.last()] {
            prop_assert_eq!(driver.wal.bytes_since(*group, index), bytes_after(index));
        }
        let pinned = driver.wal.pinned_bytes();
        let pinned = pinned.get(group).copied().unwrap_or(0);
        prop_assert_eq!(pinned, bytes_after(0), "group {}", group);
    }
    let dropped = driver.wal.pinned_bytes();
    let unknown: Vec<&GroupId> = dropped.keys().filter(|g| !model.contains_key(g)).collect();
    prop_assert!(unknown.is_empty());
    Ok(())
}
