//! What an expression comes to for a command.
//!
//! It owns three-valued computing: `None` is what is not known, and what has no value (a quotient by
//! zero, a number beyond 64 bits), and only `&&`, `||`, `exists` and `all` can do without it. It must
//! not know what its caller makes of a doubt.
//!
//! Every node, entry, and piece of a long text takes from one budget: a command that is made to be
//! expensive comes to "not known".

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::cmp::Ordering;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::text::Text as Value;
use super::tree::{Clock, Condition, Entries, List, Moment, Number, Operation, Relation, Text};
use super::{EXPRESSION_STEPS_MAX, Scope};

/// Bytes of a text that are looked through in one step.
const SEARCHED_BYTES_A_STEP: usize = 4096;
/// Bytes of a text that are written in one step.
const WRITTEN_BYTES_A_STEP: usize = 64;

pub(super) fn evaluate(condition: &Condition, scope: &Scope<'_>) -> Option<bool> {
    let machine = Machine {
        scope,
        steps_left: Cell::new(EXPRESSION_STEPS_MAX),
    };
    machine.condition(condition, None)
}

struct Machine<'m> {
    scope: &'m Scope<'m>,
    steps_left: Cell<u32>,
}

/// The entries that are being looked at, the innermost first.
struct Frame<'f> {
    entry: Value<'f>,
    outer: Option<&'f Frame<'f>>,
}

type Frames<'f> = Option<&'f Frame<'f>>;

