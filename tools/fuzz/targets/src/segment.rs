//! Feeds the fuzzer's bytes to `segment`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::target("segment").expect("a target of this name")(data);
});
