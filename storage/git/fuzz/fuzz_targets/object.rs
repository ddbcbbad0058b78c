#![no_main]
#![allow(dead_code, reason = "every target uses its part of the inputs")]

#[path = "../inputs.rs"]
mod inputs;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;

thread_local! {
    static PLACE: RefCell<inputs::Place> = RefCell::new(inputs::Place::new());
}

fuzz_target!(|data: &[u8]| {
    PLACE.with_borrow_mut(|place| {
        let _taken = inputs::object(place, data);
    });
});
