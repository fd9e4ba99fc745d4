//! A walk over the whole of a parse tree.
//!
//! The tree has some 250 kinds of node. A walk written by hand forgets one, and what it forgets is
//! a way around policy. So this one is driven by the tree's own `serde::Serialize`, which its
//! generated code derives for every node and every field.

use alloc::vec::Vec;
use core::fmt;

use serde::ser::{self, Serialize};

/// One step from a node to its child: the node's type and the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) node: &'static str,
    pub(super) field: &'static str,
}

/// What looks on while the tree is walked. `path` leads from the root to the place at hand.
pub(super) trait Visitor {
    /// A node begins.
    fn enter(&mut self, path: &[Step], node: &'static str);
    /// A string field.
    fn text(&mut self, path: &[Step], value: &str);
    /// An optional field that is there.
    fn present(&mut self, path: &[Step]);
    /// A flag that is set.
    fn flag(&mut self, path: &[Step]);
    /// A number, or a word of an enumeration.
    fn number(&mut self, path: &[Step], value: i32);
    /// A node ends.
    fn leave(&mut self, path: &[Step], node: &'static str);
}

/// Walks `tree` and shows it to `visitor`.
pub(super) fn walk<T: Serialize, V: Visitor>(tree: &T, visitor: &mut V) -> Result<(), WalkError> {
    tree.serialize(&mut Walker {
        visitor,
        path: Vec::with_capacity(32),
    })
}

/// The tree could not be walked to its end. Its text is of no use to anybody.
#[derive(Debug, thiserror::Error)]
#[error("the parse tree could not be walked")]
pub(super) struct WalkError;

impl ser::Error for WalkError {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

struct Walker<'v, V> {
    visitor: &'v mut V,
    path: Vec<Step>,
}

/// The wrapper around every node: no step of its own.
const WRAPPER: &str = "Node";

struct Fields<'a, 'v, V> {
    walker: &'a mut Walker<'v, V>,
    node: &'static str,
}

impl<V: Visitor> ser::SerializeStruct for Fields<'_, '_, V> {
    type Ok = ();
    type Error = WalkError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        field: &'static str,
        value: &T,
    ) -> Result<(), WalkError> {
        if self.node == WRAPPER {
            return value.serialize(&mut *self.walker);
        }
        self.walker.path.push(Step {
            node: self.node,
            field,
        });
        let result = value.serialize(&mut *self.walker);
        self.walker.path.pop();
        result
    }

    fn end(self) -> Result<(), WalkError> {
        if self.node != WRAPPER {
            self.walker.visitor.leave(&self.walker.path, self.node);
        }
        Ok(())
    }
}

struct Items<'a, 'v, V>(&'a mut Walker<'v, V>);

impl<V: Visitor> ser::SerializeSeq for Items<'_, '_, V> {
    type Ok = ();
    type Error = WalkError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WalkError> {
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), WalkError> {
        Ok(())
    }
}

macro_rules! nothing {
    ($($name:ident: $type:ty),*) => { $(fn $name(self, _: $type) -> Result<(), WalkError> { Ok(()) })* };
}

impl<'a, 'v, V: Visitor> ser::Serializer for &'a mut Walker<'v, V> {
    type Ok = ();
    type Error = WalkError;
    type SerializeSeq = Items<'a, 'v, V>;
    type SerializeStruct = Fields<'a, 'v, V>;
    // The generated tree has none of these; meeting one is an error, not a gap.
    type SerializeTuple = ser::Impossible<(), WalkError>;
    type SerializeTupleStruct = ser::Impossible<(), WalkError>;
    type SerializeTupleVariant = ser::Impossible<(), WalkError>;
    type SerializeMap = ser::Impossible<(), WalkError>;
    type SerializeStructVariant = ser::Impossible<(), WalkError>;

    nothing!(serialize_i8: i8, serialize_i16: i16, serialize_i64: i64, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_f32: f32, serialize_f64: f64, serialize_char: char,
        serialize_bytes: &[u8], serialize_unit_struct: &'static str);

    fn serialize_bool(self, value: bool) -> Result<(), WalkError> {
        if value {
            self.visitor.flag(&self.path);
        }
        Ok(())
    }

    fn serialize_i32(self, value: i32) -> Result<(), WalkError> {
        self.visitor.number(&self.path, value);
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), WalkError> {
        self.visitor.text(&self.path, value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), WalkError> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), WalkError> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), WalkError> {
        self.visitor.present(&self.path);
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), WalkError> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), WalkError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), WalkError> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a, 'v, V>, WalkError> {
        Ok(Items(self))
    }

    fn serialize_struct(
        self,
        node: &'static str,
        _: usize,
    ) -> Result<Fields<'a, 'v, V>, WalkError> {
        if node != WRAPPER {
            self.visitor.enter(&self.path, node);
        }
        Ok(Fields { walker: self, node })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, WalkError> {
        Err(WalkError)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, WalkError> {
        Err(WalkError)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, WalkError> {
        Err(WalkError)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, WalkError> {
        Err(WalkError)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, WalkError> {
        Err(WalkError)
    }
}
