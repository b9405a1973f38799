//! The documentation of the calls, for both faces.

/// The documentation of a call, which both faces attach to theirs: `#[doc = doc!(save)]`. Links in
/// it are those of the face's own items.
#[macro_export]
macro_rules! doc {
    (SyncLayer) => {
        "A client: a replica of some collections, which keeps itself in sync with a server.\n\n\
         It is cheap to clone, may be used from any thread, and may be dropped at any point: what \
         was saved stays saved. When the last clone and the last [`Collection`](crate::Collection) \
         are gone, it ends."
    };
    (open) => {
        "Opens a client with its store, and starts to connect unless \
         [`connect_at_start`](crate::SyncConfig) is `false`.\n\n\
         It does not wait for the server: without a connection it works on what is stored.\n\n\
         # Errors\n\
         When the configuration can't be used or the store can't be opened."
    };
    (collection) => {
        "The collection of this name, to read, write and watch. It joins those kept in sync at its \
         first use.\n\n\
         # Errors\n\
         When no collection can have this name."
    };
    (scope) => {
        "A scope of the collection: the records that have this value in a top-level field (`room`), or in \
         the array that one holds (`members[]`). A value is a text, a number, a boolean or null: \
         `scope(\"room\", \"42\")` is another one than `scope(\"room\", 42)`. The server has to have declared \
         the key, and to offer scopes to clients of level 2. By one that does not, as any server of before \
         this version, nothing of the collection is read, and \
         [`SyncFailed`](crate::EventKind::SyncFailed) says `SCOPES_NOT_SUPPORTED`.\n\n\
         The scope joins those that are kept in sync of the collection, and no more than these is read, \
         unless the collection is used without a scope too. It is kept while there is a handle of it, a \
         watch or a query of one, or a write of the collection that waits; then for \
         [`keep_scopes_for`](crate::SyncConfig::keep_scopes_for), of which only time in step counts, \
         and its records go. A refused scope shows as the event \
         [`SyncFailed`](crate::EventKind::SyncFailed).\n\n\
         # Errors\n\
         When no scope can be of this key or value."
    };
    (scope_of) => {
        "The scope of a key of several fields, which have these values together; see \
         [`scope`](Self::scope).\n\n\
         # Errors\n\
         When no scope can be of these fields or values."
    };
    (held) => {
        "All that is held of the collection, whatever that is: its reads and watches ask for no more."
    };
    (Scope) => {
        "A part of a collection: a scope, or all that is held of it. Made by \
         [`Collection::scope`](crate::Collection::scope)."
    };
    (scope_get) => {
        "A record as the app sees it, pending writes included, if it is in this part.\n\n\
         # Errors\n\
         As [`Collection::get`](crate::Collection::get)."
    };
    (scope_get_all) => {
        "All records of this part, in order of their ids.\n\n\
         # Errors\n\
         As [`Collection::get_all`](crate::Collection::get_all)."
    };
    (scope_query) => {
        "The query of all records of this part."
    };
    (keep) => {
        "Keeps the scope in sync until [`release`](Self::release), also when nothing uses it, and over \
         restarts of the program. Nothing happens for [`held`](crate::Collection::held).\n\n\
         # Errors\n\
         When the client has ended."
    };
    (release) => {
        "Ends a [`keep`](Self::keep).\n\n\
         # Errors\n\
         When the client has ended."
    };
    (collection_of) => {
        "The collection of this name, whose documents are values of a type.\n\n\
         # Errors\n\
         When no collection can have this name."
    };
    (CollectionOf) => {
        "A collection whose documents are values of a type of the app's. Numbers and other fields that \
         the type does not know stay in the store, but a [`save_with_id`](Self::save_with_id) replaces \
         the document as a whole.\n\n\
         A document that does not have the type's shape is an error, [`SyncError::Shape`], \
         which names the record and the field; [`untyped`](Self::untyped) shows it all the same.\n\n\
         [`SyncError::Shape`]: crate::SyncError::Shape"
    };
    (untyped) => {
        "The same without the type: for everything else that can be done with it."
    };
    (ScopeOf) => {
        "A part of a collection whose documents are values of a type: a scope, or all that is held of it. Made \
         by [`CollectionOf::scope`](crate::CollectionOf::scope); see there for documents of another shape."
    };
    (typed_scope) => {
        "A scope of the collection, as [`Collection::scope`](crate::Collection::scope) gives it.\n\n\
         # Errors\n\
         When no scope can be of this key or value."
    };
    (typed_get) => {
        "A record's value, if there is such a record.\n\n\
         # Errors\n\
         As [`Collection::get`](crate::Collection::get), and [`SyncError::Shape`](crate::SyncError::Shape)."
    };
    (typed_get_all) => {
        "The values of all records, in order of their ids.\n\n\
         # Errors\n\
         As [`Collection::get_all`](crate::Collection::get_all), and \
         [`SyncError::Shape`](crate::SyncError::Shape)."
    };
    (typed_find) => {
        "The values of the records that a query returns, which the closure makes of the query of all.\n\n\
         # Errors\n\
         As [`Query::get`](crate::Query::get), and [`SyncError::Shape`](crate::SyncError::Shape)."
    };
    (typed_watch) => {
        "Watches a query, which the closure makes of the query of all, as \
         [`Query::watch`](crate::Query::watch) does: the values of its result at once, and again after \
         every commit that changes it.\n\n\
         # Errors\n\
         As [`Query::watch`](crate::Query::watch)."
    };
    (WatchOf) => {
        "A watch of a query whose documents are values of a type: see \
         [`CollectionOf::watch`](crate::CollectionOf::watch).\n\n\
         An update with a document of another shape is an error, [`SyncError::Shape`](crate::SyncError::Shape). \
         The watch goes on: later updates come as before."
    };
    (events) => {
        "The events from now on: see [`EventKind`](crate::EventKind). They end when the client \
         does.\n\n\
         A client that connects at the start may have told something before this is called. To \
         miss nothing, open it with [`connect_at_start(false)`](crate::SyncConfig), and connect it \
         after this call."
    };
    (status) => {
        "The status: the state of the connection, the number of writes that wait, and each \
         collection.\n\n\
         # Errors\n\
         When the store has failed, or the client is closed."
    };
    (watch_status) => {
        "The [status](Self::status) now, and again whenever anything of it has changed, for an app that shows \
         it. There is none while the store is down. Each costs as much as the collections are many."
    };
    (metrics) => {
        "The figures of the client's work since it was opened: operations, conflicts, syncs, bytes and \
         times, by the names of SyncLayer 1.7.\n\n\
         # Errors\n\
         When the client is closed."
    };
    (connect) => {
        "Connects, and stays connected. Does nothing if that is so already.\n\n\
         # Errors\n\
         When the client is closed."
    };
    (disconnect) => {
        "Disconnects, and stays disconnected until [`connect`](Self::connect). Writes wait \
         meanwhile.\n\n\
         # Errors\n\
         When the client is closed."
    };
    (set_online) => {
        "Says whether the device has a network. With `false` nothing is tried any more; with \
         `true` everything is tried at once. A hint: without it the client finds out by itself, \
         later.\n\n\
         # Errors\n\
         When the client is closed."
    };
    (sync_now) => {
        "Synchronises now, and does not wait for the next time that it would by itself. \
         [`synced`](Self::synced) tells when it is done.\n\n\
         # Errors\n\
         When the client is closed."
    };
    (adopt) => {
        "Takes what the server has, if it lacks records that are held here (the event \
         [`RecordsMissing`](crate::EventKind::RecordsMissing) tells of it) or has another database \
         ([`DifferentDatabase`](crate::EventKind::DifferentDatabase)). Those records go; at another \
         database when everything that the server has was shown. Writes that wait for another \
         database go to the list of [rejected](Self::rejected) ones, from where they can be made \
         again. Nothing happens if there is nothing to decide. Returns when the decision is \
         durable.\n\n\
         # Errors\n\
         When the store has failed, or the client is closed."
    };
    (offer) => {
        "Sends what is held here, if the server lacks it (the event \
         [`RecordsMissing`](crate::EventKind::RecordsMissing) tells of it) or has another database \
         ([`DifferentDatabase`](crate::EventKind::DifferentDatabase)). The records go out as new \
         ones, and meet what the server has by the conflict strategy. Nothing happens if there is \
         nothing to decide. Returns when the decision is durable.\n\n\
         # Errors\n\
         When the store has failed, or the client is closed."
    };
    (set_token) => {
        "Sets the token by which the server knows the user: a fresh one in place of one that has \
         expired.\n\n\
         # Errors\n\
         When the token can't be sent in a header or would go over the network in the clear, or the \
         client is closed."
    };
    (rejected) => {
        "The writes that the server has refused for good."
    };
    (synced) => {
        "Waits until every write made before this call is settled, and every collection in use has \
         been confirmed by the server after it. Without a connection that may take for ever.\n\n\
         A collection that the server refuses is not waited for; one that the server can't serve at \
         the moment is, unless another one is refused.\n\n\
         # Errors\n\
         [`SyncError::NotInSync`](crate::SyncError::NotInSync) names the collections that are not in \
         sync with the server: it refuses them, this user may have no more subscriptions, or the \
         server lacks records that are held here, and the app has not called [`adopt`](Self::adopt) \
         or [`offer`](Self::offer). By then the writes are settled and every other collection is \
         confirmed. All are named, and nothing is settled, while the server has another database. \
         Also when the store fails, or the client is closed."
    };
    (sign_out) => {
        "Signs the user out, for all clones of the client: it disconnects, forgets the token, and is \
         closed; from now on every call fails with \
         [`SyncError::SignedOut`](crate::SyncError::SignedOut), and watches and events end. What the \
         store holds of the user stays for their return, or goes: see \
         [`SignOut`](crate::SignOut). It waits until that is durable and the store is closed, so \
         that the next user's client can be opened on it.\n\n\
         A wipe that is interrupted, by the end of the process or a store that fails, is finished \
         when the store is opened next, by whichever user. It removes the rows; how soon a file on \
         disk no longer holds their bytes is the store's affair.\n\n\
         # Errors\n\
         When [`SignOut::Wipe`](crate::SignOut::Wipe) would lose writes that the server does not \
         have, or that it has rejected: [`Misuse::Unsent`](crate::Misuse::Unsent) names them, and \
         nothing has happened. When the store fails, or the client is closed."
    };
    (close) => {
        "Ends the client, for all its clones: it disconnects, makes everything durable that was \
         saved, and closes the store, which can then be opened again. From inside a callback of the \
         app (see [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it does not wait \
         for that."
    };
    (RejectedWrites) => {
        "The writes that the server has refused for good. They are out of the outbox, the records \
         are as if they had not been made, and they stay in this durable list until the app has seen \
         to them."
    };
    (list) => {
        "The writes, in their order.\n\n\
         # Errors\n\
         When the store has failed, or the client is closed."
    };
    (retry) => {
        "Makes a write again, as a new one, and takes it off the list.\n\n\
         # Errors\n\
         When there is no such write, the store has failed, or the client is closed."
    };
    (discard) => {
        "Takes a write off the list for good.\n\n\
         # Errors\n\
         When there is no such write, the store has failed, or the client is closed."
    };
    (reject_stalled) => {
        "Rejects by hand a write that [stalls](crate::EventKind::WriteStalled): it moves from the \
         outbox to this list, and the writes behind it go on. Where it may be on its way, because \
         connections break before it is through, that happens when the server has said that it does \
         not have it.\n\n\
         # Errors\n\
         When the write does not stall, the store has failed, or the client is closed."
    };
    (Collection) => {
        "A collection: records by their ids, each a JSON object.\n\n\
         A write returns when it is saved here, as durably as the store was set up for. The server \
         gets it when it can be reached, and [`Saved`](crate::Saved) tells what became of it. Reads \
         see every write that was made before them."
    };
    (name) => {
        "The collection's name."
    };
    (save) => {
        "Saves a new record under an id of its own, which is returned as \
         [`Saved::id`](crate::Saved::id). Ids are UUIDs that rise with the time.\n\n\
         # Errors\n\
         When the document is no JSON object or breaks a limit, too many writes wait for the server, \
         the store has failed, or the client is closed."
    };
    (save_with_id) => {
        "Saves a record under an id. A record that exists is replaced as a whole.\n\n\
         # Errors\n\
         As [`save`](Self::save), and when the id can't be one."
    };
    (update) => {
        "Sets some top-level fields of a record. The others stay as they are, also when someone else \
         changes them at the same time.\n\n\
         The fields are set to these values whatever they were: where a new value depends on the old \
         one (a counter, a list that grows), what arrives between a [`get`](Self::get) and this call \
         would be overwritten. [`modify`](Self::modify) does both in one step.\n\n\
         # Errors\n\
         As [`save`](Self::save), and when there is no such record."
    };
    (change) => {
        "Sets some top-level fields of a record and removes others.\n\n\
         # Errors\n\
         As [`update`](Self::update)."
    };
    (modify) => {
        "Changes a record by what it is, in one step: nothing that another task, another thread or \
         the server does comes in between. `change` gets the document, `None` if there is no record, \
         and returns the one that takes its place, or `None` to delete it. What it was given leaves \
         all as it is.\n\n\
         Only the fields that differ are written. Devices that change the same field while they \
         don't see each other are in conflict as by [`update`](Self::update), and the conflict \
         strategy decides: to count on several devices, use \
         [`sum_numbers`](crate::FieldWise::sum_numbers) too.\n\n\
         `change` runs on the client's own thread: it must be quick, and what it calls of a client \
         is refused ([`SyncError::InsideCallback`](crate::SyncError::InsideCallback)).\n\n\
         # Errors\n\
         As [`save`](Self::save), and when `change` panics \
         ([`Misuse::ModifyFailed`](crate::Misuse::ModifyFailed)); the record is then as it was. A \
         program that is built with `panic = \"abort\"` ends there."
    };
    (save_all) => {
        "Saves many new records, each under an id of its own, which are returned in their order. They are \
         made in one commit here, and go to the server in transactions of up to 256 of them, and of \
         about 1 MiB: each is taken whole or not at all, but for records that lose a conflict.\n\n\
         # Errors\n\
         As [`save`](Self::save). Where too many writes wait for the server, the transactions that \
         still fitted are made."
    };
    (update_all) => {
        "Sets some top-level fields of many records, in transactions as [`save_all`](Self::save_all) \
         makes them. A record that is named twice in one of them is written once.\n\n\
         # Errors\n\
         As [`save_all`](Self::save_all), and when there is no such record."
    };
    (delete_all) => {
        "Deletes many records, in transactions as [`save_all`](Self::save_all) makes them.\n\n\
         # Errors\n\
         As [`save_all`](Self::save_all)."
    };
    (transaction) => {
        "Makes several writes with one fate: here in one commit, at the server all or none, where its \
         [guarantees](crate::Guarantees) have `atomic`. Whatever rejects one of them rejects all; so \
         does a conflict that one of them loses, unless the transaction says \
         [`keep_what_won`](crate::Transaction::keep_what_won). It returns when it is saved here; \
         [`confirmed`](crate::SavedTransaction::confirmed) tells what becomes of it. See the \
         [guides](crate::guide) on transactions.\n\n\
         `body` runs on the client's own thread: it must be quick, and what it calls of a client is \
         refused ([`SyncError::InsideCallback`](crate::SyncError::InsideCallback)). Where it fails, \
         nothing has happened.\n\n\
         # Errors\n\
         When `body` fails or panics, the transaction has more than 256 members or is too large \
         ([`Misuse::TransactionTooLarge`](crate::Misuse::TransactionTooLarge)), too many writes wait \
         for the server, the store has failed, or the client is closed."
    };
    (pending) => {
        "The writes that wait for the server, oldest first, each with the transaction that it is a \
         member of. Mind the memory: a million may wait.\n\n\
         # Errors\n\
         When the store has failed, or the client is closed."
    };
    (delete) => {
        "Deletes a record. Nothing happens if there is none.\n\n\
         # Errors\n\
         As [`save`](Self::save)."
    };
    (get) => {
        "A record, if there is one.\n\n\
         # Errors\n\
         When the id can't be one, the store has failed, or the client is closed."
    };
    (get_all) => {
        "All records in order of their ids. Mind the memory: [`watch`](Self::watch) shares it.\n\n\
         # Errors\n\
         When the store has failed, or the client is closed."
    };
    (query) => {
        "A query of the records: all of them, until conditions are added."
    };
    (Query) => {
        "A query of a collection: the conditions, the order, and the part of the result that is \
         wanted. It is built by its methods, and then carried out by one of the last seven. Without an \
         order the records come in the order of their ids.\n\n\
         It is about what the app sees: pending writes are made. The conditions are in \
         [`query`](crate::query). What is wrong with any part of it is the error of the call that \
         carries it out."
    };
    (query_get) => {
        "The records, in the query's order. It reads what an \
         [index](crate::SyncConfig::index) finds, or else the collection once, and with a limit it keeps \
         no more records in memory than offset and limit together.\n\n\
         # Errors\n\
         [`Misuse::Query`](crate::Misuse::Query) says what is wrong with the query. Also when the store \
         has failed, or the client is closed."
    };
    (query_first) => {
        "The first record of the result, if there is one.\n\n\
         # Errors\n\
         As [`get`](Self::get)."
    };
    (query_watch) => {
        "Watches the result: what it is at once, and again after every commit that changes it, here or by \
         the server. An update says what left, what entered, and what changed or moved, with the places. \
         While nobody reads, updates are merged into one. It ends when the client does.\n\n\
         With a limit only the records of the result are kept in memory, and of the others that meet the \
         conditions their places; of these only a few if an [index](crate::SyncConfig::index) has the order. \
         All queries show the same commit: an update of one never shows what \
         another could not show yet.\n\n\
         # Errors\n\n\
         [`Misuse::Query`](crate::Misuse::Query) says what is wrong with the query."
    };
    (QueryWatch) => {
        "A watch of a query, with its result now and after every change: see \
         [`Query::watch`](crate::Query::watch).\n\n\
         A slow reader misses no change, but gets several merged into one update."
    };
    (query_count) => {
        "The number of the records that [`get`](Self::get) would return, without keeping them.\n\n\
         # Errors\n\
         As [`get`](Self::get)."
    };
    (query_explain) => {
        "Carries the query out, and says how: by which [index](crate::SyncConfig::index), and how many \
         records were read for how many that it returns.\n\n\
         # Errors\n\
         As [`get`](Self::get)."
    };
    (query_delete) => {
        "Deletes the records that [`get`](Self::get) would return, each by a write of its own. A record \
         that no longer meets the conditions when its turn comes is left alone.\n\n\
         # Errors\n\
         As [`get`](Self::get), and as [`Collection::delete`](crate::Collection::delete): then the \
         records before are deleted."
    };
    (query_update) => {
        "Sets some fields of the records that [`get`](Self::get) would return, each by a write of its \
         own, as [`Collection::update`](crate::Collection::update) does. A record that no longer meets \
         the conditions when its turn comes is left alone.\n\n\
         # Errors\n\
         As [`get`](Self::get), and as [`Collection::update`](crate::Collection::update): then the \
         records before are updated."
    };
    (subscribe) => {
        "Keeps the collection in sync from now on, as any first use of it does, without reading \
         it.\n\n\
         # Errors\n\
         When the client is closed."
    };
    (unsubscribe) => {
        "Keeps the collection in sync no longer, until it is used again: any read, write or watch \
         that begins later joins it. What is stored of it stays, and its unsent writes go out.\n\n\
         # Errors\n\
         When the client is closed."
    };
    (watch) => {
        "Watches the collection: its state at once, and again whenever it has changed, here or at \
         the server.\n\n\
         Every update holds the whole collection and says what changed since the one before. While \
         nobody reads, updates are merged into one. It ends when the client does."
    };
    (watch_record) => {
        "Watches one record, as [`watch`](Self::watch) does the collection.\n\n\
         # Errors\n\
         When the id can't be one."
    };
    (Events) => {
        "The events of a client: see [`SyncLayer::events`](crate::SyncLayer::events).\n\n\
         At most 1,024 events wait for a slow reader; older ones are dropped and counted by \
         [`missed`](Self::missed)."
    };
    (missed) => {
        "The number of events that were dropped because they were not read in time."
    };
    (StatusWatch) => {
        "A watch of the status: see [`SyncLayer::watch_status`](crate::SyncLayer::watch_status).\n\n\
         A slow reader gets the latest one."
    };
    (Watch) => {
        "A watch of a collection or a record, with its state now and after every change: see \
         [`Collection::watch`](crate::Collection::watch).\n\n\
         A slow reader misses no change, but gets several merged into one update."
    };
}
