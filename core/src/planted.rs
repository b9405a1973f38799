//! Planted bugs: deliberate violations of the core's rules, which the tests must find.
//!
//! They exist only in builds with `--cfg synclayer_planted`; in any other build `planted!(…)` is
//! `false`. At most one is switched on at a time, for the whole process. The number in parentheses
//! is the rule of `PROTOCOL.md` that a bug breaks.

#[cfg(not(synclayer_planted))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(synclayer_planted)]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is_on($crate::planted::Bug::$bug)
    };
}

#[cfg(synclayer_planted)]
mod bugs {
    use core::sync::atomic::{AtomicU8, Ordering};

    static ON: AtomicU8 = AtomicU8::new(u8::MAX);

    /// Switches a bug on, and all others off.
    pub fn plant(bug: Option<Bug>) {
        ON.store(bug.map_or(u8::MAX, |bug| bug as u8), Ordering::Relaxed);
    }

    pub(crate) fn is_on(bug: Bug) -> bool {
        ON.load(Ordering::Relaxed) == bug as u8
    }

    macro_rules! bugs {
        ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
            /// The planted bugs, each with its effect.
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[repr(u8)]
            pub enum Bug {
                $($(#[doc = $doc])+ $name,)+
            }

            impl Bug {
                /// All bugs.
                pub const ALL: &[Self] = &[$(Self::$name,)+];

                /// The effect of the bug.
                #[must_use]
                pub fn breaks(self) -> &'static str {
                    match self {
                        $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                    }
                }
            }
        };
    }

