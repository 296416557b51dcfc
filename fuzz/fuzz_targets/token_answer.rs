//! Entry point for libFuzzer; the invariants are in `fuzz/src/token_answer.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| finicity_proxy_fuzz::token_answer(input));
