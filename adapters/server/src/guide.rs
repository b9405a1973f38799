//! Guides for those who run a server.

/// Rules: four patterns of who may do what, from which most apps are made.
///
/// A rule is an expression about one record (see [`Rules`](crate::Rules)). The rule about reading is the filter
/// of what a device gets: a scope that the rule grants by the scope's key alone is served whole, with count and
/// checksum; where the rule depends on more, each record is judged.
///
/// The rules below are those of a file for `synclayer serve --rules FILE` or `--config FILE`.
///
/// # Per user
///
/// Each record has an owner, who alone sees and changes it. Devices hold the scope of their user:
/// `sync.collection("notes")?.scope("owner", "ann")`.
///
/// ```toml
/// [collections.notes]
/// scopes = ["owner"]
/// read   = 'data.owner == user'
/// create = 'new.owner == user'
/// update = 'data.owner == user && new.owner == user'
/// delete = 'data.owner == user'
/// ```
///
/// # Per room or project
///
/// The token names the rooms, or a record names a member of a room. The first costs no look-up, and takes effect
/// with a fresh token; the second takes effect with the commit that makes or deletes the record.
///
/// ```toml
/// [collections.messages]
/// scopes = ["room"]
/// read   = 'data.room in claims.rooms'
/// create = 'new.author == user && new.room in claims.rooms'
/// update = 'data.author == user && !("author" in changed) && new.room in claims.rooms'
/// delete = 'data.author == user'
///
/// [collections.tasks]
/// scopes = ["project"]
/// read   = 'exists("members", data.project + ":" + user)'
/// write  = 'exists("members", data.project + ":" + user)'
/// update = '''
/// exists("members", data.project + ":" + user) &&
///   exists("members", new.project + ":" + user)'''
/// ```
///
/// # Shared with members
///
/// Each record lists its members. A device holds the scope of its user in the list:
/// `scope("members[]", "ann")`. Whoever shares a record changes the list, so the rule about updates says who may.
///
/// ```toml
/// [collections.lists]
/// scopes = ["members[]"]
/// read   = 'user in data.members'
/// create = 'new.owner == user && user in new.members'
/// update = '''
/// user in data.members && !("owner" in changed) &&
///   (data.owner == user || !("members" in changed))'''
/// delete = 'data.owner == user'
/// ```
///
/// # Roles
///
/// A claim of the token names the role. What the role alone decides is decided for the whole collection.
///
/// ```toml
/// [collections.prices]
/// read   = 'true'
/// write  = 'claims.role == "admin" || (claims.role == "editor" && data.draft)'
/// ```
///
/// # In Rust
///
/// The same rules without a file, and the proof that they say what they should:
///
/// ```
/// use synclayer_server::{
///     Access, Asker, Change, Collection, Document, Policy, ProposedWrite, RecordId, Right, Rules, Timestamp,
///     UserId,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let messages = Collection::new("messages")?;
/// let mut rules = Rules::new(false);
/// rules.set(messages.clone(), Right::Read, "data.room in claims.rooms")?;
/// rules.set(messages.clone(), Right::Create, "new.author == user && new.room in claims.rooms")?;
///
/// let document = |json: &str| Document::parse(json, &Default::default());
/// let (ann, claims) = (UserId::new("ann")?, document(r#"{"rooms": ["42"]}"#)?);
/// let by = Asker { user: Some(&ann), claims: Some(&claims), records: None };
///
/// // the collection is served record by record, a scope whole or not at all
/// let room = |name: &str| [("room".to_owned(), format!("\"{name}\""))];
/// assert_eq!(rules.access(&by, &messages), Access::Some);
/// assert_eq!(rules.access_to_scope(&by, &messages, &room("42")), Access::All);
/// assert_eq!(rules.access_to_scope(&by, &messages, &room("43")), Access::None);
///
/// let (id, now) = (RecordId::new("1")?, Timestamp(0));
/// let create = |json: &str| -> Result<bool, Box<dyn std::error::Error>> {
///     let change = Change::insert(document(json)?);
///     let write =
///         ProposedWrite { collection: &messages, id: &id, before: None, change: &change, now };
///     Ok(rules.permits(&by, &write).is_ok())
/// };
/// assert!(create(r#"{"author": "ann", "room": "42"}"#)?);
/// assert!(!create(r#"{"author": "bob", "room": "42"}"#)?);
/// assert!(!create(r#"{"author": "ann", "room": "43"}"#)?);
/// # Ok(())
/// # }
/// ```
pub mod rules {}
