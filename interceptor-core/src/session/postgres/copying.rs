//! The server's side of COPY: what it takes, and what it shows, which carries neither names nor
//! object ids.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};

use super::Session;
use super::backend::Stop;
use super::copy::{CopyError, CopyMasker, TextCopy};
use super::copy_binary::BinaryCopy;
use super::judge::BINARY_COPY;
use super::provenance::{CopyColumn, CopyDoubt};
use super::queue::Expected;
use crate::mask::Masks;
use crate::sql::{CopyFormat, CopySource};
use crate::wire::postgres::backend::{self, CopyResponse, kind};
use crate::wire::postgres::encode;

impl Session {
    /// Drops the mark of a COPY's end that stands at the front.
    pub(super) fn after_copy(&mut self) {
        while let Some(Expected::CopyEnd) = self.expected.front() {
            self.expected.pop_front();
        }
        // Within a Query the mark stands behind it.
        if let Some(Expected::Query(_)) = self.expected.front()
            && let Some(Expected::CopyEnd) = self.expected.get(1)
        {
            self.expected.remove(1);
        }
    }

    pub(super) fn copy_in(&mut self, body: &[u8]) -> Result<(), Stop> {
        backend::copy_response(body)?;
        match self.expected.front_mut().and_then(Expected::running) {
            Some(running) if running.judged.analysis.copies_in && running.refusal.is_none() => {
                running.copying_in = true;
            }
            _ => return Err(Stop::unexpected(kind::COPY_IN_RESPONSE)),
        }
        // The server ignores a Sync that it reads while it takes COPY data.
        let mut index = 1;
        while let Some(expected) = self.expected.get(index) {
            match expected {
                Expected::CopyEnd => {
                    if let Some(running) = self.expected.front_mut().and_then(Expected::running) {
                        running.copying_in = false;
                    }
                    break;
                }
                Expected::Sync => {
                    self.expected.remove(index);
                }
                _ => index += 1,
            }
        }
        Ok(())
    }

    pub(super) fn copy_out(&mut self, body: &[u8]) -> Result<(), Stop> {
        let response = backend::copy_response(body)?;
        if self.replicating().is_some() {
            return Ok(());
        }
        let masker = self.copy_masker(response)?;
        match self.expected.front_mut().and_then(Expected::running) {
            Some(running) if running.copies < running.judged.analysis.copies_out.len() => {
                running.copy = masker;
                running.copies += 1;
            }
            _ => return Err(Stop::unexpected(kind::COPY_OUT_RESPONSE)),
        }
        Ok(())
    }

    /// What rewrites a COPY's rows; `None` if nothing has to be.
    fn copy_masker(&mut self, response: CopyResponse) -> Result<Option<CopyMasker>, Stop> {
        let Some(Expected::Query(running) | Expected::Execute(running)) = self.expected.front()
        else {
            return Err(Stop::unexpected(kind::COPY_OUT_RESPONSE));
        };
        let judged = running.judged.clone();
        let masks = &judged.masks;
        let (columns, patterns) = (masks.has_columns(), masks.has_patterns());
        if !columns && !patterns {
            return Ok(None);
        }
        let Some(copy) = judged.analysis.copies_out.get(running.copies) else {
            return Err(Stop::unexpected(kind::COPY_OUT_RESPONSE));
        };
        let mut plan = Vec::new();
        if columns {
            let provenance = self.provenance(masks)?;
            let found = match &copy.source {
                CopySource::Relation(relation, names) => provenance.copy_relation(relation, names),
                CopySource::Query => {
                    provenance.copy_query(response.columns, judged.lineage(), judged.facts())
                }
            };
            plan = match found {
                Ok(plan) => plan,
                Err(CopyDoubt::UnknownRelation) if !self.catalog.fresh => {
                    return Err(self.want_catalog());
                }
                Err(_) => {
                    return Err(Stop::Unmaskable(String::from(
                        "which columns this COPY shows cannot be told, and some are masked: name them",
                    )));
                }
            };
            self.catalog.fresh = false;
        }
        let masked = plan.iter().any(|column| column.mask.is_some());
        match (masked || patterns, response.binary) {
            (false, _) => Ok(None),
            (true, false) if self.hides_delimiters(&copy.format) => Err(Stop::Unmaskable(
                String::from("COPY in this encoding cannot be masked: use UTF8"),
            )),
            (true, binary) => {
                plan.resize_with(response.columns.max(plan.len()), || CopyColumn {
                    type_oid: 0,
                    mask: None,
                });
                if plan.len() != response.columns {
                    return Err(Stop::Unmaskable(String::from(
                        "the columns of this COPY are not those of the catalogue",
                    )));
                }
                if binary {
                    let unknown = |it: &CopyColumn| it.type_oid == 0 && it.mask.is_none();
                    if patterns && plan.iter().any(unknown) {
                        return Err(Stop::Unmaskable(String::from(BINARY_COPY)));
                    }
                    let copy = BinaryCopy::new(&plan, masks);
                    return Ok(Some(CopyMasker::Binary(copy)));
                }
                let format: CopyFormat = copy.format.clone();
                Ok(Some(CopyMasker::Text(TextCopy::new(format, plan, masks))))
            }
        }
    }

    /// Bytes of ASCII may be parts of other characters, so that a delimiter may be none.
    fn hides_delimiters(&self, format: &CopyFormat) -> bool {
        let name = match &format.encoding {
            Some(name) => name.as_bytes().to_ascii_uppercase(),
            None => self.settings.encoding.clone(),
        };
        let plain: Vec<u8> = name.into_iter().filter(u8::is_ascii_alphanumeric).collect();
        let safe: &[&[u8]] = &[b"UTF8", b"UNICODE", b"SQLASCII"];
        let single_byte: &[&[u8]] = &[b"LATIN", b"ISO8859", b"WIN", b"KOI8"];
        !safe.contains(&&plain[..]) && !single_byte.iter().any(|start| plain.starts_with(start))
    }

    pub(super) fn copy_data(&mut self, body: &[u8]) -> Result<(), Stop> {
        let mut rows = Vec::with_capacity(body.len());
        let count = self.copied(|copy, masks| copy.push(body, masks, &mut rows))?;
        self.put_copy_data(&rows, count);
        Ok(())
    }

    pub(super) fn copy_done(&mut self) -> Result<(), Stop> {
        let mut rows = Vec::new();
        let count = self.copied(|copy, masks| copy.finish(masks, &mut rows))?;
        self.put_copy_data(&rows, count);
        Ok(())
    }

    /// Works on the stream of the COPY that runs, if its rows are rewritten at all; gives how many
    /// rows came out of it.
    fn copied(
        &mut self,
        work: impl FnOnce(&mut CopyMasker, &Masks) -> Result<(), CopyError>,
    ) -> Result<u64, Stop> {
        let Some(running) = self.expected.front_mut().and_then(Expected::running) else {
            return Err(Stop::unexpected(kind::COPY_DONE));
        };
        let masks = running.judged.masks.clone();
        let Some(copy) = &mut running.copy else {
            return Ok(0);
        };
        let (before, _) = copy.counts();
        work(copy, &masks).map_err(|error| Stop::Violation(alloc::format!("{error}")))?;
        Ok(copy.counts().0 - before)
    }

    fn put_copy_data(&mut self, rows: &[u8], count: u64) {
        if rows.is_empty() {
            return;
        }
        let start = self.to_client.len();
        encode::message(
            &mut self.to_client,
            kind::COPY_DATA,
            |out: &mut BytesMut| out.put_slice(rows),
        );
        self.take_back_beyond_limit(count, start);
    }
}
