//! Entry point for libFuzzer; the invariants are in `fuzz/src/target.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| finicity_proxy_fuzz::target(input));
