//! Transcripts: what real clients and a real server say to each other, as text to be read.
//!
//! Each [`Transcript`] is a little play about one exchange of the protocol. Its text is committed
//! in `tests/data/transcripts`; a test plays it again and compares. The machines are those of the
//! [scenarios](crate::scenario), joined by a network that the play commands.

mod plays;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::scenario::client::ClientSide;
use crate::scenario::format::Step;
use crate::scenario::print::inline;
use crate::scenario::server::ServerSide;
use crate::scenario::{Stage, files_with};

/// The signs at the beginning of the lines.
const LEGEND: &str = "\
# > client to server   < server to client   x lost on the way   ! what a client is made to do
# * what its app is told";

/// The events that are worth a line; the others only repeat what the frames say.
const TOLD: [&str; 12] = [
    "checksumMismatch",
    "conflictDetected",
    "conflictResolved",
    "operationFailed",
    "operationSynced",
    "replicaCopied",
    "serverLostChanges",
    "syncCompleted",
    "tokenNeeded",
    "transactionFailed",
    "transactionSynced",
    "writeStalled",
];

/// One exchange: the name of its file, and its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transcript {
    /// The name of the file.
    pub name: &'static str,
    /// The whole text.
    pub text: String,
}

/// Plays all of them.
///
/// # Errors
/// When a play can't go on as it is written; with the text up to there.
pub fn play_all() -> Result<Vec<Transcript>, String> {
    plays::PLAYS
        .iter()
        .map(|(name, title, play)| {
            let mut talk = Talk::new(title);
            play(&mut talk).map_err(|what| format!("{name}: {what}\n{}", talk.lines.join("\n")))?;
            Ok(Transcript { name, text: talk.lines.join("\n") + "\n" })
        })
        .collect()
}

/// The files in a folder that no play writes.
///
/// # Errors
/// When the folder can't be read.
pub fn strangers(folder: &Path, played: &[Transcript]) -> std::io::Result<Vec<PathBuf>> {
    let ours = |path: &PathBuf| played.iter().any(|one| path.ends_with(one.name));
    Ok(files_with(folder, "txt")?.into_iter().filter(|path| !ours(path)).collect())
}

/// The first line in which two texts differ: its number, and what stands there in each.
#[must_use]
pub fn first_difference(one: &str, other: &str) -> Option<(usize, String, String)> {
    let (mut ones, mut others) = (one.lines(), other.lines());
    (1..).find_map(|number| match (ones.next(), others.next()) {
        (None, None) => Some(None),
        (left, right) if left != right => {
            let text = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
            Some(Some((number, text(left), text(right))))
        }
        (_, _) => None,
    })?
}

/// One client with its end of the network.
struct ClientEnd {
    client: ClientSide,
    /// The number that the server knows its connection by.
    conn: Option<u64>,
    up: VecDeque<Value>,
    down: VecDeque<Value>,
    /// The token that it connected with.
    token: Option<String>,
    /// A connection that it asked for.
    dials: bool,
}

/// Clients and a server on a stage.
struct Talk {
    devices: BTreeMap<&'static str, ClientEnd>,
    server: ServerSide,
    /// The user of each token, as `accept` takes it.
    users: BTreeMap<String, Value>,
    conns: u64,
    lines: Vec<String>,
}

type Played = Result<(), String>;

impl Talk {
    fn new(title: &str) -> Self {
        let server = ServerSide::new(&Value::Null).expect("the usual setup");
        let lines = vec![format!("# {title}"), "#".into(), LEGEND.into()];
        let (devices, users) = (BTreeMap::new(), BTreeMap::new());
        Self { devices, server, users, conns: 0, lines }
    }

    /// Sets the server up; before anything happens.
    fn server(&mut self, config: &Value) -> Played {
        self.server = ServerSide::new(config)?;
        let users = config["tokens"].as_object().into_iter().flatten();
        self.users = users
            .map(|(token, user)| match user.as_str() {
                Some(user) => (token.clone(), json!({ "user": user })),
                None => (token.clone(), user.clone()),
            })
            .collect();
        Ok(())
    }

    /// A client that wants to be connected.
    fn client(&mut self, name: &'static str, mut config: Value) -> Played {
        if config["collections"].is_null() {
            config["collections"] = json!(["todos"]);
        }
        let client = ClientSide::new(&config)?;
        let (up, down) = (VecDeque::new(), VecDeque::new());
        let device = ClientEnd { client, conn: None, up, down, token: None, dials: false };
        self.devices.insert(name, device);
        self.act(name, json!("connect"))
    }

