//! `share = { … }`: how several daemons share a destination.

use bus_schema::plan::ComponentRole;
use toml::de::DeValue;

use super::{Reader, kind};
use crate::{
    spec::{Place, Share},
    words::{clip, suggest},
};

const KEYS: [&str; 3] = ["by", "parts", "move_after"];
const EXAMPLE: &str = "for example: share = { by = [\"device\"] }";
/// Parts when the text does not say.
const PARTS: u16 = 4;
/// Most parts: each is a buffer of its own at the producer.
const PARTS_MAX: u16 = 16;
/// Most columns that keep records together.
const COLUMNS_MAX: usize = 8;
/// How long a daemon may be silent when the text does not say, in seconds: longer than a restart takes.
const MOVE_AFTER_S: u32 = 120;
/// The same, at least: what a plane takes to tell a daemon that is away from one on a bad line, in seconds.
const MOVE_AFTER_S_MIN: u32 = 30;
/// The same, at most, in seconds.
const MOVE_AFTER_S_MAX: u32 = 7 * 24 * 3_600;

impl Reader {
    /// Reads the table under `share`.
    pub(super) fn share(&mut self, role: ComponentRole, place: &Place, value: &DeValue<'_>) -> Option<Share> {
        if role != ComponentRole::Destination {
            let hint = "share the destination that the records go to, or choose daemons that run a copy each";
            self.wrong(place, format!("a {role} cannot be shared"), hint);
            return None;
        }
        let DeValue::Table(table) = value else {
            self.wrong(place, format!("'share' must be a table, not {}", kind(value)), EXAMPLE);
            return None;
        };
        let mut share = Share {
            by: Vec::new(),
            parts: PARTS,
            move_after_s: MOVE_AFTER_S,
        };
        let mut has_by = false;
        for (key, value) in table {
            let key = key.get_ref().as_ref();
            let (at, value) = (place.key(key), value.get_ref());
            match key {
                "by" => {
                    has_by = true;
                    share.by = self.columns(&at, value);
                }
                "parts" => share.parts = self.parts(&at, value).unwrap_or(PARTS),
                "move_after" => share.move_after_s = self.span(&at, value).unwrap_or(MOVE_AFTER_S),
                _ => {
                    let hint = suggest(key, "keys of 'share'", KEYS);
                    self.wrong(&at, format!("unknown key '{}'", clip(key)), hint);
                }
            }
        }
        if !has_by {
            self.wrong(
                place,
                "'by' is missing: which records stay together is not said",
                EXAMPLE,
            );
        }
        Some(share)
    }

    fn columns(&mut self, place: &Place, value: &DeValue<'_>) -> Vec<String> {
        let DeValue::Array(items) = value else {
            self.wrong(
                place,
                format!("'by' must be a list of columns, not {}", kind(value)),
                EXAMPLE,
            );
            return Vec::new();
        };
        if items.is_empty() || items.len() > COLUMNS_MAX {
            self.wrong(place, format!("name 1 to {COLUMNS_MAX} columns"), EXAMPLE);
        }
        let items = items.iter().enumerate().take(COLUMNS_MAX);
        items
            .filter_map(|(index, item)| self.text(&place.item(index), item.get_ref()))
            .collect()
    }

    fn parts(&mut self, place: &Place, value: &DeValue<'_>) -> Option<u16> {
        let number = match value {
            DeValue::Integer(number) => u16::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let parts = number.filter(|number| (2..=PARTS_MAX).contains(number));
        if parts.is_none() {
            let hint =
                "as many as there will ever be daemons, or a multiple of it: it cannot be changed without a new stream";
            self.wrong(place, format!("'parts' must be a number from 2 to {PARTS_MAX}"), hint);
        }
        parts
    }

    /// `90s`, `2m`, `1h`.
    fn span(&mut self, place: &Place, value: &DeValue<'_>) -> Option<u32> {
        let text = self.text(place, value)?;
        let unit = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
        let seconds = unit.iter().find_map(|(unit, seconds)| {
            let number: u32 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
            number.checked_mul(*seconds)
        });
        match seconds {
            Some(found) if (MOVE_AFTER_S_MIN..=MOVE_AFTER_S_MAX).contains(&found) => Some(found),
            Some(_) => {
                let message = format!("'move_after' must be from {MOVE_AFTER_S_MIN}s to 7d");
                self.wrong(place, message, "a daemon that only restarts should keep its parts");
                None
            }
            None => {
                let message = format!("'{}' is no length of time", clip(&text));
                self.wrong(place, message, "write, for example, \"90s\", \"2m\" or \"1h\"");
                None
            }
        }
    }
}
