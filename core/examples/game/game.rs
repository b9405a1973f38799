//! The game without its screen: the field, and what happens in a frame.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use synclayer_core::{
    Collection, Command, Delta, Document, EventKind, Limits, Misuse, RecordId, Write,
};

use crate::client::{Client, News};

/// The size of the field.
pub(crate) const FIELD: (f32, f32) = (60.0, 20.0);
/// The steps of a player in a second.
const SPEED: f32 = 15.0;
/// The time between two positions that the others are told.
const TOLD_EVERY: Duration = Duration::from_millis(50);

/// A player, in the collection `players` under their name.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Player {
    pub(crate) x: f32,
    pub(crate) y: f32,
    /// The time of the position, in microseconds since 1970.
    at: u64,
}

/// A coin, in the collection `coins`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Coin {
    pub(crate) x: f32,
    pub(crate) y: f32,
    /// The player who has it; none while it lies on the field.
    pub(crate) by: Option<String>,
}

/// The times that the positions of others took to get here, in microseconds.
#[derive(Serialize)]
pub(crate) struct Times {
    positions: usize,
    p50: u64,
    p99: u64,
    max: u64,
}

pub(crate) struct Game {
    client: Client,
    /// The collections of the players and of the coins.
    of_players: Collection,
    of_coins: Collection,
    name: String,
    id: RecordId,
    me: Player,
    /// The place to which the player walks.
    target: Option<(f32, f32)>,
    others: BTreeMap<RecordId, Player>,
    coins: BTreeMap<RecordId, Coin>,
    bot: bool,
    rng: Rng,
    /// The time of the last frame, and that from which the next position is told the others.
    stepped: Instant,
    told: Instant,
    pub(crate) online: bool,
    pub(crate) notice: String,
    times: Vec<u64>,
}

impl Game {
    pub(crate) fn open(
        server: SocketAddr,
        name: String,
        bot: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos()
            ^ (u128::from(std::process::id()) << 64);
        let mut client = Client::open(server, seed, &["players", "coins"])?;
        let (of_players, of_coins) = (Collection::new("players")?, Collection::new("coins")?);
        let mut rng = Rng::with_seed(seed as u64 ^ (seed >> 64) as u64);
        let (x, y) = somewhere(&mut rng);
        let (id, me, now) =
            (RecordId::new(&name)?, Player { x, y, at: since_1970() }, Instant::now());
        client.write(Write::Save(of_players.clone(), id.clone(), document(&me)?))?;
        Ok(Self {
            client,
            of_players,
            of_coins,
            name,
            id,
            me,
            target: None,
            others: BTreeMap::new(),
            coins: BTreeMap::new(),
            bot,
            rng,
            stepped: now,
            told: now,
            online: false,
            notice: String::new(),
            times: Vec::new(),
        })
    }

    /// Waits for news until the next frame is due. Returns `true` if there is something new to show.
    pub(crate) fn wait(&mut self, until: Instant) -> io::Result<bool> {
        let news = self.client.turn(until.saturating_duration_since(Instant::now()))?;
        let any = !news.is_empty();
        for news in news {
            match news {
                News::Update(of, update) if of == self.of_players => {
                    for change in update.changes {
                        let player = change.record().and_then(|now| now.document.to().ok());
                        self.see_player(change.id().clone(), player);
                    }
                }
                News::Update(_, update) => {
                    for change in update.changes {
                        let coin = change.record().and_then(|now| now.document.to().ok());
                        put(&mut self.coins, change.id().clone(), coin);
                    }
                }
                News::Event(EventKind::ConnectivityChanged { online }) => self.online = online,
                News::Event(EventKind::TransactionFailed { .. }) => {
                    self.notice = "somebody was faster".into();
                }
                News::Event(_) => {}
            }
        }
        Ok(any)
    }

    fn see_player(&mut self, id: RecordId, player: Option<Player>) {
        if id == self.id {
            return;
        }
        if let (Some(seen), true) = (&player, self.others.contains_key(&id)) {
            self.times.push(since_1970().saturating_sub(seen.at));
        }
        put(&mut self.others, id, player);
    }

    /// Plays a frame: the player walks, picks up what lies there, and tells the others.
    pub(crate) fn step(&mut self) -> Result<(), Box<dyn Error>> {
        let passed = self.stepped.elapsed();
        self.stepped += passed;
        if self.bot && self.target.is_none() {
            self.target = Some(somewhere(&mut self.rng));
        }
        if let Some((x, y)) = self.target {
            let (dx, dy) = (x - self.me.x, y - self.me.y);
            let (step, distance) = (SPEED * passed.as_secs_f32(), dx.hypot(dy));
            if distance <= step {
                (self.me.x, self.me.y, self.target) = (x, y, None);
            } else {
                self.me.x += dx / distance * step;
                self.me.y += dy / distance * step;
            }
            self.pick_up()?;
        }
        self.tell()
    }

