//! Feeds the fuzzer's bytes to `envelope`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::target("envelope").expect("a target of this name")(data);
});
