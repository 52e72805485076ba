//! What a command gives, in the form that was asked for: one place, so that every command knows every form.
//! Data goes to stdout and nothing else does.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use crate::arguments::Output;

/// What a command gives.
pub struct Answer {
    /// For programs. The fields of a command stay; new ones may come.
    data: Value,
    /// What the things are called, a name each.
    names: Vec<String>,
    /// For people.
    text: String,
}

impl Answer {
    /// Data, and how people see it.
    pub fn new<T: Serialize>(data: &T, names: impl IntoIterator<Item = String>, text: impl Into<String>) -> Self {
        Self {
            data: serde_json::to_value(data).unwrap_or_default(),
            names: names.into_iter().collect(),
            text: text.into(),
        }
    }

    /// The whole of it in one form.
    fn written(&self, output: Output) -> String {
        match output {
            Output::Table => self.text.clone(),
            Output::Json => {
                let mut text = serde_json::to_string_pretty(&self.data).unwrap_or_default();
                text.push('\n');
                text
            }
            Output::Jsonl => match &self.data {
                Value::Array(items) => items.iter().map(|item| format!("{item}\n")).collect(),
                one => format!("{one}\n"),
            },
            Output::Yaml => serde_saphyr::to_string(&self.data).unwrap_or_default(),
            Output::Name => self.names.iter().map(|name| format!("{name}\n")).collect(),
        }
    }

    /// As people see it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Prints it.
    pub fn print(&self, output: Output) {
        put(&self.written(output));
    }
}

/// One of many things that come one after the other, such as a record of a tap. `false`: nobody reads on.
pub fn print_item(output: Output, data: &Value, name: &str, text: &str) -> bool {
    let mut text = match output {
        Output::Table => text.to_string(),
        Output::Json | Output::Jsonl => data.to_string(),
        Output::Yaml => format!("---\n{}", serde_saphyr::to_string(data).unwrap_or_default().trim_end()),
        Output::Name => name.to_string(),
    };
    text.push('\n');
    put(&text)
}

/// Whoever reads our output may have seen enough and close the pipe; that is no error.
fn put(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_a_list_and_of_one_thing() {
        let list = Answer::new(
            &json!([{"name": "gw", "up": true}, {"name": "hub", "up": false}]),
            ["gw".to_string(), "hub".to_string()],
            "NAME\ngw\nhub\n",
        );
        for (output, text) in [
            (Output::Table, "NAME\ngw\nhub\n"),
            (
                Output::Jsonl,
                "{\"name\":\"gw\",\"up\":true}\n{\"name\":\"hub\",\"up\":false}\n",
            ),
            (Output::Name, "gw\nhub\n"),
            (Output::Yaml, "- name: gw\n  up: true\n- name: hub\n  up: false\n"),
        ] {
            assert_eq!(list.written(output), text, "{output:?}");
        }
        let again: Value = serde_json::from_str(&list.written(Output::Json)).unwrap();
        assert_eq!(again, list.data);
        let one = Answer::new(&json!({"fleet": "f", "no": null}), ["f".to_string()], "");
        assert_eq!(one.written(Output::Jsonl), "{\"fleet\":\"f\",\"no\":null}\n");
        assert_eq!(one.written(Output::Yaml), "fleet: f\n\"no\": null\n");
        let nothing = Answer::new(&json!([]), [], "NAME\n");
        assert_eq!(
            (nothing.written(Output::Jsonl), nothing.written(Output::Name)),
            (String::new(), String::new())
        );
    }
}
