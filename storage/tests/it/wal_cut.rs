//! A copy of a damaged log is read up to the damage.

use std::path::Path;

use henge_storage::disk::sim::SimDisk;
use henge_storage::wal::{self, WalError};
use henge_types::GroupId;

use crate::wal_driver::open;
use crate::wal_faults::{append, files, record};

const GROUP: GroupId = GroupId::new(1);

/// One bad block cost the whole log, or all of its newest segment.
#[test]
fn a_damaged_log_is_read_up_to_the_damage() {
    // Every record takes 48 + 1000 bytes; a segment holds eleven.
    for (segment, at, last) in [(0, 5000, 0), (0, 9000, 4), (1, 9000, 15), (2, 6000, 23)] {
        let disk = SimDisk::new();
        let (wal, mut stepper) = open(&disk).expect("opens");
        for index in 1..=30 {
            append(&wal, GROUP, index, 1000).expect("is queued");
            assert!(stepper.turn());
        }
        drop((wal, stepper));
        disk.flip(&files(&disk)[segment], at);
        let Err(WalError::LostAcknowledged { segment, offset }) = open(&disk) else {
            panic!("it is damaged at {at} of {segment}");
        };
        let dir = Path::new("/data/wal");
        assert!(!wal::cut(&disk, dir, 99, offset).expect("is read"));
        assert!(!wal::cut(&disk, dir, segment, 100).expect("is read"));
        assert!(wal::cut(&disk, dir, segment, offset).expect("is cut"));
        let (wal, _stepper) = open(&disk).expect("opens up to there");
        assert_eq!(wal.group(GROUP).last_index.unwrap_or(0), last, "{at}");
        if last > 0 {
            let records = wal.read(GROUP, 1..=last, usize::MAX).expect("reads");
            let expected: Vec<_> = (1..=last).map(|index| record(index, 1000)).collect();
            assert_eq!(records, expected);
        }
    }
}
