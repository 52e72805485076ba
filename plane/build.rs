//! Puts the page that `npm run build` wrote into `ui/dist` inside the program, as a table for `http/assets.rs`; without it,
//! a page that says how to build it. Links the program so that what runs of it lies together: see the crate `layout`.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    env,
    fmt::Write as _,
    fs,
    hash::{Hash as _, Hasher as _},
    io,
    path::{Path, PathBuf},
};

/// Larger files are there compressed only, in bytes: pages that anybody may ask for, and parts that only a browser does.
const PLAIN_BYTES_MAX: usize = 4 * 1024;
const PLAIN_PART_BYTES_MAX: usize = 512;

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let dist = here.join("../ui/dist").canonicalize()?;
    // Holds a file of the repository, so that cargo has something to look at before the page is built.
    println!("cargo:rerun-if-changed={}", dist.display());
    println!("cargo:rerun-if-changed=src/http/plain.css");
    let mut files = BTreeMap::new();
    if dist.join("index.html").is_file() {
        walk(&dist, "", &mut files)?;
    } else {
        println!("cargo:rerun-if-changed=src/http/not_built.html");
        files.insert("/index.html".to_string(), here.join("src/http/not_built.html"));
        files.insert("/icon.svg".to_string(), here.join("../ui/public/icon.svg"));
    }
    files.insert("/plain.css".to_string(), here.join("src/http/plain.css"));
    let mut table = "static ASSETS: &[Asset] = &[\n".to_string();
    for (path, file) in &files {
        if let Some(mime) = mime(path) {
            table += &entry(path, file, mime)?;
        }
    }
    fs::write(out.join("assets.rs"), table + "];\n")?;
    layout::link("mycelial-plane", "ran.txt")
}

/// Every file below `dir`, by the path under which the page asks for it.
fn walk(dir: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &path, files)?;
        } else {
            files.insert(path, entry.path());
        }
    }
    Ok(())
}

/// `None`: not a file of the page, but something beside it (a compressed form, the bundler's manifest).
fn mime(path: &str) -> Option<&'static str> {
    let (_, extension) = path.rsplit_once('.')?;
    match extension {
        "html" => Some("text/html; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

/// A line of the table.
fn entry(path: &str, file: &Path, mime: &str) -> io::Result<String> {
    let bytes = fs::read(file)?;
    let zipped = PathBuf::from(format!("{}.gz", file.display()));
    let plain_max = match path.starts_with("/assets/") {
        true => PLAIN_PART_BYTES_MAX,
        false => PLAIN_BYTES_MAX,
    };
    let is_small = bytes.len() <= plain_max || !zipped.is_file();
    let mut line = format!("    Asset {{ path: {path:?}, mime: {mime:?}, ");
    let name = |path: &Path| format!("{:?}", path.display().to_string());
    // Writing to a string cannot fail.
    let _ = if path.starts_with("/assets/") {
        write!(line, "tag: None, ")
    } else {
        // Only to notice that a file is another one: no secret, no enemy.
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        write!(line, "tag: Some(\"\\\"{:016x}\\\"\"), ", hasher.finish())
    };
    let _ = match is_small {
        true => writeln!(line, "bytes: include_bytes!({}), zipped: false }},", name(file)),
        false => writeln!(line, "bytes: include_bytes!({}), zipped: true }},", name(&zipped)),
    };
    Ok(line)
}
