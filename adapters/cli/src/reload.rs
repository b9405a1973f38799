//! The files that a server reads again when it is told to by SIGHUP.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use synclayer_server::{
    Authenticator, JwtTokens, Policy, ReloadablePolicy, Server, StaticTokens, Tls,
};
use tokio::task;

use crate::args::ServeArgs;
use crate::config_file::ConfigFile;
use crate::failure::{Code, Failure, unreadable};
use crate::jwt::{JwtArgs, Users};
use crate::rules_file::{RulesFile, RulesIn};
use crate::tokens::{TokenSources, check_again};

/// The contents of the files, and the places to read them again.
pub(crate) struct Reloadable {
    sources: Arc<TokenSources>,
    tokens: StaticTokens,
    jwt: Option<(Arc<JwtArgs>, JwtTokens)>,
    tls: Option<(Arc<TlsFiles>, Tls)>,
    rules: Option<(Arc<RulesSource>, ReloadablePolicy)>,
    config: Option<Arc<ConfigFile>>,
}

struct RulesSource {
    file: PathBuf,
    within: RulesIn,
}

struct TlsFiles {
    chain: PathBuf,
    key: PathBuf,
}

impl Reloadable {
    /// Reads the files for the first time.
    pub(crate) async fn read(args: &ServeArgs) -> Result<Self, Failure> {
        let usage = |why: String| Failure::new(Code::Usage, why);
        let sources = TokenSources::new(&args.tokens, args.token_file.clone()).map_err(usage)?;
        let sources = Arc::new(sources);
        let entries = in_background(&sources, TokenSources::read).await.map_err(usage)?;
        let jwt_args = Arc::new(args.jwt.clone());
        let jwt = in_background(&jwt_args, JwtArgs::read).await.map_err(usage)?;
        let jwt = jwt.map(|jwt| (jwt_args, jwt));
        let mut tls = None;
        if let (Some(chain), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) {
            let files = Arc::new(TlsFiles { chain, key });
            let (chain, key) = in_background(&files, TlsFiles::read).await.map_err(usage)?;
            let taken = Tls::from_pem(&chain, &key).map_err(|error| usage(files.name(error)))?;
            tls = Some((files, taken));
        }
        let mut rules = None;
        if let Some(file) = args.rules.clone() {
            let config = args.config_file.as_ref().filter(|_| args.config.as_ref() == Some(&file));
            let within = config.map_or(RulesIn::Rules, |_| RulesIn::Configuration);
            let source = Arc::new(RulesSource { file, within });
            let read = match config {
                Some(config) => config.rules(),
                None => in_background(&source, RulesSource::read).await,
            };
            let read = read.map_err(usage)?;
            rules = Some((source, ReloadablePolicy::new(Arc::new(read.rules))));
        }
        let (tokens, config) = (StaticTokens::new(entries), args.config_file.clone());
        Ok(Self { sources, tokens, jwt, tls, rules, config })
    }

    /// The rules about who may do what; `None` if everyone may do everything.
    pub(crate) fn rules(&self) -> Option<Arc<dyn Policy>> {
        self.rules.as_ref().map(|(_, rules)| Arc::new(rules.clone()) as Arc<dyn Policy>)
    }

    /// The check of tokens; `None`, which admits everyone, if there are none.
    pub(crate) fn authenticator(&self) -> Option<Arc<dyn Authenticator>> {
        let jwt = self.jwt.as_ref().map(|(_, jwt)| jwt.clone());
        let is_open = self.sources.are_none() && jwt.is_none();
        let users = || Users { table: self.tokens.clone(), jwt };
        (!is_open).then(|| Arc::new(users()) as Arc<dyn Authenticator>)
    }

    pub(crate) fn tls(&self) -> Option<Tls> {
        self.tls.as_ref().map(|(_, tls)| tls.clone())
    }

    /// Reads the files again. What can't be used leaves what is in force.
    pub(crate) async fn reload(&self, server: &Server) {
        let revoked = self.jwt.as_ref().filter(|(args, _)| args.revoked_file().is_some());
        let is_nothing = self.sources.file().is_none() && self.tls.is_none();
        if let Some(config) = &self.config {
            let changed = in_background(config, ConfigFile::changes).await;
            for flag in usable(changed, "the configuration stays as it was").unwrap_or_default() {
                tracing::warn!(option = flag, "its new value takes effect with a restart");
            }
        }
        if is_nothing && revoked.is_none() && self.rules.is_none() && self.config.is_none() {
            tracing::info!(
                "SIGHUP: there is no --token-file and no --tls-cert to read again, \
                 and no --jwt-revoked or --rules"
            );
        }
        if let Some((args, jwt)) = revoked {
            let read = in_background(args, JwtArgs::read_revoked_again).await;
            if let Some(revoked) = usable(read, "what is revoked stays as it was") {
                let (users, tokens) = (revoked.users.len(), revoked.tokens.len());
                tracing::info!(file = ?args.revoked_file(), users, tokens, "took over what is revoked");
                jwt.revoke(revoked);
                server.embedded().recheck_tokens();
            }
        }
        if let Some(file) = self.sources.file() {
            let read = in_background(&self.sources, TokenSources::read_again).await;
            if let Some(entries) = usable(read, "the tokens stay as they were") {
                tracing::info!(?file, tokens = entries.len(), "took over the tokens");
                self.tokens.replace(entries);
                server.embedded().recheck_tokens();
            }
        }
        if let Some((source, policy)) = &self.rules {
            let read = in_background(source, RulesSource::read_again).await;
            if let Some(rules) = usable(read, "the rules stay as they were") {
                tracing::info!(file = ?source.file, "took over the rules");
                policy.replace(Arc::new(rules.rules));
                server.embedded().recheck_rights();
            }
        }
        if let Some((files, tls)) = &self.tls {
            let read = in_background(files, TlsFiles::read_again).await;
            let replaced = read.and_then(|(chain, key)| {
                tls.replace_pem(&chain, &key).map_err(|error| files.name(error))
            });
            if usable(replaced, "the certificate stays as it was").is_some() {
                tracing::info!(file = ?files.chain, "took over the certificate");
            }
        }
    }
}

/// The content of a file that was read; or nothing, and a line in the log that says what stays in force.
fn usable<T>(read: Result<T, String>, stays: &str) -> Option<T> {
    read.map_err(|why| tracing::error!(%why, "{stays}: correct it, and send SIGHUP again")).ok()
}

impl RulesSource {
    fn read(&self) -> Result<RulesFile, String> {
        RulesFile::read(&self.file, self.within)
    }

    fn read_again(&self) -> Result<RulesFile, String> {
        RulesFile::read_again(&self.file, self.within)
    }
}

impl TlsFiles {
    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let read = |file: &Path| fs::read(file).map_err(|error| unreadable(file, &error));
        Ok((read(&self.chain)?, read(&self.key)?))
    }

    fn read_again(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        [&self.chain, &self.key].into_iter().try_for_each(|file| check_again(file))?;
        self.read()
    }

    /// Says which files an error is about.
    fn name(&self, error: impl std::fmt::Display) -> String {
        format!("--tls-cert {} and --tls-key {}: {error}", self.chain.display(), self.key.display())
    }
}

/// Reads files beside the server's own work.
async fn in_background<S: Send + Sync + 'static, T: Send + 'static>(
    sources: &Arc<S>,
    read: fn(&S) -> Result<T, String>,
) -> Result<T, String> {
    let sources = Arc::clone(sources);
    let read = task::spawn_blocking(move || read(&sources)).await;
    read.unwrap_or_else(|error| Err(error.to_string()))
}
