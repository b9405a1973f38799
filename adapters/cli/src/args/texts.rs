//! The long texts of the command line.

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done; of a write: the server has it
  1  it failed; the message says why
  2  the command line can't be used
  3  saved here, but the server doesn't have it yet: it goes out with the next call that reaches it
  4  there is no such record, rejected write or stalled write
  5  the server has refused the write: see `synclayer rejected list`
  6  the directory is in use by another process
  7  the store is damaged: see `synclayer repair --help`
  8  not in sync, and what is stored here was printed: the server lost records that are held here, or
     has another database; see `synclayer adopt --help` and `synclayer offer --help`
  9  not in sync, and what is stored here was printed: the server refuses a collection, or what
     answers at its address is no SyncLayer server
 10  the directory holds something else: a store of the other kind or of a later version, or files
 11  the write was given up: somebody else's change of the record has won (see --conflicts)";

pub(super) const LIST: &str = "\
Print the records of a collection, or those that meet a condition.

  synclayer list todos --where 'done=false and priority>=2' --order-by -priority --limit 10

A condition compares fields with values: = != < <= > >=, in [1, 2], not in [1, 2], is null, is not \
null, exists, startsWith, endsWith, contains, arrayContains, arrayContainsAny. `and`, `or`, `not` and \
brackets join them. Values are JSON; a word without quotes that is no JSON is a text. Fields inside \
objects are named like address.city, and a name that holds a dot is quoted: \"zip.code\". A field that \
is missing meets no condition but those with != and not.

On a terminal the records are printed for people, and else one line of JSON each.";

pub(super) const WATCH: &str = "\
Print what a collection holds, or those that meet a condition, and then every change as it comes.

With --where, --order-by or --limit (see `synclayer list --help`) a change tells the record's place in the \
result, from 0: where it entered (`at`), where it had been when it left (`at`), or from where to where it \
moved (`from`, `to`).

On a terminal the changes are printed for people, and else one line of JSON each.";

pub(super) const MODIFY: &str = "\
Change a record by what it is: a program gets it and prints what takes its place.

The record, a JSON object, goes to the program's standard input, and the object that the program \
prints takes its place. If the record changed while the program ran, it runs again with what the \
record is by then. If it fails, prints anything else than one JSON object, or the record keeps \
changing, nothing is changed. Devices that change the same field while they don't see each other are \
in conflict, as by `update`.

  synclayer modify todos milk -- jq -c '.bottles += 1'";

pub(super) const TRANSACTION: &str = "\
Make several writes with one fate: the server takes all of them or none.

Each line is a JSON object, as a write of level 1: `insert` saves a record whole, `update` sets fields and \
removes those in `metadata.unset`, `delete` removes a record. If one is refused, or loses against \
somebody else's change (see --conflicts), all are taken back. At most 256 writes.

  printf '%s\\n' \\
    '{\"type\":\"update\",\"collection\":\"seats\",\"recordId\":\"7a\",\"data\":{\"by\":\"ann\"}}' \\
    '{\"type\":\"insert\",\"collection\":\"tickets\",\"recordId\":\"ann\",\"data\":{\"seat\":\"7a\"}}' \\
    | synclayer transaction -";

pub(super) const IMPORT: &str = "\
Save the records of a file, one JSON line each.

  synclayer export todos > todos.jsonl
  synclayer import todos todos.jsonl

Each line is {\"id\":\"…\",\"data\":{…}}, as `export`, `list` and `get` print it, or with --id-field the record \
itself, whose field of that name is its id, a text or a number. A record that exists is replaced as a whole, and \
one that is like that already is left alone: the same file may be imported again at any time.

The records are saved 100 at a time, of which all or none are; where somebody else has changed one of them \
meanwhile, --conflicts decides about that one. At a line that can't be used the import ends: it is named, and so \
are the lines that were saved before.";

pub(super) const EXPORT: &str = "\
Print the records of a collection as `import` reads them, or those that meet a condition.

Each is a line {\"id\":\"…\",\"data\":{…}}; with --id-field it is the record alone, with its id in the field of that \
name.";

pub(super) const REJECT: &str = "\
Reject by hand the write that does not get through, so that those behind it go on.

Writes go out in their order. One that is larger than what a connection carries before it breaks, or \
than what something on the way takes, holds up all behind it: `synclayer status` names it, with its \
size. Rejected, it goes to the list of refused writes (`synclayer rejected list`), from where it can be \
made again over a better connection; its record is here again what the server has. Perhaps the server \
has got it after all: it is rejected when the server has said that it has not.";

pub(super) const ADOPT: &str = "\
Take what the server has, where it lost records or has another database.

A server that was restored from an older backup, or that was emptied, lacks records that are held \
here. If they are many, or if the server has another database altogether, nothing that is held here \
goes before you have said so: `get`, `list` and `status` print it, and end with exit code 8. With \
`adopt` it goes. Writes that wait for another database become refused ones: see `synclayer rejected`.";

pub(super) const OFFER: &str = "\
Send what is held here, where the server lost it or has another database.

The records go out as new ones. Where the server has a record of the same id, the strategy for \
conflicts decides. See also `synclayer adopt --help`.";

pub(super) const SIGN_OUT: &str = "\
Sign a user out of this device: what is here of them stays for their return, or goes.

With --wipe everything that the directory holds of the --user is removed, and what other users have \
there stays. Where there is a server, waiting writes are handed to it first. While there are writes \
that it does not have, or that it has refused, nothing is removed, and they are named; --unsent \
removes them too.";

pub(super) const REPAIR: &str = "\
Put a sound store in the place of a damaged one.

A replica's: what can still be read of the writes that wait for the server goes to `unsent.jsonl` in \
the directory, one a line, and what is missing there is counted. The directory is renamed to \
DIR.damaged-1 (or the next number that is free), and a new store is made, which takes everything else \
from the server. Then the unsent writes are made again, at the times at which they were made, or later \
where the record was changed since. An update needs the record that it changes: those whose record is \
not here yet, because the server can't be reached, stay in the file, and `synclayer repair --unsent \
FILE` makes them later. A write that was under way when the store was damaged may be made twice.

A server's: everything that can be read, also from behind the damage, goes into a new store, which \
takes the place of the damaged one; that is renamed in the same way, and what is lost is counted. \
Where there is a recent backup, compare the two before the server is started again. Replicas that \
connect then take snapshots, and find out what they hold and the server has lost.";
