//! The command line.

#[cfg(test)]
mod tests;
mod texts;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use synclayer_core::{Collection, Direction, Predicate};
use synclayer_server::{Index, IpNet, ScopeKey};

use self::texts::{
    ADOPT, EXIT_CODES, EXPORT, IMPORT, LIST, MODIFY, OFFER, REJECT, REPAIR, SIGN_OUT, TRANSACTION,
    WATCH,
};
use crate::config_file::ConfigFile;
use crate::filter;
use crate::jwt::JwtArgs;
use crate::limits::LimitArgs;
use crate::scopes::{self, ScopeArg};
use crate::tokens::Secret;

/// Local-first data sync: a server, a client for the shell, and a demo.
#[derive(Parser, Debug)]
#[command(name = "synclayer", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say on the standard error what happens on the way to the server; twice for more
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum CliCommand {
    /// Show two replicas and a server at work, in a few seconds
    Demo,
    /// Run a server, until SIGTERM or SIGINT
    Serve(Box<ServeArgs>),
    /// Save a record under an id that is given, or under a new one
    Save(SaveArgs),
    /// Set some fields of a record, and remove others
    Update(UpdateArgs),
    /// Change a record by what it is: a program gets it and prints what takes its place
    #[command(long_about = MODIFY)]
    Modify(ModifyArgs),
    /// Make several writes with one fate, each a JSON line
    #[command(long_about = TRANSACTION)]
    Transaction(TransactionArgs),
    /// Save the records of a file, one JSON line each
    #[command(long_about = IMPORT)]
    Import(ImportArgs),
    /// Print the records of a collection as `import` reads them, or those that meet a condition
    #[command(long_about = EXPORT)]
    Export(ExportArgs),
    /// Delete a record, or all that meet a condition
    Delete(DeleteArgs),
    /// Print a record
    Get(RecordArgs),
    /// Print the records of a collection, or those that meet a condition
    #[command(long_about = LIST)]
    List(ListArgs),
    /// Print the number of records of a collection, or of those that meet a condition
    Count(CountArgs),
    /// Print what a collection holds, or those that meet a condition, and then every change as it comes
    #[command(long_about = WATCH)]
    Watch(ListArgs),
    /// Print how the replica is doing
    Status(ReplicaArgs),
    /// Sign a user out of this device: what is here of them stays for their return, or goes
    #[command(long_about = SIGN_OUT)]
    SignOut(SignOutArgs),
    /// See to the writes that the server has refused
    Rejected(RejectedArgs),
    /// Reject by hand the write that does not get through, so that those behind it go on
    #[command(long_about = REJECT)]
    Reject(OneWriteArgs),
    /// Take what the server has, where it lost records or has another database
    #[command(long_about = ADOPT)]
    Adopt(ReplicaArgs),
    /// Send what is held here, where the server lost it or has another database
    #[command(long_about = OFFER)]
    Offer(ReplicaArgs),
    /// Put a sound store in the place of a damaged one, a replica's or a server's
    #[command(long_about = REPAIR)]
    Repair(RepairArgs),
    /// Check the configuration file of a server, or print one with every key
    Config(ConfigArgs),
    /// Check, test or explain a file of rules, which says who may do what at a server
    Rules(crate::rules::RulesArgs),
    /// Sign a token that names a user, for development and tests
    Token(crate::jwt::TokenArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ConfigAction {
    /// Check a configuration file, and the files that it names
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a configuration file with every key, its meaning and its default
    Print,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Take what is not given here from this file (TOML): every option is a key of it, see `synclayer
    /// config print`. SIGHUP takes over its rules, and says what only a restart does
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The same file, which was read to know the options.
    #[arg(skip)]
    pub(crate) config_file: Option<Arc<ConfigFile>>,
    /// Where to listen: an IP address and a port, or a port of 127.0.0.1; port 0 lets the system
    /// choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = listen)]
    pub(crate) listen: SocketAddr,
    /// Where the database is kept; a directory of its own, which is made where there is none
    #[arg(long, value_name = "DIR", env = "SYNCLAYER_SERVER_DATA")]
    pub(crate) data: PathBuf,
    /// Let this user in with this token; several may be given, in the environment with spaces
    /// between them. Without any the server is open, and listens on loopback only
    #[arg(
        long = "token",
        value_name = "USER=TOKEN",
        env = "SYNCLAYER_TOKENS",
        hide_env_values = true
    )]
    pub(crate) tokens: Vec<Secret>,
    /// Let the users of this file in too, one USER=TOKEN a line; SIGHUP reads it again. Lines that
    /// begin with # don't count
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Let users do only what the rules in this file permit; see `synclayer rules --help`. SIGHUP reads
    /// it again
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Do TLS with this certificate (PEM, the authorities between behind it); SIGHUP reads it again
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM, without a passphrase)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Failures that an acknowledged write survives
    #[arg(long, value_enum, default_value = "synced")]
    pub(crate) durability: DurabilityArg,
    /// The content of an `update` to clients that speak level 1: apps of SyncLayer 1.7 put it in the
    /// place of the record, so they need it whole
    #[arg(long, value_enum, value_name = "WHAT", default_value = "fields")]
    pub(crate) plain_updates: PlainUpdatesArg,
    /// Believe what this proxy says in `X-Forwarded-For`: limits on connections and on wrong tokens
    /// then hold for the addresses that it names. An address or a network, like 10.0.0.0/8; several
    /// may be given
    #[arg(long = "trusted-proxy", value_name = "ADDRESS", value_parser = proxy)]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Let web pages of this origin connect, like https://app.example; several may be given
    #[arg(long = "allow-origin", value_name = "URL")]
    pub(crate) allow_origins: Vec<String>,
    /// Answer to this host name too, where there are no tokens; several may be given. By default
    /// such a server answers to localhost and the addresses of loopback
    #[arg(long = "allow-host", value_name = "HOST")]
    pub(crate) allow_hosts: Vec<String>,
    /// Divide a collection into scopes by the value of a field, like messages=room; by several keys,
    /// like tasks=owner,members[] where [] stands for each element of an array; or by fields
    /// together, like tasks=project+status. May be given for several collections
    #[arg(long = "scope", value_name = "COLLECTION=KEY[,KEY…]", value_parser = scopes::parse)]
    pub(crate) scopes: Vec<(Collection, Vec<ScopeKey>)>,
    /// Keep an index of a collection, by which REST queries find and sort records without reading all of
    /// them, like todos=done,-priority; several may be given
    #[arg(long = "index", value_name = "COLLECTION=FIELD[,FIELD…]", value_parser = scopes::index)]
    pub(crate) indexes: Vec<(Collection, Index)>,
    #[command(flatten)]
    pub(crate) jwt: JwtArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

