//! The plays.

use serde_json::{Value, json};

use super::{Played, Talk};

type Play = fn(&mut Talk) -> Played;

/// File, title, play.
pub(super) const PLAYS: [(&str, &str, Play); 13] = [
    (
        "01-hello.txt",
        "Hello: what the server knows of a client, and at which level they go on",
        hello,
    ),
    (
        "02-delta-catch-up.txt",
        "Delta catch-up: a client was away and gets what changed meanwhile",
        delta,
    ),
    ("03-snapshot.txt", "A snapshot that is interrupted goes on where it stopped", snapshot),
    ("04-write-and-ack.txt", "A write and its ack, in place of the change and out of place", write),
    (
        "05-conflict.txt",
        "A conflict: two clients change one field, and the loser's strategy decides",
        conflict,
    ),
    ("06-rejection.txt", "A rejection, and what was pipelined behind it is sent again", rejection),
    (
        "07-lost-ack.txt",
        "An ack is lost: the next hello tells, and nothing is applied twice",
        lost_ack,
    ),
    (
        "08-fencing.txt",
        "Fencing: a frame of a dead connection arrives after the client has come back",
        fencing,
    ),
    ("09-epoch.txt", "Epochs: the server starts again, and then from a backup", epoch),
    ("10-token.txt", "Tokens: one is renewed in time, one expires", token),
    (
        "11-transaction.txt",
        "Transactions: their writes go out, take effect, and fail together",
        transaction,
    ),
    (
        "12-scopes.txt",
        "Scopes: records enter, leave, and move while a client is away; one scope loads beside another",
        scopes,
    ),
    (
        "13-rights.txt",
        "Rights that change: by a fresh token, by other records, by other rules",
        rights,
    ),
];

fn save(id: &str, data: Value) -> Value {
    json!({"save": {"at": format!("todos/{id}"), "data": data}})
}

fn set(id: &str, set: Value) -> Value {
    json!({"update": {"at": format!("todos/{id}"), "set": set}})
}

fn hello(talk: &mut Talk) -> Played {
    talk.tell(
        "The hello is a ping that any plain server answers as a ping. It goes first. What is\n\
         harmless at both levels follows at once; the first write would wait for the pong.",
    );
    talk.client("phone", json!({}))?;
    talk.settle()?;
    talk.tell("The app asks to be told when all is in step: a later ping is a barrier.");
    talk.app("phone", json!("synced"))?;
    talk.settle()?;
    talk.tell("The connection is cut. The client comes back with a larger session.");
    talk.cut("phone")?;
    talk.pass(1_000)?;
    talk.settle()
}

/// A phone and a laptop that are in step, and a record.
fn two_in_step(talk: &mut Talk) -> Played {
    talk.silently(|talk| {
        talk.client("laptop", json!({}))?;
        talk.client("phone", json!({}))?;
        talk.settle()?;
        talk.act("phone", save("milk", json!({"done": false, "title": "Milk"})))?;
        talk.settle()
    })
}

fn delta(talk: &mut Talk) -> Played {
    two_in_step(talk)?;
    talk.tell("Both hold the record milk, at seq 1. The phone goes away; the laptop works on.");
    talk.cut("phone")?;
    talk.app("laptop", set("milk", json!({"done": true})))?;
    talk.app("laptop", save("bread", json!({"title": "Bread"})))?;
    talk.app("laptop", save("eggs", json!({"title": "Eggs"})))?;
    talk.settle()?;
    talk.app("laptop", json!({"delete": {"at": "todos/bread"}}))?;
    talk.settle()?;
    talk.tell(
        "The phone is back. Its cursor says what it has: it gets each record that changed above\n\
         seq 1 once, of milk only the field that changed, and of bread that it is gone. What\n\
         happened in between is not told. The checksum proves that both hold the same.",
    );
    talk.pass(1_000)?;
    talk.settle()
}