    /// A client and the server come to rest, which is part of no text.
    fn silently(&mut self, play: impl FnOnce(&mut Self) -> Played) -> Played {
        let lines = self.lines.len();
        play(self)?;
        self.lines.truncate(lines);
        Ok(())
    }

    /// A line about what happens, and why.
    fn tell(&mut self, text: &str) {
        self.lines.push(String::new());
        self.lines.extend(text.lines().map(|line| format!("# {line}")));
    }

    /// A client's app does something.
    fn app(&mut self, name: &'static str, call: Value) -> Played {
        self.note(name, '!', &inline(&call));
        self.act(name, call)
    }

    fn note(&mut self, name: &str, sign: char, text: &str) {
        let width = self.devices.keys().map(|name| name.len()).max().unwrap_or(0);
        match self.devices.len() {
            1 => self.lines.push(format!("{sign} {text}")),
            _ => self.lines.push(format!("{name:width$} {sign} {text}")),
        }
    }

    /// Something happens to a client.
    fn act(&mut self, name: &'static str, input: Value) -> Played {
        let device = self.devices.get_mut(name).ok_or("there is no such client")?;
        let out = device.client.step(&Step::of(None, input))?;
        for one in out {
            let one = named(name, one);
            let device = self.devices.get_mut(name).ok_or("there is no such client")?;
            if let Some(frame) = one.get("send") {
                device.up.push_back(frame.clone());
            } else if one.get("connect").is_some() {
                device.token = one["token"].as_str().map(Into::into);
                device.dials = true;
            } else if one.get("close").is_some() {
                self.hang_up(name)?;
            } else if let Some(event) = one["event"].as_str()
                && TOLD.contains(&event)
            {
                self.note(name, '*', &told(&one));
            } else if one.get("synced").is_some() {
                self.note(name, '*', "synced");
            }
        }
        Ok(())
    }

    /// A client gives its connection up; the server hears of it.
    fn hang_up(&mut self, name: &'static str) -> Played {
        let Some(device) = self.devices.get_mut(name) else { return Ok(()) };
        device.up.clear();
        device.down.clear();
        match device.conn.take() {
            Some(conn) => self.serve(conn, json!("gone")),
            None => Ok(()),
        }
    }

    /// Something happens to the server.
    fn serve(&mut self, conn: u64, input: Value) -> Played {
        let out = self.server.step(&Step::of(Some(conn), input))?;
        let mut closed = Vec::new();
        for one in out {
            let to = one["conn"].as_u64().unwrap_or(conn);
            let device = self.devices.iter_mut().find(|(_, device)| device.conn == Some(to));
            let Some((name, device)) = device else {
                if let Some(frame) = one.get("send") {
                    self.lines.push(format!("x < {}", inline(frame)));
                }
                continue;
            };
            if let Some(frame) = one.get("send") {
                device.down.push_back(frame.clone());
            } else if one.get("close").is_some() {
                closed.push((*name, one.clone()));
            }
        }
        for (name, why) in closed {
            let why = format!("{} {}", why["close"], why["reason"].as_str().unwrap_or(""));
            if let Some(device) = self.devices.get_mut(name) {
                device.down.push_back(json!({ "closes": why }));
            }
        }
        Ok(())
    }

    /// The connections that were asked for come up, or are refused.
    fn connect(&mut self) -> Played {
        let names: Vec<_> = self.devices.keys().copied().collect();
        for name in names {
            let Some(device) = self.devices.get_mut(name) else { continue };
            if !std::mem::take(&mut device.dials) {
                continue;
            }
            let user = device.token.as_ref().map(|token| self.users.get(token).cloned());
            if user == Some(None) {
                self.note(name, '<', "(401: the token is wrong or has expired)");
                self.act(name, json!({"refused": {"status": 401}}))?;
                continue;
            }
            self.conns += 1;
            let conn = self.conns;
            device.conn = Some(conn);
            let accept = match user.flatten() {
                Some(user) => json!({ "accept": user }),
                None => json!({"accept": {}}),
            };
            self.serve(conn, accept)?;
            self.act(name, json!("up"))?;
        }
        Ok(())
    }

