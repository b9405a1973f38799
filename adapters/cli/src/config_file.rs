//! The configuration file of a server.
//!
//! The command line is the one table of flags and keys: a key is a flag of `serve` with `_` for `-`. The keys
//! about tokens stand in `[tokens]`; scope keys, indexes and rules of a collection in `[collections.NAME]`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, CommandFactory};
use toml::{Table, Value};

use crate::args::Cli;
use crate::failure::{Code, Failure, unreadable};
use crate::rules_file::{RulesFile, RulesIn};
use crate::tokens::check_again;

/// The largest configuration file, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// The flags that are no keys.
const NO_KEYS: [&str; 6] = ["config", "token", "scope", "index", "help", "version"];
/// The keys that only the rules have.
const OF_RULES: [&str; 3] = ["default", "collections", "tests"];

/// The flags that a file stands for, with their values.
type Flags = BTreeMap<String, Vec<String>>;

/// A key of the file.
struct Key {
    /// The table in which it stands; `None` for the file itself.
    table: Option<&'static str>,
    name: String,
    arg: Arg,
}

impl Key {
    fn of(arg: &Arg) -> Option<Self> {
        let flag = arg.get_long().filter(|flag| !NO_KEYS.contains(flag))?;
        let of_tokens = flag.strip_prefix("jwt-").or_else(|| flag.strip_prefix("token-"));
        let (table, name) = of_tokens.map_or((None, flag), |name| (Some("tokens"), name));
        Some(Self { table, name: name.replace('-', "_"), arg: arg.clone() })
    }

    fn all() -> Vec<Self> {
        let command = Cli::command();
        let serve = command.find_subcommand("serve");
        serve.into_iter().flat_map(|serve| serve.get_arguments().filter_map(Self::of)).collect()
    }

    fn takes_several(&self) -> bool {
        matches!(self.arg.get_action(), ArgAction::Append)
    }

    /// The values that stand behind the flag.
    fn values(&self, value: &Value) -> Result<Vec<String>, String> {
        if let (Value::Array(all), true) = (value, self.takes_several()) {
            return all.iter().map(|one| self.text(one)).collect();
        }
        self.text(value).map(|text| Vec::from([text]))
    }

    fn text(&self, value: &Value) -> Result<String, String> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Integer(number) => Ok(number.to_string()),
            Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)
            | Value::Table(_) => {
                let list = if self.takes_several() { ", or a list of these" } else { "" };
                Err(format!("`{}` is a text or a number{list}", self.name))
            }
        }
    }
}

/// A configuration file, as it was read: once, since it may be a pipe, or become another.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    text: String,
    flags: Flags,
}

impl ConfigFile {
    fn read(path: PathBuf) -> Result<Self, String> {
        let text = read(&path)?;
        let flags = flags(&path, &text)?;
        Ok(Self { path, text, flags })
    }

    pub(crate) fn keys(&self) -> usize {
        self.flags.len()
    }

    /// The rules that stand in it.
    pub(crate) fn rules(&self) -> Result<RulesFile, String> {
        RulesFile::of_text(&self.path, &self.text, RulesIn::Configuration)
    }

    /// Reads the file again. Returns the flags whose values are others by now, which a restart takes over.
    pub(crate) fn changes(&self) -> Result<Vec<String>, String> {
        check_again(&self.path)?;
        let now = flags(&self.path, &read(&self.path)?)?;
        let names: BTreeSet<_> = self.flags.keys().chain(now.keys()).collect();
        let changed = names.into_iter().filter(|name| self.flags.get(*name) != now.get(*name));
        Ok(changed.cloned().collect())
    }
}

/// The arguments of the program, with those behind `serve` that its configuration file stands for, and the
/// file. A flag that is given takes the place of its key.
pub(crate) fn with_file(
    given: Vec<OsString>,
) -> Result<(Vec<OsString>, Option<ConfigFile>), Failure> {
    let serve = given.iter().position(|argument| argument == "serve");
    let Some((serve, file)) = serve.and_then(|at| Some((at, named_file(&given[at..])?))) else {
        return Ok((given, None));
    };
    let file = ConfigFile::read(file).map_err(|why| Failure::new(Code::Usage, why))?;
    let is_given = |flag: &str| {
        given.iter().filter_map(|argument| argument.to_str()).any(|argument| {
            argument.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    };
    let mut arguments = given[..=serve].to_vec();
    for (flag, values) in &file.flags {
        let flag = format!("--{flag}");
        if !is_given(&flag) {
            arguments.extend(values.iter().map(|value| format!("{flag}={value}").into()));
        }
    }
    arguments.extend_from_slice(&given[serve + 1..]);
    Ok((arguments, Some(file)))
}

/// The file that `--config` names.
fn named_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(file) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(file.into());
        }
    }
    None
}

