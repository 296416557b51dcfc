//! Entry point for libFuzzer; the invariants are in `fuzz/src/headers.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| finicity_proxy_fuzz::headers(input));
