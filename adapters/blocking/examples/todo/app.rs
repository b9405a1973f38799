//! The lists without their screen: what is shown, and what the user can do.

use serde::Serialize;
use serde_json::{Value, json};
use synclayer_blocking::query::Descending;
use synclayer_blocking::{
    CollectionOf, ConnectionState, Document, EventKind, QueryChange, RecordId, ScopeOf, Status,
    SyncError, SyncLayer, Typed, TypedUpdate,
};

use crate::data::{Item, List};

/// Something that may have changed what is shown.
pub(crate) enum News {
    Lists(Result<TypedUpdate<List>, SyncError>),
    Items(Result<TypedUpdate<Item>, SyncError>),
    Event(EventKind),
    Status(Status),
    Line(String),
    Terminal(ratatui::crossterm::event::Event),
}

/// Everything that is shown.
#[derive(Serialize)]
pub(crate) struct View<'a> {
    pub(crate) user: &'a str,
    pub(crate) online: bool,
    pub(crate) lists: Vec<&'a str>,
    pub(crate) open: Option<&'a str>,
    pub(crate) members: &'a [String],
    pub(crate) items: Vec<Line<'a>>,
    pub(crate) notice: &'a str,
}

/// An item as it is shown.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    #[serde(flatten)]
    pub(crate) item: &'a Item,
    /// `true` until the server has it as it is shown.
    pub(crate) waiting: bool,
}

/// An item before and after a change of the user's, to be undone.
struct Step {
    id: RecordId,
    before: Option<Item>,
    after: Option<Item>,
}

pub(crate) struct App {
    sync: SyncLayer,
    user: String,
    pub(crate) lists: ScopeOf<List>,
    pub(crate) items: CollectionOf<Item>,
    shown_lists: Vec<Typed<List>>,
    shown_items: Vec<Typed<Item>>,
    open: Option<RecordId>,
    steps: Vec<Step>,
    online: bool,
    notice: String,
}

impl App {
    pub(crate) fn open(sync: &SyncLayer, user: String) -> Result<Self, SyncError> {
        let lists = sync.collection_of("lists")?.scope("members[]", &user)?;
        let (items, sync) = (sync.collection_of("items")?, sync.clone());
        let (shown_lists, shown_items, steps) = (Vec::new(), Vec::new(), Vec::new());
        let (open, online, notice) = (None, false, String::new());
        Ok(Self { sync, user, lists, items, shown_lists, shown_items, open, steps, online, notice })
    }

    /// Takes news in. What can't be done is told, and the app goes on. Returns `false` when the user
    /// leaves.
    pub(crate) fn take(&mut self, news: News) -> bool {
        let leaves = matches!(&news, News::Line(line) if line.trim() == "/quit");
        if let Err(error) = self.try_take(news) {
            self.notice = error.to_string();
        }
        !leaves
    }

    fn try_take(&mut self, news: News) -> Result<(), SyncError> {
        match news {
            News::Lists(update) => {
                let update = update?;
                // the items of all lists come along, so that each can be opened without a network
                for change in update.changes {
                    if let QueryChange::Entered { record, .. } = change {
                        self.items.scope("list", &record.id)?.untyped().keep()?;
                    }
                }
                self.shown_lists = update.values;
            }
            News::Items(update) => self.shown_items = update?.values,
            News::Status(status) => self.online = status.connection == ConnectionState::Connected,
            News::Event(EventKind::OperationFailed { message, .. }) => self.notice = message,
            News::Line(line) => {
                self.notice.clear();
                self.carry_out(line.trim())?;
            }
            News::Event(_) | News::Terminal(_) => {}
        }
        Ok(())
    }