    bugs! {
        // the server: writes
        /// A write is applied whatever session it comes from (7.6).
        FenceUnchecked,
        /// A hello is accepted with any session (7.6).
        HelloUnchecked,
        /// A hello reads the state from before the writes that are committed with it (7.6).
        HelloReadsApart,
        /// A push is judged although the server has begun a new epoch since its hello (5.10).
        PushOfOtherEpoch,
        /// A number that was applied is applied again (9.2).
        NumberTwice,
        /// A base above the head counts as known (9.13).
        BaseAboveHeadTaken,
        /// Every change above the connection's first own one counts as its own (9.13).
        WindowIsRange,
        /// An insert or delete above a write's base is no conflict (9.13).
        WholeUnchecked,
        /// A base below the horizon counts as comparable (9.13).
        HorizonUnchecked,
        /// An update leaves its fields the seq of the whole record (6.2).
        FieldSeqLost,
        /// A removed field leaves no tombstone (6.2).
        FieldTombstoneLost,
        /// An insert of a record that may have been deleted above its base is applied once the
        /// tombstone is removed (9.13).
        SweptInsertTaken,
        /// A deleted record leaves no tombstone (6.2).
        TombstoneForgotten,
        /// An insert or delete of an existing record does not move its `whole` (6.2).
        WholeNotMoved,
        /// The change index keeps the earlier entries of a record (8.3).
        IndexRowKept,
        /// An opening gives the database another identity (6.8).
        DatabaseRenamed,
        /// A rebuilt store accepts the cursors of its earlier epochs (11.11).
        RebuiltEpochsKept,
        /// A rebuilt store claims to have lost no tombstone (11.11).
        RebuiltHorizonKept,
        // the server: reads
        /// A replaced record is sent as an update (8.3).
        InsertAsUpdate,
        /// The horizon is compared at the first page of a run only (8.10).
        HorizonOncePerRun,
        /// A resumed delta sends the fields above its resume, not above its cursor (8.7).
        ResumeMovesFloor,
        /// An interrupted run goes on from a position of an earlier epoch (8.8).
        ResumeOfEarlierEpochTaken,
        /// A cursor of an unknown epoch counts as valid (6.6).
        UnknownEpochTrusted,
        /// A cursor beyond the end of its epoch counts as valid (6.6).
        LostTailTrusted,
        /// The checksum does not cover the values of fields (12.3).
        ChecksumWithoutValues,
        // the client: exchanges by HTTP
        /// An exchange that is requested while another is in progress is forgotten (5.22).
        SyncNowForgotten,
        // the server: sessions
        /// The pong does not name the database (6.8).
        DatabaseUnsaid,
        /// An ack without seq does not wait for the stream (9.20).
        BareAckEarly,
        /// An error does not wait for the stream (9.20).
        ConflictEarly,
        /// An error does not wait for the acks of smaller numbers (9.20).
        ErrorOvertakesAcks,
        /// A transaction with an unknown outcome is reported as one that failed (9.18).
        UnknownIsFailure,
        /// The acks that are due are sent after the `subscribed` of an overrun (8.13).
        AcksBehindSubscribed,
        /// A live collection is served from the store again without a `subscribed` (8.13).
        RingOverrunUnsaid,
        /// Pages are read while a transaction is in progress (9.20).
        ReadsCrossWrites,
        /// An ack in place overtakes one out of place (9.20).
        PlacedAckOvertakes,
        /// A session's own change is sent before its verdict is there (9.15).
        ChangeBeforeVerdict,
        /// A subscription is served while the hello before it is not durable yet (7.6).
        SubscribedBeforePong,
        /// The last change by someone else is held back until there is another one (8.12).
        LastChangeHeldBack,
        /// Every page is requested twice.
        PageReadTwice,
        /// Transactions are answered although their changes are not published (8.12).
        AnsweredUnpublished,
        /// No follower is woken when a collection moves (8.12).
        FollowersUnwoken,
        /// A ring forgets nothing (15.8).
        RingKeepsAll,
        /// The times of a write's fields are dropped: all fields get the time of its last part
        /// (9.5).
        FieldTimesDropped,
        /// A field may have a time in the future (9.6).
        FutureTimesKept,
        /// The records of a snapshot lack the times of their fields (9.6).
        PageWithoutTimes,
        /// The digest of a write does not cover the times of its fields (12.5).
        DigestWithoutTimes,
        /// Level-1 readers are not told about removed fields (4.5).
        NullUnsaid,
        // the client: records
        /// A base does not include the collection's cursor (9.12).
        BaseWithoutCursor,
        /// The base rises with a remote change that waits for a verdict (9.12).
        BaseCountsParked,
        /// State that was learnt before a lost tail still counts for bases (9.12).
        BaseOfLostTail,
        /// An ack without seq is folded into the state of a live stream (9.24).
        BareAckFolded,
        /// An ack without seq moves a record's seq (9.17).
        BareAckSetsSeq,
        /// A write that a pong confirms is folded into a state that may be newer, and the changes
        /// since its base are not requested again (9.25).
        ConfirmedOverNews,
        /// A delta goes on from its cursor although its resume is of a lost tail (8.8).
        LostResumeIgnored,
        /// After an ack, a record counts as known although its writer may not read it and others
        /// have changed it (9.16).
        EchoVouchesUnread,
        /// Of an ack out of place only the seq is applied (9.16).
        EchoIgnored,
        /// A withheld record keeps a seq of an outdated generation as one of the present.
        OutdatedSeqHidden,
        /// A `CONFLICT` without a trace of a known record leaves the cursor as it is (9.26).
        VanishedNotBehind,
        /// A `delete` that is older than the known state takes a record out of sight (9.27).
        SightLostByOldNews,
        /// An insert that replaces a known record with base 0 is sent as an insert (9.28).
        KnownInsertedUnasked,
        /// The client does not notice that the server has forgotten it (11.9).
        ForgottenUnnoticed,
        /// Writes that were made off line count as sent when the server has forgotten the client
        /// (11.10).
        NeverSentForgotten,
        /// A record that the server lacks is inserted again, although the insert may have been
        /// applied and the record deleted since (9.29).
        ForgottenInsertUnasked,
        /// Every insert among a record's possibly forgotten writes is sent as an update, not only
        /// the first (9.29).
        ForgottenLaterAsked,
        /// Any deletion counts as one of a possibly forgotten insert (9.29).
        ForgottenWithoutCursor,
        /// A copy inserts records again that may have been inserted and deleted (11.8).
        CopyInsertsUnasked,
        /// A write that was sent in place of an insert is not recognised as this replica's own
        /// (9.29).
        AskedInsertUnknown,
        /// The server reports a client's last session as its first (6.9).
        FirstSessionMoves,
        /// An update from the server replaces the record (3.3).
        DeltaOverwrites,
        /// A record settles while one of its writes may be in transit (9.22).
        SettledWhileFrozen,
        /// A remote change that overlaps with a pending write is no conflict (9.22).
        OverlapIgnored,
        /// The view lacks the pending writes (15.7).
        ViewWithoutOverlay,
        /// A write that is merged into another one gives all its fields its own time (9.5).
        JoinedTimesLost,
        /// The outcome of a strategy has one time for all fields (9.7).
        OutcomeTimesLost,
        /// A deletion of unknown time loses against any edit (9.11).
        UndatedDeleteLoses,
        /// Last-write-wins compares the latest times of both sides, not those of each field (9.11).
        TimesOfWholeRecords,
        /// The failure of a resolver is not reported.
        ResolverFailureUnsaid,
        /// The outcome of a strategy is not sent to the server (9.22).
        OutcomeNotPushed,
        /// A write to a record that was deleted meanwhile brings it back, and no strategy is asked
        /// (15.6).
        DeletesUndone,
        /// A write is stamped earlier than the state that its author had seen (9.4).
        StampNotCausal,
        // the client: the outbox
        /// The offset of the server's clock is forgotten at the end of a run (9.8).
        OffsetForgotten,
        /// Writes that were stamped before a server told its time are sent uncorrected (9.8).
        RunsUncorrected,
        /// The time of writes follows steps of the wall clock (9.8).
        StepsFollowed,
        /// A leap of the wall clock is ignored (9.8).
        LeapsIgnored,
        /// The server's time is not requested again after a leap on a live connection (9.9).
        TimeUnasked,
        /// An answer to a request from before a leap tells the time after it (9.9).
        StaleTimeBelieved,
        /// After several leaps, only the writes since the last one are corrected (9.8).
        EarlierRunsUncorrected,
        /// Writes do not wait for the server's time after a leap (9.10).
        UnsettledSent,
        /// Conflicts do not wait for the server's time after a leap (9.10).
        DecidedUnsettled,
        /// Writes are sent with a correction of times that is not durable yet (9.8).
        CorrectionUngated,
        /// A write is merged into one that may have been sent (9.30).
        SquashedIntoSent,
        /// Frames are sent before the outbox is durable (6.7).
        SentBeforeDurable,
        /// A session is offered without having been stored (7.6).
        SessionNotStored,
        /// The client does not notice that a server has lost confirmed writes (11.4).
        ServerLossUnnoticed,
        /// The client does not notice a copy of itself (11.8).
        CopyUnnoticed,
        /// Writes that a pong confirms are not folded into their records (9.24).
        PongForgetsWrites,
        /// A rejected update takes the later writes to its record along (9.34).
        RejectedUpdateTakesLater,
        /// A rejected insert or delete leaves the later writes to its record behind (9.34).
        RejectedInsertKeepsLater,
        /// Rejected writes are not listed (9.34).
        RejectedListLost,
        /// An interrupted wipe is not finished.
        WipeUnfinished,
        /// A new user gets the slot of another user after one has left.
        WipedSlotShared,
        /// A wipe also removes writes that the server lacks, without being told to.
        UnsentWiped,
        /// The fate of a write is reported before the decision is durable (15.1).
        FateBeforeDurable,
        /// A write that a strategy has merged into another has no fate.
        MergedFateLost,
        /// A write that changes nothing waits for a commit that is never flushed.
        IdleWriteUnflushed,
        /// `modify` is shown the server's state, without the pending writes (15.7).
        ModifySeesServerState,
        /// A report of durability beyond the last commit is believed.
        ReportBelieved,
        // the client: streams and time
        /// Frames of a replaced connection are read.
        LateFramesHeard,
        /// A cursor of another epoch is trusted before the server has accepted it (9.32).
        EpochTrustedUnasked,
        /// The cursor moves in the middle of a catch-up (8.11).
        CursorInMidCatchUp,
        /// Another database is taken for the first one (11.1).
        OtherDatabaseTaken,
        /// Records that may be of a lost tail are removed as soon as a page lacks them (11.5).
        HeldRowsDropped,
        /// Records that the server has not shown are included in the checksum (11.5).
        HeldRowsCounted,
        /// The base of a record that the server has not shown includes the cursor (11.5).
        HeldRowsVouchedFor,
        /// However many records a server has lost, they are removed without a question (11.6).
        LossUnasked,
        /// All lost records are removed in one step, however many they are (11.6).
        AdoptedAtOnce,
        /// Of many lost records only the first ones are removed (11.6).
        AdoptionForgotten,
        /// The strategy decides about a write to a record that is to be offered to a server which
        /// lacks it (11.6).
        OfferLeftToStrategy,
        /// Records that are offered to a server that lacks them are not sent (11.6).
        OfferedForgotten,
        /// Records that a snapshot lacks stay (8.4).
        AbsentKept,
        /// A collection is never shown as confirmed.
        NeverConfirmed,
        /// A collection is shown as confirmed although the server is unreachable.
        ConfirmedForEver,
        /// A change of version or time alone is reported as a change of the record.
        VersionIsChange,
        /// A page by HTTP is applied whatever its `from` is (5.17).
        ForeignPageApplied,
        /// A page by HTTP is applied whatever its `lastMutation` is (5.17).
        PageNumberIgnored,
        /// Answers by HTTP are read, and writes sent by it, while a WebSocket is up (5.17).
        HttpBesideSocket,
        /// A server that offered level 2 may offer less later (7.3).
        DowngradeTaken,
        /// Collections are named in paths, whatever the server offers (5.13).
        NamesInPaths,
        /// A connection is not probed when the app reports a network (13.3).
        WakeUnprobed,
        /// The client does not notice that the device has slept (13.4).
        SleepUnnoticed,
        /// A 401 or 403 stops the client until its app acts (5.21).
        RefusalStops,
        /// A push of one write that is too large for an intermediary rejects the write (5.19).
        TooLargeRejects,
        /// A collection whose page is refused ends the exchange (5.19).
        PageStopsExchange,
        /// An unusable page, such as another collection's, ends the exchange (5.19).
        UselessPageStopsExchange,
        /// A server that does not know the hello by HTTP is a plain one, whatever else it answers
        /// (16.3).
        AnythingIsPlain,
        /// A server that answers the hello and a plain call with the same words is a plain one
        /// (16.4).
        EchoIsPlain,
        /// Any answer to a plain write is believed at once (16.14).
        GatewayBelieved,
        /// Deadlines follow the wall clock.
        WallClockDeadlines,
        /// Writes wait for a catch-up however long it takes (9.31).
        PatienceForEver,
        /// A collection that is first used after the hello counts as one with a cursor of unknown
        /// history (9.32).
        LateUseUntrusted,
        /// A collection that nothing uses is kept in sync for ever (9.33).
        KeptForEver,
        /// A collection is left although something uses it (9.33).
        LeftInUse,
        /// A refused subscription is not requested again on its connection (8.18).
        RefusedForGood,
        /// A write that must wait before its next attempt sets no deadline.
        HoldWithoutDeadline,
        /// Waiting times are drawn from randomness outside the machine (15.9).
        ChanceFromOutside,
        /// A collection that the app never used is stored when a server sends it (2.8).
        ForeignStreamKept,
        /// The texts of a refused write are stored at full length (13.1).
        RefusalKeptWhole,
        /// The times of removed fields are kept beneath a frozen write.
        GoneFieldsKept,
        // the client: watchers
        /// Changes that a watcher has not taken are replaced by newer ones of other records.
        UntakenForgotten,
        /// The last watcher leaves its view behind.
        ViewKept,
    }

