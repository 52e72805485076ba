//! What stands in JSON beside a message's own fields, and not in its bytes: their layout is frozen, and whoever reads them may be of
//! another version. For what the web page shows, which comes with its plane.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that is told in JSON only; what was read from bytes is not told. A field of this kind says
/// `#[serde(default, skip_serializing_if = "Aside::is_untold")]`: nothing stands there instead of something wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside<T>(Option<T>);

impl<T> Aside<T> {
    /// Whether nobody has said it.
    pub const fn is_untold(&self) -> bool {
        self.0.is_none()
    }

    /// The value, if it was told.
    pub const fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Default for Aside<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> From<T> for Aside<T> {
    fn from(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Serialize> Serialize for Aside<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) if serializer.is_human_readable() => value.serialize(serializer),
            // Not a single byte.
            _ => serializer.serialize_unit(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Aside<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return T::deserialize(deserializer).map(Self::from);
        }
        Ok(Self::default())
    }
}

#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> schemars::JsonSchema for Aside<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> alloc::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> alloc::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        a: u8,
        b: u8,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Now {
        a: u8,
        #[serde(default, skip_serializing_if = "Aside::is_untold")]
        more: Aside<Option<u64>>,
        b: u8,
    }

    #[test]
    fn bytes_are_as_before_whatever_is_told() {
        let before = crate::encode(&Before { a: 1, b: 2 });
        for more in [Aside::default(), Aside::from(None), Aside::from(Some(7))] {
            assert_eq!(crate::encode(&Now { a: 1, more, b: 2 }), before);
        }
        let read: Now = crate::decode(&before).unwrap();
        assert!(read.more.is_untold());
        assert_eq!((read.a, read.b), (1, 2));
    }

    #[test]
    fn json_has_what_is_told_and_nothing_instead_of_what_is_not() {
        for (more, json) in [
            (Aside::default(), r#"{"a":1,"b":2}"#),
            (Aside::from(None), r#"{"a":1,"more":null,"b":2}"#),
            (Aside::from(Some(7)), r#"{"a":1,"more":7,"b":2}"#),
        ] {
            let now = Now { a: 1, more, b: 2 };
            assert_eq!(serde_json::to_string(&now).unwrap(), json);
            assert_eq!(serde_json::from_str::<Now>(json).unwrap(), now);
        }
    }
}
