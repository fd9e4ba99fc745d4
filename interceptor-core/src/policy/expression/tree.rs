//! An expression with types: each kind of node has only children that fit.
//!
//! It owns the shape. It must not know how it is written, nor how it is computed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use jiff::tz::TimeZone;
use regex::Regex;

use super::variable::{FlagVariable, ListVariable, NumberVariable, TextVariable, Variable};

/// A bool.
#[derive(Debug)]
pub(super) enum Condition {
    Literal(bool),
    Variable(FlagVariable),
    /// `has`: the variable has a value.
    Known(Variable),
    Not(Box<Self>),
    And(Box<(Self, Self)>),
    Or(Box<(Self, Self)>),
    Choose(Box<(Self, Self, Self)>),
    Same(Box<(Self, Self)>),
    Numbers(Relation, Box<(Number, Number)>),
    Texts(Relation, Box<(Text, Text)>),
    Moments(Relation, Box<(Moment, Moment)>),
    SameLists(Box<(List, List)>),
    TextIn(Box<(Text, List)>),
    NumberIn(Box<(Number, Vec<Number>)>),
    StartsWith(Box<(Text, Text)>),
    EndsWith(Box<(Text, Text)>),
    Contains(Box<(Text, Text)>),
    Matches(Box<(Text, Regex)>),
    Entries(Entries, Box<(List, Self)>),
}

/// How many of a list's entries a condition has to hold for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entries {
    Some,
    All,
    One,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An int.
#[derive(Debug)]
pub(super) enum Number {
    Literal(i64),
    Variable(NumberVariable),
    Negative(Box<Self>),
    Computed(Operation, Box<(Self, Self)>),
    SizeOfText(Box<Text>),
    SizeOfList(Box<List>),
    Clock(Clock, Box<(Moment, TimeZone)>),
    Choose(Box<(Condition, Self, Self)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A part of a time of day in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    Hours,
    Minutes,
    /// 0 is Sunday.
    DayOfWeek,
}

/// A string.
#[derive(Debug)]
pub(super) enum Text {
    Literal(Box<str>),
    Variable(TextVariable),
    /// The entry of the list that so many others were begun to be gone through since.
    Entry(usize),
    Joined(Box<(Self, Self)>),
    Choose(Box<(Condition, Self, Self)>),
}

/// A point in time.
#[derive(Debug)]
pub(super) enum Moment {
    Now,
    /// Nanoseconds since the Unix epoch.
    Literal(i128),
    Choose(Box<(Condition, Self, Self)>),
}

/// A list of strings.
#[derive(Debug)]
pub(super) enum List {
    Variable(ListVariable),
    Literal(Vec<Text>),
    Choose(Box<(Condition, Self, Self)>),
}
