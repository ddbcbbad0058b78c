#![no_main]
#![allow(dead_code, reason = "every target uses its part of the inputs")]

#[path = "../inputs.rs"]
mod inputs;

use libfuzzer_sys::fuzz_target;

thread_local! {
    static SHELF: inputs::Shelf = inputs::Shelf::new();
}

fuzz_target!(|data: &[u8]| {
    SHELF.with(|shelf| {
        let _answers = shelf.take(data);
    });
});
