//! Code of a workflow's own that stands in a file beside it: `code_from = "mine.py"` becomes `code` and its SHA-256, so that what
//! is deployed is whole, and says what it is. Everything else in the text stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use toml_edit::{DocumentMut, TableLike, Value};

/// What this replaces.
const KEY: &str = "code_from";
/// Where nodes stand.
const SECTIONS: [&str; 3] = ["sources", "transforms", "destinations"];
/// What cannot stand beside it.
const OTHERS: [&str; 3] = ["code", "file", "sha256"];

/// The text with the code in it. `dir` is where relative paths start. A text that is no TOML is left as it is: whoever reads
/// it next says what is wrong with it.
pub fn fill_in(text: String, dir: &Path) -> Result<String, String> {
    if !text.contains(KEY) {
        return Ok(text);
    }
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return Ok(text);
    };
    let mut is_filled = false;
    for section in SECTIONS {
        let Some(nodes) = document.get_mut(section).and_then(|item| item.as_table_like_mut()) else {
            continue;
        };
        for (name, node) in nodes.iter_mut() {
            if let Some(node) = node.as_table_like_mut() {
                let filled = fill_in_node(node, dir);
                is_filled |= filled.map_err(|cause| format!("{section}.{}.{KEY}: {cause}", name.get()))?;
            }
        }
    }
    // It stood somewhere else.
    if !is_filled {
        return Ok(text);
    }
    Ok(document.to_string())
}

/// Whether there was something to do.
fn fill_in_node(node: &mut dyn TableLike, dir: &Path) -> Result<bool, String> {
    let Some(item) = node.get(KEY) else {
        return Ok(false);
    };
    let path = item.as_str().map(|path| dir.join(path));
    let path: PathBuf = path.ok_or("is the path of a file with the code, as text")?;
    if let Some(other) = OTHERS.iter().find(|other| node.contains_key(other)) {
        return Err(format!(
            "cannot be given together with {other}: it is filled in from the file"
        ));
    }
    let code = fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let sha256: String = Sha256::digest(&code).iter().map(|byte| format!("{byte:02x}")).collect();
    node.remove(KEY);
    node.insert("code", toml_edit::Item::Value(literal(&code)));
    node.insert("sha256", toml_edit::value(sha256));
    Ok(true)
}

/// A text as it stands between three quotes, where it can.
fn literal(code: &str) -> Value {
    let quoted = format!("'''\n{code}'''").parse::<Value>();
    match quoted {
        Ok(value) if value.as_str() == Some(code) => value,
        _ => code.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_code_and_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put("mine.py", "def read(cursor):\n    yield {\"n\": 1}\n");
        let text = "name = \"own\" # mine\n\n[sources.a]\ntype = \"python\"\ncode_from = \"mine.py\"\n\n[destinations.out]\nfrom = \"a\" # b\n";
        let filled = fill_in(text.into(), dir.path()).unwrap();
        assert_eq!(
            filled,
            "name = \"own\" # mine\n\n[sources.a]\ntype = \"python\"\ncode = '''\ndef read(cursor):\n    yield {\"n\": 1}\n'''\n\
             sha256 = \"8f582347be633b2774df7fe916aeabd822a966a1de1e9db61625cd18b13042be\"\n\n[destinations.out]\nfrom = \"a\" # b\n"
        );
        // Whatever stands in the file, it is the same afterwards.
        for code in ["'''", "a\r\nb", "tab\t\"\"\"", "\n\nx", "", "nul\u{1}", "\\ end\\"] {
            put("odd.py", code);
            let text = "[transforms]\nx = { type = \"python\", code_from = \"odd.py\" }\n";
            let filled: toml::Table = fill_in(text.into(), dir.path()).unwrap().parse().unwrap();
            assert_eq!(filled["transforms"]["x"]["code"].as_str(), Some(code));
        }
    }

    #[test]
    fn what_is_not_meant_stays_and_what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for same in [
            "no toml [ code_from",
            "name = \"code_from\"",
            "[sources]\ncode_from = 1",
        ] {
            assert_eq!(fill_in(same.into(), dir.path()).unwrap(), same);
        }
        for (node, said) in [
            ("code_from = \"none.py\"", "transforms.x.code_from: cannot read"),
            ("code_from = 5", "transforms.x.code_from: is the path of a file"),
            (
                "code_from = \"a.py\"\ncode = \"\"",
                "cannot be given together with code",
            ),
        ] {
            let error = fill_in(format!("[transforms.x]\n{node}\n"), dir.path()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
