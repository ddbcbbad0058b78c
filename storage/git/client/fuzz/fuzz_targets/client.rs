#![no_main]

#[path = "../inputs.rs"]
mod inputs;

use libfuzzer_sys::fuzz_target;

thread_local! {
    static PLACE: inputs::Place = inputs::Place::new();
}

fuzz_target!(|data: &[u8]| {
    PLACE.with(|place| {
        let _taken = place.take(data);
    });
});
