//! The files that a server reads again when it is told to by SIGHUP.

use std::sync::Arc;

use synclayer_server::{Authenticator, Server, StaticTokens};
use tokio::task;

use crate::args::ServeArgs;
use crate::failure::{Code, Failure};
use crate::tokens::TokenSources;

/// The contents of the files, and the places to read them again.
pub(crate) struct Reloadable {
    sources: Arc<TokenSources>,
    tokens: StaticTokens,
}

impl Reloadable {
    /// Reads the files for the first time.
    pub(crate) async fn read(args: &ServeArgs) -> Result<Self, Failure> {
        let usage = |why: String| Failure::new(Code::Usage, why);
        let sources = TokenSources::new(&args.tokens, args.token_file.clone()).map_err(usage)?;
        let sources = Arc::new(sources);
        let entries = in_background(&sources, TokenSources::read).await.map_err(usage)?;
        Ok(Self { sources, tokens: StaticTokens::new(entries) })
    }

    /// The check of tokens; `None`, which admits everyone, if there are none.
    pub(crate) fn authenticator(&self) -> Option<Arc<dyn Authenticator>> {
        let tokens = || Arc::new(self.tokens.clone()) as Arc<dyn Authenticator>;
        (!self.sources.are_none()).then(tokens)
    }

    /// Reads the files again. What can't be used leaves what is in force.
    pub(crate) async fn reload(&self, server: &Server) {
        let Some(file) = self.sources.file() else {
            return tracing::info!("SIGHUP: there is no --token-file to read again");
        };
        match in_background(&self.sources, TokenSources::read).await {
            Ok(entries) => {
                tracing::info!(?file, tokens = entries.len(), "took over the tokens");
                self.tokens.replace(entries);
                server.embedded().recheck_tokens();
            }
            Err(why) => {
                tracing::error!(%why, "the tokens stay as they were: correct it, and send SIGHUP again");
            }
        }
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
