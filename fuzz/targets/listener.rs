//! See `tidegate_tests::fuzz::listener`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidegate_tests::fuzz::listener(input));