fn read(file: &Path) -> Result<String, String> {
    let size = fs::metadata(file).map(|found| found.len()).unwrap_or_default();
    let shown = file.display();
    if size > MAX_BYTES {
        return Err(format!("the configuration {shown} is larger than {MAX_BYTES} bytes"));
    }
    fs::read_to_string(file)
        .map_err(|error| format!("the configuration {}", unreadable(file, &error)))
}

fn flags(file: &Path, text: &str) -> Result<Flags, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let table = text.parse().map_err(|error: toml::de::Error| error.to_string());
    table
        .and_then(|table| of_table(file, &table))
        .map_err(|why| format!("the configuration {} can't be used: {why}", file.display()))
}

fn of_table(file: &Path, table: &Table) -> Result<Flags, String> {
    let (keys, mut flags) = (Key::all(), Flags::new());
    let mut put = |within: Option<&str>, name: &str, value: &Value| {
        let key = keys.iter().find(|key| key.table == within && key.name == name);
        let Some(key) = key else {
            let within = within.map(|table| format!(" in [{table}]")).unwrap_or_default();
            return Err(format!("there is no key `{name}`{within}: see `synclayer config print`"));
        };
        let flag = key.arg.get_long().unwrap_or_default().to_owned();
        flags.insert(flag, key.values(value)?);
        Ok(())
    };
    for (name, value) in table {
        match (name.as_str(), value) {
            ("tokens", Value::Table(tokens)) => {
                tokens.iter().try_for_each(|(name, value)| put(Some("tokens"), name, value))?;
            }
            (of_rules, _) if OF_RULES.contains(&of_rules) => {}
            (name, value) => put(None, name, value)?,
        }
    }
    let scopes = scopes(table)?;
    if !scopes.is_empty() {
        flags.insert("scope".into(), scopes);
    }
    let indexes = indexes(table)?;
    if !indexes.is_empty() {
        flags.insert("index".into(), indexes);
    }
    if has_rules(table) {
        if flags.contains_key("rules") {
            return Err("it has rules, and names a file of `rules`: leave one of both".into());
        }
        let file = file.to_str().ok_or("its name is not UTF-8, so it can't hold rules")?;
        flags.insert("rules".into(), Vec::from([file.into()]));
    }
    Ok(flags)
}

/// The collections of the file.
fn collections(table: &Table) -> impl Iterator<Item = (&String, &Table)> {
    let all = table.get("collections").and_then(Value::as_table);
    all.into_iter().flatten().filter_map(|(name, section)| Some((name, section.as_table()?)))
}

fn has_rules(table: &Table) -> bool {
    let mut keys = collections(table).flat_map(|(_, section)| section.keys());
    table.contains_key("default") || keys.any(|key| key != "scopes" && key != "indexes")
}

/// The scope keys of each collection, as their flag takes them.
fn scopes(table: &Table) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for (name, section) in collections(table) {
        let Some(scopes) = section.get("scopes") else { continue };
        let wrong =
            || format!("`scopes` of {name} is a list like [\"room\", [\"project\", \"status\"]]");
        let keys = scopes.as_array().ok_or_else(wrong)?;
        let keys = keys.iter().map(|key| match key {
            Value::String(field) => Some(field.clone()),
            Value::Array(fields) => {
                let fields: Option<Vec<_>> = fields.iter().map(Value::as_str).collect();
                fields.map(|fields| fields.join("+"))
            }
            Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Table(_) => None,
        });
        let keys: Option<Vec<_>> = keys.collect();
        all.push(format!("{name}={}", keys.ok_or_else(wrong)?.join(",")));
    }
    Ok(all)
}

/// The indexes of each collection, as their flag takes them.
fn indexes(table: &Table) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for (name, section) in collections(table) {
        let Some(indexes) = section.get("indexes") else { continue };
        let wrong = || format!("`indexes` of {name} is a list like [\"done,-priority\"]");
        for index in indexes.as_array().ok_or_else(wrong)? {
            all.push(format!("{name}={}", index.as_str().ok_or_else(wrong)?));
        }
    }
    Ok(all)
}

