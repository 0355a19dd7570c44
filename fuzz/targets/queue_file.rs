//! See `tidegate_tests::fuzz::queue_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidegate_tests::fuzz::queue_file(input));
