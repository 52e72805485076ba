//! What is looked up, as it is kept in memory: texts by the text of a key, within a bound. Reads nothing.

use std::collections::HashMap;

use crate::file::text::shorten;

/// Most bytes of memory that a table takes, as they are counted here.
const TABLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a row takes besides its texts, in bytes.
const ROW_BYTES: usize = 64;
/// What a value takes besides its text, in bytes.
const VALUE_BYTES: usize = 24;

/// Values by key. A value may be null.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Table {
    rows: HashMap<String, Box<[Option<String>]>>,
    bytes: usize,
}

impl Table {
    /// Takes a row. The error says why the table cannot be used.
    pub(crate) fn insert(&mut self, key: &str, values: Vec<Option<String>>) -> Result<(), String> {
        if let Some(before) = self.rows.get(key) {
            return match **before == *values {
                true => Ok(()),
                false => Err(format!("it says two things about '{}'", shorten(key))),
            };
        }
        let texts: usize = values.iter().flatten().map(String::len).sum();
        self.bytes += ROW_BYTES + key.len() + VALUE_BYTES * values.len() + texts;
        if self.bytes > TABLE_BYTES_MAX {
            let rows = self.rows.len();
            return Err(format!(
                "it takes more than {TABLE_BYTES_MAX} bytes of memory, with its first {rows} rows: look up in fewer rows or \
                 columns"
            ));
        }
        self.rows.insert(key.to_string(), values.into_boxed_slice());
        Ok(())
    }

    /// The values of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&[Option<String>]> {
        self.rows.get(key).map(|values| &**values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_bounded_and_says_one_thing() {
        let mut table = Table::default();
        table.insert("a", vec![Some("x".into()), None]).unwrap();
        table.insert("a", vec![Some("x".into()), None]).unwrap();
        let twice = table.insert("a", vec![Some("y".into()), None]).unwrap_err();
        assert!(twice.contains("two things about 'a'"), "{twice}");
        assert_eq!(table.get("a"), Some(&[Some("x".to_string()), None][..]));
        assert_eq!(table.get("b"), None);
        let refused = (0..100_000).find_map(|n| table.insert(&n.to_string(), vec![Some("text".into()), None]).err());
        assert!(refused.unwrap().contains("bytes of memory"));
    }
}
