//! Groups: selectors with a name, that stand for daemons wherever a selector does. Pure; the store keeps all of them as one thing.

use std::collections::BTreeMap;

use bus_schema::{api::GroupView, member::is_name};

use super::{
    Now, State,
    labels::Selector,
    sight::{ELSEWHERE, Sight},
};

/// Most groups of a fleet.
pub const GROUPS_MAX: usize = 256;

/// The groups, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups(BTreeMap<String, Selector>);

impl Groups {
    /// What a group stands for.
    pub fn get(&self, name: &str) -> Option<&Selector> {
        self.0.get(name)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// As text, for the store.
    pub fn texts(&self) -> Vec<(String, String)> {
        let texts = self
            .0
            .iter()
            .map(|(name, selector)| (name.clone(), selector.to_string()));
        texts.collect()
    }

    /// Out of the store. What cannot be read any more chooses nobody.
    pub fn of_texts(texts: Vec<(String, String)>) -> Self {
        let read = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, Selector::parse(&text).ok()?)));
        Self(read.collect())
    }

    /// With one more, or another selector of one; else what is wrong with it.
    pub fn with(&self, name: &str, selector: &str) -> Result<Self, String> {
        if !is_name(name) {
            return Err(format!(
                "'{}' cannot be a group: use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit",
                name.chars().take(64).collect::<String>().escape_debug()
            ));
        }
        let selector = Selector::parse(selector)?;
        // Groups of groups could go round in circles.
        if let Some(other) = selector.groups().next() {
            return Err(format!(
                "a group cannot be made of groups: '{name}' names group:{other}"
            ));
        }
        if !self.0.contains_key(name) && self.0.len() >= GROUPS_MAX {
            return Err(format!("there are {GROUPS_MAX} groups already"));
        }
        let mut groups = self.clone();
        groups.0.insert(name.to_string(), selector);
        Ok(groups)
    }

    /// Without one; `None`: there is none of this name.
    pub fn without(&self, name: &str) -> Option<Self> {
        let mut groups = self.clone();
        groups.0.remove(name)?;
        Some(groups)
    }

    /// Reads a selector all of whose groups there are.
    pub fn parse(&self, text: &str) -> Result<Selector, String> {
        let selector = Selector::parse(text)?;
        let unknown = selector.groups().find(|name| !self.0.contains_key(*name));
        if let Some(name) = unknown {
            let name: String = name.chars().take(64).collect();
            return Err(format!(
                "there is no group '{}'; see: mycelial group list",
                name.escape_debug()
            ));
        }
        Ok(selector)
    }
}

impl State {
    /// Groups that choose somebody who is seen, with how many of those each chooses now; to who sees everything, all of them.
    /// What a group stands for is not said where that names what may not be seen.
    pub fn group_views(&self, groups: &Groups, sight: &Sight, now: Now) -> Vec<GroupView> {
        let view = |(name, selector): (&String, &Selector)| {
            let chosen = self.chosen(selector, now);
            let seen = chosen.iter().filter(|view| sight.sees(&view.node)).count();
            let is_told = sight.is_whole() || (seen == chosen.len() && !selector.has_names());
            (seen > 0 || sight.is_whole()).then(|| GroupView {
                name: name.clone(),
                selector: if is_told {
                    selector.to_string()
                } else {
                    ELSEWHERE.to_string()
                },
                daemons: u32::try_from(seen).unwrap_or(u32::MAX),
            })
        };
        groups.0.iter().filter_map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_selectors_with_names() {
        let none = Groups::default();
        let one = none.with("north", "site=berlin -label:test").unwrap();
        assert_eq!(one.get("north").unwrap().to_string(), "site=berlin -label:test");
        assert_eq!(Groups::of_texts(one.texts()), one);
        assert!(one.parse("group:north presence:online").is_ok());
        let both = one.with("north", "site=hamburg").unwrap().with("all", "").unwrap();
        assert_eq!(both.names().collect::<Vec<_>>(), ["all", "north"]);
        assert_eq!(both.without("north").unwrap().names().count(), 1);
        assert!(none.without("north").is_none());
        for (made, part) in [
            (one.with("North", "site=x"), "cannot be a group"),
            (one.with("south", "berlin"), "no term"),
            (one.with("south", "group:north"), "cannot be made of groups"),
        ] {
            let wrong = made.unwrap_err();
            assert!(wrong.contains(part), "{wrong}");
        }
        let wrong = one.parse("-group:south").unwrap_err();
        assert!(wrong.contains("no group 'south'"), "{wrong}");
        let mut many = none;
        for n in 0..GROUPS_MAX {
            many = many.with(&format!("g{n}"), "").unwrap();
        }
        assert!(many.with("more", "").is_err() && many.with("g0", "a=b").is_ok());
    }
}