fn snapshot(talk: &mut Talk) -> Played {
    talk.server(&json!({"pageRecords": 2}))?;
    talk.silently(|talk| {
        talk.client("laptop", json!({}))?;
        talk.settle()?;
        for id in ["apples", "bread", "eggs", "milk", "salt"] {
            talk.act("laptop", save(id, json!({"title": id})))?;
        }
        talk.settle()
    })?;
    talk.tell(
        "The server has five records, and its pages hold two. A phone that has nothing yet gets\n\
         them in the order of their ids. The second page is lost with the connection.",
    );
    talk.client("phone", json!({}))?;
    talk.connect()?;
    while talk.up("phone")? {}
    for _ in 0..3 {
        talk.down("phone")?;
    }
    talk.cut("phone")?;
    talk.tell(
        "Meanwhile the laptop changes a record that the phone has, and deletes one that it hasn't.",
    );
    talk.app("laptop", set("apples", json!({"title": "Red apples"})))?;
    talk.app("laptop", json!({"delete": {"at": "todos/milk"}}))?;
    talk.settle()?;
    talk.tell(
        "The phone goes on behind the last id that it has: the rest of the pages, then, as in a\n\
         delta, what came above the head at which the run began.",
    );
    talk.pass(1_000)?;
    talk.settle()
}

fn write(talk: &mut Talk) -> Played {
    talk.server(&json!({"pageRecords": 1}))?;
    two_in_step(talk)?;
    talk.tell(
        "In a live collection the writer's ack stands in the place of the change: everything\n\
         before it has been delivered. The others get the change.",
    );
    talk.app("phone", set("milk", json!({"done": true})))?;
    talk.settle()?;
    talk.tell(
        "The phone leaves the collection and writes by what it has. It is subscribed again first;\n\
         the write waits until it has caught up.",
    );
    talk.app("phone", json!({"leave": "todos"}))?;
    talk.settle()?;
    talk.app("laptop", set("milk", json!({"title": "Oat milk"})))?;
    talk.settle()?;
    talk.app("phone", set("milk", json!({"done": false})))?;
    talk.settle()?;
    talk.tell(
        "A catch-up of several pages takes too long, so that the write goes out before it is done.\n\
         Its ack comes out of place: at once, and with all that changed above the base. The change\n\
         itself, when the catch-up brings it, is no news.",
    );
    talk.cut("phone")?;
    talk.app("laptop", save("bread", json!({"title": "Bread"})))?;
    talk.app("laptop", save("eggs", json!({"title": "Eggs"})))?;
    talk.app("laptop", set("milk", json!({"title": "Soy milk"})))?;
    talk.settle()?;
    talk.app("phone", set("milk", json!({"done": true})))?;
    talk.serve(0, json!({"hold": "reads"}))?;
    talk.pass(1_000)?;
    talk.settle()?;
    talk.pass(2_000)?;
    talk.settle()?;
    talk.tell("(Only now the server's disk is quick enough.)");
    talk.serve(0, json!({"release": "reads"}))?;
    talk.settle()
}

fn conflict(talk: &mut Talk) -> Played {
    two_in_step(talk)?;
    talk.tell(
        "Both write at the same moment. The server applies what comes first; the second write's\n\
         base is below that change, and it touches the same field. The conflict carries the\n\
         record's present state.",
    );
    talk.app("laptop", set("milk", json!({"title": "Goat milk"})))?;
    talk.silently(|talk| talk.pass(5))?;
    talk.app("phone", set("milk", json!({"title": "Oat milk", "done": true})))?;
    talk.settle()?;
    talk.tell(
        "The phone's change was the later one, so last-write-wins has sent it again, under the\n\
         same number and on the new base. Edits of different fields never come to this:",
    );
    talk.app("laptop", set("milk", json!({"price": 2})))?;
    talk.app("phone", set("milk", json!({"done": false})))?;
    talk.settle()
}

fn rejection(talk: &mut Talk) -> Played {
    talk.server(&json!({"policy": {"unwritable": ["archive"]}}))?;
    talk.silently(|talk| {
        talk.client("phone", json!({"collections": ["archive", "todos"]}))?;
        talk.settle()
    })?;
    talk.tell("Three writes are pipelined. Nobody may write to the archive.");
    talk.app("phone", save("milk", json!({"title": "Milk"})))?;
    talk.app("phone", json!({"save": {"at": "archive/old", "data": {"title": "Old"}}}))?;
    talk.app("phone", save("eggs", json!({"title": "Eggs"})))?;
    talk.settle()?;
    talk.tell(
        "Only success consumes a number: the server ignored what came behind number 2 until it\n\
         came again, with the next write. The rejected one was rolled back and is kept in a list.",
    );
    talk.app("phone", json!("rejected"))?;
    talk.app("phone", json!({"discard": 2}))
}

