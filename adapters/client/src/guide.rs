//! The guides, for both faces: their texts are the same, and their code differs in how it waits.

/// The text of a guide, for a face: `#[doc = guide!(queries, "synclayer_tokio", "async fn", ".await")]`.
#[macro_export]
macro_rules! guide {
    (transactions, $face:literal, $fn:literal, $wait:literal, $fate:literal) => {
        concat!(
            "Transactions: several writes, one fate.\n\n",
            "```\n",
            "use ", $face, "::{Fate, SyncError, SyncLayer};\n",
            "use serde_json::json;\n\n",
            $fn, " claim(sync: &SyncLayer, seat: &'static str) -> Result<bool, SyncError> {\n",
            "    let claim = sync.transaction(move |t| {\n",
            "        t.expect_unchanged(\"seats\", seat)?;\n",
            "        t.update(\"seats\", seat, &json!({ \"by\": \"ann\" }))?;\n",
            "        t.save(\"tickets\", &json!({ \"seat\": seat }))?;\n",
            "        Ok(())\n",
            "    })", $wait, "?;\n",
            "    println!(\"it shows here at once; the server has not spoken yet\");\n",
            "    Ok(", $fate, ")\n",
            "}\n",
            "```\n\n",
            "All writes of a transaction are made in one commit here, in any collections, and go to the \
             server in one message. It takes all of them or none, and shows them to others together. \
             Inside, `get` reads what the app sees, the transaction's own writes included, and nothing \
             comes in between. Two writes of a record become one. A transaction has up to 256 writes and \
             expectations.\n\n",
            "# Its fate\n\n",
            "`confirmed` tells it, once:\n\n",
            "* The server has it.\n",
            "* It was rejected: its writes are in the list of rejected writes, and the records are as if it \
             had not been made. The server has refused one of them; or the conflict strategy has given \
             one up (`LOST`), since half a transfer makes money; or a record was no longer as it was \
             expected (`PRECONDITION_FAILED`). What was written on top of it falls with it. The list of \
             rejected writes makes it again, or discards it, as a whole.\n\n",
            "`keep_what_won` lets the other writes go on where one loses a conflict. `save_all`, \
             `update_all` and `delete_all` do so: they are for many writes that need not stand or fall \
             together.\n\n",
            "# Expectations\n\n",
            "`expect_unchanged` says that a record is as the transaction finds it at its begin, and \
             `expect` that it is as the app was shown it earlier, or that there is none. So a seat that \
             was claimed off line is claimed only if nobody has changed it meanwhile. Without an \
             expectation, writes of the same field meet by the conflict strategy, and those of \
             different fields are both made.\n\n",
            "# Servers without transactions\n\n",
            "To plain servers, and those of earlier versions, the writes go one by one, and expectations \
             are looked at here only, when everything before them has arrived. \
             `status().guarantees` lacks `atomic` then, and `required_guarantees` can ask for it."
        )
    };
    (scopes, $face:literal, $fn:literal, $wait:literal) => {
        concat!(
            "Scopes: the part of a collection that a device holds.\n\n",
            "```\n",
            "use ", $face, "::query::Ascending;\n",
            "use ", $face, "::{SyncError, SyncLayer};\n",
            "use serde_json::json;\n",
            "\n",
            $fn, " open_room(sync: &SyncLayer, room: &str) -> Result<(), SyncError> {\n",
            "    let messages = sync.collection(\"messages\")?.scope(\"room\", room)?;\n",
            "    let mut updates = messages.query().order_by(\"at\", Ascending).watch()?;\n",
            "    messages.save(&json!({ \"room\": room, \"at\": 1, \"text\": \"hello\" }))", $wait, "?;\n",
            "    while let Some(update) = updates.next()", $wait, " {\n",
            "        let all = if update.snapshot.is_complete() { \"all\" } else { \"so far\" };\n",
            "        println!(\"{} messages, {all}\", update.snapshot.len());\n",
            "    }\n",
            "    Ok(())\n",
            "}\n",
            "```\n\n",
            "A collection may be more than a device can hold, or than its user may read. So the server \
             divides it by **scope keys** (`serve --scope messages=room`, `ServerConfig::scopes`), and a \
             client holds some of the scopes: nothing else of the collection goes over the network. A scope \
             is a small collection inside the big one. It loads by itself, is followed live, survives times \
             without a network, and is proved by a count and a checksum of its own. A record enters it, and \
             leaves it, by the fields that it has.\n\n",
            "A key is a top-level field (`room`), the elements of an array in one (`members[]`), or several \
             fields together (`scope_of`). A value is a text, a number, a boolean or null, and is compared as \
             such: `scope(\"room\", \"42\")` is another scope than `scope(\"room\", 42)`, which is the same \
             as `scope(\"room\", 42.0)`.\n\n",
            "# Four patterns\n\n",
            "**Per user.** Each record has one owner, and the key is that field. A device holds what its user \
             owns, and a record that is handed over moves by a plain write of `owner`.\n\n",
            "```\n",
            "use ", $face, "::{SyncConfig, SyncLayer};\n",
            "\n",
            $fn, " open(url: &str, user: &str) -> Result<SyncLayer, Box<dyn std::error::Error>> {\n",
            "    let config = SyncConfig::new(url).user(user).scope(\"notes\", \"owner\", user);\n",
            "    Ok(SyncLayer::open(config)", $wait, "?)\n",
            "}\n",
            "```\n\n",
            "**Per room or project.** Each record lies in one room. A device holds the rooms that are open, \
             and keeps those that are to be there without a network. `held()` is all of them together.\n\n",
            "```\n",
            "use ", $face, "::{SyncError, SyncLayer};\n",
            "\n",
            $fn, " take_along(sync: &SyncLayer, rooms: &[&str]) -> Result<usize, SyncError> {\n",
            "    let messages = sync.collection(\"messages\")?;\n",
            "    for room in rooms {\n",
            "        messages.scope(\"room\", room)?.keep()", $wait, "?;\n",
            "    }\n",
            "    messages.held().query().count()", $wait, "\n",
            "}\n",
            "```\n\n",
            "**Shared with members.** A record lists those who share it, and the key is the list: each \
             member's devices hold it. It may have 64 members, and each costs the server a few rows with \
             every write of the record. So what is in a shared thing names the thing and not the members \
             again: `lists` by `members[]`, and `items` by `list`.\n\n",
            "```\n",
            "use ", $face, "::{SyncError, SyncLayer};\n",
            "use serde_json::json;\n",
            "\n",
            $fn, " share(sync: &SyncLayer, user: &str, list: &str) -> Result<(), SyncError> {\n",
            "    let mine = sync.collection(\"lists\")?.scope(\"members[]\", user)?;\n",
            "    mine.update(list, &json!({ \"members\": [user, \"bob\"] }))", $wait, "?;\n",
            "    let items = sync.collection(\"items\")?.scope(\"list\", list)?;\n",
            "    items.save(&json!({ \"list\": list, \"text\": \"Milk\" }))", $wait, "?;\n",
            "    Ok(())\n",
            "}\n",
            "```\n\n",
            "**Roles.** A record names the roles that it is for, and a device holds the scope of each role \
             that its user has. Where a role counts within a project only, both are one key.\n\n",
            "```\n",
            "use ", $face, "::{Scope, SyncError, SyncLayer};\n",
            "\n",
            $fn, " for_roles(sync: &SyncLayer, roles: &[&str]) -> Result<Vec<Scope>, SyncError> {\n",
            "    let articles = sync.collection(\"articles\")?;\n",
            "    roles.iter().map(|role| articles.scope(\"audience[]\", role)).collect()\n",
            "}\n",
            "\n",
            $fn, " board(sync: &SyncLayer, project: &str) -> Result<Scope, SyncError> {\n",
            "    sync.collection(\"tasks\")?.scope_of([(\"project\", project), (\"for\", \"editors\")])\n",
            "}\n",
            "```\n\n",
            "Scopes say what a device *holds*. What a user *may* read is for the server's policy: it grants \
             each scope or refuses it.\n\n",
            "# How long a scope is held\n\n",
            "A scope is held while there is a handle of it, or a watch or query that was made from one, and \
             while a write of its collection waits. `SyncConfig::scope` holds it from the start, and `keep()` \
             until `release()`, over restarts of the program too. After that it goes when `keep_scopes_for` \
             is over (5 minutes by default), of which only time in step with the server counts: never without \
             a network, and never because the program ends. Its records go with it, but for those that lie in \
             another scope that is held, and those with writes that wait. A collection may have 256 scopes.\n\n",
            "A collection that is used without a scope too is held whole while it is; `held()` uses nothing.\n\n",
            "# What is here, and what is not\n\n",
            "`is_complete()` of a watch says that all of its scope is here and live. A scope that the server \
             refuses is told by the event `SyncFailed`; it takes none of the others along. \
             `status().collections[…].scopes` says of each scope that is held or refused how much of it is \
             here. A write may move a record out of everything that is held: it is accepted, and the record \
             goes with its ack.\n\n",
            "From a server that has no scopes (a plain one, or one of an earlier version) nothing of such a \
             collection is read, rather than all of it: `SyncFailed` says `SCOPES_NOT_SUPPORTED`. Writes go \
             out."
        )
    };
    (queries, $face:literal, $fn:literal, $wait:literal) => {
        concat!(
            "Queries: which records, in which order, and how many of them.\n\n",
            "```\n",
            "use ", $face, "::query::{Descending, is_equal_to};\n",
            "use ", $face, "::{Collection, SyncError};\n\n",
            $fn, " most_urgent(todos: &Collection) -> Result<(), SyncError> {\n",
            "    let urgent = todos\n",
            "        .query()\n",
            "        .where_(\"done\", is_equal_to(false))\n",
            "        .order_by(\"priority\", Descending)\n",
            "        .limit(10)\n",
            "        .get()", $wait, "?;\n",
            "    for todo in urgent {\n",
            "        println!(\"{}: {}\", todo.id, todo.document);\n",
            "    }\n",
            "    Ok(())\n",
            "}\n",
            "```\n\n",
            "A query is about what is stored here, pending writes included; it does not wait for the \
             network. `get` reads the records, `first` the first of them, `count` counts them, \
             `update` sets fields of all of them, and `delete` deletes them.\n\n",
            "# Conditions\n\n",
            "`where_` adds a condition on one field. A record has to meet all of them. For others, \
             `filter` takes a combination:\n\n",
            "```\n",
            "use ", $face, "::query::{any_of, exists, field, is_greater_than, not, where_in};\n",
            "use ", $face, "::{Collection, SyncError};\n\n",
            $fn, " open(todos: &Collection) -> Result<usize, SyncError> {\n",
            "    let pressing = any_of([\n",
            "        field(\"priority\", is_greater_than(1)),\n",
            "        field(\"labels.\\\"due.soon\\\"\", exists()),\n",
            "        not(field(\"state\", where_in([\"done\", \"dropped\"]))),\n",
            "    ]);\n",
            "    todos.query().filter(pressing).count()", $wait, "\n",
            "}\n",
            "```\n\n",
            "* A field may lie inside objects: `address.city`. A name that holds a dot is quoted.\n",
            "* A condition is met or not, and nothing between. A missing field meets no condition \
             but those that deny one: `is_not_equal_to`, `where_not_in`, `is_not_null`, \
             `does_not_exist`. It is not null; `exists` tells the two apart.\n",
            "* `is_less_than` and its kin compare values of one kind: `is_less_than(5)` is met by \
             numbers only.\n",
            "* Numbers are compared exactly, by their digits: `1` equals `1.0`, and \
             9,007,199,254,740,993 does not equal 9,007,199,254,740,992. Texts are compared by the \
             bytes of UTF-8.\n\n",
            "# Order and pages\n\n",
            "Records that are equal in all fields of `order_by` have the order of their ids, so the \
             order is always the same. A missing field comes before null, and null before `false`, \
             `true`, numbers, texts, arrays and objects.\n\n",
            "`start_after` gives the next page without gaps and doubles, whatever is written \
             meanwhile; `offset` counts anew each time.\n\n",
            "```\n",
            "use ", $face, "::query::Ascending;\n",
            "use ", $face, "::{Collection, SyncError};\n\n",
            $fn, " pages(todos: &Collection) -> Result<(), SyncError> {\n",
            "    let by_title = todos.query().order_by(\"title\", Ascending).limit(50);\n",
            "    let mut page = by_title.clone().get()", $wait, "?;\n",
            "    while let Some(last) = page.last() {\n",
            "        println!(\"{} more, up to {}\", page.len(), last.id);\n",
            "        page = by_title.clone().start_after(last).get()", $wait, "?;\n",
            "    }\n",
            "    Ok(())\n",
            "}\n",
            "```\n\n",
            "# Live queries\n\n",
            "`watch` shows the result at once, and again after every commit that changes it, by the app or \
             by the server. An update says what left, what entered, and what changed or moved, with the \
             places, so that a list on the screen can follow: take out what left and what moved at its \
             place in the list before, and then put in what entered and what moved, in the order of the \
             places.\n\n",
            "```\n",
            "use ", $face, "::query::{Descending, is_equal_to};\n",
            "use ", $face, "::{Collection, QueryChange, SyncError};\n\n",
            $fn, " follow(todos: &Collection) -> Result<(), SyncError> {\n",
            "    let open = todos.query().where_(\"done\", is_equal_to(false));\n",
            "    let mut updates = open.order_by(\"priority\", Descending).limit(10).watch()?;\n",
            "    while let Some(update) = updates.next()", $wait, " {\n",
            "        for change in &update.changes {\n",
            "            match change {\n",
            "                QueryChange::Left { at, .. } => println!(\"{at} is out\"),\n",
            "                QueryChange::Entered { at, record } => println!(\"{at}: {}\", record.document),\n",
            "                QueryChange::Modified { from, to, .. } => println!(\"{from} is {to} now\"),\n",
            "            }\n",
            "        }\n",
            "        println!(\"{} in all\", update.snapshot.len());\n",
            "    }\n",
            "    Ok(())\n",
            "}\n",
            "```\n\n",
            "While nobody reads, updates are merged into one. `snapshot.is_complete()` says that the server \
             has confirmed that nothing is missing and tells every change as it is made. All queries of a \
             client show the same commit.\n\n",
            "# Indexes\n\n",
            "An index is declared where the client is configured. A query that fits it reads only the \
             records that it needs, and `explain` says whether it did:\n\n",
            "```\n",
            "use ", $face, "::query::{Descending, is_equal_to};\n",
            "use ", $face, "::{SyncConfig, SyncLayer};\n\n",
            $fn, " ask(config: SyncConfig) -> Result<(), Box<dyn std::error::Error>> {\n",
            "    let config = config.index(\"todos\", \"done,priority\");\n",
            "    let sync = SyncLayer::open(config)", $wait, "?;\n",
            "    let urgent = sync\n",
            "        .collection(\"todos\")?\n",
            "        .query()\n",
            "        .where_(\"done\", is_equal_to(false))\n",
            "        .order_by(\"priority\", Descending)\n",
            "        .limit(10);\n",
            "    println!(\"{}\", urgent.clone().explain()", $wait, "?);\n",
            "    Ok(())\n",
            "}\n",
            "```\n\n",
            "Of several indexes the one is used whose first fields the query says the values of; where that \
             is the same, one of whose next field it says a range, and then one that has the order. An order \
             counts for queries with a limit, and has to name all fields that follow the equal ones, in one \
             direction or in the other. \
             Of `any_of`, and of `where_in` with several values, each part is read by an index if one fits \
             every part; otherwise all records are. Conditions behind `not` use no index.\n\n",
            "An index holds what the app sees, pending writes included. For records that are here already it \
             is built in the background, and queries go without it until it is whole.\n\n",
            "# Costs\n\n",
            "Without an index a query reads every record of the collection once, and keeps those that it \
             returns; with a limit, no more than offset and limit together. A live query reads the collection when it \
             begins; then a change costs what it moves, however many records there are, and in memory \
             there are the records of the result and the places of all that meet the conditions. One \
             with a limit, whose order an index has, reads and keeps the records of the result and a \
             few places behind it, however large the collection is. \
             `update` and `delete` make a write for \
             each record: should the program end in the middle, the later ones are as they were."
        )
    };
}
