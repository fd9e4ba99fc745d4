//! The flow of the protocol: whatever a client may send in whatever order gives the same replies,
//! byte for byte, with the gateway in between and without.
#![allow(
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

mod decided;
mod endings;
mod scripts;
mod walks;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use interceptor_tests::World;
use interceptor_tests::messages::copy_fail;
use interceptor_tests::wire::{Reply, Wire, is_reset, query, sync};
use interceptor_tests::world::{TARGET_V4, UNNAMED_V4};

/// One connection, and what was compared of it.
struct Side {
    wire: Wire,
    /// Numbers that differ between sessions, by what takes their place.
    known: BTreeMap<u32, u8>,
    marks: u32,
}

impl Side {
    fn log_in(world: &World, host: Ipv4Addr) -> Result<Self> {
        let mut wire = Wire::new(world.connect(host)?)?;
        wire.log_in()?;
        Ok(Self {
            wire,
            known: BTreeMap::new(),
            marks: 0,
        })
    }

    /// Sends bytes and reads all that comes of them, whatever that is: what follows is a query that
    /// is certain to be answered, and a COPY under way is ended first.
    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Reply>> {
        self.marks += 1;
        let mark = format!("mark {}", self.marks);
        let ending = [
            copy_fail("the end"),
            sync(),
            query(&format!("ROLLBACK; SELECT '{mark}'")),
        ];
        self.wire.send(&[bytes, &ending.concat()].concat())?;
        let mut replies = Vec::new();
        let mut marked = false;
        while let Some(reply) = self.reply(&replies)? {
            marked |= reply.tag == b'D' && reply.text().ends_with(&mark);
            let last = marked && reply.tag == b'Z';
            replies.push(self.comparable(reply));
            if last {
                break;
            }
        }
        Ok(replies)
    }

    /// The next reply; `None` at the end of the connection, which may come as a reset.
    fn reply(&mut self, before: &[Reply]) -> Result<Option<Reply>> {
        match self.wire.reply() {
            Err(error) if is_reset(&error) => Ok(None),
            other => other.with_context(|| shown(before).join("\n")),
        }
    }

    /// The reply with the process ids of sessions, which differ, numbered in their order.
    fn comparable(&mut self, mut reply: Reply) -> Reply {
        if reply.tag == b'A'
            && let Some((first, _)) = reply.body.split_first_chunk_mut::<4>()
        {
            let next = u8::try_from(self.known.len()).unwrap_or(u8::MAX);
            let number = *self.known.entry(u32::from_be_bytes(*first)).or_insert(next);
            *first = [0, 0, 0, number];
        }
        reply
    }
}

/// A session through the gateway, and the same without it.
struct Both {
    ours: Side,
    theirs: Side,
    /// Both connections are over.
    are_closed: bool,
}

impl Both {
    fn log_in(world: &World) -> Result<Self> {
        Ok(Self {
            ours: Side::log_in(world, TARGET_V4)?,
            theirs: Side::log_in(world, UNNAMED_V4)?,
            are_closed: false,
        })
    }

    /// Sends the same to both and gives both answers.
    fn exchange(&mut self, bytes: &[u8]) -> Result<(Vec<Reply>, Vec<Reply>)> {
        let theirs = self.theirs.exchange(bytes).context("without the gateway")?;
        let ours = self.ours.exchange(bytes).context("with the gateway")?;
        Ok((ours, theirs))
    }

    /// Sends the same to both and compares.
    fn compare(&mut self, what: &str, bytes: &[u8]) -> Result<Vec<Reply>> {
        let (ours, theirs) = self.exchange(bytes).with_context(|| what.to_owned())?;
        let (mut left, mut right) = (shown(&ours), shown(&theirs));
        self.are_closed = !is_whole(&ours) && !is_whole(&theirs);
        // Who breaks the protocol is told so and sent away; by whom and in which words may differ.
        if self.are_closed {
            for lines in [&mut left, &mut right] {
                let broken = lines.iter().position(|line| line.contains("C08P01"));
                lines.truncate(broken.with_context(|| format!("{what}: {lines:?}"))?);
            }
        }
        if let Some(at) = (0..left.len().max(right.len())).find(|&at| left.get(at) != right.get(at))
        {
            let around = |lines: &[String]| {
                let from = at.saturating_sub(2);
                lines[from..lines.len().min(at + 3)].join("\n    ")
            };
            bail!(
                "{what}\nreply {at} differs\n  with the gateway\n    {}\n  without\n    {}",
                around(&left),
                around(&right)
            );
        }
        Ok(ours)
    }
}

/// The answer ends as an answer does.
fn is_whole(replies: &[Reply]) -> bool {
    replies.last().is_some_and(|reply| reply.tag == b'Z')
}

/// One line a reply. An error leaves out where in its source code the server found it: what the
/// gateway says in the server's place has no such place.
fn shown(replies: &[Reply]) -> Vec<String> {
    let line = |reply: &Reply| {
        let mut body = reply.body.clone();
        if matches!(reply.tag, b'E' | b'N') {
            let fields = reply.body.split(|byte| *byte == 0);
            let kept: Vec<&[u8]> = fields
                .filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R')))
                .collect();
            body = kept.join(&0);
        }
        format!("{} {}", char::from(reply.tag), body.escape_ascii())
    };
    replies.iter().map(line).collect()
}