/// A file with every key and its default.
pub(crate) fn printed() -> String {
    let keys = Key::all();
    let mut text = String::from(
        "# The configuration of a server: synclayer serve --config FILE\n\
         # A flag of the command line takes the place of its key. Paths are relative to the directory in\n\
         # which the server is started.\n",
    );
    keys.iter().filter(|key| key.table.is_none()).for_each(|key| print_key(key, &mut text));
    text.push_str(
        "\n# Who may do what in collections without a rule: \"deny\" as soon as any collection has a rule,\n\
         # else \"allow\". Rules may lie in a file of their own, too (`rules`).\n\
         # default = \"deny\"\n\
         \n[tokens]\n",
    );
    keys.iter().filter(|key| key.table.is_some()).for_each(|key| print_key(key, &mut text));
    text.push_str(
        "\n# The scope keys of a collection, and who may do what with its records: see `synclayer rules --help`\n\
         # [collections.messages]\n\
         # scopes = [\"room\", \"members[]\", [\"project\", \"status\"]]\n\
         # indexes = [\"room,-at\"]\n\
         # read = 'data.room in claims.rooms'\n\
         # write = 'data.author == user'\n",
    );
    text
}

fn print_key(key: &Key, text: &mut String) {
    let help = key.arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default: Vec<_> =
        key.arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let names = key.arg.get_value_names().unwrap_or_default();
    let value = match default.first() {
        Some(value) => value.to_string(),
        None => names.first().map(ToString::to_string).unwrap_or_default(),
    };
    let value = if key.takes_several() { format!("[{value:?}]") } else { format!("{value:?}") };
    text.push('\n');
    for line in help.lines() {
        text.push_str(&format!("# {line}\n"));
    }
    text.push_str(&format!("# {} = {value}\n", key.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Flags, String> {
        of_table(Path::new("server.toml"), &text.parse().unwrap())
    }

    #[test]
    fn keys_are_flags() {
        let flags = of("listen = '0.0.0.0:80'\nallow_origin = ['a', 'b']\nmax_connections = 7\n\
             [tokens]\nsecret = 's'\nfile = 't'\naudience = 'x'\n\
             [collections.m]\nscopes = ['room', ['p', 'q']]\nindexes = ['a,-b', 'c']\nread = 'true'");
        let expected = [
            ("allow-origin", &["a", "b"][..]),
            ("index", &["m=a,-b", "m=c"]),
            ("jwt-audience", &["x"]),
            ("jwt-secret", &["s"]),
            ("listen", &["0.0.0.0:80"]),
            ("max-connections", &["7"]),
            ("rules", &["server.toml"]),
            ("scope", &["m=room,p+q"]),
            ("token-file", &["t"]),
        ];
        let owned = |values: &[&str]| values.iter().map(ToString::to_string).collect();
        let expected = expected.map(|(flag, values)| (flag.to_owned(), owned(values)));
        assert_eq!(flags, Ok(expected.into_iter().collect()));
        assert_eq!(of("[collections.m]\nscopes = ['a']").unwrap().len(), 1, "these are no rules");
    }

    #[test]
    fn what_is_no_key_is_told() {
        for (text, said) in [
            ("listn = '1'", "there is no key `listn`: see"),
            ("[tokens]\nsecrets = 'a'", "there is no key `secrets` in [tokens]"),
            ("token = 'ann=a'", "there is no key `token`"),
            ("listen = ['a']", "`listen` is a text or a number"),
            ("allow_host = [true]", "`allow_host` is a text or a number, or a list of these"),
            ("[collections.m]\nscopes = 'a'", "`scopes` of m is a list like"),
            ("[collections.m]\nindexes = [1]", "`indexes` of m is a list like"),
            ("default = 'deny'\nrules = 'r.toml'", "it has rules, and names a file"),
        ] {
            let told = of(text).unwrap_err();
            assert!(told.starts_with(said), "{text}: {told}");
        }
    }

    #[test]
    fn what_is_printed_is_a_file_with_every_key() {
        let text = printed();
        assert_eq!(of(&text), Ok(Flags::new()));
        for key in Key::all() {
            assert!(text.contains(&format!("\n# {} = ", key.name)), "{}", key.name);
        }
    }
}
