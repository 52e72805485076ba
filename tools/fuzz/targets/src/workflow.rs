//! Feeds the fuzzer's bytes to `workflow`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::target("workflow").expect("a target of this name")(data);
});
