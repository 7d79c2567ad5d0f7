//! Reads JSON objects and lists one entry at a time. Nothing is built whose size a request with
//! millions of entries controls, and errors quote no long text.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// The most bytes of a text that an error quotes.
const SHOWN_BYTES_MAX: usize = 80;

/// The error that ends a parser when a visitor stops. It is never shown.
const STOPPED: &str = "stopped";

/// Why a walk ended early.
pub enum Stopped {
    /// The text is invalid.
    Json(serde_json::Error),
    /// The visitor refused an entry.
    By(Error),
}

impl Stopped {
    /// Converts to an error; `words` describes invalid text.
    pub fn into_error(self, words: impl FnOnce(&serde_json::Error) -> Error) -> Error {
        match self {
            Stopped::Json(error) => words(&error),
            Stopped::By(error) => error,
        }
    }
}

/// Visits the fields of an object in the order sent, including repeated names.
pub fn each_field<'a>(
    text: &'a str,
    visit: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<()>,
) -> Result<(), Stopped> {
    let mut stopped = None;
    let fields = EachField { visit, stopped: &mut stopped };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_any(fields).and_then(|()| deserializer.end());
    match stopped {
        Some(error) => Err(Stopped::By(error)),
        None => read.map_err(Stopped::Json),
    }
}

struct EachField<'s, F> {
    visit: F,
    stopped: &'s mut Option<Error>,
}

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<()>> Visitor<'de> for EachField<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((Name(name), value)) = map.next_entry()? {
            if let Err(error) = (self.visit)(name, value) {
                *self.stopped = Some(error);
                return Err(A::Error::custom(STOPPED));
            }
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        Err(E::invalid_type(Unexpected::Str(shown(text)), &self))
    }
}

/// A name or another short text; borrowed unless it contains escapes.
#[derive(Deserialize)]
pub struct Name<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Returns the beginning of a text, for a message.
pub fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// Returns the most bytes that a text takes once it is built as a `serde_json::Value`.
pub fn built_bytes(text: &str) -> usize {
    // The entries of a list may double while the list grows; an entry of an object has a name and a
    // tree node.
    let bytes = text.bytes().map(|byte| match byte {
        b',' | b'[' | b'{' => 3 * size_of::<serde_json::Value>(),
        b':' => 4 * size_of::<(String, serde_json::Value)>(),
        _ => 1,
    });
    bytes.sum()
}

/// A list, of which only the first `MAX` entries are kept. `count` is the number of all entries.
#[derive(Debug)]
pub struct Listed<'a, const MAX: usize> {
    pub items: Vec<&'a RawValue>,
    pub count: usize,
}

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Listed<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<const MAX: usize>;

        impl<'de, const MAX: usize> Visitor<'de> for Reader<MAX> {
            type Value = Listed<'de, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Err(E::invalid_type(Unexpected::Str(shown(text)), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() < MAX
                    && let Some(item) = seq.next_element()?
                {
                    items.push(item);
                }
                let mut count = items.len();
                while count >= MAX && seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Listed { items, count })
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// `T` from an object and nothing else. An error does not quote a long text in its place.
pub struct ObjectOf<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ObjectOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = ObjectOf<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Err(E::invalid_type(Unexpected::Str(shown(text)), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(ObjectOf)
            }
        }

        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// A list whose entries are passed to `take` one by one. If `take` refuses one, the error is left
/// in `stopped`.
pub struct EachItem<'s, T, F> {
    take: F,
    stopped: &'s mut Option<Error>,
    nullable: bool,
    item: PhantomData<T>,
}

impl<'s, T, F: FnMut(T) -> Result<()>> EachItem<'s, T, F> {
    pub fn new(stopped: &'s mut Option<Error>, take: F) -> Self {
        EachItem { take, stopped, nullable: false, item: PhantomData }
    }

    /// Accepts `null` as an empty list.
    pub fn or_null(self) -> Self {
        EachItem { nullable: true, ..self }
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<()>> DeserializeSeed<'de> for EachItem<'_, T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<()>> Visitor<'de> for EachItem<'_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element()? {
            if let Err(error) = (self.take)(item) {
                *self.stopped = Some(error);
                return Err(A::Error::custom(STOPPED));
            }
        }
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.nullable { Ok(()) } else { Err(E::invalid_type(Unexpected::Unit, &self)) }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        Err(E::invalid_type(Unexpected::Str(shown(text)), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_visited_until_one_is_refused() {
        let mut seen = Vec::new();
        let walked = each_field(r#"{"a": 1, "a": [2, {}], "b": "c", "d": 0}"#, |name, value| {
            seen.push((name.into_owned(), value.get().to_owned()));
            if seen.len() == 3 { Err(Error::invalid("enough")) } else { Ok(()) }
        });
        assert!(matches!(walked, Err(Stopped::By(error)) if error.message() == "enough"));
        let expected = [("a", "1"), ("a", "[2, {}]"), ("b", "\"c\"")];
        assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn another_value_than_an_object_is_told_in_short() {
        let long = format!("\"{}\"", "\u{7f}".repeat(1 << 20));
        for (text, message) in
            [("[1]", "invalid type: sequence, expected a map"), (&long, "invalid type: string")]
        {
            let Err(Stopped::Json(error)) = each_field(text, |_, _| Ok(())) else { panic!("{text:.20}") };
            let error = error.to_string();
            assert!(error.starts_with(message) && error.len() < 1_000, "{error:.2000}");
        }
    }

    #[test]
    fn a_list_is_kept_up_to_its_limit_and_counted_to_its_end() {
        for (count, kept) in [(0, 0), (2, 2), (3, 3), (4, 3), (100_000, 3)] {
            let text = format!("[{}]", vec!["0"; count].join(","));
            let listed: Listed<'_, 3> = serde_json::from_str(&text).unwrap();
            assert_eq!((listed.items.len(), listed.count), (kept, count));
        }
        assert!(
            serde_json::from_str::<Listed<'_, 3>>("{}")
                .unwrap_err()
                .to_string()
                .contains("expected a sequence")
        );
    }
}
