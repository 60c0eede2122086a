//! The tree as the model is read from it: an object is written as an object. What serde derives would take a list of the
//! fields' values too, and `rules: [[]]` would be a rule that takes everything.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde_json::{Error, Value};

use crate::tree::{Data, Node};

/// A value that is read strictly.
pub(crate) struct Strict(pub(crate) Node);

impl Strict {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.0.data {
            Data::Scalar(Value::Null) => Unexpected::Unit,
            Data::Scalar(Value::Bool(value)) => Unexpected::Bool(*value),
            Data::Scalar(Value::Number(number)) => number
                .as_u64()
                .map(Unexpected::Unsigned)
                .or_else(|| number.as_i64().map(Unexpected::Signed))
                .unwrap_or_else(|| Unexpected::Float(number.as_f64().unwrap_or_default())),
            Data::Scalar(Value::String(text)) => Unexpected::Str(text),
            Data::Scalar(Value::Array(_)) | Data::List(_) => Unexpected::Seq,
            Data::Scalar(Value::Object(_)) | Data::Map(_) => Unexpected::Map,
            Data::Wrong(why) => Unexpected::Other(why),
        }
    }
}

impl IntoDeserializer<'_, Error> for Strict {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Strict {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.data {
            Data::Scalar(Value::String(text)) => visitor.visit_string(text),
            Data::Scalar(Value::Bool(value)) => visitor.visit_bool(value),
            Data::Scalar(scalar) => scalar.deserialize_any(visitor),
            Data::List(nodes) => visitor.visit_seq(SeqDeserializer::new(nodes.into_iter().map(Strict))),
            Data::Map(entries) => visitor.visit_map(MapDeserializer::new(
                entries.into_iter().map(|entry| (entry.key, Strict(entry.node))),
            )),
            Data::Wrong(why) => Err(Error::custom(why)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0.data {
            Data::Map(_) => self.deserialize_any(visitor),
            _ => Err(Error::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0.data {
            Data::Scalar(Value::String(word)) => visitor.visit_enum(word.into_deserializer()),
            _ => Err(Error::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.data {
            Data::Scalar(Value::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}
