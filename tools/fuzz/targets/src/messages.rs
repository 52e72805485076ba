//! Feeds the fuzzer's bytes to `messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::target("messages").expect("a target of this name")(data);
});
