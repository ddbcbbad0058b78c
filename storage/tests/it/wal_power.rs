//! The log on a disk that loses power: every acknowledged entry is present, no truncated entry
//! returns, and the contents are a prefix of the submitted steps.

use henge_storage::disk::sim::SimDisk;
use henge_storage::wal::WalError;

use crate::wal_driver::{Dice, Driver, Model, contents, open, same};

const CRASHES: u64 = 6;

/// Several lives on one disk, each cut at a random point. `Err` names the loss.
fn run(seed: u64, mutant: bool) -> Result<u64, String> {
    let mut dice = Dice(seed);
    let disk = SimDisk::new();
    let mut driver = Driver::new(&disk).map_err(|error| error.to_string())?;
    if mutant {
        disk.ignore_syncs();
    }
    let mut cuts = 0;
    for _ in 0..CRASHES {
        let clean = dice.roll(5) == 0;
        if !clean {
            disk.cut_after(1 + dice.roll(150));
        }
        live(&mut driver, &mut dice, 80);
        if clean {
            driver.wal.close().map_err(|error| error.to_string())?;
            while driver.turn() {}
        }
        let possible = driver.possible();
        if clean && !mutant && possible.len() != 1 {
            return Err("a clean close left something unacknowledged".to_owned());
        }
        cuts += u64::from(disk.is_off());
        end(&disk, &mut dice);
        let (wal, stepper) = reopen(&disk, &mut dice)?;
        let found = contents(&wal)?;
        let Some(model) = possible.into_iter().find(|model| same(model, &found)) else {
            return Err(describe(&driver.model, &found));
        };
        driver = driver.resume(wal, stepper, model);
    }
    Ok(cuts)
}

/// Cuts the power, or kills only the process.
fn end(disk: &SimDisk, dice: &mut Dice) {
    if dice.roll(3) == 0 {
        disk.restart();
    } else {
        disk.crash(dice.roll(u64::MAX));
    }
}

fn describe(model: &Model, found: &Model) -> String {
    let lasts = |model: &Model| -> Vec<String> {
        let each = model.iter();
        each.map(|(group, state)| {
            let first = state.entries.keys().next().copied();
            format!(
                "{group}: {first:?}..={} vote {:?}",
                state.last(),
                state.vote
            )
        })
        .collect()
    };
    format!("acknowledged {:?}, found {:?}", lasts(model), lasts(found))
}

fn live(driver: &mut Driver, dice: &mut Dice, changes: u64) {
    for _ in 0..changes {
        if !driver.change(dice) {
            return;
        }
        if dice.roll(3) == 0 && !driver.turn() {
            return;
        }
        driver.take_acknowledged();
    }
}

/// Opens the log; sometimes the power fails during the opening too.
fn reopen(
    disk: &SimDisk,
    dice: &mut Dice,
) -> Result<(henge_storage::wal::Wal, henge_storage::wal::Stepper), String> {
    loop {
        let cut = dice.roll(2) == 0;
        if cut {
            disk.cut_after(1 + dice.roll(8));
        }
        match open(disk) {
            Ok(opened) if !disk.is_off() => {
                disk.keep_power();
                return Ok(opened);
            }
            Err(WalError::Io { .. }) if cut => {}
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        end(disk, dice);
    }
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let mut cuts = 0;
    for seed in 0..400 {
        match run(seed, false) {
            Ok(happened) => cuts += happened,
            Err(lost) => panic!("seed {seed}: {lost}"),
        }
    }
    assert!(
        cuts > 400,
        "only {cuts} cuts bit: the test checks too little"
    );
}

/// The mutant: a log whose syncs have no effect. The same test must detect it.
#[test]
fn a_log_that_does_not_sync_is_caught() {
    let caught = (0..20).filter(|seed| run(*seed, true).is_err()).count();
    assert!(
        caught >= 15,
        "only {caught} of 20 runs noticed the missing syncs"
    );
}