fn proxy(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).map_err(|_| {
        "this is neither an IP address nor a network like 10.0.0.0/8; names are not looked up"
            .into()
    })
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum DurabilityArg {
    /// The loss of power
    Synced,
    /// The end of the process; after a loss of power the last writes may be gone
    Buffered,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum PlainUpdatesArg {
    /// The fields that were changed
    Fields,
    /// The whole record
    Whole,
}

/// The options of every client command.
#[derive(Args, Debug)]
pub(crate) struct ReplicaArgs {
    /// Where the replica is kept; a directory of its own, which is made where there is none
    #[arg(long, value_name = "DIR", env = "SYNCLAYER_DATA")]
    pub(crate) data: PathBuf,
    /// The server, as https://… or http://…; without one the command works offline
    #[arg(long, value_name = "URL", env = "SYNCLAYER_SERVER")]
    pub(crate) server: Option<String>,
    /// The server's WebSocket, as wss://… or ws://…; by default `/ws` below the server
    #[arg(long, value_name = "URL", env = "SYNCLAYER_WEBSOCKET")]
    pub(crate) websocket: Option<String>,
    /// Ask the server by HTTP only
    #[arg(long, conflicts_with = "realtime_only")]
    pub(crate) poll_only: bool,
    /// Use the WebSocket only
    #[arg(long)]
    pub(crate) realtime_only: bool,
    /// Send nothing to a server that does not guarantee this; several may be given
    #[arg(long, value_enum, value_name = "GUARANTEE", value_delimiter = ',')]
    pub(crate) require: Vec<GuaranteeArg>,
    /// The token by which the server knows the user
    #[arg(long, env = "SYNCLAYER_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<Secret>,
    /// Send the WebSocket's token as `?token=…` in its URL, as apps of SyncLayer 1.7 do: for servers that
    /// look for it nowhere else. Servers and proxies may write URLs to their logs
    #[arg(long)]
    pub(crate) token_in_query: bool,
    /// The user: each user of a directory has records and waiting writes of their own
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) user: String,
    /// Time limit for reaching the server, in seconds, and for silence: as long as something gets through
    /// to or from it, the command goes on
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Leave the server alone, also when there is one
    #[arg(long)]
    pub(crate) offline: bool,
    /// Trust the certificates in this PEM file, and no others, to vouch for the server. By default
    /// those that this device trusts
    #[arg(long, value_name = "FILE", env = "SYNCLAYER_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Let the token go over the network unencrypted
    #[arg(long)]
    pub(crate) allow_insecure: bool,
    /// Strategy for a waiting write that conflicts with somebody else's change
    #[arg(long, value_enum, value_name = "STRATEGY", default_value = "last-write-wins")]
    pub(crate) conflicts: ConflictsArg,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum GuaranteeArg {
    /// Changes missed while offline are caught up with
    Resume,
    /// A write takes effect once, or is reported as refused
    ExactlyOnce,
    /// Everybody sees the changes in one order
    Ordered,
    /// A checksum proves that both sides hold the same
    Verified,
    /// A transaction is applied whole or not at all
    Atomic,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
#[allow(clippy::enum_variant_names)] // they are the strategies' names
pub(crate) enum ConflictsArg {
    /// Of each field the later write
    LastWriteWins,
    /// Somebody else's change, whole: the waiting write is given up
    ServerWins,
    /// The waiting write, where both change the same field
    ClientWins,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// The collection
    pub(crate) collection: String,
    #[command(flatten)]
    pub(crate) filter: WhereArgs,
    /// Sort by these fields, with commas between them; `-` before one puts its largest value first
    #[arg(long, value_name = "FIELDS", value_parser = parsed_order, allow_hyphen_values = true)]
    pub(crate) order_by: Option<Order>,
    /// Print at most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CountArgs {
    /// The collection
    pub(crate) collection: String,
    #[command(flatten)]
    pub(crate) filter: WhereArgs,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The collection
    pub(crate) collection: String,
    /// The file of the records; `-` reads the standard input
    pub(crate) file: String,
    /// Take each line for a record, and this field of it for its id
    #[arg(long, value_name = "NAME")]
    pub(crate) id_field: Option<String>,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The collection
    pub(crate) collection: String,
    /// Print each record alone, with its id in this field
    #[arg(long, value_name = "NAME")]
    pub(crate) id_field: Option<String>,
    #[command(flatten)]
    pub(crate) filter: WhereArgs,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// The collection
    pub(crate) collection: String,
    /// The record's id, unless --where chooses
    #[arg(required_unless_present = "condition", conflicts_with = "condition")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) filter: WhereArgs,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct WhereArgs {
    /// Only records that meet this condition, such as 'done=false and priority>=2': see `synclayer
    /// list --help`
    #[arg(long = "where", value_name = "CONDITION", value_parser = filter::condition)]
    pub(crate) condition: Option<Predicate>,
}

/// Fields to sort by.
#[derive(Clone, Debug)]
pub(crate) struct Order(pub(crate) Vec<(String, Direction)>);

fn parsed_order(text: &str) -> Result<Order, String> {
    filter::order(text).map(Order)
}

#[derive(Args, Debug)]
pub(crate) struct RecordArgs {
    /// The collection
    pub(crate) collection: String,
    /// The record's id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ScopeArgs {
    /// Read and keep only this part of the collection: the records with this text in a field of it,
    /// like room=42; with room:=42 the number, with members[]=ann those whose array has it, with
    /// project=p1+status=open a key of several fields. May be given several times. The server has to
    /// divide the collection by this key
    #[arg(long = "scope", value_name = "KEY=VALUE", value_parser = scopes::scope)]
    pub(crate) scopes: Vec<ScopeArg>,
}

#[derive(Args, Debug)]
pub(crate) struct NamedScopeArgs {
    /// Keep only this part of a collection that is written to, like messages=room=42: the collection, and a
    /// scope as in `save --scope`. May be given several times
    #[arg(long = "scope", value_name = "COLLECTION=KEY=VALUE", value_parser = scopes::named)]
    pub(crate) scopes: Vec<(Collection, ScopeArg)>,
}

impl NamedScopeArgs {
    /// The scopes of a collection.
    pub(crate) fn of(&self, collection: &str) -> ScopeArgs {
        let of_it = self.scopes.iter().filter(|(name, _)| name.as_str() == collection);
        ScopeArgs { scopes: of_it.map(|(_, scope)| scope.clone()).collect() }
    }
}

#[derive(Args, Debug)]
pub(crate) struct SaveArgs {
    /// The collection
    pub(crate) collection: String,
    /// The record, a JSON object; `-` reads it from the standard input
    #[arg(value_name = "JSON")]
    pub(crate) document: String,
    /// The record's id; where there is such a record, it is replaced whole. By default a new one
    #[arg(long)]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TransactionArgs {
    /// The file of the writes; `-` reads the standard input
    pub(crate) file: String,
    /// Let the other writes go on where one loses against somebody else's change
    #[arg(long)]
    pub(crate) keep_what_won: bool,
    #[command(flatten)]
    pub(crate) scope: NamedScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// The collection
    pub(crate) collection: String,
    /// The record's id
    pub(crate) id: String,
    /// The fields to set, a JSON object; `-` reads it from the standard input
    #[arg(value_name = "JSON", default_value = "{}", hide_default_value = true)]
    pub(crate) fields: String,
    /// Remove this field; several may be given
    #[arg(long, value_name = "FIELD")]
    pub(crate) unset: Vec<Box<str>>,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ModifyArgs {
    /// The collection
    pub(crate) collection: String,
    /// The record's id
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct SignOutArgs {
    /// Remove what is here of the user
    #[arg(long)]
    pub(crate) wipe: bool,
    /// Also the writes that the server does not have
    #[arg(long, requires = "wipe")]
    pub(crate) unsent: bool,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RejectedArgs {
    #[command(subcommand)]
    pub(crate) action: RejectedAction,
}

#[derive(Subcommand, Debug)]
pub(crate) enum RejectedAction {
    /// Print them, each with its id and why it was refused
    List(ReplicaArgs),
    /// Make one again, as a new write
    Retry(OneWriteArgs),
    /// Take one off the list for good
    Discard(OneWriteArgs),
}

#[derive(Args, Debug)]
pub(crate) struct OneWriteArgs {
    /// The write's id, as `rejected list` and `status` print it
    pub(crate) write: u64,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// Also when nothing seems to be wrong with the store
    #[arg(long, conflicts_with = "unsent")]
    pub(crate) force: bool,
    /// Only make the writes of this file again
    #[arg(long, value_name = "FILE")]
    pub(crate) unsent: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) replica: ReplicaArgs,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let on_loopback = |port: &str| {
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        port.parse().ok().filter(|_| is_number).map(|port: u16| ([127, 0, 0, 1], port).into())
    };
    let port = match text.rsplit_once(':') {
        Some((host, port)) if host.eq_ignore_ascii_case("localhost") => on_loopback(port),
        Some(_) => None,
        None => on_loopback(text),
    };
    if let Some(address) = port.or_else(|| text.parse().ok()) {
        return Ok(address);
    }
    let problem = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => format!("the port is missing: write {text}:8080"),
        Ok(IpAddr::V6(_)) => format!("the port is missing: write [{text}]:8080"),
        Err(_) => "it must be an IP address of this machine and a port: 127.0.0.1:8080 to be \
                   reached from this machine, 0.0.0.0:8080 from everywhere"
            .to_owned(),
    };
    Err(problem)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it must be a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
