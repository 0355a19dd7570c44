//! See `tidegate_tests::fuzz::envelopes_http`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidegate_tests::fuzz::envelopes_http(input));
