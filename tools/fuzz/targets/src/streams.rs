//! Feeds the fuzzer's bytes to `streams`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::target("streams").expect("a target of this name")(data);
});
