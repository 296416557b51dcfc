//! libFuzzer's way into `src/config.rs`, where what must hold is said.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| finicity_proxy_fuzz::config(input));