fn lost_ack(talk: &mut Talk) -> Played {
    two_in_step(talk)?;
    talk.tell("The phone's two writes reach the server; the answers are lost.");
    talk.app("phone", set("milk", json!({"done": true})))?;
    talk.app("phone", save("eggs", json!({"title": "Eggs"})))?;
    talk.up("phone")?;
    talk.up("phone")?;
    talk.cut("phone")?;
    talk.tell("A third is written while the connection is down.");
    talk.app("phone", save("salt", json!({"title": "Salt"})))?;
    talk.tell(
        "The pong of the next hello tells how many were taken, and the digest that they were the\n\
         phone's own. Their return in the catch-up is no news; the third goes out as number 4.",
    );
    talk.pass(1_000)?;
    talk.settle()
}

fn fencing(talk: &mut Talk) -> Played {
    two_in_step(talk)?;
    talk.tell(
        "The phone writes, and its connection breaks for the phone alone: the frame is still on\n\
         its way through the network.",
    );
    talk.app("phone", set("milk", json!({"done": true})))?;
    let (old, late) = talk.cut_keeping("phone")?;
    talk.tell("The phone is back before the frame arrives. Its hello opens a larger session.");
    talk.pass(1_000)?;
    talk.connect()?;
    for _ in 0..2 {
        talk.up("phone")?;
    }
    talk.tell(
        "Now the frame arrives on the old connection. It is fenced off: what the pong says can't\n\
         be overtaken by a write that was still under way.",
    );
    for frame in late {
        talk.note("phone", '>', &format!("(on the old connection) {}", super::inline(&frame)));
        talk.serve(old, json!({ "hear": frame }))?;
    }
    talk.tell("On the new connection all goes on; the write is sent again, and applied once.");
    talk.settle()
}

fn epoch(talk: &mut Talk) -> Played {
    two_in_step(talk)?;
    talk.silently(|talk| talk.serve(0, json!("backup")))?;
    talk.tell(
        "The server ends and starts again: a new epoch. It knows where the last one ended, so\n\
         that the old cursors still count.",
    );
    talk.app("laptop", set("milk", json!({"done": true})))?;
    talk.settle()?;
    talk.restart_server("restart")?;
    talk.pass(1_000)?;
    talk.settle()?;
    talk.tell(
        "Then its disk is replaced by a backup from before the laptop's change. Seq 2 will be\n\
         given again, to another change; but e2 is unknown there, and the cursors don't count.\n\
         The laptop also learns that a confirmed write is lost.",
    );
    talk.restart_server("restore")?;
    talk.pass(2_000)?;
    talk.settle()?;
    talk.tell("The next change gets seq 2 once more, and everyone agrees about it.");
    talk.app("phone", set("milk", json!({"title": "Oat milk"})))?;
    talk.settle()
}

fn token(talk: &mut Talk) -> Played {
    talk.server(&json!({"tokens": {"monday": "ann", "tuesday": "ann", "wednesday": "ann"}}))?;
    talk.silently(|talk| {
        talk.client("phone", json!({"user": "ann", "token": "monday"}))?;
        talk.settle()
    })?;
    talk.tell("A fresh token that is given in time goes out on the live connection.");
    talk.app("phone", json!({"setToken": "tuesday"}))?;
    talk.settle()?;
    talk.tell(
        "A token expires. The server serves nothing more and forgets nothing; the client keeps\n\
         everything and asks its app for a fresh one.",
    );
    talk.app("phone", save("milk", json!({"title": "Milk"})))?;
    let conn = talk.conns;
    talk.serve(conn, json!("expire"))?;
    talk.settle()?;
    talk.tell("An old token is refused where the connection is made.");
    talk.users.remove("monday");
    talk.app("phone", json!({"setToken": "monday"}))?;
    talk.settle()?;
    talk.tell("A good one is not. The write was not taken, says the pong: it is sent now.");
    talk.app("phone", json!({"setToken": "wednesday"}))?;
    talk.settle()
}

