//! Puts the functions of a program that run beside each other when it is linked. A system maps a file's pages 64 KiB or
//! more at a time: where every part of a program holds a function that runs, all of it is resident memory.
//!
//! The functions are named in a file that `cargo xtask layout` writes, by name without hash: it serves other versions and
//! other processors, and a name that is not there any more does nothing. Never changes what a program does.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// What stands before a function's name in the name of its section: functions that are marked cold have a place apart.
const SECTIONS: [&str; 2] = [".text.", ".text.unlikely."];

/// Set to anything, it leaves a program as the compiler ordered it: callgrind mistakes addresses in another section.
pub const OFF: &str = "MYCELIAL_LAYOUT_OFF";

/// For the build script of the package whose program it is: `list` is the file beside its manifest that names what runs.
///
/// # Errors
/// The list cannot be read, or the script not be written.
pub fn link(program: &str, list: &str) -> io::Result<()> {
    println!("cargo:rerun-if-changed={list}");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={OFF}");
    let of = |name: &str| env::var(name).unwrap_or_default();
    let is_known_linker = of("CARGO_CFG_TARGET_OS") == "linux" && of("CARGO_CFG_TARGET_ENV") == "gnu";
    if of("PROFILE") != "release" || !is_known_linker || !of(OFF).is_empty() {
        return Ok(());
    }
    let names = fs::read_to_string(Path::new(&of("CARGO_MANIFEST_DIR")).join(list))?;
    let path = Path::new(&of("OUT_DIR")).join("layout.ld");
    fs::write(&path, script(&names))?;
    println!("cargo:rustc-link-arg-bin={program}=-T{}", path.display());
    Ok(())
}

/// A linker script for a list of names. It adds to the linker's own one.
#[must_use]
pub fn script(names: &str) -> String {
    let mut text = "SECTIONS\n{\n  .text.ran :\n  {\n".to_string();
    for name in names.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let sections = SECTIONS.map(|before| format!("{before}{name}")).join(" ");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    *({sections})");
    }
    text + "  }\n}\nINSERT BEFORE .text;\n"
}

/// A function's name as the list has it: what differs from one build to the next is a wildcard.
#[must_use]
pub fn stable(symbol: &str) -> String {
    if let Some(rest) = symbol.strip_suffix('E')
        && let Some((name, hash)) = rest.rsplit_once("17h")
        && hash.len() == 16
        && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return format!("{name}17h*");
    }
    if symbol.starts_with("_R") {
        return without_crate_hashes(symbol);
    }
    symbol.to_string()
}

/// Shortest hash of a crate in a name of the newer mangling. Anything shorter may be something else.
const CRATE_HASH_MIN: usize = 8;

/// In `_RNvCsjrHSEGnQ3l9_3std…` the crate is `std`, and `jrHSEGnQ3l9` which one.
fn without_crate_hashes(symbol: &str) -> String {
    let mut out = String::new();
    let mut rest = symbol;
    while let Some(at) = rest.find("Cs") {
        let (before, after) = rest.split_at(at + 2);
        out.push_str(before);
        let len = after.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let is_hash = len >= CRATE_HASH_MIN && after.as_bytes().get(len) == Some(&b'_');
        rest = if is_hash {
            out.push('*');
            &after[len..]
        } else {
            after
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_builds_is_left_out() {
        let cases = [
            ("_ZN5spool7Segment3put17hbc5958cc611b9f33E", "_ZN5spool7Segment3put17h*"),
            (
                "_ZN5spool3put17hnot_a_hash_at_allE",
                "_ZN5spool3put17hnot_a_hash_at_allE",
            ),
            (
                "_RNvCsfLfy6EI15iL_7___rustc11___rdl_alloc",
                "_RNvCs*_7___rustc11___rdl_alloc",
            ),
            ("_RNvNtCs1_4core3fmt", "_RNvNtCs1_4core3fmt"),
            ("sqlite3VdbeExec", "sqlite3VdbeExec"),
        ];
        for (symbol, want) in cases {
            assert_eq!(stable(symbol), want);
        }
    }

    #[test]
    fn the_script_adds_to_the_linkers_own() {
        let text = script("# said by\nsqlite3VdbeExec\n\n_ZN5spool3put17h*\n");
        assert_eq!(
            text,
            "SECTIONS\n{\n  .text.ran :\n  {\n    *(.text.sqlite3VdbeExec .text.unlikely.sqlite3VdbeExec)\n    \
             *(.text._ZN5spool3put17h* .text.unlikely._ZN5spool3put17h*)\n  }\n}\nINSERT BEFORE .text;\n"
        );
    }
}
