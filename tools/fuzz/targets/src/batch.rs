//! Feeds the fuzzer's bytes to `batch`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::target("batch").expect("a target of this name")(data);
});