    /// The rules of the protocol that its model has shown to be necessary, each with the bugs that
    /// break it.
    pub const SENTENCES: &[(&str, &[Bug])] = {
        use Bug::*;
        &[
            (
                "a record keeps `whole`, the seq of its last insert or delete (6.2)",
                &[WholeNotMoved],
            ),
            (
                "a record whose `whole` is above the floor goes out as an insert (8.3)",
                &[InsertAsUpdate],
            ),
            (
                "a cursor of an unknown epoch, or beyond its epoch's end, is of a lost tail (6.6)",
                &[UnknownEpochTrusted, LostTailTrusted, EpochTrustedUnasked],
            ),
            (
                "the base belongs to the record: the seq of the state on which its writes stand (9.12)",
                &[BaseWithoutCursor, BaseCountsParked, BaseOfLostTail],
            ),
            ("a session keeps the seqs of its own writes (9.13)", &[WindowIsRange]),
            ("a write conflicts when `whole` is above its base (9.13)", &[WholeUnchecked]),
            (
                "the hello is one transaction, and its pong goes out before any `subscribed` (7.6)",
                &[HelloUnchecked, HelloReadsApart, FenceUnchecked, SubscribedBeforePong],
            ),
            (
                "nothing is sent before the change that it reports is durable (6.7)",
                &[SentBeforeDurable],
            ),
            ("a replica that had level 2 accepts no less (7.3)", &[DowngradeTaken]),
            ("the horizon is compared at every page (8.10)", &[HorizonOncePerRun]),
            (
                "`resume` moves only the position in the run (8.7)",
                &[ResumeMovesFloor, CursorInMidCatchUp],
            ),
            (
                "a live collection that is served from the store again is announced, after the \
                 acks that are due (8.13)",
                &[RingOverrunUnsaid, AcksBehindSubscribed],
            ),
            ("the checksum covers the values of fields (12.3)", &[ChecksumWithoutValues]),
            (
                "an ack sets a record's seq only in place, or with the state that it carries (9.17)",
                &[BareAckSetsSeq, EchoIgnored],
            ),
            (
                "a verdict waits until the stream has passed its record's seq (9.20)",
                &[BareAckEarly, ConflictEarly, ReadsCrossWrites, ChangeBeforeVerdict],
            ),
            ("an error comes after the acks of all smaller numbers (9.20)", &[ErrorOvertakesAcks]),
            (
                "a server that does not know an outcome closes the connection (9.18)",
                &[UnknownIsFailure],
            ),
            (
                "changes of a record with a frozen write wait, and it settles once (9.22)",
                &[SettledWhileFrozen],
            ),
            (
                "a confirmed write is folded in at once, and its return is no remote change (9.24)",
                &[PongForgetsWrites, BareAckFolded],
            ),
            ("a write is merged only into one that was never sent (9.30)", &[SquashedIntoSent]),
            (
                "a rejected insert or delete takes the later writes along, an update does not (9.34)",
                &[RejectedUpdateTakesLater, RejectedInsertKeepsLater],
            ),
        ]
    };
}

#[cfg(synclayer_planted)]
pub(crate) use bugs::is_on;
#[cfg(synclayer_planted)]
pub use bugs::{Bug, SENTENCES, plant};