    /// Picks up a coin that lies here. It is the player's at once, and for good if it still lies there
    /// when the server learns of it; otherwise it goes to whoever was faster.
    fn pick_up(&mut self) -> Result<(), Box<dyn Error>> {
        let here = |coin: &Coin| (coin.x - self.me.x).hypot(coin.y - self.me.y) < 0.7;
        let Some((id, coin)) = self.coins.iter_mut().find(|(_, c)| c.by.is_none() && here(c))
        else {
            return Ok(());
        };
        coin.by = Some(self.name.clone());
        let mine = Delta::new(document(&json!({ "by": self.name }))?, Vec::new());
        let (coins, id) = (self.of_coins.clone(), id.clone());
        self.client.write(Write::Transaction(Box::new(move |t| {
            t.expect_unchanged(&coins, &id)?;
            t.update(&coins, &id, &mine)
        })))?;
        Ok(())
    }

    /// Tells the others the position. What has not gone out yet becomes one write with it.
    fn tell(&mut self) -> Result<(), Box<dyn Error>> {
        if self.told.elapsed() < TOLD_EVERY {
            return Ok(());
        }
        // by the clock and not by the frames, of which three take a little less than that
        self.told += TOLD_EVERY * (self.told.elapsed().as_millis() / TOLD_EVERY.as_millis()) as u32;
        self.me.at = since_1970();
        let position = Delta::new(document(&self.me)?, Vec::new());
        self.client.write(Write::Update(self.of_players.clone(), self.id.clone(), position))?;
        Ok(())
    }

    pub(crate) fn strew(&mut self, count: u32) -> Result<(), Box<dyn Error>> {
        for number in 0..count {
            let (x, y) = somewhere(&mut self.rng);
            let (x, y) = if count == 1 { (30.0, 10.0) } else { (x.round(), y.round()) };
            let coin = document(&Coin { x, y, by: None })?;
            let id = RecordId::new(&format!("{}-{number}-{}", self.name, since_1970()))?;
            self.client.write(Write::Save(self.of_coins.clone(), id, coin))?;
        }
        Ok(())
    }

    /// Walks to a place, or stops.
    pub(crate) fn go(&mut self, to: Option<(f32, f32)>) {
        self.target = to.map(|(x, y)| (x.clamp(0.0, FIELD.0 - 1.0), y.clamp(0.0, FIELD.1 - 1.0)));
    }

    /// Walks on in a direction.
    pub(crate) fn turn(&mut self, dx: f32, dy: f32) {
        self.go(Some((self.me.x + dx * FIELD.0, self.me.y + dy * FIELD.1)));
    }

    pub(crate) fn set_online(&mut self, online: bool) {
        self.client.command(if online { Command::Connect } else { Command::Disconnect });
    }

    /// Leaves the field. Returns the times that the others' positions took to get here.
    pub(crate) fn leave(&mut self) -> Result<Times, Box<dyn Error>> {
        self.client.write(Write::Delete(self.of_players.clone(), self.id.clone()))?;
        let end = Instant::now() + Duration::from_secs(1);
        while self.online && self.client.pending_writes() > 0 && Instant::now() < end {
            self.wait(end)?;
        }
        self.times.sort_unstable();
        let at = |percent: usize| {
            let last = self.times.len().saturating_sub(1);
            self.times.get(last * percent / 100).copied().unwrap_or_default()
        };
        Ok(Times { positions: self.times.len(), p50: at(50), p99: at(99), max: at(100) })
    }

    /// All players, each with their coins.
    pub(crate) fn players(&self) -> impl Iterator<Item = (&str, &Player, usize)> {
        let others = self.others.iter().map(|(id, player)| (id.as_str(), player));
        let all = others.chain([(&*self.name, &self.me)]);
        all.map(|(name, player)| {
            let has = |coin: &&Coin| coin.by.as_deref() == Some(name);
            (name, player, self.coins.values().filter(has).count())
        })
    }

    /// The coins that lie on the field.
    pub(crate) fn coins(&self) -> impl Iterator<Item = &Coin> {
        self.coins.values().filter(|coin| coin.by.is_none())
    }
}

fn put<T>(all: &mut BTreeMap<RecordId, T>, id: RecordId, now: Option<T>) {
    match now {
        Some(now) => drop(all.insert(id, now)),
        None => drop(all.remove(&id)),
    }
}

fn document<T: Serialize>(of: &T) -> Result<Document, Misuse> {
    Ok(Document::of(of, &Limits::default())?)
}

fn somewhere(rng: &mut Rng) -> (f32, f32) {
    (rng.f32() * (FIELD.0 - 1.0), rng.f32() * (FIELD.1 - 1.0))
}

fn since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