    fn carry_out(&mut self, line: &str) -> Result<(), SyncError> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "/new" => {
                let list = List { title: rest.into(), members: vec![self.user.clone()] };
                self.open = Some(self.lists.save(&list)?.id);
            }
            "/open" => {
                let mut lists = self.shown_lists.iter();
                let list = lists.find(|list| list.value.title == rest);
                self.open = list.map(|list| list.record.id.clone());
            }
            "/share" => self.share(rest)?,
            "/undo" => self.undo()?,
            "/offline" => self.sync.disconnect()?,
            "/online" => self.sync.connect()?,
            "" | "/quit" => {}
            _ if !line.starts_with('/') => self.add(line)?,
            _ => self.change_item(command, rest)?,
        }
        Ok(())
    }

    fn add(&mut self, text: &str) -> Result<(), SyncError> {
        let Some(list) = self.open.clone() else {
            self.notice = "open a list first: /new TITLE or /open TITLE".into();
            return Ok(());
        };
        // asked of the store: what is shown may lack what was added just now
        let items = self.items.scope("list", &list)?;
        let last = items.find(|query| query.order_by("place", Descending).limit(1))?;
        let place = last.first().map_or(0.0, |last| last.value.place + 1.0);
        let item = Item { list, text: text.into(), done: false, place, theirs: None };
        let id = items.save(&item)?.id;
        self.steps.push(Step { id, before: None, after: Some(item) });
        Ok(())
    }

    /// Makes another one a member of the list.
    fn share(&mut self, name: &str) -> Result<(), SyncError> {
        let (Some(open), name) = (&self.open, name.to_owned()) else { return Ok(()) };
        let share = move |list: Option<&Document>| {
            let mut list: List = list?.to().ok()?;
            list.members.push(name);
            Some(list)
        };
        self.lists.untyped().modify(open, share).map(drop)
    }

    /// Carries out a command about the item of a number.
    fn change_item(&mut self, command: &str, rest: &str) -> Result<(), SyncError> {
        let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let items = self.open_items();
        let at = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let place = |at: usize| items.get(at).map(|item| item.value.place);
        let changed = at.and_then(|at| {
            let mut after = items.get(at)?.value.clone();
            match command {
                "/done" => after.done = !after.done,
                "/edit" => after.text = text.into(),
                "/up" => {
                    after.place =
                        between(at.checked_sub(2).and_then(place), place(at.checked_sub(1)?))
                }
                "/down" => after.place = between(Some(place(at + 1)?), place(at + 2)),
                "/mine" => after.theirs = None,
                "/theirs" => after.text = after.theirs.take()?,
                "/delete" => return Some((items[at], None)),
                _ => return None,
            }
            Some((items[at], Some(after)))
        });
        let Some((item, after)) = changed else {
            self.notice = format!("no {command} of item {number:?}: see --help");
            return Ok(());
        };
        let (id, before) = (item.record.id.clone(), Some(item.value.clone()));
        self.turn(&id, before.as_ref(), after.as_ref())?;
        self.steps.push(Step { id, before, after });
        Ok(())
    }

    fn undo(&mut self) -> Result<(), SyncError> {
        let Some(Step { id, before, after }) = self.steps.pop() else { return Ok(()) };
        self.turn(&id, after.as_ref(), before.as_ref())
    }

    /// Turns an item from one state into another. Only the fields in which these differ are written, so
    /// that what others have changed meanwhile stays.
    fn turn(&self, id: &RecordId, from: Option<&Item>, to: Option<&Item>) -> Result<(), SyncError> {
        let items = self.items.held();
        let Some(to) = to else { return items.untyped().delete(id).map(drop) };
        let Some(from) = from else { return items.save_with_id(id, to).map(drop) };
        let (Value::Object(from), Value::Object(mut to)) = (json!(from), json!(to)) else {
            return Ok(());
        };
        to.retain(|name, value| from.get(name) != Some(value));
        items.untyped().update(id, &to).map(drop)
    }

    fn open_items(&self) -> Vec<&Typed<Item>> {
        let of_list = |item: &&Typed<Item>| Some(&item.value.list) == self.open.as_ref();
        self.shown_items.iter().filter(of_list).collect()
    }

    pub(crate) fn view(&self) -> View<'_> {
        let mut lists = self.shown_lists.iter();
        let open = lists.find(|list| Some(&list.record.id) == self.open.as_ref());
        let items = self.open_items();
        View {
            user: &self.user,
            online: self.online,
            lists: self.shown_lists.iter().map(|list| &*list.value.title).collect(),
            open: open.map(|list| &*list.value.title),
            members: open.map_or(&[], |list| &list.value.members),
            items: items.into_iter().map(line).collect(),
            notice: &self.notice,
        }
    }
}

fn line(item: &Typed<Item>) -> Line<'_> {
    Line { item: &item.value, waiting: item.record.pending }
}

/// A place between two others, of which either may be missing.
fn between(before: Option<f64>, behind: Option<f64>) -> f64 {
    match (before, behind) {
        (Some(before), Some(behind)) => f64::midpoint(before, behind),
        (Some(before), None) => before + 1.0,
        (None, behind) => behind.unwrap_or_default() - 1.0,
    }
}
