//! Identifies callers, and decides what they may do.

use super::caller::{Caller, CallerMemo, Credential};
use super::keys::{self, KEY_PREFIX, KeyDigest};
use super::names::shown;
use super::rules_file::{Loaded, RulesFiles};
use super::verb::Verb;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use lru::LruCache;
use smallvec::SmallVec;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Tokens that are remembered, so that their signatures are not checked with each connection.
const TOKENS_KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("invariant: not zero");

static API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static AUTHORIZATION_HEADER: HeaderName = AUTHORIZATION;

/// The scheme of the header `Authorization`.
const BEARER: &str = "bearer ";

/// Who may do what, as the file of rules says now.
pub struct Access {
    pub(super) path: PathBuf,
    pub(super) metrics: Arc<Metrics>,
    state: ArcSwap<State>,
    tokens: Mutex<LruCache<KeyDigest, Arc<Caller>>>,
}

struct State {
    /// Counts the changes of the files that were applied, starting at 1; 0 if none was.
    generation: u64,
    /// `None` if the files could not be read at start: then nobody may do anything.
    loaded: Option<Loaded>,
}

/// The names that a key or token proves, and when it ends.
type Proven = (SmallVec<[Arc<str>; 2]>, Option<SystemTime>);

/// What a request shows of its sender.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    pub headers: &'a HeaderMap,
    /// Names in the certificate of its connection.
    pub certificate: &'a Arc<[Arc<str>]>,
}

impl Access {
    /// Reads the files. If they cannot be used, nobody may do anything until they can. Returns
    /// their digest as well.
    pub fn load(path: &Path, metrics: &Arc<Metrics>) -> (Arc<Self>, [u8; 32]) {
        let files = RulesFiles::read(path);
        let digest = files.as_ref().map_or([0; 32], RulesFiles::digest);
        let loaded = files.and_then(|files| files.load());
        let access = Access::closed(path, metrics);
        match loaded {
            Ok(loaded) => access.apply(loaded),
            Err(error) => {
                access.metrics.access.stale.set(1);
                tracing::error!(%error, "access rules rejected; all requests are refused until the files are corrected");
            }
        }
        (Arc::new(access), digest)
    }

    /// Reads the files.
    ///
    /// # Errors
    /// `invalid_input` with the file, the line and what is wrong with it.
    pub fn open(path: &Path, metrics: &Arc<Metrics>) -> Result<Self> {
        let access = Access::closed(path, metrics);
        let loaded = Some(RulesFiles::read(path)?.load()?);
        access.state.store(Arc::new(State { generation: 1, loaded }));
        Ok(access)
    }

    /// Allows nobody to do anything.
    fn closed(path: &Path, metrics: &Arc<Metrics>) -> Self {
        Access {
            path: path.to_owned(),
            metrics: Arc::clone(metrics),
            state: ArcSwap::from_pointee(State { generation: 0, loaded: None }),
            tokens: Mutex::new(LruCache::new(TOKENS_KEPT)),
        }
    }

    /// Whether there are rules in force.
    pub fn is_open(&self) -> bool {
        self.state.load().loaded.is_some()
    }

    /// Puts new rules in force, for all requests from now on.
    pub(super) fn apply(&self, loaded: Loaded) {
        let generation = self.state.load().generation + 1;
        let rules = loaded.rules.0.len();
        self.state.store(Arc::new(State { generation, loaded: Some(loaded) }));
        self.tokens.lock_unpoisoned().clear();
        self.metrics.access.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.metrics.access.stale.set(0);
        tracing::info!(generation, rules, file = %self.path.display(), "access rules applied");
    }

