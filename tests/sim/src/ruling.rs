//! The part of a run's plan that is about rules: who may read and write what, by fields of the records, by
//! claims of tokens and by memberships. What the server knows as expressions is here in plain Rust as well, as
//! an oracle that shares nothing with those who evaluate rules.

use std::collections::BTreeSet;

use synclayer_core::{Collection, Document, RecordId, Right, Rules, User, WriteKind};

use crate::draw::Draw;
use crate::plan::collections;
use crate::run::Run;
use crate::world::{document, user_of};

/// The users of a ruled world, by turns of the devices.
const USERS: [&str; 3] = ["ann", "bob", "cid"];

/// The teams, of which some users are members.
const TEAMS: [&str; 2] = ["red", "blue"];

/// The collection of the memberships.
///
/// # Panics
/// Never: the name is valid.
#[must_use]
pub fn memberships() -> Collection {
    Collection::new("members").expect("a valid name")
}

/// A rule about reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadRule {
    /// Everybody sees everything.
    Everybody,
    /// Owners see their records.
    Owner,
    /// Owners and the readers that a record names.
    Readers,
    /// Members of a record's team.
    Member,
    /// Owners, and members of a record's team.
    OwnerOrMember,
    /// Those whose claims name a record's team.
    Claimed,
    /// The staff, by their claims, and nobody else.
    Staff,
    /// The staff, and owners.
    StaffOrOwner,
}

/// Rules about writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteRule {
    /// Everybody writes everything.
    Everybody,
    /// Records are made and deleted by their owners, and never change hands.
    Kept,
    /// Owners, and members of a record's team.
    OwnerOrMember,
    /// The staff and owners change records; everybody makes and deletes them.
    StaffChanges,
}

const READ_RULES: [ReadRule; 8] = [
    ReadRule::Readers,
    ReadRule::Owner,
    ReadRule::Claimed,
    ReadRule::Member,
    ReadRule::OwnerOrMember,
    ReadRule::StaffOrOwner,
    ReadRule::Staff,
    ReadRule::Everybody,
];

const WRITE_RULES: [WriteRule; 4] =
    [WriteRule::Everybody, WriteRule::StaffChanges, WriteRule::OwnerOrMember, WriteRule::Kept];

/// The use of rules in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ruling {
    /// The rules with which the server starts.
    pub rulebook: Rulebook,
    /// The claims with which each of the first devices starts, as numbers.
    pub claims: [usize; 4],
    /// Rate of the changes of rights, in thousandths of the steps.
    pub rate: usize,
}

/// The rules of all collections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rulebook {
    /// Those about reading, by the collections' order.
    pub read: [ReadRule; 2],
    /// Those about writing.
    pub write: [WriteRule; 2],
}

/// The bearer of a token, as it says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Bearer {
    user: String,
    is_staff: bool,
    teams: Vec<&'static str>,
}

impl Ruling {
    /// Draws the use of rules.
    #[must_use]
    pub fn draw(draw: &mut Draw<'_>) -> Self {
        Self {
            rulebook: Rulebook::draw(draw),
            claims: [0; 4].map(|_| draw.below(256)),
            rate: draw.within(10, 60),
        }
    }

    /// The user of a device.
    #[must_use]
    pub fn user_of(device: usize) -> &'static str {
        USERS[device % USERS.len()]
    }

    /// The token with which a device starts.
    #[must_use]
    pub fn token(&self, device: usize) -> String {
        token(Self::user_of(device), 0, self.claims[device % self.claims.len()])
    }
}

/// The token of a user, with claims for a number; ever another one for ever another `count`.
#[must_use]
pub fn token(user: &str, count: usize, claims: usize) -> String {
    let staff = if claims % 4 == 3 { "+staff" } else { "" };
    let teams = [&TEAMS[..1], &TEAMS[1..], &TEAMS][claims / 4 % 3];
    let teams: String = teams.iter().map(|team| format!("+{team}")).collect();
    format!("{user}#{count}{staff}{teams}")
}