fn transact(writes: Value) -> Value {
    json!({"transact": {"writes": writes}})
}

fn transaction(talk: &mut Talk) -> Played {
    two_in_step(talk)?;
    talk.tell(
        "Two writes and an expectation are a unit: one batch, with consecutive numbers. Its acks\n\
         come in one batch too, and so does what the others are sent of it.",
    );
    talk.app(
        "phone",
        transact(json!([
            {"expect": "todos/milk"},
            set("milk", json!({"done": true})),
            save("eggs", json!({"done": false})),
        ])),
    )?;
    talk.settle()?;
    talk.tell(
        "The laptop changes a field just before. The error names the first number of the unit and\n\
         lists the member that failed; the strategy has the later write win, and the unit goes\n\
         out again as a whole.",
    );
    talk.app("laptop", set("milk", json!({"price": 2})))?;
    talk.silently(|talk| talk.pass(5))?;
    let members = json!([set("milk", json!({"price": 3})), set("eggs", json!({"price": 3}))]);
    talk.app("phone", transact(members))?;
    talk.settle()?;
    talk.tell(
        "Once more, but the phone expects the record to be as it has seen it. After the conflict\n\
         it is not: the transaction is rejected, and nothing of it is sent again.",
    );
    talk.app("laptop", set("milk", json!({"price": 4})))?;
    talk.silently(|talk| talk.pass(5))?;
    let members = json!([{"expect": "todos/milk"}, set("eggs", json!({"price": 5}))]);
    talk.app("phone", transact(members))?;
    talk.settle()?;
    talk.tell("An ack is lost. A pong confirms a unit as a whole: its number is never inside one.");
    let members = json!([set("milk", json!({"done": false})), set("eggs", json!({"done": true}))]);
    talk.app("phone", transact(members))?;
    talk.up("phone")?;
    talk.cut("phone")?;
    talk.pass(1_000)?;
    talk.settle()
}

fn room(number: &str) -> Value {
    json!({"of": "todos", "by": ["room"], "is": [number]})
}

fn rights(talk: &mut Talk) -> Played {
    let rules = |docs: &str| {
        json!({
            "todos": {"read": "data.room in claims.rooms", "write": "data.room in claims.rooms"},
            "docs": {"read": docs, "write": "claims.admin"},
            "members": {"read": "claims.admin", "write": "claims.admin"},
        })
    };
    talk.server(&json!({
        "tokens": {
            "both": {"user": "ann", "claims": {"rooms": ["1", "2"]}},
            "one": {"user": "ann", "claims": {"rooms": ["1"]}},
            "admin": {"user": "root", "claims": {"admin": true, "rooms": ["1", "2"]}},
        },
        "scopes": {"todos": ["room"]},
        "rules": rules("exists(\"members\", id + \":\" + user)"),
    }))?;
    talk.silently(|talk| {
        talk.client("admin", json!({"user": "root", "token": "admin", "collections": []}))?;
        talk.settle()?;
        for (id, room) in [("milk", "1"), ("eggs", "2")] {
            talk.act("admin", save(id, json!({"room": room})))?;
        }
        let write = |at: &str| json!({"save": {"at": at, "data": {}}});
        talk.act("admin", write("members/plan:ann"))?;
        talk.act("admin", write("docs/plan"))?;
        talk.settle()?;
        talk.client("phone", json!({"user": "ann", "token": "both", "collections": []}))?;
        talk.act("phone", json!({"useScope": room("1")}))?;
        talk.act("phone", json!({"useScope": room("2")}))?;
        talk.settle()
    })?;
    talk.tell(
        "Ann's phone holds rooms 1 and 2, by the claims of its token. A fresh one names room 1\n\
         alone: from then on room 2 is lost, in its place in the stream, and the phone takes it out.",
    );
    talk.app("phone", json!({"setToken": "one"}))?;
    talk.settle()?;
    talk.tell("A write into room 2 is judged by the rights of now. It is rejected, and undone.");
    talk.app("phone", save("tea", json!({"room": "2"})))?;
    talk.settle()?;
    talk.tell(
        "Who may read a doc is said by another record. Where rules look at others, each record is\n\
         asked about: the stream is partial, and has no checksum.",
    );
    talk.app("phone", json!({"use": "docs"}))?;
    talk.settle()?;
    talk.tell(
        "Ann's membership ends. With that commit the stream begins again, as a snapshot without\n\
         the doc. What the membership was is shown to nobody.",
    );
    talk.app("admin", json!({"delete": {"at": "members/plan:ann"}}))?;
    talk.settle()?;
    talk.tell("Other rules are taken over, by which Ann may read no doc at all: her stream ends.");
    let conn = talk.conns;
    talk.serve(conn, json!({"rules": rules("claims.admin")}))?;
    talk.settle()?;
    talk.tell(
        "Her phone has lost its connection meanwhile. Rules that show the docs are back; the tag\n\
         of the rights that the cursor was reached by is another one than that of now, so nothing\n\
         of it counts.",
    );
    talk.cut("phone")?;
    talk.serve(conn, json!({"rules": rules("true")}))?;
    talk.pass(1_000)?;
    talk.settle()
}