    /// Returns who has sent a request.
    ///
    /// # Errors
    /// `unauthenticated` if something was shown that is not valid.
    pub fn identify(&self, presented: Presented<'_>, memo: &CallerMemo) -> Result<Arc<Caller>> {
        let state = self.state.load();
        let of = |name: &'static HeaderName| {
            let values = presented.headers.get_all(name).iter();
            values.map(move |value| (name, value))
        };
        let mut all = of(&AUTHORIZATION_HEADER).chain(of(&API_KEY));
        let shown = match (all.next(), all.next()) {
            (Some(shown), None) => shown,
            (Some(_), Some(_)) => {
                return Err(
                    self.refused("the request has several; send one header, Authorization or X-API-Key")
                );
            }
            (None, _) => {
                return Ok(Arc::new(self.caller(&state, Credential::None, None, presented.certificate)));
            }
        };
        let now = SystemTime::now();
        if let Some(caller) = memo.get(shown, state.generation) {
            return if is_live(&caller, now) { Ok(caller) } else { Err(self.refused("it has expired")) };
        }
        let text =
            shown.1.to_str().map_err(|_| self.refused("it has characters other than visible ASCII"))?;
        let secret = match *shown.0 == API_KEY {
            true => text,
            false => match text.get(..BEARER.len()) {
                Some(scheme) if scheme.eq_ignore_ascii_case(BEARER) => text[BEARER.len()..].trim(),
                _ => return Err(self.refused("Authorization is not of the form \"Bearer KEY\"")),
            },
        };
        let caller = self.of_secret(&state, secret, presented.certificate)?;
        if !is_live(&caller, now) {
            return Err(self.refused("it has expired"));
        }
        memo.set(shown, &caller);
        Ok(caller)
    }

    fn of_secret(&self, state: &State, secret: &str, certificate: &Arc<[Arc<str>]>) -> Result<Arc<Caller>> {
        let digest = keys::digest(secret.as_bytes());
        if secret.starts_with(KEY_PREFIX) {
            return self.named(state, Credential::Key(digest), certificate).map(Arc::new);
        }
        let kept = self.tokens.lock_unpoisoned().get(&digest).cloned();
        if let Some(caller) = kept
            && caller.generation == state.generation
            && caller.certificate == *certificate
        {
            return Ok(caller);
        }
        let caller = Arc::new(self.named(state, Credential::Token(secret.into()), certificate)?);
        self.tokens.lock_unpoisoned().put(digest, Arc::clone(&caller));
        Ok(caller)
    }

    /// Returns the caller who has shown this, under the rules of `state`.
    fn named(&self, state: &State, credential: Credential, certificate: &Arc<[Arc<str>]>) -> Result<Caller> {
        let Some(loaded) = &state.loaded else {
            return Ok(self.caller(state, Credential::None, None, certificate));
        };
        let (names, expires): Proven = match &credential {
            Credential::None | Credential::Plugin => (SmallVec::new(), None),
            Credential::Key(digest) => {
                let entry = loaded.keys.get(digest).ok_or_else(|| {
                    self.refused(
                        "the host does not know this key; an operator can add it with `hostler key new`",
                    )
                })?;
                (SmallVec::from_iter([Arc::clone(&entry.name)]), entry.expires)
            }
            Credential::Token(token) => {
                let Some(tokens) = &loaded.tokens else {
                    return Err(
                        self.refused("it does not begin with hostler_, and this host accepts no tokens")
                    );
                };
                let claims = tokens.check(token).map_err(|why| self.refused(why))?;
                (claims.names.into(), Some(claims.expires))
            }
        };
        Ok(self.caller(state, credential, Some((names, expires)), certificate))
    }

    fn caller(
        &self,
        state: &State,
        credential: Credential,
        proven: Option<Proven>,
        certificate: &Arc<[Arc<str>]>,
    ) -> Caller {
        let (mut names, expires) = proven.unwrap_or_default();
        names.extend(certificate.iter().cloned());
        let rules = state.loaded.as_ref().map(|loaded| loaded.rules.of(&names, false)).unwrap_or_default();
        let certificate = Arc::clone(certificate);
        Caller { names, credential, certificate, expires, rules, generation: state.generation }
    }

    /// Returns a caller who may do nothing.
    pub(super) fn nobody(&self) -> Caller {
        Caller {
            names: SmallVec::new(),
            credential: Credential::Plugin,
            certificate: Arc::default(),
            expires: None,
            rules: SmallVec::new(),
            generation: self.state.load().generation,
        }
    }

    /// Returns the caller that stands for a plugin's own calls of models.
    pub fn plugin(&self, plugin: &str) -> Caller {
        let state = self.state.load();
        let names: SmallVec<[Arc<str>; 2]> = SmallVec::from_iter([format!("plugin:{plugin}").into()]);
        let rules = state.loaded.as_ref().map(|loaded| loaded.rules.of(&names, true)).unwrap_or_default();
        Caller {
            names,
            credential: Credential::Plugin,
            certificate: Arc::default(),
            expires: None,
            rules,
            generation: state.generation,
        }
    }

    /// Refuses what no rule allows. Without a model: what is allowed for no model. A model without
    /// a version stands for each of its versions.
    ///
    /// # Errors
    /// `forbidden`, or `unauthenticated` for a caller who has shown nothing.
    pub fn require(&self, caller: &Caller, verb: Verb, model: Option<(&str, Option<&str>)>) -> Result<()> {
        match self.allows(caller, verb, model)? {
            true => Ok(()),
            false => Err(self.denied(caller, verb, model)),
        }
    }

    /// Whether a rule allows this.
    ///
    /// # Errors
    /// `unauthenticated` if what the caller has shown is not valid any more.
    pub fn allows(&self, caller: &Caller, verb: Verb, model: Option<(&str, Option<&str>)>) -> Result<bool> {
        let state = self.state.load();
        let Some(loaded) = &state.loaded else { return Ok(false) };
        let now = SystemTime::now();
        if !is_live(caller, now) {
            return Err(self.refused("it has expired"));
        }
        if caller.generation == state.generation {
            return Ok(loaded.rules.allow(&caller.rules, verb, model));
        }
        // The rules have changed since the caller was identified, as in a long stream.
        let own = match caller.credential {
            Credential::Plugin => loaded.rules.of(&caller.names, true),
            _ => {
                let caller = self.named(&state, caller.credential.clone(), &caller.certificate)?;
                // The files may have given the key an end.
                if !is_live(&caller, now) {
                    return Err(self.refused("it has expired"));
                }
                caller.rules
            }
        };
        Ok(loaded.rules.allow(&own, verb, model))
    }

    fn denied(&self, caller: &Caller, verb: Verb, model: Option<(&str, Option<&str>)>) -> Error {
        let verb = verb.as_str();
        let target = match model {
            None => String::new(),
            Some((name, None)) => format!(" on model \"{}\"", shown(name)),
            Some((name, Some(version))) => format!(" on model \"{}:{}\"", shown(name), shown(version)),
        };
        if self.state.load().loaded.is_none() {
            return Error::forbidden(
                "the host cannot load its access rules, so it refuses all requests; an operator finds the reason in its log",
            );
        }
        match caller.names.first() {
            None => Error::unauthenticated(format!(
                "\"{verb}\"{target} needs a key or token: send Authorization: Bearer KEY"
            )),
            Some(name) => Error::forbidden(format!(
                "{name} may not \"{verb}\"{target}; an operator can add an access rule"
            )),
        }
    }

    fn refused(&self, why: &str) -> Error {
        self.metrics.access.refused_credentials.inc();
        Error::unauthenticated(format!("the key or token is not accepted: {why}"))
    }
}

fn is_live(caller: &Caller, now: SystemTime) -> bool {
    caller.expires.is_none_or(|expires| now < expires)
}