/// The token of a device that takes the place of one that has ended: with the same claims.
#[must_use]
pub fn renewed(token: &str, count: usize) -> String {
    let user = user_of(token);
    let claims = token.split_once('+').map(|(_, claims)| format!("+{claims}")).unwrap_or_default();
    format!("{user}#{count}{claims}")
}

/// The token of the one who runs the server.
pub(crate) const ROOT: &str = "root#0+staff";

/// A membership that begins or ends.
pub(crate) fn any_membership(draw: &mut Draw<'_>) -> RecordId {
    let (team, user) = (TEAMS[draw.below(TEAMS.len())], USERS[draw.below(USERS.len())]);
    RecordId::new(&format!("{team}:{user}")).expect("a valid id")
}

/// Fields that say whose a record is; ever others for ever other numbers. A new record has an owner.
#[must_use]
pub fn fields(n: u64, author: &str, is_new: bool) -> String {
    let mut rest = usize::try_from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).unwrap_or(0);
    let mut take = |of: usize| {
        let taken = rest % of;
        rest /= of;
        taken
    };
    let mut set = Vec::new();
    match take(4) {
        0 => set.push(format!(r#""owner":"{}""#, USERS[take(USERS.len())])),
        1..=3 if is_new => set.push(format!(r#""owner":"{author}""#)),
        _ => {}
    }
    if take(2) == 0 || is_new {
        let readers = take(1 << USERS.len());
        let named = USERS.iter().enumerate().filter(|(at, _)| readers >> at & 1 == 1);
        let named: Vec<_> = named.map(|(_, user)| format!("\"{user}\"")).collect();
        set.push(format!(r#""readers":[{}]"#, named.join(",")));
    }
    if take(2) == 0 || is_new {
        set.push(format!(r#""team":"{}""#, TEAMS[take(TEAMS.len())]));
    }
    if set.is_empty() {
        set.push(format!(r#""team":"{}""#, TEAMS[take(TEAMS.len())]));
    }
    set.join(",")
}

impl Rulebook {
    /// Draws rules.
    #[must_use]
    pub fn draw(draw: &mut Draw<'_>) -> Self {
        Self {
            read: [0; 2].map(|_| READ_RULES[draw.below(READ_RULES.len())]),
            write: [0; 2].map(|_| WRITE_RULES[draw.below(WRITE_RULES.len())]),
        }
    }

    /// The same rules, but for those that bar somebody from a whole collection.
    #[must_use]
    pub fn that_bars_nobody(mut self) -> Self {
        for rule in self.read.iter_mut().filter(|rule| **rule == ReadRule::Staff) {
            *rule = ReadRule::StaffOrOwner;
        }
        self
    }

    /// The rules as the server knows them. Memberships are changed by the staff.
    ///
    /// # Panics
    /// Never: they can be read.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let mut rules = Rules::new(false);
        let mut set = |collection: &Collection, right, text| {
            rules.set(collection.clone(), right, text).expect("a rule that can be read");
        };
        for (at, collection) in collections().iter().enumerate() {
            set(collection, Right::Read, self.read[at].text());
            for (right, text) in self.write[at].texts() {
                set(collection, right, text);
            }
        }
        set(&memberships(), Right::Read, "user != null");
        set(&memberships(), Right::Write, IS_STAFF);
        rules
    }

    /// The rule about reading a collection; `None` of one that everybody may read.
    fn read_rule(&self, collection: &Collection) -> ReadRule {
        let at = collections().iter().position(|name| name == collection);
        at.map_or(ReadRule::Everybody, |at| self.read[at])
    }

    /// Returns `true` if the bearer of a token may read a record.
    #[must_use]
    pub fn shows(
        &self,
        by: &Bearer,
        collection: &Collection,
        record: &Document,
        members: &BTreeSet<RecordId>,
    ) -> bool {
        self.read_rule(collection).shows(by, record, members)
    }

    /// Returns `true` if the bearer of a token may read nothing of a collection, whatever is in it.
    #[must_use]
    pub fn bars(&self, by: &Bearer, collection: &Collection) -> bool {
        self.read_rule(collection) == ReadRule::Staff && !by.is_staff
    }

    /// Returns `true` if the bearer of a token may read everything of a collection, whatever is in it.
    #[must_use]
    pub fn shows_all(&self, by: &Bearer, collection: &Collection) -> bool {
        match self.read_rule(collection) {
            ReadRule::Everybody => true,
            ReadRule::Staff | ReadRule::StaffOrOwner => by.is_staff,
            ReadRule::Owner
            | ReadRule::Readers
            | ReadRule::Member
            | ReadRule::OwnerOrMember
            | ReadRule::Claimed => false,
        }
    }

    /// Returns `true` if it depends on memberships who may read a collection.
    #[must_use]
    pub fn asks_for_members(&self, collection: &Collection) -> bool {
        matches!(self.read_rule(collection), ReadRule::Member | ReadRule::OwnerOrMember)
    }

    /// Returns `true` if the bearer of a token may change a record so.
    #[must_use]
    pub fn permits(
        &self,
        by: &Bearer,
        (collection, kind): (&Collection, WriteKind),
        before: Option<&Document>,
        after: Option<&Document>,
        members: &BTreeSet<RecordId>,
    ) -> bool {
        let at = collections().iter().position(|name| name == collection);
        let Some(at) = at else { return by.is_staff };
        let owns = |record: Option<&Document>| record.is_some_and(|record| by.owns(record));
        match self.write[at] {
            WriteRule::Everybody => true,
            WriteRule::Kept => match (before, kind) {
                (None, WriteKind::Insert | WriteKind::Update) => owns(after),
                (_, WriteKind::Delete) => owns(before),
                (Some(before), WriteKind::Insert | WriteKind::Update) => {
                    after.is_some_and(|after| after.text("owner") == before.text("owner"))
                }
            },
            WriteRule::OwnerOrMember => {
                let record = before.or(after);
                owns(record) || record.is_some_and(|record| by.is_member(record, members))
            }
            WriteRule::StaffChanges => match (before, kind) {
                (None, _) | (_, WriteKind::Delete) => true,
                (Some(_), WriteKind::Insert | WriteKind::Update) => by.is_staff || owns(before),
            },
        }
    }

    /// Returns `true` if everybody may write everything into a collection.
    #[must_use]
    pub fn permits_all(&self, collection: &Collection) -> bool {
        let at = collections().iter().position(|name| name == collection);
        at.is_some_and(|at| self.write[at] == WriteRule::Everybody)
    }
}

const IS_STAFF: &str = r#"claims.role == "staff""#;
const IS_MEMBER: &str = r#"exists("members", data.team + ":" + user)"#;

impl ReadRule {
    fn text(self) -> &'static str {
        match self {
            Self::Everybody => "user != null",
            Self::Owner => "data.owner == user",
            Self::Readers => "user in data.readers || data.owner == user",
            Self::Member => IS_MEMBER,
            Self::OwnerOrMember => {
                r#"data.owner == user || exists("members", data.team + ":" + user)"#
            }
            Self::Claimed => "data.team in claims.teams",
            Self::Staff => IS_STAFF,
            Self::StaffOrOwner => r#"claims.role == "staff" || data.owner == user"#,
        }
    }

    fn shows(self, by: &Bearer, record: &Document, members: &BTreeSet<RecordId>) -> bool {
        match self {
            Self::Everybody => true,
            Self::Owner => by.owns(record),
            Self::Readers => by.owns(record) || by.is_reader(record),
            Self::Member => by.is_member(record, members),
            Self::OwnerOrMember => by.owns(record) || by.is_member(record, members),
            Self::Claimed => by.claims_team(record),
            Self::Staff => by.is_staff,
            Self::StaffOrOwner => by.is_staff || by.owns(record),
        }
    }
}

impl WriteRule {
    fn texts(self) -> [(Right, &'static str); 3] {
        use Right::{Create, Delete, Update};
        let everybody = "user != null";
        match self {
            Self::Everybody => [(Create, everybody), (Update, everybody), (Delete, everybody)],
            Self::Kept => [
                (Create, "new.owner == user"),
                (Update, r#"!("owner" in changed)"#),
                (Delete, "data.owner == user"),
            ],
            Self::OwnerOrMember => [
                (Create, r#"new.owner == user || exists("members", new.team + ":" + user)"#),
                (Update, r#"data.owner == user || exists("members", data.team + ":" + user)"#),
                (Delete, r#"data.owner == user || exists("members", data.team + ":" + user)"#),
            ],
            Self::StaffChanges => [
                (Create, everybody),
                (Update, r#"claims.role == "staff" || data.owner == user"#),
                (Delete, everybody),
            ],
        }
    }
}

impl Bearer {
    /// The bearer of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let claims: Vec<_> = token.split('+').skip(1).collect();
        Self {
            user: user_of(token).to_string(),
            is_staff: claims.contains(&"staff"),
            teams: TEAMS.into_iter().filter(|team| claims.contains(team)).collect(),
        }
    }

    /// The same for the server.
    #[must_use]
    pub fn user(&self) -> User {
        let role = if self.is_staff { "staff" } else { "guest" };
        let teams: Vec<_> = self.teams.iter().map(|team| format!("\"{team}\"")).collect();
        let claims = format!(r#"{{"role":"{role}","teams":[{}]}}"#, teams.join(","));
        User { id: user_of(&self.user), claims: Some(document(&claims)) }
    }

    fn owns(&self, record: &Document) -> bool {
        record.text("owner") == Some(&format!("\"{}\"", self.user))
    }

    fn is_reader(&self, record: &Document) -> bool {
        record.text("readers").is_some_and(|all| all.contains(&format!("\"{}\"", self.user)))
    }

    fn is_member(&self, record: &Document, members: &BTreeSet<RecordId>) -> bool {
        let Some(team) = record.text("team") else { return false };
        let id = format!("{}:{}", team.trim_matches('"'), self.user);
        members.iter().any(|member| member.as_str() == id)
    }

    fn claims_team(&self, record: &Document) -> bool {
        let team = record.text("team").map(|team| team.trim_matches('"'));
        team.is_some_and(|team| self.teams.contains(&team))
    }
}

impl Run {
    /// The rights of somebody change.
    pub(crate) fn change_rights(&mut self, draw: &mut Draw<'_>) {
        let device = self.device(draw);
        self.count_whom_it_meets(device);
        match draw.below(8) {
            0..=3 => {
                let id = any_membership(draw);
                let begins = draw.below(2) == 0;
                self.change_membership(&id, begins);
            }
            4 | 5 => {
                let claims = draw.below(256);
                self.change_claims(device, claims);
            }
            6 => {
                let rulebook = Rulebook::draw(draw);
                self.world.replace_rules(rulebook);
            }
            _ => self.world.kick(device),
        }
    }

    /// The one who runs the server makes or ends a membership.
    fn change_membership(&mut self, id: &RecordId, begins: bool) {
        let collection = memberships();
        let (method, target, body) = match begins {
            true => {
                let body = format!(r#"{{"recordId":"{id}","data":{{}}}}"#);
                ("POST", format!("/sync/{collection}"), body)
            }
            false => ("DELETE", format!("/sync/{collection}/{id}"), String::new()),
        };
        self.world.rest(Some(ROOT), method, &target, &body);
    }

    /// The app of a device gives a token with other claims.
    fn change_claims(&mut self, device: usize, claims: usize) {
        self.fresh_tokens += 1;
        let user = self.world.devices[device].config.user.clone();
        self.world.count("other claims");
        self.world.set_token(device, &token(&user, self.fresh_tokens, claims));
    }

    fn count_whom_it_meets(&mut self, device: usize) {
        let this = &self.world.devices[device];
        let status = this.replica.status();
        let point = if self.connection(device).is_none() || this.cut_off {
            "rights changed while away"
        } else if status.collections.values().any(|of| of.catching_up) {
            "rights changed in mid catch-up"
        } else {
            "rights changed in a session"
        };
        self.world.count(point);
    }

    /// Before the end, nobody is barred from a whole collection.
    pub(crate) fn bar_nobody(&mut self) {
        if let Some(rulebook) = self.world.rulebook().copied() {
            self.world.replace_rules(rulebook.that_bars_nobody());
        }
    }
}
