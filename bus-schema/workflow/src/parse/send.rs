//! `send = { … }`: how the streams into a node are sent.

use bus_schema::plan::{Class, SendPolicy, Window};
use toml::de::DeValue;

use super::{Reader, kind};
use crate::{
    spec::Place,
    words::{clip, joined, nearest, size_bytes, suggest},
};

const KEYS: [&str; 5] = ["class", "rate", "windows", "compress", "live_first"];
const CLASSES: [(&str, Class); 3] = [
    ("critical", Class::Critical),
    ("normal", Class::Normal),
    ("bulk", Class::Bulk),
];
/// Most windows of a day.
const WINDOWS_MAX: usize = 24;

impl Reader {
    /// Reads the table under `send`.
    pub(super) fn send(&mut self, place: &Place, value: &DeValue<'_>) -> SendPolicy {
        let mut policy = SendPolicy::default();
        let DeValue::Table(table) = value else {
            let hint = "for example: send = { class = \"bulk\", rate = \"50KB/s\", windows = [\"22:00-06:00\"] }";
            self.wrong(place, format!("'send' must be a table, not {}", kind(value)), hint);
            return policy;
        };
        for (key, value) in table {
            let key = key.get_ref().as_ref();
            let (at, value) = (place.key(key), value.get_ref());
            match key {
                "class" => policy.class = self.class(&at, value).unwrap_or_default(),
                "rate" => policy.bytes_per_s_max = self.rate(&at, value).unwrap_or_default(),
                "windows" => policy.windows = self.windows(&at, value),
                "compress" => policy.compress = self.flag(&at, value),
                "live_first" => policy.live_first = self.flag(&at, value),
                _ => {
                    let hint = suggest(key, "keys of 'send'", KEYS);
                    self.wrong(&at, format!("unknown key '{}'", clip(key)), hint);
                }
            }
        }
        policy
    }

    fn flag(&mut self, place: &Place, value: &DeValue<'_>) -> bool {
        if let DeValue::Boolean(flag) = value {
            return *flag;
        }
        let message = format!(
            "'{}' must be true or false, not {}",
            super::last_key(place),
            kind(value)
        );
        self.wrong(place, message, "without quotes");
        false
    }

    fn class(&mut self, place: &Place, value: &DeValue<'_>) -> Option<Class> {
        let text = self.text(place, value)?;
        let found = CLASSES.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names = CLASSES.map(|(name, _)| name);
            let expected = joined(&names.map(|name| format!("'{name}'")), "or");
            let near = nearest(&text, names).map(|near| format!("did you mean '{near}'?"));
            let message = format!("'class' must be {expected}, not '{}'", clip(&text));
            self.wrong(place, message, near.unwrap_or_default());
        }
        found.map(|(_, class)| *class)
    }

    fn rate(&mut self, place: &Place, value: &DeValue<'_>) -> Option<u64> {
        let hint = "write, for example, \"50KB/s\"; leave it out for no limit";
        let DeValue::String(text) = value else {
            let message = format!("'rate' must be text such as \"50KB/s\", not {}", kind(value));
            self.wrong(place, message, hint);
            return None;
        };
        let bytes = text.trim().strip_suffix("/s").and_then(size_bytes);
        match bytes {
            None => self.wrong(
                place,
                format!("'rate' must be a size a second, not '{}'", clip(text)),
                hint,
            ),
            Some(0) => self.wrong(place, "a rate of nothing would never send", hint),
            Some(_) => {}
        }
        bytes
    }

    fn windows(&mut self, place: &Place, value: &DeValue<'_>) -> Vec<Window> {
        const EXAMPLE: &str = "for example: windows = [\"22:00-06:00\"]; leave it out for any time";
        let DeValue::Array(items) = value else {
            let message = format!("'windows' must be a list of times of day, not {}", kind(value));
            self.wrong(place, message, EXAMPLE);
            return Vec::new();
        };
        if items.is_empty() {
            self.wrong(place, "'windows' names no time of day", EXAMPLE);
        }
        if items.len() > WINDOWS_MAX {
            let message = format!("{} windows are too many; a day has at most {WINDOWS_MAX}", items.len());
            self.wrong(place, message, "");
        }
        let mut windows = Vec::new();
        for (index, item) in items.iter().enumerate().take(WINDOWS_MAX) {
            let at = place.item(index);
            let Some(text) = self.text(&at, item.get_ref()) else {
                continue;
            };
            match window(&text) {
                None => {
                    let message = format!("'{}' is no window of a day", clip(&text));
                    self.wrong(
                        &at,
                        message,
                        "write from-to in hours and minutes, for example \"22:00-06:00\"",
                    );
                }
                Some(window) if window.from_minute == window.to_minute => {
                    let message = format!("'{}' begins and ends at the same time", clip(&text));
                    self.wrong(&at, message, "leave 'windows' out to send at any time");
                }
                Some(window) => windows.push(window),
            }
        }
        windows
    }
}

/// `22:00-06:00`; 24:00 is the end of the day.
fn window(text: &str) -> Option<Window> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute(from.trim())?, minute(to.trim())?);
    (from < 24 * 60).then_some(Window {
        from_minute: from,
        to_minute: to % (24 * 60),
    })
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let is_number = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let at = hours * 60 + minutes;
    (minutes < 60 && at <= 24 * 60).then_some(at)
}
