//! Deliberate breaks of the core, by which the proof is proved: whatever claims to find bugs has
//! to find these.
//!
//! They exist only in builds with `--cfg synclayer_planted`; in any other `planted!(…)` is `false`.
//! One at a time is switched on, for the whole process.

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

    /// Switches a bug on, and every other off.
    pub fn plant(bug: Option<Bug>) {
        ON.store(bug.map_or(u8::MAX, |bug| bug as u8), Ordering::Relaxed);
    }

    pub(crate) fn is_on(bug: Bug) -> bool {
        ON.load(Ordering::Relaxed) == bug as u8
    }

    macro_rules! bugs {
        ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
            /// The bugs, each with what it does.
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[repr(u8)]
            pub enum Bug {
                $($(#[doc = $doc])+ $name,)+
            }

            impl Bug {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$name,)+];

                /// What the bug does.
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
        /// A write is applied whatever session it comes from.
        FenceUnchecked,
        /// A hello is accepted whatever its session.
        HelloUnchecked,
        /// A hello reads what was there before the writes that are committed with it.
        HelloReadsApart,
        /// Writes by HTTP are judged although the server has begun a new epoch since their hello.
        PushOfOtherEpoch,
        /// A number that was applied is applied again.
        NumberTwice,
        /// A base above the head counts as known.
        BaseAboveHeadTaken,
        /// Every change above the first of a connection's own counts as its own.
        WindowIsRange,
        /// An insert or delete above a write's base does not meet it.
        WholeUnchecked,
        /// A base below the horizon counts as one that can be compared.
        HorizonUnchecked,
        /// An update leaves its fields the seq of the whole record.
        FieldSeqLost,
        /// A removed field leaves no tombstone.
        FieldTombstoneLost,
        /// An insert of a record that may have been deleted above its base is taken once the
        /// tombstone is gone.
        SweptInsertTaken,
        /// A deleted record leaves no tombstone.
        TombstoneForgotten,
        /// An insert or delete of a record that is there leaves it the `whole` that it had.
        WholeNotMoved,
        /// The change index keeps the earlier places of a record.
        IndexRowKept,
        /// An opening gives the database another identity.
        DatabaseRenamed,
        /// What is made of a damaged store trusts the cursors of its earlier epochs.
        RebuiltEpochsKept,
        /// What is made of a damaged store has lost no tombstone.
        RebuiltHorizonKept,
        // the server: reads
        /// A record that was replaced goes out as an update.
        InsertAsUpdate,
        /// The horizon is compared at the first page of a run only.
        HorizonOncePerRun,
        /// An interrupted delta goes on with the fields above its place, not above its cursor.
        ResumeMovesFloor,
        /// An interrupted run goes on from a place of an earlier epoch.
        ResumeOfEarlierEpochTaken,
        /// A cursor of an epoch that the server does not know is taken.
        UnknownEpochTrusted,
        /// A cursor beyond the end of its epoch is taken.
        LostTailTrusted,
        /// The checksum does not cover the values of fields.
        ChecksumWithoutValues,
        // the client: exchanges by HTTP
        /// An exchange that is asked for while another is under way is forgotten.
        SyncNowForgotten,
        // the server: sessions
        /// The pong does not say of which database it is.
        DatabaseUnsaid,
        /// An ack without seq does not wait for the stream.
        BareAckEarly,
        /// An error does not wait for the stream.
        ConflictEarly,
        /// An error does not wait for the acks of smaller numbers.
        ErrorOvertakesAcks,
        /// A transaction with an unknown outcome is reported as one that failed.
        UnknownIsFailure,
        /// The acks due go out behind the `subscribed` that says that the ring has moved on.
        AcksBehindSubscribed,
        /// Nothing says that a live collection is served from the store again.
        RingOverrunUnsaid,
        /// Pages are read while a transaction is under way.
        ReadsCrossWrites,
        /// An ack in its place overtakes one without a place.
        PlacedAckOvertakes,
        /// A session's own change goes out before its verdict is there.
        ChangeBeforeVerdict,
        /// A subscription is served while the hello in front of it is not durable yet.
        SubscribedBeforePong,
        /// The last change of somebody else waits until there is another one.
        LastChangeHeldBack,
        /// Every page is asked for twice.
        PageReadTwice,
        /// A ring forgets nothing.
        RingKeepsAll,
        /// The times of a write's fields are dropped: all count as written when its last part was.
        FieldTimesDropped,
        /// A field may be of the future.
        FutureTimesKept,
        /// The records of a snapshot lack the times of their fields.
        PageWithoutTimes,
        /// The digest of a write does not cover the times of its fields.
        DigestWithoutTimes,
        /// Level-1 readers are not told of removed fields.
        NullUnsaid,
        // the client: records
        /// A base does not count the collection's cursor.
        BaseWithoutCursor,
        /// The base rises with a change that waits for a verdict.
        BaseCountsParked,
        /// What was learnt before a lost tail still counts for bases.
        BaseOfLostTail,
        /// An ack without seq is folded into the state of a live stream.
        BareAckFolded,
        /// An ack without seq moves a record's seq.
        BareAckSetsSeq,
        /// A write that a pong confirms is folded into a state that may be newer, and what came
        /// since its base is not asked for again.
        ConfirmedOverNews,
        /// A delta goes on from its cursor where its resume is of a lost tail.
        LostResumeIgnored,
        /// An ack vouches for a record that its writer may not read and others have changed.
        EchoVouchesUnread,
        /// Of an ack out of place only the seq is taken.
        EchoIgnored,
        /// A record that is withheld keeps a seq of an outdated generation as one of the present.
        OutdatedSeqHidden,
        /// A CONFLICT without a trace of a record that was known leaves the cursor as it is.
        VanishedNotBehind,
        /// A record is taken out of sight by news that is older than what is known of it.
        SightLostByOldNews,
        /// An insert that replaces a record of which nothing is known any more goes out as one of a
        /// new record.
        KnownInsertedUnasked,
        /// That the server has forgotten this client is not noticed.
        ForgottenUnnoticed,
        /// What was written off line counts as sent where the server has forgotten this client.
        NeverSentForgotten,
        /// A record that the server does not have is inserted again, although the insert may have been
        /// applied and the record deleted since.
        ForgottenInsertUnasked,
        /// Of the writes of a record that may be forgotten, each insert is asked for by an update.
        ForgottenLaterAsked,
        /// Any deletion counts as one of what the server may have forgotten.
        ForgottenWithoutCursor,
        /// A copy inserts again what may have been inserted and deleted.
        CopyInsertsUnasked,
        /// A write that an insert was sent as is not known as this replica's own.
        AskedInsertUnknown,
        /// The server tells of a client's last session as of the first.
        FirstSessionMoves,
        /// An update from the server replaces the record.
        DeltaOverwrites,
        /// A record settles while one of its writes may be on its way.
        SettledWhileFrozen,
        /// A remote change that meets a pending write is no conflict.
        OverlapIgnored,
        /// The view lacks the pending writes.
        ViewWithoutOverlay,
        /// A write that joins another one gives all its fields its own time.
        JoinedTimesLost,
        /// What a strategy has decided is of one time, whichever fields it holds.
        OutcomeTimesLost,
        /// A deletion of which nobody knows the time any more loses against any edit.
        UndatedDeleteLoses,
        /// Last-write-wins compares the latest times of both sides, not those of each field.
        TimesOfWholeRecords,
        /// Nobody is told that a resolver has failed.
        ResolverFailureUnsaid,
        /// What a strategy decided is not sent to the server.
        OutcomeNotPushed,
        /// A write to a record that was deleted meanwhile brings it back, and no strategy is asked.
        DeletesUndone,
        /// A write is stamped earlier than what its author had seen.
        StampNotCausal,
        // the client: the outbox
        /// How far the server's clock was ahead is forgotten at the end of a run.
        OffsetForgotten,
        /// What was stamped before a server told its time is sent as it is.
        RunsUncorrected,
        /// The time of writes follows a wall clock that is set.
        StepsFollowed,
        /// A wall clock that has leapt ahead is taken for one that nothing happened to.
        LeapsIgnored,
        /// The server's time is not asked for again after a leap on a live connection.
        TimeUnasked,
        /// An answer that was asked for before a leap tells the time after it.
        StaleTimeBelieved,
        /// Of several leaps only what was stamped since the last one is corrected.
        EarlierRunsUncorrected,
        /// Writes do not wait for the server's time after a leap.
        UnsettledSent,
        /// Conflicts do not wait for the server's time after a leap.
        DecidedUnsettled,
        /// A correction of times need not be durable before something is sent with it.
        CorrectionUngated,
        /// A write joins one that may have been sent.
        SquashedIntoSent,
        /// Frames go out before the outbox is durable.
        SentBeforeDurable,
        /// A session is offered without having been stored.
        SessionNotStored,
        /// A server that has lost confirmed writes is not noticed.
        ServerLossUnnoticed,
        /// A copy of the replica is not noticed.
        CopyUnnoticed,
        /// Writes that a pong confirms are not folded into their records.
        PongForgetsWrites,
        /// A rejected update takes the later writes to its record along.
        RejectedUpdateTakesLater,
        /// A rejected insert or delete leaves the later writes to its record behind.
        RejectedInsertKeepsLater,
        /// Rejected writes are not listed.
        RejectedListLost,
        /// A wipe that was interrupted is not finished.
        WipeUnfinished,
        /// A new user gets the slot of another where one has left.
        WipedSlotShared,
        /// A wipe takes along what the server does not have, without being told to.
        UnsentWiped,
        /// The fate of a write is told before what has decided it is durable.
        FateBeforeDurable,
        /// A write that a strategy has merged into another has no fate.
        MergedFateLost,
        /// A write that changes nothing waits for a commit that nobody makes durable.
        IdleWriteUnflushed,
        /// `modify` is shown what the server has, without the pending writes.
        ModifySeesServerState,
        /// A report of durability beyond the last commit is believed.
        ReportBelieved,
        // the client: streams and time
        /// Frames of a connection that was replaced are listened to.
        LateFramesHeard,
        /// A cursor of another epoch is trusted before the server has taken it.
        EpochTrustedUnasked,
        /// The cursor moves in the middle of a catch-up.
        CursorInMidCatchUp,
        /// Another database than the one that was met is taken for the same one.
        OtherDatabaseTaken,
        /// Records that may be of a lost tail go as soon as a page lacks them.
        HeldRowsDropped,
        /// Records that the server has not shown count into the checksum.
        HeldRowsCounted,
        /// The cursor vouches for records that the server has not shown.
        HeldRowsVouchedFor,
        /// However many records a server has lost, they go without a question.
        LossUnasked,
        /// All records that were lost go in one step, however many they are.
        AdoptedAtOnce,
        /// Of records that were lost and are many only the first go.
        AdoptionForgotten,
        /// The strategy decides about a write to a record that is to be offered to a server which
        /// lacks it.
        OfferLeftToStrategy,
        /// Records that are offered to a server that lacks them are not sent.
        OfferedForgotten,
        /// Records that a snapshot lacks stay.
        AbsentKept,
        /// A collection is never shown as confirmed.
        NeverConfirmed,
        /// A collection is shown as confirmed although the server is out of reach.
        ConfirmedForEver,
        /// A change of version or time alone is told as a change of the record.
        VersionIsChange,
        /// A page by HTTP is applied wherever it goes on from.
        ForeignPageApplied,
        /// A page by HTTP is applied whatever it knows of the client's writes.
        PageNumberIgnored,
        /// Answers by HTTP are listened to, and writes go by it, while a WebSocket is up.
        HttpBesideSocket,
        /// A server that offered level 2 may offer less later.
        DowngradeTaken,
        /// Collections are named in paths, whatever the server offers.
        NamesInPaths,
        /// A connection is not probed when the app says that there is a network.
        WakeUnprobed,
        /// Nobody notices that the device has slept.
        SleepUnnoticed,
        /// A 401 or 403 stops the client until its app does something.
        RefusalStops,
        /// A push of one write that is too large for something on its way rejects the write.
        TooLargeRejects,
        /// A collection whose page is declined ends the exchange.
        PageStopsExchange,
        /// A page that can't be used, such as another collection's, ends the exchange.
        UselessPageStopsExchange,
        /// What does not know the hello by HTTP is a plain server, whatever else it says.
        AnythingIsPlain,
        /// What answers the hello and a plain call with the same words is a plain server.
        EchoIsPlain,
        /// What is answered to a plain write is believed at once.
        GatewayBelieved,
        /// Deadlines follow the wall clock.
        WallClockDeadlines,
        /// Writes wait for a catch-up however long it takes.
        PatienceForEver,
        /// A collection that is first used after the hello counts as one with a cursor of unknown
        /// history.
        LateUseUntrusted,
        /// A collection that nothing uses is kept in sync for ever.
        KeptForEver,
        /// A collection is left although something uses it.
        LeftInUse,
        /// A refused subscription is not asked for again on its connection.
        RefusedForGood,
        /// A write that has to wait before it is tried again sets no deadline.
        HoldWithoutDeadline,
        /// Waiting times are drawn from what lies outside the machine.
        ChanceFromOutside,
        /// A collection that nobody asked for is kept when a server speaks of it.
        ForeignStreamKept,
        /// All that a server says of a refused write is stored.
        RefusalKeptWhole,
        /// The times of fields that are gone are kept beneath a frozen write.
        GoneFieldsKept,
        // the client: watchers
        /// Changes that a watcher has not taken are replaced by newer ones of other records.
        UntakenForgotten,
        /// The last watcher leaves its view behind.
        ViewKept,
    }

    /// The sentences of the protocol that a model of it had shown to be needed, each with the bugs
    /// that break it.
    pub const SENTENCES: &[(&str, &[Bug])] = {
        use Bug::*;
        &[
            ("a record keeps `whole`, the seq of its last insert or delete", &[WholeNotMoved]),
            ("a record whose `whole` is above the floor goes out as an insert", &[InsertAsUpdate]),
            (
                "a cursor of an unknown epoch, or beyond its epoch's end, is of a lost tail",
                &[UnknownEpochTrusted, LostTailTrusted, EpochTrustedUnasked],
            ),
            (
                "the base belongs to the record: the seq of the state on which its writes stand",
                &[BaseWithoutCursor, BaseCountsParked, BaseOfLostTail],
            ),
            ("a session keeps the seqs of its own writes", &[WindowIsRange]),
            ("a write conflicts when `whole` is above its base", &[WholeUnchecked]),
            (
                "the hello is one transaction, and its pong goes out before any `subscribed`",
                &[HelloUnchecked, HelloReadsApart, FenceUnchecked, SubscribedBeforePong],
            ),
            ("nothing goes out before what it tells of is durable", &[SentBeforeDurable]),
            ("a replica that had level 2 takes no less", &[DowngradeTaken]),
            ("the horizon is compared at every page", &[HorizonOncePerRun]),
            ("`resume` moves only the place in the run", &[ResumeMovesFloor, CursorInMidCatchUp]),
            (
                "a live collection that is served from the store again is said to be, after the \
                 acks due",
                &[RingOverrunUnsaid, AcksBehindSubscribed],
            ),
            ("the checksum covers the values of fields", &[ChecksumWithoutValues]),
            (
                "an ack sets a record's seq in its place or with what it carries, and else never",
                &[BareAckSetsSeq, EchoIgnored],
            ),
            (
                "a verdict waits until the stream has passed its record's seq",
                &[BareAckEarly, ConflictEarly, ReadsCrossWrites, ChangeBeforeVerdict],
            ),
            ("an error comes after the acks of all smaller numbers", &[ErrorOvertakesAcks]),
            ("a server that can't know closes the connection", &[UnknownIsFailure]),
            (
                "changes of a record with a frozen write wait, and it settles once",
                &[SettledWhileFrozen],
            ),
            (
                "a confirmed write is folded in at once, and its return is no remote change",
                &[PongForgetsWrites, BareAckFolded],
            ),
            ("a write joins only one that was never sent", &[SquashedIntoSent]),
            (
                "a rejected insert or delete takes the later writes along, an update does not",
                &[RejectedUpdateTakesLater, RejectedInsertKeepsLater],
            ),
        ]
    };
}

#[cfg(synclayer_planted)]
pub(crate) use bugs::is_on;
#[cfg(synclayer_planted)]
pub use bugs::{Bug, SENTENCES, plant};
