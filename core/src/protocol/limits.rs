//! Limits on the input from a peer. All are configurable.

/// The limits on input from a peer or from the app.
///
/// ```
/// use synclayer_core::Limits;
///
/// let mut limits = Limits::default();
/// limits.document_bytes = 64 << 10;
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The maximal length of a frame or HTTP body, in bytes. Default 4 MiB.
    pub frame_bytes: usize,
    /// The maximal size of a document, in bytes of its JSON text. Default 1 MiB.
    pub document_bytes: usize,
    /// The maximal nesting of a value in a document, the document itself included. Default 64, at
    /// most 127.
    pub depth: usize,
    /// The maximal number of top-level fields of a document. Default 1,024.
    pub fields: usize,
    /// The maximal length of a top-level field's name, in bytes. Default 256.
    pub field_name_bytes: usize,
    /// The maximal number of messages in a `batch`. Default 4,096.
    pub batch_messages: usize,
    /// The maximal number of records of a collection at a server: a write that would make one more is
    /// refused. Default 10,000,000.
    pub collection_records: u64,
    /// The maximal size of a collection at a server, in bytes of the rows and ids of its records,
    /// those of deleted ones included until a sweep removes them: a write that makes it larger is
    /// refused, a deletion never. Default 64 GiB.
    pub collection_bytes: u64,
    /// The maximal number of collections at a server: the first write to one more is refused. A
    /// collection stays when its records are deleted. Default 100,000.
    pub collections: u64,
    /// The maximal number of client ids of a user at a server, or of all clients where no users are
    /// known: the hello of one more is refused. Those that were silent for the retention are removed.
    /// Default 100,000.
    pub user_clients: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 4 << 20,
            document_bytes: 1 << 20,
            depth: 64,
            fields: 1024,
            field_name_bytes: 256,
            batch_messages: 4096,
            collection_records: 10_000_000,
            collection_bytes: 64 << 30,
            collections: 100_000,
            user_clients: 100_000,
        }
    }
}

impl Limits {
    /// The limits of what was accepted before, under whatever limits: only the depth matters, since it
    /// bounds the recursion.
    pub(crate) const OF_ACCEPTED: Self = Self {
        frame_bytes: usize::MAX,
        document_bytes: usize::MAX,
        depth: 127,
        fields: usize::MAX,
        field_name_bytes: usize::MAX,
        batch_messages: 0,
        collection_records: u64::MAX,
        collection_bytes: u64::MAX,
        collections: u64::MAX,
        user_clients: u64::MAX,
    };
}