fn scopes(talk: &mut Talk) -> Played {
    talk.server(&json!({"pageRecords": 2, "scopes": {"todos": ["room"]}}))?;
    talk.silently(|talk| {
        talk.client("laptop", json!({}))?;
        talk.settle()?;
        for (id, room) in [("milk", "1"), ("eggs", "2"), ("rice", "2"), ("tea", "2")] {
            talk.act("laptop", save(id, json!({"room": room})))?;
        }
        talk.client("phone", json!({"collections": []}))?;
        talk.settle()
    })?;
    talk.tell(
        "The laptop holds the whole collection. The phone uses room 1 of it: once the pong has\n\
         said that the server has scopes, it asks for a set of one, which is new to it. The scope\n\
         comes whole, and its own count and checksum prove it.",
    );
    talk.app("phone", json!({"useScope": room("1")}))?;
    talk.settle()?;
    talk.tell(
        "A change elsewhere is nothing to the phone. Then eggs come into the room: whole, as an\n\
         insert. They change there: with prev, the seq that they had before. Then milk leaves:\n\
         as a delete that says it is the scope that was left.",
    );
    talk.app("laptop", set("rice", json!({"bags": 1})))?;
    talk.settle()?;
    talk.app("laptop", set("eggs", json!({"room": "1"})))?;
    talk.settle()?;
    talk.app("laptop", set("eggs", json!({"boxes": 2})))?;
    talk.settle()?;
    talk.app("laptop", set("milk", json!({"room": "2"})))?;
    talk.settle()?;
    talk.tell(
        "The phone uses room 2 too: a larger set, with a higher number. Room 1 is loaded up to\n\
         the cursor, and room 2 loads in pages of two. Room 1 is on show and changes all the while.",
    );
    talk.app("phone", json!({"useScope": room("2")}))?;
    while talk.up("phone")? {}
    talk.app("laptop", set("eggs", json!({"boxes": 3})))?;
    talk.settle()?;
    talk.tell(
        "The phone is away. Milk moves from the one room to the other, rice to a third, and tea is\n\
         deleted. What moved within the set comes whole, what left it is told as left, and what\n\
         was deleted as deleted.",
    );
    talk.cut("phone")?;
    talk.app("laptop", set("milk", json!({"room": "1"})))?;
    talk.app("laptop", set("rice", json!({"room": "3"})))?;
    talk.app("laptop", json!({"delete": {"at": "todos/tea"}}))?;
    talk.settle()?;
    talk.pass(1_000)?;
    talk.settle()?;
    talk.tell(
        "An own write takes eggs out of the set: its ack stands in place, and the phone takes the\n\
         record out. Another brings rice back, which the phone does not hold. The conflict shows\n\
         it, with its seq as the base; then the whole record comes, and behind it the ack, out of\n\
         place.",
    );
    talk.app("phone", set("eggs", json!({"room": "4"})))?;
    talk.settle()?;
    talk.app("phone", save("rice", json!({"room": "1"})))?;
    talk.settle()
}
