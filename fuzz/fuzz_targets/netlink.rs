#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fathom::probe::fuzzing::run("netlink", bytes));
