//! Entry point for libFuzzer; the invariants are in `fuzz/src/verdict.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| finicity_proxy_fuzz::verdict(input));