    /// The next frame of a client reaches the server.
    fn up(&mut self, name: &'static str) -> Result<bool, String> {
        let Some(device) = self.devices.get_mut(name) else { return Ok(false) };
        let (Some(conn), Some(frame)) = (device.conn, device.up.pop_front()) else {
            return Ok(false);
        };
        self.note(name, '>', &inline(&frame));
        self.serve(conn, json!({ "hear": frame }))?;
        Ok(true)
    }

    /// The next frame for a client reaches it.
    fn down(&mut self, name: &'static str) -> Result<bool, String> {
        let Some(device) = self.devices.get_mut(name) else { return Ok(false) };
        let Some(frame) = device.down.pop_front() else { return Ok(false) };
        if let Some(why) = frame["closes"].as_str() {
            let why = format!("(closed: {why})");
            self.note(name, '<', &why);
            device_lost(self, name)?;
            return Ok(true);
        }
        self.note(name, '<', &inline(&frame));
        self.act(name, json!({ "hear": frame }))?;
        Ok(true)
    }

    /// Everything that is on its way arrives: first what goes up, then what comes down.
    fn settle(&mut self) -> Played {
        loop {
            self.connect()?;
            let names: Vec<_> = self.devices.keys().copied().collect();
            let mut moved = false;
            for name in &names {
                while self.up(name)? {
                    moved = true;
                }
            }
            for name in &names {
                while self.down(name)? {
                    moved = true;
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// A connection is cut: what is on its way is lost.
    fn cut(&mut self, name: &'static str) -> Played {
        let (conn, _) = self.cut_keeping(name)?;
        self.serve(conn, json!("gone"))
    }

    /// A connection is cut for the client alone: what it sent is still on its way to the server.
    fn cut_keeping(&mut self, name: &'static str) -> Result<(u64, Vec<Value>), String> {
        let device = self.devices.get_mut(name).ok_or("there is no such client")?;
        let down = std::mem::take(&mut device.down);
        let up: Vec<_> = std::mem::take(&mut device.up).into();
        let conn = device.conn.take().ok_or("there is no connection to cut")?;
        for frame in down {
            self.note(name, 'x', &format!("< {}", inline(&frame)));
        }
        self.note(name, 'x', "(the connection is cut)");
        device_lost(self, name)?;
        Ok((conn, up))
    }

    /// Time passes for everyone.
    fn pass(&mut self, millis: u64) -> Played {
        self.serve(0, json!({ "tick": millis }))?;
        let names: Vec<_> = self.devices.keys().copied().collect();
        names.into_iter().try_for_each(|name| self.act(name, json!({ "tick": millis })))
    }

    /// The server ends and starts again.
    fn restart_server(&mut self, how: &str) -> Played {
        self.serve(0, json!(how))?;
        let names: Vec<_> = self.devices.keys().copied().collect();
        for name in names {
            if let Some(device) = self.devices.get_mut(name)
                && device.conn.take().is_some()
            {
                self.note(name, 'x', "(the connection is cut)");
                device_lost(self, name)?;
            }
        }
        Ok(())
    }
}

fn device_lost(talk: &mut Talk, name: &'static str) -> Played {
    if let Some(device) = talk.devices.get_mut(name) {
        device.conn = None;
        device.up.clear();
        device.down.clear();
    }
    talk.act(name, json!({"lost": "cut"}))
}

/// Names the ids in a client's output after the client: the first is the name itself.
fn named(name: &str, value: Value) -> Value {
    let id = |text: &str| match text.strip_prefix("$client") {
        Some("1") => name.to_owned(),
        Some(number) => format!("{name}-{number}"),
        None => text.to_owned(),
    };
    match value {
        Value::String(text) => Value::String(id(&text)),
        Value::Array(items) => items.into_iter().map(|item| named(name, item)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (key, named(name, value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// An event in one line.
fn told(event: &Value) -> String {
    let mut rest = event.as_object().cloned().unwrap_or_default();
    rest.remove("via");
    let name = rest.remove("event").unwrap_or_default();
    let at = rest.remove("at").unwrap_or_default();
    let words = [&name, &at].map(|word| word.as_str().unwrap_or("").to_owned());
    let rest = if rest.is_empty() { String::new() } else { inline(&Value::Object(rest)) };
    let words: Vec<_> = words.into_iter().chain([rest]).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}
