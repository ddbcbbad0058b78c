#![no_main]
#![allow(dead_code, reason = "every target uses its part of the inputs")]

#[path = "../inputs.rs"]
mod inputs;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _taken = inputs::ref_name(data);
});
