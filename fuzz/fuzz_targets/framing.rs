//! libFuzzer's way into `fuzz/src/framing.rs`, where what must hold is said.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| finicity_proxy_fuzz::framing(input));
