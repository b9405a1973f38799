//! A replica's identity at its server.

use alloc::vec::Vec;

use bytes::Bytes;

use super::parts::{addresses, database};
use crate::protocol::codec::{Reader, put_bytes, put_option, put_part, put_u64};
use crate::protocol::hash::Digest;
use crate::protocol::name::{ClientId, DatabaseId, MutationNumber, SessionNumber, WriteId};
use crate::rules::clocks::Clocks;
use crate::rules::forgotten::Forgotten;
use crate::store::StoreError;

/// The replica's identity at the server, and the write up to which its writes are confirmed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Identity {
    pub(crate) client_id: ClientId,
    /// The largest session that was ever offered.
    pub(crate) session: SessionNumber,
    /// The number up to which every write is confirmed.
    pub(crate) confirmed: MutationNumber,
    /// The digest of the write with that number, as sent.
    pub(crate) digest: Option<Digest>,
    /// The first id that no write has had yet.
    pub(crate) next_write: WriteId,
    /// Hashes of the addresses that ever offered level 2.
    pub(crate) resumable: Vec<u64>,
    /// The identity of the database to which the rows and writes belong; `None` before a server has
    /// told one.
    pub(crate) database: Option<DatabaseId>,
    /// The identity of another database that the server has now, while the app has not decided
    /// about it (PROTOCOL 11.1).
    pub(crate) other_database: Option<DatabaseId>,
    /// The known facts about the device's clock.
    pub(crate) clocks: Clocks,
    /// The writes that the server may have applied and forgotten.
    pub(crate) forgotten: Forgotten,
    /// The attempts in vain to bring a large write to the server.
    pub(crate) attempts: Option<Attempts>,
}

/// The attempts in vain to bring the first write to the server, which may be too large for the way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Attempts {
    pub(crate) write: WriteId,
    /// The number of connections in a row that broke before its verdict.
    pub(crate) breaks: u32,
    /// The number of times in a row that something on the way called it too large.
    pub(crate) refusals: u32,
    /// `true` if the app rejects it as soon as it is known that the server does not have it.
    pub(crate) given_up: bool,
}

impl Attempts {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.write.0, self.breaks.into(), self.refusals.into()] {
            put_u64(&mut out, number);
        }
        out.push(u8::from(self.given_up));
        out
    }

    fn decode(mut part: Reader) -> Result<Self, StoreError> {
        let write = WriteId(part.u64()?);
        let mut count = || Ok(u32::try_from(part.u64()?).unwrap_or(u32::MAX));
        let (breaks, refusals) = (count()?, count()?);
        let given_up = part.flag()?;
        part.end()?;
        Ok(Self { write, breaks, refusals, given_up })
    }
}

/// The tags of an identity's parts: its databases, its clocks, its forgotten writes, and the attempts
/// in vain.
const DATABASES: u8 = 1;
const CLOCKS: u8 = 2;
const FORGOTTEN: u8 = 3;
const ATTEMPTS: u8 = 4;

impl Identity {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        put_bytes(&mut out, self.client_id.as_bytes());
        put_u64(&mut out, self.session.0);
        put_u64(&mut out, self.confirmed.0);
        out.push(u8::from(self.digest.is_some()));
        if let Some(digest) = self.digest {
            put_u64(&mut out, digest.0);
        }
        put_u64(&mut out, self.next_write.0);
        let databases = self.databases();
        // rows from before the support of plain servers end here
        let clocks = (!self.clocks.is_default()).then(|| self.clocks.encode());
        let forgotten = (!self.forgotten.is_default()).then(|| self.forgotten.encode());
        let attempts = self.attempts.map(|attempts| attempts.encode());
        let parts = [&databases, &clocks, &forgotten, &attempts];
        let has_parts = parts.iter().any(|part| part.is_some());
        if !self.resumable.is_empty() || has_parts {
            put_u64(&mut out, self.resumable.len() as u64);
            self.resumable.iter().for_each(|address| put_u64(&mut out, *address));
        }
        // rows from before databases had identities end here
        if let Some(databases) = databases {
            put_part(&mut out, DATABASES, &databases);
        }
        if let Some(clocks) = clocks {
            put_part(&mut out, CLOCKS, &clocks);
        }
        if let Some(forgotten) = forgotten {
            put_part(&mut out, FORGOTTEN, &forgotten);
        }
        if let Some(attempts) = attempts {
            put_part(&mut out, ATTEMPTS, &attempts);
        }
        out
    }

    fn databases(&self) -> Option<Vec<u8>> {
        let databases = [&self.database, &self.other_database];
        databases.iter().any(|database| database.is_some()).then(|| {
            let mut out = Vec::new();
            for database in databases {
                put_option(&mut out, database.as_ref().map(|database| database.as_bytes()));
            }
            out
        })
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, StoreError> {
        let mut row = Reader::new(row);
        let mut identity = Self {
            client_id: row.str(|text| ClientId::new(text).ok())?,
            session: SessionNumber(row.u64()?),
            confirmed: MutationNumber(row.u64()?),
            digest: if row.flag()? { Some(Digest(row.u64()?)) } else { None },
            next_write: WriteId(row.u64()?),
            resumable: if row.is_empty() { Vec::new() } else { addresses(&mut row)? },
            database: None,
            other_database: None,
            clocks: Clocks::default(),
            forgotten: Forgotten::default(),
            attempts: None,
        };
        if let Some(mut part) = row.part(DATABASES)? {
            identity.database = database(&mut part)?;
            identity.other_database = database(&mut part)?;
            part.end()?;
        }
        if let Some(part) = row.part(CLOCKS)? {
            identity.clocks = Clocks::decode(part)?;
        }
        if let Some(part) = row.part(FORGOTTEN)? {
            identity.forgotten = Forgotten::decode(part)?;
        }
        if let Some(part) = row.part(ATTEMPTS)? {
            identity.attempts = Some(Attempts::decode(part)?);
        }
        row.end()?;
        Ok(identity)
    }
}
