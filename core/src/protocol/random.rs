//! Randomness from a seed: the same seed gives the same ids and the same jitter.

use alloc::string::ToString;
use core::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use super::name::{ClientId, RecordId};
use super::time::Timestamp;

/// A generator of ids and jitter that was seeded once.
///
/// Ids are as unique as the seed. Give each opening of a replica a fresh seed from the operating
/// system's generator.
#[derive(Clone)]
pub(crate) struct Random {
    key: [u8; 16],
    drawn: u64,
    jitter: fastrand::Rng,
}

impl Random {
    /// A generator with this seed.
    #[must_use]
    pub(crate) fn new(seed: u128) -> Self {
        let jitter = fastrand::Rng::with_seed(seed as u64 ^ (seed >> 64) as u64);
        Self { key: seed.to_le_bytes(), drawn: 0, jitter }
    }

    /// A new client id: a random UUID.
    pub(crate) fn client_id(&mut self) -> Option<ClientId> {
        ClientId::new(&uuid::Builder::from_random_bytes(self.bytes()).into_uuid().to_string()).ok()
    }

    /// A new record id: a UUID of version 7, so that ids of one device sort by time.
    pub(crate) fn record_id(&mut self, wall: Timestamp) -> Option<RecordId> {
        let bytes = self.bytes();
        let tail: &[u8; 10] = bytes.first_chunk()?;
        let millis = u64::try_from(wall.0).unwrap_or(0);
        let uuid = uuid::Builder::from_unix_timestamp_millis(millis, tail).into_uuid();
        RecordId::new(&uuid.to_string()).ok()
    }

    /// A duration below `limit`, uniformly distributed: "full jitter".
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.jitter.u64(0..=millis))
    }

    /// The count of drawn numbers and the state of the jitter, for digests of a state machine.
    #[must_use]
    pub(crate) fn state(&self) -> (u64, u64) {
        (self.drawn, self.jitter.get_seed())
    }

    fn bytes(&mut self) -> [u8; 16] {
        self.drawn += 1;
        let mut input = [0; 24];
        input[..16].copy_from_slice(&self.key);
        input[16..].copy_from_slice(&self.drawn.to_le_bytes());
        xxh3_128(&input).to_le_bytes()
    }
}