impl<'m> Machine<'m> {
    fn spend(&self, steps: usize) -> Option<()> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let left = self.steps_left.get().checked_sub(steps);
        self.steps_left.set(left.unwrap_or(0));
        left.map(|_| ())
    }

    fn condition(&self, node: &Condition, frames: Frames<'_>) -> Option<bool> {
        self.spend(1)?;
        let of = |node: &Condition| self.condition(node, frames);
        Some(match node {
            Condition::Literal(value) => *value,
            Condition::Variable(variable) => variable.value(self.scope),
            Condition::Known(variable) => variable.is_known(self.scope),
            Condition::Not(inner) => !of(inner)?,
            Condition::And(both) => match of(&both.0) {
                Some(false) => false,
                Some(true) => of(&both.1)?,
                None => of(&both.1).filter(|value| !value)?,
            },
            Condition::Or(both) => match of(&both.0) {
                Some(true) => true,
                Some(false) => of(&both.1)?,
                None => of(&both.1).filter(|value| *value)?,
            },
            Condition::Choose(parts) => match of(&parts.0)? {
                true => of(&parts.1)?,
                false => of(&parts.2)?,
            },
            Condition::Same(both) => of(&both.0)? == of(&both.1)?,
            _ => return self.test(node, frames),
        })
    }

    /// What is rarely inside itself; apart, so that nesting takes little stack.
    fn test(&self, node: &Condition, frames: Frames<'_>) -> Option<bool> {
        Some(match node {
            // What `condition` computes itself.
            Condition::Literal(_)
            | Condition::Variable(_)
            | Condition::Known(_)
            | Condition::Not(_)
            | Condition::And(_)
            | Condition::Or(_)
            | Condition::Choose(_)
            | Condition::Same(_) => return None,
            Condition::Numbers(relation, both) => {
                let order = self
                    .number(&both.0, frames)?
                    .cmp(&self.number(&both.1, frames)?);
                relation.holds(order)
            }
            Condition::Moments(relation, both) => {
                let order = self
                    .moment(&both.0, frames)?
                    .cmp(&self.moment(&both.1, frames)?);
                relation.holds(order)
            }
            Condition::Texts(relation, both) => {
                let (one, other) = self.texts(both, frames)?;
                match relation {
                    Relation::Equal => one.equals(&other),
                    Relation::Different => !one.equals(&other),
                    _ => relation.holds(one.compare(&other)),
                }
            }
            Condition::StartsWith(both) => {
                let (one, other) = self.texts(both, frames)?;
                one.starts_with(&other)
            }
            Condition::EndsWith(both) => {
                let (one, other) = self.texts(both, frames)?;
                one.ends_with(&other)
            }
            Condition::Contains(both) => {
                let (one, other) = self.texts(both, frames)?;
                self.search(&one)?;
                one.contains(&other)
            }
            Condition::Matches(both) => {
                let text = self.text(&both.0, frames)?;
                self.search(&text)?;
                both.1.is_match(&text.whole())
            }
            Condition::SameLists(both) => self.same_lists(&both.0, &both.1, frames)?,
            Condition::TextIn(both) => {
                let text = self.text(&both.0, frames)?;
                self.any(&both.1, frames, |entry| Some(entry.equals(&text)))?
            }
            Condition::NumberIn(both) => self.number_in(both, frames)?,
            Condition::Entries(which, both) => self.entries(*which, both, frames)?,
        })
    }

    /// One that is not known takes the answer away unless another is the same.
    fn number_in(&self, both: &(Number, Vec<Number>), frames: Frames<'_>) -> Option<bool> {
        let number = self.number(&both.0, frames)?;
        let mut known = true;
        for entry in &both.1 {
            match self.number(entry, frames) {
                Some(entry) if entry == number => return Some(true),
                Some(_) => {}
                None => known = false,
            }
        }
        known.then_some(false)
    }

    fn entries(
        &self,
        which: Entries,
        both: &(List, Condition),
        frames: Frames<'_>,
    ) -> Option<bool> {
        let holds = |entry: Value<'_>| {
            let frame = Frame {
                entry,
                outer: frames,
            };
            self.condition(&both.1, Some(&frame))
        };
        match which {
            Entries::Some => self.any(&both.0, frames, holds),
            Entries::All => {
                let differs = |entry: Value<'_>| holds(entry).map(|value| !value);
                self.any(&both.0, frames, differs).map(|found| !found)
            }
            Entries::One => {
                let mut count = 0_usize;
                self.each(&both.0, frames, |entry| {
                    count += usize::from(holds(entry)?);
                    Some(())
                })?;
                Some(count == 1)
            }
        }
    }

    /// Whether `holds` for an entry; not known if it does for none and may for one.
    fn any(
        &self,
        list: &List,
        frames: Frames<'_>,
        holds: impl Fn(Value<'_>) -> Option<bool>,
    ) -> Option<bool> {
        let (mut found, mut known) = (false, true);
        let whole = self.each(list, frames, |entry| match holds(entry) {
            Some(true) => {
                found = true;
                None
            }
            Some(false) => Some(()),
            None => {
                known = false;
                Some(())
            }
        });
        if found {
            return Some(true);
        }
        (known && whole.is_some()).then_some(false)
    }

    /// Gives each entry to `visit` until that stops, for which it says `None`. `None` as well if the
    /// list, or an entry, is not known.
    fn each(
        &self,
        list: &List,
        frames: Frames<'_>,
        mut visit: impl FnMut(Value<'_>) -> Option<()>,
    ) -> Option<()> {
        match list {
            List::Variable(variable) => {
                let mut all = true;
                variable.visit(self.scope, |entry| {
                    all = self.spend(1).and_then(|()| visit(entry)).is_some();
                    all
                })?;
                all.then_some(())
            }
            List::Literal(texts) => {
                // An entry that is not known must not hide one behind it that decides.
                let mut known = Some(());
                for text in texts {
                    match self.text(text, frames) {
                        Some(entry) => visit(entry)?,
                        None => known = None,
                    }
                }
                known
            }
            List::Choose(parts) => match self.condition(&parts.0, frames)? {
                true => self.each(&parts.1, frames, visit),
                false => self.each(&parts.2, frames, visit),
            },
        }
    }

    fn same_lists(&self, one: &List, other: &List, frames: Frames<'_>) -> Option<bool> {
        if self.count(one, frames)? != self.count(other, frames)? {
            return Some(false);
        }
        let mut position = 0_usize;
        let mut same = true;
        self.each(one, frames, |entry| {
            let mut at = 0_usize;
            self.each(other, frames, |theirs| {
                same &= at != position || entry.equals(&theirs);
                at += 1;
                Some(())
            })?;
            position += 1;
            Some(())
        })?;
        Some(same)
    }

    fn count(&self, list: &List, frames: Frames<'_>) -> Option<usize> {
        let mut count = 0;
        self.each(list, frames, |_| {
            count += 1;
            Some(())
        })?;
        Some(count)
    }

    fn number(&self, node: &Number, frames: Frames<'_>) -> Option<i64> {
        self.spend(1)?;
        let of = |node: &Number| self.number(node, frames);
        match node {
            Number::Literal(value) => Some(*value),
            Number::Variable(variable) => variable.value(self.scope),
            Number::Negative(inner) => of(inner)?.checked_neg(),
            Number::Computed(operation, both) => operation.compute(of(&both.0)?, of(&both.1)?),
            Number::SizeOfText(text) => {
                let text = self.text(text, frames)?;
                self.search(&text)?;
                i64::try_from(text.size()).ok()
            }
            Number::SizeOfList(list) => i64::try_from(self.count(list, frames)?).ok(),
            Number::Clock(clock, both) => clock.read(self.moment(&both.0, frames)?, &both.1),
            Number::Choose(parts) => match self.condition(&parts.0, frames)? {
                true => of(&parts.1),
                false => of(&parts.2),
            },
        }
    }

    fn texts<'v>(
        &'v self,
        both: &'v (Text, Text),
        frames: Frames<'v>,
    ) -> Option<(Value<'v>, Value<'v>)> {
        Some((self.text(&both.0, frames)?, self.text(&both.1, frames)?))
    }

    fn text<'v>(&'v self, node: &'v Text, frames: Frames<'v>) -> Option<Value<'v>> {
        self.spend(1)?;
        match node {
            Text::Literal(text) => Some(Value::One(Cow::Borrowed(text))),
            Text::Variable(variable) => variable.value(self.scope),
            Text::Entry(up) => {
                let mut frame = frames?;
                for _ in 0..*up {
                    frame = frame.outer?;
                }
                Some(frame.entry.borrowed())
            }
            Text::Joined(both) => {
                let (one, other) = self.texts(both, frames)?;
                self.spend((one.len() + other.len()) / WRITTEN_BYTES_A_STEP)?;
                let mut joined = String::from(one.whole());
                joined.push_str(&other.whole());
                Some(Value::One(Cow::Owned(joined)))
            }
            Text::Choose(parts) => match self.condition(&parts.0, frames)? {
                true => self.text(&parts.1, frames),
                false => self.text(&parts.2, frames),
            },
        }
    }

    fn search(&self, text: &Value<'_>) -> Option<()> {
        self.spend(text.len() / SEARCHED_BYTES_A_STEP)
    }

    fn moment(&self, node: &Moment, frames: Frames<'_>) -> Option<i128> {
        self.spend(1)?;
        match node {
            Moment::Now => Some(self.scope.input.now_unix_ns.into()),
            Moment::Literal(unix_ns) => Some(*unix_ns),
            Moment::Choose(parts) => match self.condition(&parts.0, frames)? {
                true => self.moment(&parts.1, frames),
                false => self.moment(&parts.2, frames),
            },
        }
    }
}

impl Relation {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Different => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Operation {
    fn compute(self, one: i64, other: i64) -> Option<i64> {
        match self {
            Self::Add => one.checked_add(other),
            Self::Subtract => one.checked_sub(other),
            Self::Multiply => one.checked_mul(other),
            Self::Divide => one.checked_div(other),
            Self::Remainder => one.checked_rem(other),
        }
    }
}

impl Clock {
    fn read(self, unix_ns: i128, zone: &TimeZone) -> Option<i64> {
        let time = zone.to_datetime(Timestamp::from_nanosecond(unix_ns).ok()?);
        Some(i64::from(match self {
            Self::Hours => time.hour(),
            Self::Minutes => time.minute(),
            Self::DayOfWeek => time.weekday().to_sunday_zero_offset(),
        }))
    }
}
